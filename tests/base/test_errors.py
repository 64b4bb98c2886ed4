"""Exit statuses and messages of failed scripts."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from zodiac.base import errors
from zodiac.base.errors import UsageError, UserError


def test_a_closed_stdout_ends_the_script_silently_with_141():
    code = 'from zodiac.base.errors import run\ndef main():\n    for _ in range(10**5): print("a line")\nrun(main)'
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == 'a line\n'
        process.stdout.close()
        assert process.stderr.read() == ''
        assert process.wait(20) == 141


def test_an_unexpected_exception_becomes_one_line_that_names_the_file():
    try:
        raise LookupError('no such\n  thing')
    except LookupError as error:
        said = str(errors.fault('a/1.jpg', error))
    assert said.startswith('a/1.jpg: LookupError: no such thing (test_errors.py, line ')
    assert 'memory' in str(errors.fault('a/1.jpg', MemoryError()))


@pytest.mark.parametrize(
    ('said', 'killed'),
    [
        ('DataLoader process (pid 7) exited is killed by signal: Killed.', True),
        ('DataLoader process (pid 7) exited unexpectedly with code 1.', False),
        ('Blocking queue is killed because the data reader raises an exception.', False),
    ],
)
def test_shared_memory_is_named_as_the_cause_only_for_a_killed_process(said, killed):
    meaning = errors.meaning(SystemError(f'(Fatal) {said}'))
    assert ('/dev/shm' in meaning) == killed and (killed or said in meaning)


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_ctrl_c_in_a_library_ends_the_script_with_130():
    code = 'from zodiac.base.errors import run\ndef main():\n    raise KeyboardInterrupt\nrun(main)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, '', 'interrupted\n')


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ('main', 'status', 'words'),
    [
        (lambda: None, 0, []),
        (lambda: 3, 3, []),
        (raising(UserError('signs: empty')), 1, ['error: signs: empty']),
        (raising(UsageError('seed = -1')), 2, ['error: seed = -1']),
        (raising(OSError(28, 'No space left on device', 'out.txt')), 1, ['out.txt', 'No space left on device']),
        (raising(MemoryError()), 1, ['out of memory']),
        (raising(UnicodeEncodeError('latin-1', '照片', 0, 2, 'no')), 1, ['照片', 'PYTHONUTF8=1']),
    ],
    ids=['done', 'own status', 'failed', 'usage', 'disk full', 'memory', 'locale'],
)
def test_run_exits_with_the_documented_status_and_one_line(capsys, main, status, words):
    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    assert caught.value.code == status
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.count('\n') == bool(words)
    assert all(word in captured.err for word in words)


def test_run_keeps_the_traceback_of_a_bug():
    with pytest.raises(ZeroDivisionError):
        errors.run(lambda: 1 / 0)
