"""Folder locks, and their use in train.py: one training per name at a time."""

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
    if os.fork() == 0:  # like a loader process, which may outlive its parent
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


def test_the_message_on_a_locked_folder_names_the_other_process(holder):
    with pytest.raises(UserError, match=rf'output/run: is being trained by .*process {holder.pid} on .*-o name='):
        locks.held('output/run', 'trained').__enter__()
    with locks.held('output/another', 'trained'):
        pass


def test_the_lock_ends_with_its_process_even_if_a_child_is_still_running(holder):
    holder.kill()
    holder.wait()
    with locks.held('output/run', 'trained'):
        assert os.listdir('output') == ['.run.lock']
    assert os.listdir('output') == []


def test_a_lock_file_removed_between_opening_and_locking_is_created_again(workdir, monkeypatch):
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
def test_a_file_system_without_locks_is_no_obstacle(workdir, monkeypatch, number):
    def none(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, 'lockf', none)
    with locks.held('output/run', 'trained'):
        pass


def test_the_message_on_a_folder_that_cannot_be_created_names_it(workdir):
    (workdir / 'output').write_text('a file')
    with pytest.raises(UserError, match='output/run: cannot write'):
        locks.held('output/run', 'trained').__enter__()


@pytest.mark.parametrize('arguments', [['--nproc', '1'], ['--nproc', '2'], ['--resume', '--nproc', '1']])
def test_a_second_training_of_a_name_is_refused_at_once(holder, call_script, workdir, arguments):
    done = call_script('train.py', *arguments, '-o', 'name=run', 'device=cpu', cwd=workdir)
    assert done.returncode == 1
    assert 'output/run: is being trained by another process' in done.stderr
    assert os.listdir('output') == ['.run.lock']
