"""Scripts report missing and broken packages before their work, with the command that installs them."""

import ast
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT
from structure import reachable

from zodiac.base import calls, packages

SCRIPTS = [f'{name}.py' for name in ('annotate', 'train', 'evaluate', 'export', 'predict', 'serve', 'demo')]
SCRIPTS += ['zodiac/commands/sweep.py', 'zodiac/commands/review.py']
# Packages that scripts can do without, or that only some settings need.
OPTIONAL = {'simplejpeg', 'onnx', 'onnxruntime', 'openvino', 'safetensors'}


@pytest.fixture
def without(tmp_path):
    """without(*modules) -> environment variables for a Python with all installed packages except those of some modules."""

    def make(*modules):
        folder = tmp_path / 'site-packages'
        folder.mkdir()
        for place in {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}:
            for entry in Path(place).iterdir():
                gone = entry.name.partition('.')[0] in modules or entry.name.endswith('.pth')
                if not gone and not any(entry.name.startswith(f'{packages.package_of(name)}-') for name in modules):
                    (folder / entry.name).symlink_to(entry)
        return {**os.environ, 'PYTHONPATH': str(folder)}

    return make


def run(script, *arguments, env, cwd):
    name = Path(script).stem
    start = [ROOT / 'zodiac', name] if script.startswith('zodiac/') else [ROOT / script]
    command = [sys.executable, '-S', *map(str, [*start, *arguments])]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert 'Traceback' not in done.stderr
    return done


def pasted(line, cwd):
    """(names of the requirements files, words) of the command in a message, after checking that its Python and files exist."""
    command = shlex.split(line.strip().rpartition('; ')[2].rpartition(' && ')[2])
    assert os.access(command[0] if '/' in command[0] else _which(command[0]), os.X_OK)
    assert command[1:4] == ['-m', 'pip', 'install']
    files = [name for flag, name in zip(command[4:], command[5:]) if flag == '-r']
    return [(Path(cwd) / name).resolve(strict=True).name for name in files], command


def _which(name):
    return next(path for folder in os.environ['PATH'].split(':') if os.access(path := f'{folder}/{name}', os.X_OK))


def asked(script):
    """The modules that a script passes to `start.prepare`."""
    calls = [
        node for node in ast.walk(ast.parse((ROOT / script).read_text(encoding='utf-8'))) if isinstance(node, ast.Call)
    ]
    (call,) = [call for call in calls if ast.unparse(call.func) == 'start.prepare']
    return {*call.args[1].value.split()}


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_script_without_packages_names_all_that_it_needs_and_one_command_that_installs_them(script, tmp_path):
    done = run(script, 'some', 'arguments', env={**os.environ, 'PYTHONPATH': ''}, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    named = re.fullmatch(r'error: not installed: (.*?); .*\n', done.stderr)[1].split(', ')
    assert set(named) == {'Paddle' if name == 'paddle' else packages.package_of(name) for name in asked(script)}
    files, command = pasted(done.stderr, tmp_path)
    inner = [name for file in files for name in re.findall(r'^-r (\S+)', (ROOT / file).read_text(), re.MULTILINE)]
    assert {packages.package_of(name) for name in asked(script)} <= {
        package for file in (*files, *inner) for package in packages.requirements(file)
    }, command


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_script_checks_for_every_package_that_it_imports(script):
    names = ('BASE', 'SERVE', 'DEPLOY', 'DEMO', 'SWEEP', 'REVIEW')
    files = (*(getattr(packages, name) for name in names), 'requirements-cpu.txt')
    listed = {packages.module_of(name) for file in files for name in packages.requirements(file)}
    without_paddle = {'paddle'} if script in ('annotate.py', 'predict.py', 'serve.py') else set()
    reached = set()
    for module in reachable(script[:-3].replace('/', '.')):
        text = (ROOT / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8')
        reached |= set(re.findall(r'^ *(?:import|from) (\w+)', text, re.MULTILINE))
    assert (reached & listed) - OPTIONAL - without_paddle <= asked(script)


def test_the_packages_of_the_two_servers_have_the_same_bounds():
    serve, review = ((ROOT / name).read_text().splitlines() for name in (packages.SERVE, packages.REVIEW))
    assert {line for line in review if line[0] != '#' and not line.startswith('cleanlab')} <= {*serve}


def test_only_missing_packages_are_named(without, tmp_path):
    done = run('train.py', env=without('visualdl'), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith('error: not installed: visualdl; ')
    assert pasted(done.stderr, tmp_path)[0] == ['requirements-base.txt']


@pytest.mark.parametrize('gpu', [False, True])
def test_a_missing_paddle_is_installed_from_the_file_for_this_machine(without, tmp_path, gpu):
    env = without('paddle', 'yaml')
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/nvidia-smi').symlink_to('/bin/true')
    env['PATH'] = f'{tmp_path}/bin:{env["PATH"]}' if gpu else env['PATH']
    done = run('train.py', env=env, cwd=tmp_path)
    assert done.stderr.startswith('error: not installed: Paddle, pyyaml; ')
    assert pasted(done.stderr, tmp_path)[0] == ['requirements.txt' if gpu else 'requirements-cpu.txt']


@pytest.mark.parametrize('script', ['train.py', 'evaluate.py', 'export.py'])
def test_a_broken_paddle_ends_a_script_with_one_line(without, tmp_path, script):
    env = without('paddle')
    (tmp_path / 'site-packages/paddle.py').write_text('raise ImportError("libfoo.so: no such file")')
    done = run(script, env=env, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert re.match(r'error: .*cannot be imported \(ImportError: libfoo.so: no such file\); ', done.stderr)


def test_a_broken_package_is_reported_with_the_original_message(without, tmp_path):
    env = without('PIL', 'visualdl')
    (tmp_path / 'site-packages/PIL').mkdir()
    (tmp_path / 'site-packages/PIL/__init__.py').write_text('raise OSError("libtiff.so.6: cannot open the file")')
    (tmp_path / 'site-packages/visualdl.py').touch()
    done = run('predict.py', 'infer', 'photo', env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert 'pillow cannot be imported (OSError: libtiff.so.6: cannot open the file)' in done.stderr
    assert pasted(done.stderr, tmp_path)[1][4:] == ['--force-reinstall', '--no-deps', 'pillow']


def test_a_package_that_needs_a_missing_one_is_reported_with_both(without, tmp_path):
    env = without('yaml')
    (tmp_path / 'site-packages/yaml.py').write_text('import not_there_at_all')
    done = run('config.py', env=env, cwd=tmp_path)
    assert 'error: pyyaml needs not_there_at_all, which is not installed; ' in done.stderr
    assert pasted(done.stderr, tmp_path)[0] == ['requirements-base.txt']


def test_a_missing_module_of_this_project_is_a_bug_and_keeps_its_traceback():
    for name in ('zodiac.not_there', 'dataset'):
        assert packages.diagnose(ModuleNotFoundError(f"No module named '{name}'", name=name)) == ''
    assert packages.diagnose(TypeError('an integer is required')) == ''


def test_a_failing_program_of_another_package_is_not_a_package_that_cannot_be_imported():
    code = compile('1 / 0', f'{sysconfig.get_path("purelib")}/pytest/__main__.py', 'exec')
    for name, said in (('__main__', ''), ('pytest', 'pytest')):
        with pytest.raises(ZeroDivisionError) as caught:
            exec(code, {'__name__': name})
        assert packages.diagnose(caught.value).startswith(said) and bool(packages.diagnose(caught.value)) == bool(said)


def test_with_paddle_2_packages_are_limited_to_compatible_versions(monkeypatch):
    monkeypatch.setattr(packages, 'installed_version', lambda *names: '2.6.2')
    assert packages.install(['numpy']).endswith("requirements-base.txt 'numpy<2'")
    assert packages.install(['onnx']).endswith("requirements-deploy.txt 'numpy<2'")


def test_a_python_that_is_too_new_for_paddle_is_named(monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
    assert packages.not_installed(['paddle', 'numpy']) == (
        'not installed: Paddle, which is not published for Python 3.14; use Python 3.9 to 3.13'
    )
    assert 'requirements-base.txt' in packages.not_installed(['numpy'])
    newest = '.'.join(map(str, (packages.NEWEST_PYTHON[0], packages.NEWEST_PYTHON[1] + 1)))
    assert f'requires-python = ">=3.9,<{newest}"' in (ROOT / 'pyproject.toml').read_text(encoding='utf-8')


def test_a_package_in_no_requirements_file_is_installed_by_its_name():
    assert packages.install(['torch']).endswith('pip install torch')


def test_a_python_without_pip_installs_it_first(monkeypatch):
    monkeypatch.setattr(packages.importlib.machinery.PathFinder, 'find_spec', lambda name: None)
    assert packages.pip() == f'{packages.python()} -m ensurepip && {packages.python()} -m pip'


def test_a_folder_with_a_space_is_quoted(tmp_path, monkeypatch):
    (tmp_path / 'a b').mkdir()
    monkeypatch.setattr(calls, 'FOLDER', str(tmp_path / 'a b'))
    monkeypatch.chdir(tmp_path)
    assert packages.here('requirements-base.txt') == "'a b/requirements-base.txt'"


def test_the_bounds_of_requirements_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, 'FOLDER', str(tmp_path))
    lines = [
        "onnx>=1.16.1,<1.18; python_version < '3.13'  # why",
        '-r other.txt',
        'numpy>=1.24,<3  # Paddle 2: numpy<2',
        'Pillow',
    ]
    (tmp_path / 'some.txt').write_text('\n'.join(lines), encoding='utf-8')
    monkeypatch.setattr(sys, 'version_info', (3, 12, 9))
    assert packages.requirements('some.txt') == {'onnx': '>=1.16.1,<1.18', 'numpy': '>=1.24,<3', 'pillow': ''}
    monkeypatch.setattr(sys, 'version_info', (3, 13, 0))
    assert list(packages.requirements('some.txt')) == ['numpy', 'pillow']
    assert packages.requirements('absent.txt') == {}


def test_a_package_has_the_same_version_bounds_in_every_file():
    bounds = {}
    for path in ROOT.glob('requirements*.txt'):
        found = packages.requirements(path.name)
        assert found and all(found.values()), path.name
        for name, limits in found.items():
            assert bounds.setdefault(name, limits) == limits, f'{path.name}: {name}'


def test_the_reason_for_no_onnx_file_comes_with_the_next_step(monkeypatch):
    installed = {'paddlepaddle': '3.3.1', 'onnx': '1.17.0', 'onnxruntime': '1.20'}
    monkeypatch.setattr(packages, 'installed_version', lambda *names: installed.get(names[0], ''))
    assert packages.why_no_onnx() == ()
    del installed['onnx']
    why, step = packages.why_no_onnx()
    assert why == 'not installed: onnx' and step.endswith('requirements-deploy.txt')
