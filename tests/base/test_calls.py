"""Commands in messages work where they are shown, whether a script, `zodiac` or `python -m zodiac` was called."""

import os
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

from zodiac.base import calls


@pytest.fixture(autouse=True)
def as_script(monkeypatch):
    monkeypatch.setenv(calls.CALLED, '')  # is restored, whatever a test sets


def test_a_script_shows_scripts_and_a_rare_command_by_the_package(monkeypatch, tmp_path):
    for folder in (ROOT, ROOT / 'docs', tmp_path):
        monkeypatch.chdir(folder)
        for name in ('config', 'sweep'):
            command = calls.command(name, '--help')
            done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0 and done.stdout.startswith('usage: '), (command, done.stderr)
    monkeypatch.chdir(ROOT)
    assert calls.command('predict', 'output/my pets', 'IMAGE').endswith(" predict.py 'output/my pets' IMAGE")
    assert calls.as_called('run annotate.py first') == 'run annotate.py first'


def test_zodiac_shows_zodiac(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    program = tmp_path / 'zodiac'
    program.write_text('#!/bin/sh\n')
    program.chmod(0o755)
    calls.note_call(str(program))
    assert calls.command('predict', 'a b') == "zodiac predict 'a b'"
    assert calls.how_called('')['prog'].startswith('zodiac ')
    calls.note_call('some where/zodiac')
    assert shlex.split(calls.command('predict')) == ['some where/zodiac', 'predict']


def test_messages_name_commands_as_they_were_called(monkeypatch):
    monkeypatch.setenv(calls.CALLED, 'venv/bin/zodiac')
    text = (
        'run annotate.py again, or `python train.py --nproc 1`; python -m zodiac sweep; photos/train.py; my_config.py'
    )
    assert calls.as_called(text) == (
        'run zodiac annotate again, or `venv/bin/zodiac train --nproc 1`; venv/bin/zodiac sweep; photos/train.py; my_config.py'
    )
    launch = calls.as_called('python -m paddle.distributed.launch --ips A,B train.py -c configs/demo.yaml')
    assert os.path.isfile(launch.split()[-3])


def test_a_call_by_the_path_of_python_is_named_once(monkeypatch):
    monkeypatch.setenv(calls.CALLED, '/opt/bin/python -m zodiac')
    assert calls.as_called('python train.py; python -m zodiac sweep') == (
        '/opt/bin/python -m zodiac train; /opt/bin/python -m zodiac sweep'
    )


def test_the_old_call_of_sweep_shows_the_new_one():
    done = subprocess.run(
        [sys.executable, 'sweep.py', '-s', 'seed=[0, 1]'], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.endswith(" -m zodiac sweep -s 'seed=[0, 1]'\n")
