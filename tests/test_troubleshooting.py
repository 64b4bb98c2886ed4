"""The troubleshooting pages have a section for each pointer in a message, and each known error ends in one line, not a traceback."""

import re
import shutil
import sys
import types
from collections import namedtuple

import pytest
from conftest import ROOT

from zodiac.base import device, errors, files, packages, paddle_setup
from zodiac.base.errors import UsageError, UserError
from zodiac.models import convert
from zodiac.report import figure, plots

PAGES = [ROOT / 'docs/troubleshooting.md', ROOT / 'docs/troubleshooting_zh.md']


def anchors(page):
    return re.findall(r'^<a id="([^"]+)"></a>$', page.read_text(encoding='utf-8'), re.MULTILINE)


SECTIONS = anchors(PAGES[0])


def code():
    """{path: text} of the project's Python files without the tests."""
    folders = [ROOT, *(ROOT / 'zodiac').glob('*'), ROOT / 'benchmarks']
    return {path: path.read_text(encoding='utf-8') for folder in folders for path in folder.glob('*.py')}


# --- the pages


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_both_pages_have_the_same_sections_each_with_its_anchor_above_the_heading(page):
    assert anchors(page) == SECTIONS and len(SECTIONS) == 26
    headings = re.findall(r'^<a id="[^"]+"></a>\n\n## \S', page.read_text(encoding='utf-8'), re.MULTILINE)
    assert len(headings) == len(SECTIONS)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_the_list_of_symptoms_at_the_top_links_every_section(page):
    top, *_ = page.read_text(encoding='utf-8').partition('<a id=')
    assert 'python doctor.py' in top
    assert set(re.findall(r'\]\(#([^)]+)\)', top)) == set(SECTIONS)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_link_of_the_page_has_a_target(page):
    text = page.read_text(encoding='utf-8')
    for link in re.findall(r'\]\(([^)]+)\)', text):
        file, _, anchor = link.partition('#')
        if '://' in link:
            continue
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or target not in PAGES or anchor in anchors(target), link


def test_every_pointer_in_the_code_names_a_section():
    # a pointer is on one line of the source, so that this test, and anyone who searches for it, finds it
    pointers = [
        anchor
        for text in code().values()
        for anchor in re.findall(r'docs/troubleshooting(?:_zh)?\.md(?:#([a-z][\w-]*))?', text)
    ]
    assert len(pointers) > 15
    assert set(pointers) <= set(SECTIONS)


def test_both_readmes_link_the_page():
    assert 'docs/troubleshooting.md' in (ROOT / 'README.md').read_text(encoding='utf-8')
    assert 'docs/troubleshooting_zh.md' in (ROOT / 'README_zh.md').read_text(encoding='utf-8')


# --- messages of libraries

MESSAGES = [
    (SystemError('(Fatal) Blocking queue is killed because the data reader raises an exception.'), 'workers'),
    (SystemError('(Fatal) DataLoader process (pid 7) exited is killed by signal: Bus error.'), 'workers'),
    (RuntimeError('DataLoader 2 workers exit unexpectedly, pids: 7, 8'), 'workers'),
    (TypeError('Descriptors cannot be created directly.\nIf this call came from a _pb2.py file, your'), 'protobuf'),
    (TypeError("Couldn't build proto file into descriptor pool: duplicate file name framework.proto"), 'protobuf'),
    (ImportError("cannot import name 'builder' from 'google.protobuf.internal' (x.py)"), 'protobuf'),
    (AttributeError("module 'numpy' has no attribute 'float'.\n`np.float` was a deprecated alias"), 'numpy-2'),
    (ImportError('\nA module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.0.0 as it may'), 'numpy-2'),
    (OSError('(External) CUDA error(209), no kernel image is available for execution on the device.'), 'gpu-arch'),
    (RuntimeError('Unsupported GPU architecture'), 'gpu-arch'),
    (MemoryError('Out of memory error on GPU 0. Cannot allocate 98.000244MB memory on GPU 0'), 'out-of-memory'),
    (MemoryError('(ResourceExhausted) Fail to alloc memory of 40000000000 size'), 'out-of-memory'),
    (MemoryError(), 'out-of-memory'),
    (OSError(28, 'No space left on device', 'out.txt'), 'disk'),
]


@pytest.mark.parametrize(('error', 'section'), MESSAGES, ids=[str(error)[:40] for error, _ in MESSAGES])
def test_a_known_error_of_a_library_becomes_one_line_that_ends_with_its_section(capsys, error, section):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        errors.run(main)
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert err.startswith('error: ') and err.count('\n') == 1
    assert err.endswith(f'; see docs/troubleshooting.md#{section}\n')


@pytest.mark.parametrize('error', [TypeError('an integer is required'), AttributeError("no attribute 'float'")])
def test_an_error_of_this_project_is_not_taken_for_a_known_one(error):
    assert errors.meaning(error) is None


# --- Paddle that cannot be imported


def test_a_paddle_that_was_removed_in_part_is_reported_with_the_fix(monkeypatch):
    rest = types.ModuleType('paddle')  # what Python makes of a folder without code
    rest.__path__ = ['/env/site-packages/paddle']
    monkeypatch.setitem(sys.modules, 'paddle', rest)
    with pytest.raises(UserError, match='^/env/site-packages/paddle: .* pip uninstall -y .*#both-paddles$'):
        paddle_setup.import_paddle()


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        ("raise TypeError('Descriptors cannot be created directly.')", '#protobuf$'),
        ("raise AttributeError(\"module 'numpy' has no attribute 'bool'\")", '#numpy-2$'),
        ("raise OSError('libcudart.so.12: cannot open shared object file')", 'libcudart.so.12.* pip install -r'),
        ('import not_there_at_all', 'not_there_at_all.* pip install -r'),
    ],
)
def test_an_exception_from_the_import_of_paddle_becomes_one_line(tmp_path, monkeypatch, source, words):
    (tmp_path / 'site-packages').mkdir()
    (tmp_path / 'site-packages/paddle.py').write_text(source)
    monkeypatch.delitem(sys.modules, 'paddle', raising=False)
    monkeypatch.syspath_prepend(tmp_path / 'site-packages')
    with pytest.raises(UserError, match=words) as caught:
        paddle_setup.import_paddle()
    assert '\n' not in str(caught.value)


def test_a_paddle_for_cpus_that_has_overwritten_the_one_for_gpus_is_reported(monkeypatch):
    paddle = paddle_setup.import_paddle()
    monkeypatch.setattr(paddle.device, 'is_compiled_with_cuda', lambda: False)
    monkeypatch.setattr(packages, 'installed_version', lambda *names: '3.3.1')
    with pytest.raises(UsageError, match='device = gpu: .*pip uninstall -y .*#both-paddles'):
        device.choose('gpu')
    monkeypatch.setattr(packages, 'installed_version', lambda *names: '3.3.1' * ('paddlepaddle' in names))
    with pytest.raises(UsageError, match='built for the CPU: install paddlepaddle-gpu'):
        device.choose('gpu')


# --- a full disk, and fonts


def test_only_a_full_disk_is_reported_with_the_section_on_disks(tmp_path):
    assert str(files.cannot_write('a/b', OSError(28, 'No space left on device'))).endswith('#disk')
    assert '#disk' not in str(files.cannot_write('a/b', OSError(13, 'Permission denied')))


def test_a_disk_that_fills_up_during_an_export_is_not_blamed_on_the_converter(tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    for suffix in ('.json', '.pdiparams'):
        (tmp_path / f'small{suffix}').write_bytes(b'')  # what Paddle leaves there without an error
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage(10**9, 10**9, 0))
    with pytest.raises(UserError, match='small.onnx: cannot write it, the disk is full.*#disk$'):
        convert.save_onnx(str(tmp_path / 'small'), 'probabilities')


def test_characters_that_no_font_has_are_reported_once_with_the_fix(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figure, 'CJK_FONTS', ())
    monkeypatch.setattr(figure, '_families_with', lambda character: [])
    figure._warn_of_boxes.cache_clear()
    for name in ('a', 'b'):
        plots.plot_class_counts(str(tmp_path / f'{name}.png'), {'train': [1, 2]}, ['狗', 'cat'], 'counts')
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and "'狗' (U+72D7)" in err
    assert err.endswith('; see docs/troubleshooting.md#chinese-fonts\n')


def test_names_that_a_font_has_are_drawn_with_no_message(tmp_path, capsys):
    figure._warn_of_boxes.cache_clear()
    plots.plot_class_counts(str(tmp_path / 'a.png'), {'train': [1, 2]}, ['dog', 'cat'], 'counts')
    assert capsys.readouterr().err == ''
