"""The wheel: one package and one command, the same scripts, no module of ours at the top level."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT, assert_message, make_tree
from structure import COMMANDS, DOORS

from zodiac.base import calls
from zodiac.commands import completion

pytest.importorskip('setuptools', minversion='77', reason='builds a wheel')

SMALL = ['name=pets', 'data.root=pets', 'image.size=32', 'model.arch=cifarnet', 'train.epochs=1', 'train.batch_size=8']
SMALL += [
    'model.pretrained=false',
    'train.head=sgd',
    'model.freeze=none',
    'train.batch_norm=learn',
    'train.views=0',
    'evaluate.folds=0',
    'export.onnx=false',
]
SHADOWING = 'raise SystemExit("the file of the user was imported")'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder with the unpacked wheel and bin/zodiac, which pip would write."""
    copy, site = tmp_path_factory.mktemp('checkout'), tmp_path_factory.mktemp('site')
    for folder in ('zodiac', 'configs', 'docs'):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns('__pycache__', 'results'))
    for pattern in ('*.py', '*.txt', '*.toml', '*.in', 'README.md', 'LICENSE', 'NOTICE'):
        for path in ROOT.glob(pattern):
            shutil.copy(path, copy)
    build = 'import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])'
    subprocess.run([sys.executable, '-c', build, str(site)], cwd=copy, check=True, capture_output=True, timeout=120)
    (wheel,) = site.glob('*.whl')
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    (site / 'bin').mkdir()
    script = site / 'bin/zodiac'
    script.write_text(f'#!{sys.executable}\nimport sys\nfrom zodiac.__main__ import main\nsys.exit(main())\n')
    script.chmod(0o755)
    return site


@pytest.fixture
def shell(site, tmp_path):
    """shell(line) runs a line beside the user's own config.py and others, with the installed `zodiac` on the PATH."""
    for name in ('config', 'dataset', 'train'):
        (tmp_path / f'{name}.py').write_text(SHADOWING)
    paths = [str(site / 'bin'), os.path.dirname(sys.executable), os.environ['PATH']]
    environment = {**os.environ, 'PATH': os.pathsep.join(paths), 'PYTHONPATH': str(site)}
    environment.pop('ZODIAC_COMMAND', None)

    def run(line, **variables):
        return subprocess.run(
            line,
            shell=True,
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_wheel_has_one_package_with_the_same_scripts(site):
    assert {path.name for path in site.iterdir() if path.suffix not in ('.whl', '.dist-info')} == {'zodiac', 'bin'}
    (metadata,) = (path.read_text(encoding='utf-8') for path in site.glob('*.dist-info/METADATA'))
    assert {'cpu', 'weights', 'serve', 'deploy', 'sweep', 'review', 'demo'} == {
        *re.findall('^Provides-Extra: (.*)', metadata, re.M)
    }
    for module in (*DOORS, *COMMANDS):
        path = f'{module.replace(".", "/")}.py'
        ours = ast.dump(ast.parse((ROOT / path).read_text(encoding='utf-8')))
        text = (site / (path if '/' in path else f'zodiac/doors/{path}')).read_text(encoding='utf-8')
        theirs = re.sub(r'\bfrom zodiac\.doors import ', 'import ', text).replace('from zodiac.doors.', 'from ')
        assert ast.dump(ast.parse(theirs)) == ours, module
        imported = {
            alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names
        }
        assert not imported & {*DOORS}, module


def test_the_command_runs_the_scripts_beside_files_of_the_same_names(shell):
    assert shell('zodiac --version').stdout == shell('python -m zodiac --version').stdout
    for call in ('zodiac', 'python -m zodiac'):
        done = shell(f'{call} config -c photos -o train.epochs=3')
        assert_message(done, 0, 'zodiac/doors/configs/photos.yaml')
        assert 'arch: efficientnet_lite0' in done.stdout and 'epochs: 3' in done.stdout
        assert_message(shell(f'{call} config -o train.epochs=x'), 2, 'train.epochs')
    assert_message(shell('zodiac trian'), 2, 'did you mean zodiac train?')
    assert shell('zodiac').returncode == 2
    commands = re.findall(r'^  (\w+)  ', shell('zodiac --help').stdout, re.MULTILINE)
    assert commands == [door for door in commands if door in DOORS] + [name.rpartition('.')[2] for name in COMMANDS]


def test_help_and_messages_name_the_commands_that_work_here(shell, site, tmp_path):
    text = shell('zodiac train --help').stdout
    assert text.startswith('usage: zodiac train ') and '    zodiac train --nproc 4\n' in text
    (launched,) = re.findall(r'paddle\.distributed\.launch .* (\S+train\.py)', text)
    assert (tmp_path / launched).samefile(site / 'zodiac/doors/train.py')
    make_tree(tmp_path / 'pets', ['cat', 'dog'], {'': 1})
    done = shell('python -m zodiac train -c photos -o data.root=pets')
    assert_message(done, 1, 'run zodiac annotate first')
    done = shell('zodiac run')
    assert done.returncode == 2 and done.stderr.endswith(': zodiac run photos\n')
    done = shell('zodiac serve some/infer', PYTHONPATH=f'{site}', PYTHONNOUSERSITE='1')
    assert done.returncode and 'serve.py' not in done.stderr


def test_missing_packages_are_installed_from_files_that_are_there(shell, site, tmp_path):
    done = shell(f'{sys.executable} -S -m zodiac train')
    assert_message(done, 1, 'not installed: Paddle')
    words = shlex.split(done.stderr)
    files = [word for flag, word in zip(words, words[1:]) if flag == '-r']
    assert files and all((tmp_path / file).resolve().is_relative_to(site / 'zodiac/doors') for file in files)


def test_two_processes_train_and_the_printed_commands_work(shell, tmp_path):
    make_tree(tmp_path / 'pets', ['cat', 'dog'], {'': 16})
    settings = f'-c photos -o {" ".join(SMALL)}'
    assert_message(shell(f'zodiac annotate {settings}'), 0)
    assert_message(shell(f'zodiac train {settings} --nproc 2'), 0)
    assert len(list((tmp_path / 'output/pets.processes').glob('workerlog.*'))) == 2
    done = shell(f'zodiac export {settings}')
    assert_message(done, 0)
    (printed,) = re.findall('^next: (zodiac predict .*)$', done.stdout, re.MULTILINE)
    done = shell(printed)
    assert_message(done, 0)
    assert len(done.stdout.splitlines()) == 1


def test_completion_knows_commands_options_and_runs(shell, tmp_path):
    (tmp_path / 'output/pets').mkdir(parents=True)
    (tmp_path / 'completion').write_text(shell('zodiac completion bash').stdout)

    def complete(*words):
        typed = ' '.join(map(shlex.quote, ['zodiac', *words]))
        asked = f'. ./completion; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _zodiac; echo "${{COMPREPLY[@]}}"'
        return shell(f'bash -c {shlex.quote(asked)}').stdout.split()

    assert complete('tra') == ['train', 'train.py']
    assert '--nproc' in complete('train', '--')
    assert complete('annotate', '-c', 'ph') == ['photos']
    assert 'pets' in complete('predict', '')


@pytest.mark.parametrize('name', completion.SHELLS)
def test_the_completion_of_each_shell_is_complete(name, monkeypatch, capsys):
    monkeypatch.setattr(completion, 'options_of', lambda command: [f'--of-{command}'])
    monkeypatch.setattr(sys, 'argv', ['completion', name])
    completion.main()
    text = capsys.readouterr().out
    assert all(f'--of-{command}' in text for command in calls.commands())
    assert '{' not in re.sub(r'\$\{[^}]*\}|\(\) \{', '', text)
    if shutil.which(name):
        assert subprocess.run([name, '-n'], input=text, text=True, check=True, capture_output=True).stderr == ''
