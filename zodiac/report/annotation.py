"""What the report shows of annotation.json, the summary that annotate.py writes. Parts that an older file lacks are left out."""

import os
import sys

from markupsafe import Markup

from zodiac.base import calls, files
from zodiac.pages import render, texts
from zodiac.report import gallery

PAIRS = 6  # near-duplicates that are shown
PAIR = ('split', 'path', 'class', 'train_path', 'train_class', 'distance')


def read(path, hash_bits):
    """The annotation for the template of the report.

    Args:
        hash_bits: length of the hash whose differing bits are the `distance` of near-duplicates.
    Returns: dict: `facts`, `sides`, `bars` and `near_duplicates`, each empty or None if unknown; `paths`, the set of validation and
        test images that are near-copies of a training image, None if unknown. A missing file gives an empty annotation, a damaged
        one the same with a warning.
    """
    found = files.read_json(path) if os.path.isfile(path) else {}
    try:
        pairs = found.get('near_duplicates') or ()
        place = files.moved(os.path.dirname(path), [pair['path'] for pair in pairs])
        for pair in pairs:
            pair.update({key: files.at(pair[key], place) for key in ('path', 'train_path')})
        return _content(found, path, hash_bits)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        text = f'warning: {path}: is damaged; the report leaves it out; run annotate.py again'
        print(calls.as_called(text), file=sys.stderr)
        return _content({}, path, hash_bits)


def _content(found, path, hash_bits):
    sizes, pairs = found.get('sizes'), found.get('near_duplicates')
    return {
        'facts': _facts(found, path) if found else [],
        'sides': {side: _range(sizes[side]) for side in ('width', 'height')} if sizes else None,
        'bars': {'size': _common(sizes, found['accepted']), 'mode': list(found['modes'].items())} if sizes else {},
        'near_duplicates': None if pairs is None else _near_duplicates(pairs, hash_bits),
        'paths': None if pairs is None else {pair['path'] for pair in pairs},
    }


def _range(numbers):
    return {name: numbers[name] for name in ('min', 'median', 'max')}


def _facts(found, path):
    """(key of report.*, text or number) pairs; none if a part is missing."""
    none = texts.both('report.none')
    try:
        rejected = [f'{count} {reason}' for reason, count in found['rejected_by_reason'].items()]
        converted = [
            texts.both('report.of_mode', n=count, mode=mode) for mode, count in found['converted_by_mode'].items()
        ]
        facts = {
            'fact_folder': render.breaks(found['root']),
            'fact_accepted': f'{found["accepted"]:,}',
            'fact_rejected': ', '.join(rejected) or none,
            'fact_converted': Markup(', ').join(converted) or none,
            'fact_drawn': ', '.join(found['settings']['drawn_splits']) or texts.both('report.fact_not_drawn'),
            'fact_two_splits': len(found['same_picture_in_two_splits']),
            'fact_two_classes': len(found['same_picture_in_two_classes']),
            'fact_list': render.breaks(path),
        }
    except KeyError:
        return []
    return list(facts.items())


def _common(sizes, total):
    """(size, images) pairs, the most common first, the remaining ones together at the end."""
    common = [(f'{size["width"]} × {size["height"]}', size['images']) for size in sizes['most_common']]
    others, kinds = total - sum(count for _, count in common), sizes['different'] - len(common)
    return [*common, *([(texts.both('report.other_sizes', n=kinds), others)] if others else [])]


def _near_duplicates(pairs, hash_bits):
    """Some pairs with their pictures, those of two classes first; a picture that is gone is None."""
    shown = sorted(pairs, key=lambda pair: pair['class'] == pair['train_class'])[:PAIRS]
    return {
        'images': len(pairs),
        'of_another_class': sum(pair['class'] != pair['train_class'] for pair in pairs),
        'bits': hash_bits,
        'pairs': [
            {
                **{key: pair[key] for key in PAIR},
                'picture': gallery.thumbnail_of(pair['path']),
                'train_picture': gallery.thumbnail_of(pair['train_path']),
            }
            for pair in shown
        ],
    }


def without_near_duplicates(near_copies, paths, right):
    """Accuracy on the images that are no near-copies of training images.

    Args:
        near_copies: set of the paths of near-copies, or None.
        paths: those of the evaluated images.
        right: bool [images], whether each prediction is right.
    Returns: {'images': number of near-copies, 'top1_without': float, None if no other image is left}; None if `near_copies` is None.
    """
    if near_copies is None:
        return None
    others = [bool(good) for path, good in zip(paths, right) if path not in near_copies]
    return {'images': len(paths) - len(others), 'top1_without': sum(others) / len(others) if others else None}
