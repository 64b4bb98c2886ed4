"""A second run reads only what has changed, and writes what a first run would write."""

import ast
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_tree, picture
from PIL import Image
from structure import reachable

import annotate
from zodiac.base import sources
from zodiac.base.errors import UserError
from zodiac.data import entry, inspection, inspection_cache

LABELS = ['cat', 'dog']
INDEX = ('train.txt', 'valid.txt', 'test.txt', 'annotation.json')
CACHE = Path('signs/.inspected')
LARGE = (517, 389)


@pytest.fixture
def run(workdir, monkeypatch):
    """Call annotate.py's main on signs/; returns the sorted paths that were decoded, twice for those decoded again in full."""
    monkeypatch.setattr(entry, 'SETTLED', 0)  # the files of these tests are new
    decoded, inspect_all = [], inspection.inspect_all

    def counted(paths, *rest):
        decoded.extend(paths)
        return inspect_all(paths, *rest)

    monkeypatch.setattr(inspection, 'inspect_all', counted)

    def call(*overrides):
        decoded.clear()
        monkeypatch.setattr(
            sys, 'argv', ['annotate.py', '-o', 'data.root=signs', f'data.labels=[{", ".join(LABELS)}]', *overrides]
        )
        annotate.main()
        return sorted(decoded)

    return call


def contents():
    return {name: Path('signs', name).read_bytes() for name in INDEX}


def assert_as_a_first_run(run, *overrides):
    """The written files are equal to those of a run without a cache."""
    written = contents()
    CACHE.unlink()
    assert len(run(*overrides)) > 0
    assert contents() == written


def tree():
    make_tree('signs', LABELS, {'': 10}, '.jpg')
    picture(0).save('signs/cat/same.png')
    picture(1, mode='L').save('signs/cat/grey.jpg')
    picture(50, LARGE).save('signs/dog/large.jpg')
    picture(51, LARGE).save('signs/dog/larger.jpg')
    Path('signs/dog/text.jpg').write_text('not an image')


def every_file():
    return sorted(str(path) for path in Path('signs').glob('*/*'))


def test_a_second_run_reads_no_image_and_writes_nothing(run, capsys):
    tree()
    assert run() == every_file()
    first, before = capsys.readouterr(), contents()
    times = {path: path.stat().st_mtime_ns for path in Path('signs').iterdir()}
    assert run() == []
    assert contents() == before
    assert {path: path.stat().st_mtime_ns for path in Path('signs').iterdir()} == times
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, 'no file has changed since the last run\n' + first.err)
    assert_as_a_first_run(run)


def replace(path, image, **options):
    image.save('new' + Path(path).suffix, **options)
    os.replace('new' + Path(path).suffix, path)


def replace_unnoticed():
    """Another file of the same size and modification time."""
    path = 'signs/cat/cat_1.jpg'
    data, status = bytearray(Path(path).read_bytes()), os.stat(path)
    data[-40] ^= 0xFF
    Path('new').write_bytes(data)
    os.utime('new', ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace('new', path)


CHANGES = {  # (change, files to be read)
    'changed': (lambda: picture(77).save('signs/cat/cat_1.jpg'), ['signs/cat/cat_1.jpg']),
    'replaced': (lambda: replace('signs/cat/cat_1.jpg', picture(77)), ['signs/cat/cat_1.jpg']),
    'replaced by one of the same size and time': (replace_unnoticed, ['signs/cat/cat_1.jpg']),
    'added': (lambda: picture(77).save('signs/cat/a.jpg'), ['signs/cat/a.jpg']),
    'removed': (lambda: os.unlink('signs/cat/cat_1.jpg'), []),
    'renamed': (lambda: os.rename('signs/cat/cat_1.jpg', 'signs/dog/new.jpg'), ['signs/dog/new.jpg']),
    'truncated': (lambda: os.truncate('signs/cat/cat_1.jpg', 300), ['signs/cat/cat_1.jpg']),
    'repaired': (lambda: picture(77).save('signs/dog/text.jpg'), ['signs/dog/text.jpg']),
    'index edited': (lambda: Path('signs/train.txt').write_text('signs/cat/cat_1.jpg\t0\n'), []),
    'annotation.json removed': (lambda: os.unlink('signs/annotation.json'), []),
    'junk': (lambda: Path('signs/cat/Thumbs.db').write_bytes(b''), []),
    'a stray file': (lambda: Path('signs/README').write_bytes(b''), []),
    'a name that cannot be in an index': (lambda: picture(77).save('signs/cat/a\tb.jpg'), []),
    'now a broken link': (
        lambda: (os.unlink('signs/cat/cat_1.jpg'), os.symlink('gone', 'signs/cat/cat_1.jpg')),
        ['signs/cat/cat_1.jpg'],
    ),
    'the copy of a large image in another format': (
        lambda: replace('signs/cat/same.png', Image.open('signs/dog/large.jpg')),
        ['signs/cat/same.png', 'signs/dog/large.jpg', 'signs/dog/larger.jpg'],
    ),
    'the copy of a large image': (
        lambda: shutil.copy('signs/dog/large.jpg', 'signs/cat/large.jpg'),
        ['signs/cat/large.jpg', 'signs/cat/large.jpg', 'signs/dog/large.jpg'],
    ),
}


@pytest.mark.parametrize(('change', 'to_read'), CHANGES.values(), ids=CHANGES)
def test_only_what_has_changed_is_read(run, change, to_read):
    tree()
    run()
    change()
    assert run() == to_read
    assert_as_a_first_run(run)
    assert run() == []


def test_without_its_duplicate_the_result_is_that_of_a_first_run(run):
    tree()
    with Image.open('signs/dog/large.jpg') as image:
        image.save('signs/cat/twin.png')
    assert run().count('signs/dog/large.jpg') == 2
    os.unlink('signs/cat/twin.png')
    assert run() == []
    assert_as_a_first_run(run)


@pytest.mark.parametrize('override', ['seed=3', 'annotate.valid_fraction=0.3', 'data.labels=[dog, cat]'])
def test_another_setting_is_applied_to_the_cached_results(run, override):
    tree()
    run()
    before = contents()
    assert run(override) == []
    assert contents() != before
    assert_as_a_first_run(run, override)


def test_results_for_another_non_rgb_are_not_used(run):
    tree()
    run()
    assert run('annotate.non_rgb=convert') == every_file()
    assert_as_a_first_run(run, 'annotate.non_rgb=convert')


def test_all_files_are_read_again_with_other_code_or_another_pillow(run, monkeypatch):
    tree()
    run()
    monkeypatch.setattr(inspection_cache, '_installed', lambda *library: ['of another version'])
    assert run() == every_file()
    monkeypatch.setattr(inspection_cache.sources, 'code_hash', lambda *modules: 'of other code')
    assert run() == every_file()


def test_the_key_covers_every_module_and_library_that_decides():
    modules = {'annotate', *reachable('annotate')}
    assert {'zodiac.data.inspection', 'zodiac.images.bombs', 'zodiac.images.decoding'} < modules
    known = {
        os.path.relpath(path, ROOT)[: -len('.py')].replace(os.sep, '.') for path in sources.source_files('annotate')
    }
    assert known == {*modules, *(f'zodiac.{wing}.__init__' for wing in ('base', 'data', 'images'))}
    imported = set()
    for content in sources.source_files('annotate').values():
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition('.')[0])
    installed = {name for name in imported if (Path(np.__file__).parent.parent / name).exists()}
    assert {'PIL', 'numpy'} <= installed
    assert installed <= {*inspection_cache.LIBRARIES, 'paddle', 'tqdm', 'yaml'}  # the last three do not read images


def test_the_key_covers_the_version_of_a_library():
    from importlib.metadata import version

    for module, package in inspection_cache.LIBRARIES.items():
        pytest.importorskip(module)
        assert any(version(package) in name for name in inspection_cache._installed(module, package))
    assert inspection_cache._installed('no_such_module', 'no-such-package') == []


def test_a_file_changed_just_before_it_was_read_is_read_again(run, monkeypatch):
    tree()
    monkeypatch.setattr(entry, 'SETTLED', 10**12)
    assert run() == run() == every_file()


def test_a_file_with_a_time_in_the_future_is_read_again(run):
    tree()
    os.utime('signs/cat/cat_1.jpg', (2**33, 2**33))
    run()
    assert run() == ['signs/cat/cat_1.jpg']


@pytest.mark.parametrize('place', [0, 70, 0.1, 0.3, 0.5, 0.9, -1])
def test_a_damaged_cache_is_ignored(run, place):
    tree()
    run()
    before, data = contents(), bytearray(CACHE.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 0x10
    CACHE.write_bytes(data)
    Path('signs/README').write_bytes(b'so that the results are needed')
    assert run() == every_file()
    Path('signs/README').unlink()
    assert run() == []
    assert contents() == before


@pytest.mark.parametrize('length', [0, 1, 64, 200, 0.5, 0.9])
def test_a_truncated_cache_is_ignored(run, length):
    tree()
    run()
    before, data = contents(), CACHE.read_bytes()
    CACHE.write_bytes(data[: int(length * len(data)) if isinstance(length, float) else length])
    os.unlink('signs/train.txt')
    assert run() == every_file()
    assert contents() == before


@pytest.mark.parametrize('fault', ['folder', 'text', 'list'])
def test_a_file_that_is_not_a_cache_is_ignored(run, fault, capsys):
    tree()
    run()
    CACHE.unlink()
    if fault == 'folder':
        CACHE.mkdir()
    elif fault == 'text':
        CACHE.write_text('mine\n' * 100)
    else:  # with the right checksum
        CACHE.write_text('4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945\n[]\n')
    before = contents()
    assert run() == every_file()
    assert contents() == before
    assert ('cannot write' in capsys.readouterr().err) == (fault == 'folder')


def test_a_cache_that_cannot_be_written_is_reported_after_the_index_files_are_written(run, monkeypatch, capsys):
    tree()

    def full(*args):
        raise UserError('signs/.inspected: cannot write (No space left on device)')

    monkeypatch.setattr(inspection_cache, 'save', full)
    run()
    assert len(contents()) == 4
    assert 'signs/.inspected: cannot write' in capsys.readouterr().err
    assert run() == every_file()


def test_the_cache_is_not_listed_as_stray_and_takes_at_most_400_bytes_per_image(run):
    make_tree('signs', LABELS, {'train': 40, 'valid': 1, 'test': 1})
    run()
    assert b'.inspected' not in Path('signs/annotation.json').read_bytes()
    assert CACHE.stat().st_size < 84 * 400 + 1000
