"""zodiac.ipynb as stored by .ci/notebook; .ci/run executes it."""

import json
import os
import re
import shutil
import subprocess
import sys
import types

import pytest
import small_export
from conftest import ROOT, make_tree, picture

import config
import zodiac
from zodiac.base.errors import Stopped, UserError

CELLS = json.loads((ROOT / 'zodiac.ipynb').read_text(encoding='utf-8'))['cells']
CODE = [''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'code']
TEXT = [''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'markdown']


def outputs():
    """All stored outputs of code cells."""
    return [output for cell in CELLS for output in cell.get('outputs', [])]


def test_it_is_stored_as_run_from_top_to_bottom_in_a_small_file():
    counts = [cell['execution_count'] for cell in CELLS if cell['cell_type'] == 'code']
    assert counts == list(range(1, len(CODE) + 1))
    assert (ROOT / 'zodiac.ipynb').stat().st_size < 400_000
    pictures = [output for output in outputs() if 'image/jpeg' in output.get('data', {})]
    assert len(pictures) >= 5


def test_the_outputs_tell_nothing_of_the_machine_and_have_no_error_or_warning():
    for output in outputs():
        assert output['output_type'] != 'error' and output.get('name') != 'stderr'
        data = {kind: text for kind, text in output.get('data', {}).items() if not kind.startswith('image/')}
        text = json.dumps([output.get('text', ''), data], ensure_ascii=False)
        assert not re.search(r'(?<![\w.:/<])/\w|[A-Z]:\\', text), text  # an absolute path
        assert not re.search('warning|error:|traceback', text, re.IGNORECASE), text
        assert not re.search(r'\d ?(?:s|ms|sec|seconds|minutes|img/s|images/s)\b|per second', text), text


def run_cell(word, capsys, **names):
    """Run the code cell that contains a word; returns what it prints."""
    code = next(code for code in CODE if word in code)
    exec(code, {'os': os, 'zodiac': zodiac, **names})
    return capsys.readouterr().out


def test_a_photo_of_ones_own_is_classified_or_asked_for(workdir, capsys):
    cfg, shown = types.SimpleNamespace(run_dir='run'), []
    names = {'cfg': cfg, 'show': lambda path, width: shown.append(path)}
    said = run_cell("PHOTO = 'my_photo.jpg'", capsys, **names)
    assert said.startswith('my_photo.jpg: no such file') and shown == []

    (workdir / 'run').mkdir()
    small_export.write(workdir / 'run/infer', small_export.network_of('small'), small_export.settings())
    picture(0).save('my_photo.jpg')
    lines = run_cell("PHOTO = 'my_photo.jpg'", capsys, **names).splitlines()

    assert shown == ['my_photo.jpg']
    assert {line.split()[1] for line in lines} == set(small_export.LABELS)


def test_a_folder_of_ones_own_is_trained_on_or_asked_for(workdir, capsys, monkeypatch):
    runs, shown = [], []
    monkeypatch.setattr(zodiac, 'run', lambda photos: runs.append(photos) or 'output/my_photos')
    names = {'HTML': str, 'display': shown.append}
    said = run_cell("PHOTOS = 'my_photos'", capsys, **names)
    assert said.startswith('my_photos: no such folder') and runs == []

    (workdir / 'my_photos').mkdir()
    run_cell("PHOTOS = 'my_photos'", capsys, **names)

    assert runs == ['my_photos'] and 'href="output/my_photos/report/report.html"' in shown[0]


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
