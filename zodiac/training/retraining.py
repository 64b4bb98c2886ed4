"""Train and evaluate again what an export's evidence describes, in a folder of its own, for zodiac/commands/verify.py."""

import os
import subprocess
import sys

import numpy as np
import yaml

from zodiac.base import calls, files, stops
from zodiac.base.errors import Stopped, UserError
from zodiac.data import groups
from zodiac.models import weights
from zodiac.training import checkpoint, processes


def retrain(about, splits, places, labels, folder):
    """Train and evaluate with the same settings, photos and seed; nothing is taken from a cache or an earlier run.

    Args:
        about, splits: of `evidence.read`; places: {digest: path} of every photo.
        labels: class names; folder: an empty one, for everything that is written.
    Returns: the folder of the new run. Raises UserError if a script fails.
    """
    which, data = about['config']['evaluate']['weights'], f'{folder}/data'
    if which not in ('best', 'last'):
        raise UserError(f'the weights were those of the file {which}, not of a training of this run')
    for split, photos in splits.items():
        with files.atomic_write(f'{data}/{split}.txt') as file:
            file.writelines(f'{_absolute(places[photo.digest])}\t{photo.label}\n' for photo in photos)
    in_groups = about.get('groups') or {}
    if in_groups:
        found = {photo.path: _absolute(places[photo.digest]) for photos in splits.values() for photo in photos}
        with files.atomic_write(f'{data}/{groups.NAME}') as file:
            write = files.csv_table(file)
            for row in [('path', 'group'), *((found[path], group) for path, group in in_groups.items())]:
                write(row)
    settings = about['config']
    settings = {
        **settings,
        'output': f'{folder}/output',
        'data': {**settings['data'], 'root': data, 'labels': labels, 'cache': f'{folder}/cache'},
        'train': {**settings['train'], 'resume': 'never'},
        'evaluate': {**settings['evaluate'], 'split': 'test'},
    }
    with files.atomic_write(f'{folder}/config.yaml') as file:
        yaml.safe_dump(settings, file, allow_unicode=True, sort_keys=False)
    for script in ('train', 'evaluate'):
        _run(script, ['-c', f'{folder}/config.yaml'], f'{folder}/{script}.log')
    return f'{folder}/output/{settings["name"]}'


def _absolute(path):
    return os.path.abspath(path).replace(os.sep, '/')


def _run(script, arguments, log):
    """Run a script, whose output goes to the file `log`. Raises UserError with its last line if it fails."""
    command = [sys.executable, os.path.join(calls.FOLDER, f'{script}.py'), *arguments]
    with stops.noted() as asked:
        with open(log, 'w', encoding='utf-8') as file:
            child = processes.start(command, stdout=file, stderr=subprocess.STDOUT)
            for _ in processes.while_running([child], asked):
                pass
        if asked:
            raise Stopped(asked[0])
    if child.returncode:
        with open(log, encoding='utf-8', errors='replace') as file:
            last = (file.read().strip().splitlines() or ['no output'])[-1]
        raise UserError(f'{script}.py failed: {last[len("error: ") :] if last.startswith("error: ") else last}')


def weight_differences(run, about):
    """How the weights of a new training differ from those of the export: a list of texts, empty if they are identical.

    Args:
        run: folder of the new training; about: of `evidence.read`.
    """
    new = weights.read(checkpoint.find(run, about['config']['evaluate']['weights'])[0])
    before, path = about['weights']['values'], about['weights']['path']
    if weights.digest(new) == before:
        return []
    try:
        old = weights.read(path)
    except UserError:
        old = {}
    if weights.digest(old) != before:
        return [f'not identical; by how much is not known, as the first ones ({path}) are not here']
    if {name: np.shape(value) for name, value in old.items()} != {name: np.shape(value) for name, value in new.items()}:
        return ['they have other layers']
    largest = max((_relative(old[name], new[name]), name) for name in old)
    return [f'most in {largest[1]}, by {largest[0]:.1e} of its largest value']


def _relative(old, new):
    old, new = (np.asarray(value, np.float64) for value in (old, new))
    return float(np.abs(old - new).max(initial=0) / max(np.abs(old).max(initial=0), 1e-30))
