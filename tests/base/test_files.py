"""Atomic writes: files and folders are complete, or unchanged."""

import errno
import hashlib
import os
import random
import signal
import stat
import subprocess
import sys

import pytest
from conftest import ROOT, everything_below, files_below

from zodiac.base import files
from zodiac.base.errors import UserError

PAYLOAD = random.Random(0).randbytes(3000)  # does not compress


# --- atomic_write


def test_written_text_is_utf8_with_newlines_as_given(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'a.txt'
    with files.atomic_write(str(path)) as file:
        file.write('猫\n狗\n')
    assert path.read_bytes() == '猫\n狗\n'.encode()
    assert os.listdir(path.parent) == ['a.txt']


def test_written_bytes_replace_the_old_file_only_at_the_end_of_the_block(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')
    with files.atomic_write(str(path), binary=True) as file:
        file.write(b'\r\n\xff')
        file.flush()
        assert path.read_bytes() == b'old'
    assert path.read_bytes() == b'\r\n\xff'
    assert os.listdir(tmp_path) == ['a.bin']


def test_a_file_name_without_a_folder_is_written_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with files.atomic_write('a.txt') as file:
        file.write('x')
    assert everything_below(tmp_path) == {'a.txt': b'x'}


@pytest.mark.parametrize('error', [ValueError('bad'), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_error_in_the_block_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    with pytest.raises(type(error)), files.atomic_write(str(path)) as file:
        file.write('half')
        file.flush()
        raise error
    assert everything_below(tmp_path) == {'a.txt': b'old'}


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_the_message_on_a_full_disk_names_the_file_and_the_old_file_is_kept(tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(UserError) as caught, files.atomic_write(str(path)) as file:
        file.write('new')
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert 'No space left on device' in str(caught.value)
    assert everything_below(tmp_path) == {'a.txt': b'old'}


def test_the_message_on_a_path_that_cannot_be_written_names_it(tmp_path):
    (tmp_path / 'file').write_bytes(b'x')
    path = str(tmp_path / 'file' / 'a.txt')
    with pytest.raises(UserError, match='cannot write') as caught, files.atomic_write(path):
        pytest.fail('the block must not run')
    assert path in str(caught.value)


def test_a_folder_is_not_replaced_by_a_file_and_raises_before_the_block(tmp_path):
    (tmp_path / 'a.txt').mkdir()
    (tmp_path / 'a.txt' / 'inner').write_bytes(b'x')
    with pytest.raises(UserError, match='Is a directory'), files.atomic_write(str(tmp_path / 'a.txt')):
        pytest.fail('the block must not run')
    assert files_below(tmp_path) == {os.path.join('a.txt', 'inner'): b'x'}


def test_written_files_and_folders_have_the_permissions_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with files.atomic_write(str(tmp_path / 'a.txt')) as file:
            file.write('x')
        with files.atomic_folder(str(tmp_path / 'b')):
            pass
    finally:
        assert os.umask(old) == 0o027
    assert stat.S_IMODE(os.stat(tmp_path / 'a.txt').st_mode) == 0o640
    assert stat.S_IMODE(os.stat(tmp_path / 'b').st_mode) == 0o750


def test_a_name_that_is_not_utf8_is_written_escaped(tmp_path):
    with files.atomic_write(str(tmp_path / 'a.csv')) as file:
        file.write(os.fsdecode('猫'.encode() + b'\xff\xfe.jpg') + ',cat\n')
    assert (tmp_path / 'a.csv').read_text(encoding='utf-8') == '猫\\udcff\\udcfe.jpg,cat\n'


def test_a_pipe_is_written_to_directly(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with files.atomic_write(str(pipe)) as file:
        file.write('a line\n')
    assert os.read(reader, 100) == b'a line\n'
    os.close(reader)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode) and os.listdir(tmp_path) == ['pipe']


def test_a_device_is_written_to_directly(monkeypatch):
    monkeypatch.setattr(files.os, 'replace', lambda *names: pytest.fail('the device would be replaced'))
    with files.atomic_write(os.devnull, binary=True) as file:
        file.write(b'x')
    with pytest.raises(UserError, match='/dev/full: cannot write'), files.atomic_write('/dev/full') as file:
        file.write('x')


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('/dev/null', True), ('/dev/stdout', True), ('/dev/fd/1', True), ('/dev/shm/a.csv', False), ('/gone', False)],
)
def test_streams_are_distinguished_from_files(name, expected):
    assert files.is_stream(name) is expected


# --- atomic_folder


def make_folder(path):
    (path / 'inner').mkdir(parents=True)
    (path / 'a.bin').write_bytes(b'old \x00')
    (path / 'inner' / 'b.bin').write_bytes(PAYLOAD)
    return everything_below(path.parent)


def test_a_new_folder_appears_with_its_content(tmp_path):
    target = tmp_path / 'up' / 'best'
    with files.atomic_folder(f'{target}/') as folder:
        assert os.listdir(folder) == []
        os.makedirs(os.path.join(folder, 'x'))
        with open(os.path.join(folder, 'x', 'y'), 'w') as file:
            file.write('z')
        assert not target.exists()
    assert files_below(tmp_path) == {os.path.join('up', 'best', 'x', 'y'): b'z'}
    assert os.listdir(target.parent) == ['best']


def test_a_folder_is_replaced_completely_and_only_at_the_end(tmp_path):
    before = make_folder(tmp_path / 'best')
    with files.atomic_folder(str(tmp_path / 'best')) as folder:
        with open(os.path.join(folder, 'new'), 'w') as file:
            file.write('n')
        assert {path: before.get(path) for path in before} == {
            path: content for path, content in everything_below(tmp_path).items() if path.startswith('best')
        }
    assert everything_below(tmp_path) == {'best': None, os.path.join('best', 'new'): b'n'}


@pytest.mark.parametrize('error', [ValueError('bad'), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_an_error_in_the_block_leaves_the_old_folder_unchanged(tmp_path, error):
    before = make_folder(tmp_path / 'best')
    with pytest.raises(type(error)), files.atomic_folder(str(tmp_path / 'best')) as folder:
        with open(os.path.join(folder, 'a.bin'), 'w') as file:
            file.write('half')
        raise error
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize('call', [1, 2])
@pytest.mark.parametrize('error', [OSError(errno.EIO, 'Input/output error'), KeyboardInterrupt()], ids=repr)
def test_an_error_while_swapping_folders_leaves_the_old_folder_unchanged(tmp_path, monkeypatch, error, call):
    before = make_folder(tmp_path / 'best')
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(source)
        if len(calls) == call:
            raise error
        replace(source, target)

    monkeypatch.setattr(files, '_exchange', lambda one, other: False)
    monkeypatch.setattr(files.os, 'replace', failing)
    with pytest.raises((UserError, KeyboardInterrupt)), files.atomic_folder(str(tmp_path / 'best')) as folder:
        os.mkdir(os.path.join(folder, 'new'))
    assert len(calls) >= call
    assert everything_below(tmp_path) == before


@pytest.mark.skipif(sys.platform != 'linux', reason='atomic exchange is a system call of Linux')
def test_folders_are_swapped_atomically(tmp_path, monkeypatch):
    make_folder(tmp_path / 'best')
    monkeypatch.setattr(
        files.os, 'replace', lambda source, target: pytest.fail('the folder would be missing for a moment')
    )
    with files.atomic_folder(str(tmp_path / 'best')) as folder:
        os.mkdir(os.path.join(folder, 'new'))
    assert everything_below(tmp_path) == {'best': None, os.path.join('best', 'new'): None}


KILLED = """
import os, signal, sys
from zodiac.base import files
files._exchange = lambda one, other: False
replace, calls = os.replace, []
def kill(source, target):
    calls.append(source)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
files.os.replace = kill
with files.atomic_folder(sys.argv[1]) as folder:
    os.mkdir(os.path.join(folder, 'new'))
"""


@pytest.mark.parametrize('call', [1, 2])
def test_the_next_write_restores_a_folder_whose_writer_was_killed(tmp_path, call):
    before = make_folder(tmp_path / 'a [b]' / 'best')
    (tmp_path / 'a [b]' / '.other.1.part').mkdir()
    path = str(tmp_path / 'a [b]' / 'best')
    result = subprocess.run([sys.executable, '-c', KILLED, path, str(call)], cwd=ROOT)
    assert result.returncode == -signal.SIGKILL
    assert everything_below(tmp_path / 'a [b]') != {**before, '.other.1.part': None}
    with pytest.raises(ValueError), files.atomic_folder(path):
        raise ValueError('the next write fails too')
    assert everything_below(tmp_path / 'a [b]') == {**before, '.other.1.part': None}
    files.clear_leftovers(str(tmp_path / 'a [b]'))
    assert everything_below(tmp_path / 'a [b]') == before


def test_the_message_on_a_full_disk_names_the_folder_and_the_old_folder_is_kept(tmp_path):
    before = make_folder(tmp_path / 'best')
    with pytest.raises(UserError, match='No space left') as caught, files.atomic_folder(str(tmp_path / 'best')):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert str(tmp_path / 'best') in str(caught.value)
    assert everything_below(tmp_path) == before


def test_the_message_on_a_file_in_a_new_folder_names_the_final_folder(tmp_path):
    folder = str(tmp_path / 'report')
    with (
        pytest.raises(UserError) as caught,
        files.atomic_folder(folder) as unfinished,
        files.atomic_write(f'{unfinished}/metrics.json'),
    ):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert f'{folder}: cannot write (No space left on device)' in str(caught.value)
    assert everything_below(tmp_path) == {}


def test_a_message_of_the_block_names_the_final_folder_and_is_unchanged_otherwise(tmp_path):
    with pytest.raises(UserError) as caught, files.atomic_folder(str(tmp_path / 'infer')) as unfinished:
        raise UserError(f'{unfinished}/a.onnx: the disk is full')
    assert str(caught.value) == f'{tmp_path}/infer/a.onnx: the disk is full'
    with pytest.raises(UserError, match='^a.jpg: is damaged$'), files.atomic_folder(str(tmp_path / 'report')):
        raise UserError('a.jpg: is damaged')


def test_unfinished_files_of_a_running_process_are_kept(tmp_path):
    code = (
        'import sys; from zodiac.base import files\n'
        'with files.atomic_folder(sys.argv[1]) as folder, files.atomic_write(sys.argv[1] + ".txt"):\n'
        '    print(folder, flush=True); sys.stdin.read()'
    )
    target = str(tmp_path / 'infer')
    other = subprocess.Popen(
        [sys.executable, '-c', code, target], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        unfinished = other.stdout.readline().strip()
        files.clear_leftovers(str(tmp_path))
        with files.atomic_folder(target) as ours:
            assert os.path.isdir(unfinished) and ours != unfinished
            assert len([name for name in os.listdir(tmp_path) if name.startswith('.infer.txt.')]) == 1
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()
    assert os.path.isdir(unfinished)
    files.clear_leftovers(str(tmp_path))
    assert os.listdir(tmp_path) == ['infer']


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / 'best').write_bytes(b'a file')
    with pytest.raises(UserError, match='cannot write'), files.atomic_folder(str(tmp_path / 'best')):
        pass
    assert everything_below(tmp_path) == {'best': b'a file'}


def test_the_rest_of_an_interrupted_removal_is_cleared(tmp_path, monkeypatch):
    make_folder(tmp_path / 'step_1')
    make_folder(tmp_path / 'step_2')

    def stop(*_, **how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, 'rmtree', stop)
        with pytest.raises(KeyboardInterrupt):
            files.remove_folder(str(tmp_path / 'step_1'))
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != '.'] == ['step_2']
    files.clear_leftovers(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['step_2']


def test_a_folder_is_removed_with_its_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / 'best')
    files.remove_folder('best')
    files.remove_folder('best')
    assert everything_below(tmp_path) == {}


def test_sha256_is_that_of_the_content(tmp_path):
    content = PAYLOAD * 800  # more than one block
    (tmp_path / 'a').write_bytes(content)
    assert files.sha256(tmp_path / 'a') == hashlib.sha256(content).hexdigest()
