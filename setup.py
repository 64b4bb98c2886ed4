"""What pyproject.toml cannot say: `pip install .` makes the package zodiac.doors of the scripts at the top.

    python -m pip install '.[cpu,weights]'

Installed, no module at the top level is ours: `import config` becomes `from zodiac.doors import config`, in copies of the same scripts.
The recipes, requirements files and pages of the documentation lie beside them.
"""

import ast
import glob
import os
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

NO_DOORS = ('setup.py', 'sweep.py')
DOORS = [file[:-3] for file in sorted(glob.glob('*.py')) if file not in NO_DOORS]
BESIDE = ['configs/*.yaml', 'requirements*.txt', 'docs/*.md']
NOT_EXTRAS = ('base', 'dev')


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def requirements(path):
    """The packages of a requirements file, without those of files that it includes."""
    lines = (line.partition(' #')[0].strip() for line in read(path).splitlines())
    return [line for line in lines if line and line[0] not in '#-']


def as_module(text, path):
    """The text of a script or command with its imports of scripts changed to those of modules of zodiac.doors."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and {alias.name for alias in node.names} & {*DOORS}:
            old, new = f'import {node.names[0].name}', f'from zodiac.doors import {node.names[0].name}'
        elif isinstance(node, ast.ImportFrom) and node.module in DOORS:
            old, new = f'from {node.module} import', f'from zodiac.doors.{node.module} import'
        else:
            continue
        line, start = lines[node.lineno - 1], node.col_offset
        several = isinstance(node, ast.Import) and len(node.names) > 1
        if several or not line.startswith(old, start):
            raise SystemExit(f'{path}, line {node.lineno}: import each script on a line of its own, as: {old}')
        lines[node.lineno - 1] = line[:start] + new + line[start + len(old) :]
    return ''.join(lines)


class BuildWithDoors(build_py):
    def run(self):
        package = os.path.join(self.build_lib, 'zodiac')
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)  # of an earlier build, perhaps with modules that are gone
        super().run()
        if self.editable_mode:  # the scripts are used where they are
            return
        doors = os.path.join(package, 'doors')
        os.makedirs(doors)
        write(os.path.join(doors, '__init__.py'), f'"""The scripts as modules: {", ".join(DOORS)}."""\n')
        for name in DOORS:
            write(os.path.join(doors, f'{name}.py'), as_module(read(f'{name}.py'), f'{name}.py'))
        for path in glob.glob(os.path.join(package, 'commands', '*.py')):
            write(path, as_module(read(path), path))
        for path in [path for pattern in BESIDE for path in glob.glob(pattern)]:
            os.makedirs(os.path.join(doors, os.path.dirname(path)), exist_ok=True)
            shutil.copyfile(path, os.path.join(doors, path))


def write(path, text):
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
        file.write(text)


EXTRAS = {path[len('requirements-') : -len('.txt')]: path for path in sorted(glob.glob('requirements-*.txt'))}
setup(
    cmdclass={'build_py': BuildWithDoors},
    install_requires=requirements('requirements-base.txt'),
    extras_require={name: requirements(path) for name, path in EXTRAS.items() if name not in NOT_EXTRAS},
)
