"""The folder of a run, output/<name>/: create it, and keep the earlier runs of that name."""

import glob
import os
import re
import shlex

from zodiac.base import files


def create(run_dir, config_yaml, say):
    """Create the folder with its config.yaml. An existing one is renamed to <run_dir>.previous, .previous-2, ...

    Args:
        say: called with messages for the user.
    Raises: UserError when the folder cannot be written.
    """
    try:
        if os.path.isdir(run_dir):
            _keep_previous(run_dir, say)
        os.makedirs(run_dir)
    except OSError as error:
        raise files.cannot_write(run_dir, error) from None
    with files.atomic_write(f'{run_dir}/config.yaml') as file:
        file.write(config_yaml)


def _keep_previous(run_dir, say):
    kept = {}  # number: folder
    for folder in glob.glob(f'{glob.escape(run_dir)}.previous*'):
        named = re.fullmatch(r'\.previous(?:-(\d+))?', folder[len(run_dir) :])
        if named and os.path.isdir(folder):
            kept[int(named[1] or 1)] = folder
    number = max(kept, default=0) + 1
    previous = f'{run_dir}.previous' + (f'-{number}' if number > 1 else '')
    os.replace(run_dir, previous)
    say(f'the earlier run in {run_dir} is now {previous}')
    if kept:
        older = ' '.join(shlex.quote(kept[number]) for number in sorted(kept))
        say(f'older runs of this name: {len(kept)}; to remove them: rm -r {older}')
