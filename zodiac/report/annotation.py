"""What annotate.py has found, as the report shows it. What an annotation.json of an earlier version does not hold is left out."""

import os
import sys

from zodiac.base import files
from zodiac.data import near_duplicates
from zodiac.report import pages

PAIRS = 6  # near-duplicates that are shown
PAIR = ('split', 'path', 'class', 'train_path', 'train_class', 'distance')


def read(path):
    """The parts of the annotation.json at `path` that the page's template asks for, and `paths`.

    Returns: dict: `facts`, `sides`, `bars` and `alike`, each empty or None where nothing is known; `paths`, a set of those images of
        valid and test that look like a training image, None where nobody has looked. All of that for a file that is missing, and
        with a warning for one that is damaged.
    """
    found = files.read_json(path) if os.path.isfile(path) else {}
    try:
        pairs = found.get('near_duplicates') or ()
        place = files.moved(os.path.dirname(path), [pair['path'] for pair in pairs])
        for pair in pairs:
            pair.update({key: files.at(pair[key], place) for key in ('path', 'train_path')})
        return _content(found, path)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        print(f'warning: {path}: is damaged; the report shows nothing of it; run annotate.py again', file=sys.stderr)
        return _content({}, path)


def _content(found, path):
    sizes, pairs = found.get('sizes'), found.get('near_duplicates')
    return {
        'facts': _facts(found, path) if found else [],
        'sides': {side: _range(sizes[side]) for side in ('width', 'height')} if sizes else None,
        'bars': {'size': _common(sizes, found['accepted']), 'mode': list(found['modes'].items())} if sizes else {},
        'alike': None if pairs is None else _alike(pairs),
        'paths': None if pairs is None else {pair['path'] for pair in pairs},
    }


def _range(numbers):
    return {name: numbers[name] for name in ('min', 'median', 'max')}


def _facts(found, path):
    """(name, text) pairs; none where something is missing."""
    try:
        reasons = [f'{count} {reason}' for reason, count in found['rejected_by_reason'].items()]
        facts = {
            'folder': found['root'],
            'images kept': f'{found["accepted"]:,}',
            'left out': ', '.join(reasons) or 'none',
            'converted to RGB': ', '.join(f'{n} of mode {mode}' for mode, n in found['converted_by_mode'].items())
            or 'none',
            'splits drawn with the seed': ', '.join(found['settings']['drawn_splits']) or 'none: as the folders are',
            'same picture in two splits': len(found['same_picture_in_two_splits']),
            'same picture in two classes': len(found['same_picture_in_two_classes']),
            'the whole list': path,
        }
    except KeyError:
        return []
    return list(facts.items())


def _common(sizes, total):
    """(size, images) pairs, the most common first, the last for all that are left."""
    common = [(f'{size["width"]} × {size["height"]}', size['images']) for size in sizes['most_common']]
    others = total - sum(count for _, count in common)
    return [*common, *([(f'{sizes["different"] - len(common)} other sizes', others)] if others else [])]


def _alike(pairs):
    """Some near-duplicates with their pictures, those of two classes first; a picture that is gone since is None."""
    shown = sorted(pairs, key=lambda pair: pair['class'] == pair['train_class'])[:PAIRS]
    return {
        'images': len(pairs),
        'of_another_class': sum(pair['class'] != pair['train_class'] for pair in pairs),
        'bits': near_duplicates.BITS,
        'pairs': [
            {
                **{key: pair[key] for key in PAIR},
                'picture': pages.thumbnail_of(pair['path']),
                'train_picture': pages.thumbnail_of(pair['train_path']),
            }
            for pair in shown
        ],
    }


def without_near_duplicates(alike, paths, right):
    """The accuracy on the images that look like no training image.

    Args:
        alike: set of the paths of images that do, or None.
        paths: those of the measured images.
        right: bool [images], whether each is predicted right.
    Returns: {'images': how many do look like one, 'top1_without': float, or None where no other is left}; None where nobody has looked.
    """
    if alike is None:
        return None
    others = [bool(good) for path, good in zip(paths, right) if path not in alike]
    return {'images': len(paths) - len(others), 'top1_without': sum(others) / len(others) if others else None}
