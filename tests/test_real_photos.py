"""Annotation of real photos of mixed modes and formats. Set ZODIAC_DATA to the folder with animals8.zip."""

import json
import os
from pathlib import Path

import pytest
from conftest import assert_message, run_script
from PIL import Image

ARCHIVE = Path(os.environ.get('ZODIAC_DATA', '')) / 'animals8.zip'
SETTINGS = ['-o', 'data.root=photos', 'data.labels=[ox,rabbit,snake,horse,monkey,rooster,dog,pig]']

pytestmark = pytest.mark.skipif(
    not os.environ.get('ZODIAC_DATA') or not ARCHIVE.is_file(), reason='ZODIAC_DATA names no folder with animals8.zip'
)


def indexed(root):
    lines = [line for split in ('train', 'valid', 'test') for line in (root / f'{split}.txt').read_text().splitlines()]
    return sorted(line.split('\t')[0] for line in lines)


def accepted_by_the_notebook(root):
    found = []
    for path in root.rglob('*'):
        try:
            with Image.open(path) as image:
                image.load()
                if image.mode == 'RGB':
                    found.append(path.relative_to(root.parent).as_posix())
        except Exception:  # the notebook skips files that Pillow cannot read
            continue
    return sorted(found)


def test_real_photos_are_indexed_as_by_the_notebook_or_all_if_converted(workdir):
    result = run_script('annotate.py', *SETTINGS, f'annotate.archive={ARCHIVE}', cwd=workdir)
    assert_message(result, 0)
    assert '87.' in result.stderr and 'annotate.non_rgb=convert' in result.stderr
    assert indexed(workdir / 'photos') == accepted_by_the_notebook(workdir / 'photos')

    result = run_script('annotate.py', *SETTINGS, 'annotate.non_rgb=convert', cwd=workdir)
    assert_message(result, 0)
    summary = json.loads((workdir / 'photos' / 'annotation.json').read_text(encoding='utf-8'))
    assert summary['accepted'] == len(indexed(workdir / 'photos')) == 612
    assert summary['converted_by_mode'] == {'RGBA': 535}
    assert summary['same_picture_in_two_splits'] == []
