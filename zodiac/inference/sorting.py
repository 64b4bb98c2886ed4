"""Copy classified photos into a folder per class."""

import filecmp
import itertools
import os
import re
import shutil

from zodiac.base import files


def copy_into(folder, label, path):
    """Copy a file to <folder>/<label>/. Another file of that name is kept, and the copy gets a number, as in `a (2).jpg`; a copy with the
    same content is not made again. Raises UserError naming a file that cannot be written.

    Returns: whether a copy was made.
    """
    place = os.path.join(folder, re.sub(r'[/\\\0]', '_', label) if label.strip('. ') else '_')
    stem, suffix = os.path.splitext(os.path.basename(path))
    for number in itertools.count(1):
        target = os.path.join(place, f'{stem}{suffix}' if number == 1 else f'{stem} ({number}){suffix}')
        if not os.path.lexists(target):
            break
        if os.path.isfile(target) and filecmp.cmp(path, target, shallow=False):
            return False
    with open(path, 'rb') as source, files.atomic_write(target, binary=True) as file:
        shutil.copyfileobj(source, file)
    return True
