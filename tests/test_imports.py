"""Imports go one way: doors use rooms, rooms never use doors, and serving never meets training."""

import ast
import graphlib
import subprocess
import sys

import pytest
from conftest import ROOT

DOORS = sorted(path.stem for path in ROOT.glob('*.py'))
ROOMS = sorted('zodiac.' + path.stem for path in (ROOT / 'zodiac').glob('*.py') if path.stem != '__init__')
TRAINING = {
    'train',
    'dataset',
    'config',
    'zodiac.model',
    'zodiac.optim',
    'zodiac.callbacks',
    'zodiac.run_log',
    'zodiac.resume',
    'zodiac.processes',
    'zodiac.checkpoint',
    'zodiac.conversion',
    'zodiac.weights',
    'zodiac.metrics',
    'zodiac.report',
    'zodiac.findings',
    'zodiac.plots',
    'zodiac.compare',
    'zodiac.calibration',
    'zodiac.gradcam',
    'zodiac.deploy',
    'zodiac.augment',
    'zodiac.cache',
    'zodiac.features',
    'zodiac.index',
    'zodiac.batches',
    'zodiac.lr_finder',
    'zodiac.networks',
    'zodiac.trainer',
}


def imports(module):
    """Our own modules that the source of `module` imports anywhere, also inside functions."""
    path = ROOT / (module.replace('.', '/') + '.py')
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = 'zodiac' if node.level else ''
            base = '.'.join(part for part in (package, node.module) if part)
            names.add(base)
            names.update(f'{base}.{alias.name}' for alias in node.names)
    return names & {*DOORS, *ROOMS}


def graph():
    return {module: imports(module) for module in DOORS + ROOMS}


def reachable(start):
    edges, seen, waiting = graph(), set(), [start]
    while waiting:
        new = edges[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def test_the_walk_sees_every_form_of_import():
    edges = graph()
    assert {'config', 'dataset', 'zodiac.device', 'zodiac.errors', 'zodiac.callbacks'} <= edges['train']
    assert 'zodiac.errors' in edges['zodiac.images']
    assert 'zodiac.files' in reachable('train')


def test_there_are_no_cycles():
    graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError, which names the cycle


def test_a_room_imports_no_door():
    assert {room: imports(room) & set(DOORS) for room in ROOMS} == dict.fromkeys(ROOMS, set())


def test_predict_imports_only_the_rooms_of_serving():
    assert imports('predict') <= {
        *('zodiac.inference', 'zodiac.images', 'zodiac.transforms', 'zodiac.errors', 'zodiac.files', 'zodiac.device'),
        'zodiac.start',
    }


def test_serve_imports_only_the_rooms_of_serving():
    assert imports('serve') <= {
        *('zodiac.inference', 'zodiac.transforms', 'zodiac.errors', 'zodiac.device', 'zodiac.start'),
        *('zodiac.batching', 'zodiac.connections', 'zodiac.service', 'zodiac.uploads'),
    }


@pytest.mark.parametrize('door', ['predict', 'serve'])
def test_nothing_that_serving_reaches_is_for_training(door):
    assert 'zodiac.inference' in reachable(door)
    assert reachable(door) & TRAINING == set()
    assert reachable(door) & set(DOORS) == set()


def test_the_list_of_training_modules_names_modules_that_exist():
    assert {*DOORS, *ROOMS} >= TRAINING


def test_config_imports_no_more_than_it_needs():
    assert imports('config') == {'zodiac.errors', 'zodiac.provenance', 'zodiac.schema', 'zodiac.start'}


@pytest.mark.parametrize('door', [door for door in DOORS if door != 'dataset'])
def test_a_script_is_prepared_for_a_stop_before_it_imports_anything_that_takes_long(door):
    code = ast.parse((ROOT / f'{door}.py').read_text(encoding='utf-8')).body
    prepares = next(number for number, part in enumerate(code) if 'start.prepare(' in ast.unparse(part))
    before = {ast.unparse(part) for part in code[1:prepares] if isinstance(part, (ast.Import, ast.ImportFrom))}
    assert before <= {'import sys', 'from __future__ import annotations'}


def test_what_a_script_imports_first_is_small():
    assert imports('zodiac.start') == {'zodiac.stops', 'zodiac.packages'}
    code = 'import sys; before = {*sys.modules}; from zodiac import start; print(*({*sys.modules} - before))'
    loaded = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert len(loaded) < 40 and {'multiprocessing', 'numpy', 'typing', 'zodiac.packages'} & {*loaded} == set()


HELP = """
import runpy, sys
sys.argv = [sys.argv[1], '--help']
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit as end:
    print('status', end.code)
print('modules', *(name for name in ('paddle', 'visualdl', 'sklearn', 'matplotlib') if name in sys.modules))
"""


@pytest.mark.parametrize('script', ['predict.py', 'serve.py', 'train.py'])
def test_help_comes_without_importing_paddle(script):
    done = subprocess.run([sys.executable, '-c', HELP, script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith('usage:')
    assert lines[-2:] == ['status 0', 'modules']
