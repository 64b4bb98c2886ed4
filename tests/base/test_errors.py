"""A script ends with the status that says why."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from zodiac.base import errors


def test_a_reader_that_leaves_ends_the_script_as_sigpipe_does_and_without_a_word():
    code = 'from zodiac.base.errors import run\ndef main():\n    for _ in range(10**5): print("a line")\nrun(main)'
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == 'a line\n'
        process.stdout.close()
        assert process.stderr.read() == ''
        assert process.wait(20) == 141


def test_an_unforeseen_fault_names_the_file_and_keeps_its_words_in_one_line():
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
def test_shared_memory_is_blamed_only_for_a_process_that_was_killed(said, killed):
    meaning = errors.meaning(SystemError(f'(Fatal) {said}'))
    assert ('/dev/shm' in meaning) == killed and (killed or said in meaning)


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_ctrl_c_within_a_library_ends_the_script_with_130():
    code = 'from zodiac.base.errors import run\ndef main():\n    raise KeyboardInterrupt\nrun(main)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, '', 'interrupted\n')
