"""What imports what: the scripts, the modules of zodiac/ and the wings they are in, and the commands."""

import ast

from conftest import ROOT

NO_DOORS = {'setup', 'sweep'}  # builds the package; says its new name
DOORS = sorted({path.stem for path in ROOT.glob('*.py')} - NO_DOORS)
ROOMS = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in (ROOT / 'zodiac').glob('*/*.py')
    if path.stem != '__init__' and path.parent.name != 'commands'
)
COMMANDS = sorted(f'zodiac.commands.{path.stem}' for path in (ROOT / 'zodiac/commands').glob('[!_]*.py'))
WINGS = {  # of zodiac/, each with those that it may import
    'base': set(),
    'images': {'base'},
    'pages': {'base'},
    'inference': {'images', 'base'},
    'serving': {'inference', 'images', 'pages', 'base'},
    'explain': {'inference', 'images', 'base'},
    'data': {'images', 'base'},
    'models': {'base'},
    'web': {'inference', 'images', 'pages', 'base'},
    'report': {'images', 'pages', 'base'},
    'training': {'models', 'data', 'inference', 'base'},
    'doctor': {'data', 'base'},
    'review': {'training', 'data', 'report', 'serving', 'images', 'pages', 'base'},
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
    return names & {*DOORS, *ROOMS, *COMMANDS}


def graph():
    return {module: imports(module) for module in DOORS + ROOMS + COMMANDS}


def reachable(start):
    edges, seen, waiting = graph(), set(), [start]
    while waiting:
        new = edges[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def wing(module):
    return module.split('.')[1]
