"""zodiac.ipynb as stored; .ci/run executes it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, make_tree

import config
from zodiac.base.errors import Stopped, UserError

CELLS = json.loads((ROOT / 'zodiac.ipynb').read_text(encoding='utf-8'))['cells']
CODE = [''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'code']
TEXT = [''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'markdown']


def test_it_has_no_outputs():
    for cell in CELLS:
        assert not cell.get('outputs') and cell.get('execution_count') is None


def test_sections_match_the_original_in_english_and_chinese():
    headings = [line.lstrip('# ') for text in TEXT for line in text.splitlines() if re.match('# [0-9C]', line)]
    assert [heading.split(' · ')[0].split(' ', 1)[-1] for heading in headings] == [
        *('Introduction', 'Data preparation', 'Model', 'Training', 'Evaluation', 'Deployment', 'Conclusion')
    ]
    for text in TEXT:
        assert re.search('[\u4e00-\u9fff]{2}', text), text
        assert re.search('[A-Za-z]{4}', text), text


@pytest.mark.parametrize('archive', [True, False])
def test_uses_the_ai_studio_archive_if_present_else_drawings(workdir, archive):
    os.symlink(ROOT / 'configs', workdir / 'configs')
    if archive:
        make_tree(workdir / 'made/signs', config.ZODIAC, {'train': 1, 'valid': 1, 'test': 1})
        shutil.make_archive('data/data68755/signs', 'zip', workdir / 'made')
    chosen = next(code for code in CODE if 'signs.zip' in code)
    chosen = chosen.replace("'train': 100, 'valid': 20, 'test': 30", "'train': 1, 'valid': 1, 'test': 1")
    script = '\n'.join([f'import sys; sys.path.insert(0, {str(ROOT)!r})', chosen, *CODE[2:3]])

    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stderr
    name, root = ('zodiac', 'signs') if archive else ('notebook', 'notebook_images')
    assert f'{name}: resnet50, ' in done.stdout
    lines = (workdir / root / 'train.txt').read_text(encoding='utf-8').splitlines()
    assert len(lines) == 12 and all(line.startswith(f'{root}/train/') for line in lines)


def test_user_errors_are_one_line_in_a_notebook():
    assert UserError('signs: no such folder')._render_traceback_() == ['error: signs: no such folder']
    assert Stopped(2)._render_traceback_() == ['interrupted']
