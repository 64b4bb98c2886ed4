"""Read lists of labelled images that other programs write. The kind is found from the content, see `KINDS`.

Nothing here looks at images: `listed` finds them and checks the rows against each other.
"""

import os
import re
from typing import NamedTuple

from zodiac.base.errors import UserError
from zodiac.data import json_lists, numbered_lists, tables
from zodiac.data.folders import SPLIT_NAMES
from zodiac.data.list_source import GBK, open_list


class Part(NamedTuple):
    """The rows of one file. `unit`: what `Row.number` counts; `split`: of all its rows, '' if the rows name it or none is known."""

    path: str
    unit: str
    rows: object
    split: str


def read(path, labels, say):
    """Read a list.

    Args:
        labels: class names that numbers stand for if there is no label file, or 'auto'.
        say: called with each line on what was guessed.
    Returns: (list of `Part`s, whose rows are read as they are iterated, the class names in the order of their numbers or None).
    Raises: UserError naming the file and the line, here and while the rows are read.
    """
    source = open_list(path)
    kind = next((name for name, (fits, *_) in KINDS.items() if fits(source)), None)
    if kind is None:
        raise UserError(
            f'{path}: is JSON, but neither of COCO (images, annotations, categories), nor an export of Label Studio (JSON or JSON-MIN), '
            'nor a list of objects with path and label'
        )
    say(f'{path}: read as {kind}' + (' in GBK' if source.encoding == GBK else ''))
    fits, rows, unit, is_divided = KINDS[kind]
    sources = _divided(source, fits, say) if is_divided else {'': source}
    if len(sources) > 1:
        say('; '.join(f'{split}: {found.path}' for split, found in sources.items()))
    names = numbered_lists.class_names(path, labels, say) if fits is numbered_lists.fits else None
    parts = [Part(one.path, unit, rows(one, names, say), split) for split, one in sources.items()]
    return parts, list(names.values()) if names else None


def _divided(source, fits, say):
    """{split: Source} of a list named after a split and the lists of the other splits beside it; {'': source} if there is no other."""
    folder, name = os.path.split(source.path)
    words = '|'.join(sorted((*SPLIT_NAMES, 'eval'), key=len, reverse=True))
    own = re.search(rf'(?<![a-z])(?:{words})(?:20\d\d)?(?![a-z])', name.lower())
    if not own:
        return {'': source}
    before, after = re.escape(name[: own.start()]), re.escape(name[own.end() :])
    found = {}
    for other in sorted(os.listdir(folder or '.'), key=lambda other: (other != name, other)):
        match = re.fullmatch(f'{before}({words})(?:20\\d\\d)?{after}', other, re.IGNORECASE)
        split = match and SPLIT_NAMES.get(match[1].lower(), 'valid')
        path = os.path.join(folder, other)
        if split and split not in found and os.path.isfile(path) and os.path.getsize(path):
            one = source if other == name else open_list(path)
            if fits(one):
                found[split] = one
            else:
                say(f'{path}: not read, it is not a list of the same kind')
    if 'train' not in found or len(found) == 1:
        return {'': source}
    return {split: found[split] for split in ('train', 'valid', 'test') if split in found}


KINDS = {  # {name: (whether a Source is of this kind, function that yields its rows, what these count, one file per split)}
    'COCO': (json_lists.is_coco, json_lists.coco_rows, 'image', True),
    'Label Studio': (json_lists.is_label_studio, json_lists.label_studio_rows, 'task', False),
    'PaddleClas or PaddleX': (numbered_lists.fits, numbered_lists.rows, 'line', True),
    'a table': (tables.fits, tables.rows, 'line', False),
}
