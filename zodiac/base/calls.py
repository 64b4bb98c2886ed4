"""Where the scripts are and how they are called: `python train.py` in a checkout, `zodiac train` where Zodiac is installed.

Installed, the scripts, recipes, requirements files and pages are in zodiac/doors/, where setup.py puts them. Uses the standard library
only.
"""

import importlib
import os
import re
import shlex
import shutil
import sys

# The scripts in the order of `zodiac --help`; one that is not there is left out.
DOORS = ('run', 'annotate', 'train', 'evaluate', 'export', 'predict', 'serve', 'doctor', 'demo', 'config')
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(PACKAGE)  # the folder from which zodiac is imported
INSTALLED = os.path.isdir(os.path.join(PACKAGE, 'doors'))
FOLDER = os.path.join(PACKAGE, 'doors') if INSTALLED else ROOT  # of the scripts
CALLED = 'ZODIAC_COMMAND'  # environment variable: how `zodiac` was called, for child processes too


def commands():
    """{name: path}: the scripts, then the modules of zodiac/commands/."""
    folder = os.path.join(PACKAGE, 'commands')
    others = sorted(file[:-3] for file in os.listdir(folder) if file.endswith('.py') and file != '__init__.py')
    paths = {name: os.path.join(FOLDER, f'{name}.py') for name in DOORS}
    found = {name: path for name, path in paths.items() if os.path.isfile(path)}
    return {**found, **{name: os.path.join(folder, f'{name}.py') for name in others}}


def module(script):
    """The name under which a script is imported."""
    return f'zodiac.doors.{script}' if INSTALLED else script


def load(script):
    """Import a script as a module."""
    if not INSTALLED and FOLDER not in sys.path:
        sys.path.insert(0, FOLDER)
    return importlib.import_module(module(script))


def command(name, *arguments):
    """The shell command that runs a script or a module of zodiac/commands/ with arguments, in the form in which this process was called.

    It works in the working directory.
    """
    as_script = name in DOORS and not prefix()
    start = f'{python()} {here(f"{name}.py")}' if as_script else f'{prefix() or _from_checkout()} {name}'
    return ' '.join([start, *map(shlex.quote, arguments)])


def prefix():
    """What comes before the name of a script in `command`, such as `zodiac`; '' in a checkout whose scripts are run as files."""
    return os.environ.get(CALLED) or (f'{python()} -m zodiac' if INSTALLED else '')


def note_call(program):
    """Remember how this process was called, for `prefix`.

    Args:
        program: path of the program `zodiac`; '' for `python -m zodiac`.
    """
    found = shutil.which('zodiac')
    if program and found and os.path.dirname(os.path.abspath(program)) == os.path.dirname(os.path.abspath(found)):
        os.environ[CALLED] = 'zodiac'
    elif program:
        os.environ[CALLED] = shlex.quote(program)
    else:
        os.environ[CALLED] = f'{python()} -m zodiac' if INSTALLED else _from_checkout()


def _from_checkout():
    """`python -m zodiac`, or from another working directory its path instead of -m."""
    there = os.path.realpath(os.curdir) == os.path.realpath(ROOT)
    return f'{python()} -m zodiac' if there else f'{python()} {here("zodiac")}'


def how_called(doc):
    """Arguments for the argparse parser of the running script, whose --help shows `doc`, all of it `as_called`."""
    import argparse  # takes milliseconds before Ctrl-C and missing packages are handled

    class Formatter(argparse.RawDescriptionHelpFormatter):
        def format_help(self):
            return as_called(super().format_help())

    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    return {'prog': f'zodiac {name}' if prefix() else None, 'description': doc, 'formatter_class': Formatter}


def as_called(text):
    """A message or help text for this way of calling: `zodiac train` instead of `train.py`, with the whole `prefix` instead of
    `python train.py`, and the paths of installed pages and requirements files."""
    if prefix():
        text = re.sub(r'\bpython -m zodiac\b', lambda found: prefix(), text)  # first: the prefix may contain it
        script = rf'(?<![\w/.-])({"|".join(DOORS)})\.py\b'
        text = re.sub(rf'\bpython {script}', lambda found: f'{prefix()} {found[1]}', text)
        text = re.sub(script, r'zodiac \1', text)
        launched = r'(paddle\.distributed\.launch .*?)zodiac train\b'
        text = re.sub(launched, lambda found: found[1] + here('train.py'), text)
    if INSTALLED:
        text = re.sub(r'(?<![\w/.-])(docs/\w+\.md|requirements[\w-]*\.txt)', lambda found: here(found[1]), text)
    return text


def python():
    """The command for this Python: its name if that is on the PATH, else its full path."""
    for name in ('python', 'python3'):
        found = shutil.which(name)
        if found and os.path.abspath(found) == os.path.abspath(sys.executable):
            return name
    return shlex.quote(sys.executable)


def here(name):
    """The path of a file or folder of this project, such as requirements.txt, from the working directory, quoted for a shell."""
    path = os.path.join(FOLDER, name)
    return shlex.quote(min(os.path.relpath(path), path, key=len))
