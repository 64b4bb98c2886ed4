"""A missing or read-only home folder is replaced by a temporary one, with a message."""

import os
import stat
import subprocess
import sys
import tempfile

import pytest
from conftest import ROOT

from zodiac.base import home
from zodiac.doctor import check_machine

IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
from zodiac.base import device, paddle_setup
paddle_setup.import_paddle()
import visualdl
from paddle.utils import download
print(download.WEIGHTS_HOME)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    (tmp_path / 'tmp').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))
    return tmp_path / 'tmp'


def test_a_writable_home_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / '.cache').mkdir()
    home.ensure()
    assert os.environ['HOME'] == str(tmp_path) and capsys.readouterr().err == ''
    assert check_machine.home(home.problem()).state == 'ok'


@pytest.mark.parametrize('locked', ['', '.cache', '.visualdl', '.cache/paddle'])
def test_a_home_with_a_folder_of_another_user_is_replaced(tmp_path, temporary, monkeypatch, capsys, locked):
    (tmp_path / 'home' / locked).mkdir(parents=True)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    here = str(tmp_path / 'home' / locked).rstrip('/')
    monkeypatch.setattr(home.os, 'access', lambda path, how: path.rstrip('/') != here)  # root may write everywhere
    home.ensure()
    assert os.path.dirname(os.environ['HOME']) == str(temporary)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and f'HOME = {tmp_path}/home: {here} cannot be written to' in said
    assert 'export HOME=FOLDER' in said and os.environ['HOME'] in said


def test_a_user_without_a_home_gets_the_same_folder_each_time(temporary, monkeypatch):
    monkeypatch.setenv('HOME', '/nonexistent')
    found = check_machine.home(home.problem())
    assert found.state == 'warning' and '/nonexistent: no such folder' in found.found
    first = home.substitute()
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o700
    assert home.substitute() == first


@pytest.mark.parametrize(
    'prepare', [lambda path: os.symlink('/', path), lambda path: os.mkdir(path) or os.chmod(path, 0o777)]
)
def test_a_folder_prepared_by_another_user_is_not_used(temporary, prepare):
    expected = home.substitute()
    os.rmdir(expected)
    prepare(expected)
    assert home.substitute() != expected


def test_paddle_and_visualdl_work_without_a_home(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', IMPORT, str(ROOT)],
        env={**os.environ, 'HOME': str(tmp_path / 'home'), 'TMPDIR': str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f'{tmp_path}/zodiac-{os.getuid()}/.cache/paddle/hapi/weights')
    assert not (tmp_path / 'home').exists() and not (tmp_path / '~').exists()
