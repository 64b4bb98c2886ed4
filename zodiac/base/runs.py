"""Runs by name: `pets` is output/pets if there is such a run, else a path."""

import glob
import os
import shlex
import sys

from zodiac.base.errors import UserError

CONFIG = 'config.yaml'


def places(name):
    """The folders that `name` can mean, the first one first."""
    path = name.rstrip('/' + os.sep) or name
    return [path] if path.startswith(('.', '/')) else [os.path.join('output', path), path]


def is_run(folder):
    return os.path.isfile(os.path.join(folder, CONFIG))


def shortest(folder):
    """What to type for the run in `folder`: its name, if that means this folder."""
    name = os.path.basename(folder)
    return name if places(name)[0] == folder else folder


def find(name):
    """The folder that `name` means: output/<name>, else the path. Raises UserError, with the names of the runs that there are."""
    *_, path = candidates = places(name)
    found = next(filter(is_run, candidates), None)
    if not found:
        raise UserError(f'{name}: no such run (there is no {candidates[0]}/{CONFIG}); {_hint(path)}')
    return found


def say(name, folder):
    """Say on stderr which folder the name of a run means, unless it is that folder."""
    *_, path = places(name)
    if path != folder:
        other = f' (for the run in the folder {path}: ./{path})' if is_run(path) else ''
        print(f'run: {folder}{other}', file=sys.stderr)


def _hint(path):
    """What to do about a missing run."""
    above = os.path.dirname(path)
    while above != os.path.dirname(above) and not is_run(above):
        above = os.path.dirname(above)
    if above and is_run(above):
        return f'the run is {shlex.quote(above)}'
    known = [os.path.basename(os.path.dirname(file)) for file in sorted(glob.glob(f'output/*/{CONFIG}'))]
    return f'the runs are {", ".join(known)}' if known else 'train one first: python run.py PHOTOS'
