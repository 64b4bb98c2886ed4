"""One training of a name at a time: the lock of a folder, and how train.py uses it."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from zodiac.base import locks
from zodiac.base.errors import UserError

HOLD = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from zodiac.base import locks
with locks.held('output/run', 'trained'):
    if os.fork() == 0:  # as a loader process, which may outlive this one
        time.sleep(60)
        os._exit(0)
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(workdir):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(ROOT)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == 'held\n'
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()


def test_a_folder_that_another_process_works_on_is_refused_naming_it(holder):
    with pytest.raises(UserError, match=rf'output/run: is being trained by .*process {holder.pid} on .*-o name='):
        locks.held('output/run', 'trained').__enter__()
    with locks.held('output/another', 'trained'):
        pass


def test_the_lock_ends_with_its_process_although_a_child_of_it_lives(holder):
    holder.kill()
    holder.wait()
    with locks.held('output/run', 'trained'):
        assert os.listdir('output') == ['.run.lock']
    assert os.listdir('output') == []


def test_a_lock_that_its_holder_removes_between_opening_and_locking_is_taken_anew(workdir, monkeypatch):
    lockf, calls = locks.fcntl.lockf, []

    def late(file, how):
        if not calls:
            os.unlink('output/.run.lock')
        calls.append(file)
        lockf(file, how)

    monkeypatch.setattr(locks.fcntl, 'lockf', late)
    with locks.held('output/run', 'trained'):
        assert os.path.samestat(os.stat('output/.run.lock'), os.fstat(calls[-1]))
    assert len(calls) == 2


@pytest.mark.parametrize('number', locks.WITHOUT_LOCKS)
def test_a_file_system_without_locks_keeps_nobody_from_working(workdir, monkeypatch, number):
    def none(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, 'lockf', none)
    with locks.held('output/run', 'trained'):
        pass


def test_a_folder_that_cannot_be_made_is_named(workdir):
    (workdir / 'output').write_text('a file')
    with pytest.raises(UserError, match='output/run: cannot write'):
        locks.held('output/run', 'trained').__enter__()


@pytest.mark.parametrize('arguments', [['--nproc', '1'], ['--nproc', '2'], ['--resume', '--nproc', '1']])
def test_a_second_training_of_a_name_is_refused_before_its_work(holder, call_script, workdir, arguments):
    done = call_script('train.py', *arguments, '-o', 'name=run', 'device=cpu', cwd=workdir)
    assert done.returncode == 1
    assert 'output/run: is being trained by another process' in done.stderr
    assert os.listdir('output') == ['.run.lock']
