"""Imports go one way: scripts import the wings of zodiac/, never the reverse, and serving never imports training."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from structure import COMMANDS, DOORS, ROOMS, WINGS, graph, imports, reachable, wing


def test_every_form_of_import_is_found():
    edges = graph()
    assert {'config', 'dataset', 'zodiac.base.device', 'zodiac.base.errors', 'zodiac.training.callbacks'} <= edges[
        'train'
    ]
    assert 'zodiac.base.errors' in edges['zodiac.images.decoding']
    assert 'zodiac.base.files' in reachable('train')


def test_there_are_no_cycles():
    graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError, which names the cycle


def test_a_wing_imports_only_the_wings_that_it_may_and_no_script():
    assert {wing(room) for room in ROOMS} == set(WINGS)
    wrong = {
        (room, other)
        for room in ROOMS
        for other in imports(room)
        if other in DOORS or wing(other) not in {wing(room), *WINGS[wing(room)]}
    }
    assert wrong == set()


def test_nothing_imports_a_command():
    assert {module: used for module, others in graph().items() if (used := others & {*COMMANDS})} == {}


def test_the_docstring_of_a_wing_says_what_it_may_import_and_where_to_start():
    for name, others in WINGS.items():
        text = ast.get_docstring(ast.parse((ROOT / 'zodiac' / name / '__init__.py').read_text(encoding='utf-8')))
        (line,) = [line for line in text.splitlines() if line.startswith('Imports: ')]
        assert {other for other in WINGS if re.search(rf'\b{other}\b', line)} == others, name
        for file in re.findall(r'\w+\.py', text):
            assert (ROOT / 'zodiac' / name / file).is_file(), file


@pytest.mark.parametrize(
    ('door', 'wings'), [('predict', {'inference', 'images', 'base'}), ('serve', {*WINGS['serving'], 'serving'})]
)
def test_predict_and_serve_import_only_the_wings_that_they_may(door, wings):
    assert {wing(module) for module in reachable(door)} == wings


def test_imports_in_functions_are_few_and_have_their_reason_beside_them():
    """Only optional packages, and slow ones that --help or a server does without; a comment on the line or the line before says why."""
    found, unexplained = [], []
    for module in DOORS + ROOMS + COMMANDS:
        text = (ROOT / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8')
        functions = [
            node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        nodes = [node for function in functions for node in ast.walk(function)]
        numbers = {node.lineno for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))}
        lines = ['', *text.splitlines()]
        found += [(module, number) for number in numbers]
        unexplained += [(module, number) for number in numbers if '#' not in lines[number - 1] + lines[number]]
    assert unexplained == []
    assert len(found) <= 60, len(found)


def test_config_imports_only_from_base_and_not_paddle():
    reached = reachable('config')
    assert {wing(module) for module in reached} == {'base'} and 'zodiac.base.paddle_setup' not in reached


@pytest.mark.parametrize('script', [*(door for door in DOORS if door != 'dataset'), *COMMANDS])
def test_a_script_prepares_for_signals_before_slow_imports(script):
    code = ast.parse((ROOT / f'{script.replace(".", "/")}.py').read_text(encoding='utf-8')).body
    prepares = next(number for number, part in enumerate(code) if 'start.prepare(' in ast.unparse(part))
    before = {ast.unparse(part) for part in code[1:prepares] if isinstance(part, (ast.Import, ast.ImportFrom))}
    assert before <= {'import sys', 'from __future__ import annotations'}


def test_the_first_import_of_a_script_is_small():
    assert imports('zodiac.base.start') == {f'zodiac.base.{name}' for name in ('stops', 'calls', 'packages')}
    code = 'import sys; before = {*sys.modules}; from zodiac.base import start; print(*({*sys.modules} - before))'
    loaded = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert len(loaded) < 40 and {'multiprocessing', 'numpy', 'typing', 'zodiac.base.packages'} & {*loaded} == set()


HELP = """
import runpy, sys
sys.argv = [sys.argv[1], '--help']
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit as end:
    print('status', end.code)
print('modules', *(name for name in ('paddle', 'visualdl', 'sklearn', 'matplotlib') if name in sys.modules))
"""


@pytest.mark.parametrize('script', ['predict.py', 'serve.py', 'train.py', 'export.py', 'demo.py'])
def test_help_comes_without_importing_paddle(script):
    done = subprocess.run([sys.executable, '-c', HELP, script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith('usage:')
    assert lines[-2:] == ['status 0', 'modules']
