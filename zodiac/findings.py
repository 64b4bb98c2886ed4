"""What annotate.py has found, as the report shows it. What an annotation.json of an earlier version does not hold is left out."""

from zodiac import files, images, near_duplicates, report

PAIRS = 6  # near-duplicates that are shown


def read(path):
    """The content of annotation.json, a dict; empty where it cannot be read."""
    found = files.read_json(path)
    return found if isinstance(found, dict) else {}


def content(found, path):
    """What the page's template asks for: `facts`, `sides`, `bars`, `alike`; each is empty or None where nothing is known.

    Args:
        found: the content of the annotation.json at `path`.
    """
    sizes = found.get('sizes')
    return {
        'facts': _facts(found, path),
        'sides': {side: sizes[side] for side in ('width', 'height')} if sizes else None,
        'bars': {'size': _common(sizes, found['accepted']), 'mode': list(found['modes'].items())} if sizes else {},
        'alike': _alike(found['near_duplicates']) if 'near_duplicates' in found else None,
    }


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
            {**pair, 'picture': _thumbnail(pair['path']), 'train_picture': _thumbnail(pair['train_path'])}
            for pair in shown
        ],
    }


def _thumbnail(path):
    try:
        return report.thumbnail(images.decode(path))
    except images.ImageError:
        return None


def without_near_duplicates(found, paths, right):
    """The accuracy on the images that look like no training image.

    Args:
        paths: those of the measured images.
        right: bool [images], whether each is predicted right.
    Returns: {'images': how many do look like one, 'top1_without': float, or None where no other is left}; None where nobody has looked.
    """
    if 'near_duplicates' not in found:
        return None
    alike = {pair['path'] for pair in found['near_duplicates']}
    others = [bool(good) for path, good in zip(paths, right) if path not in alike]
    return {'images': len(paths) - len(others), 'top1_without': sum(others) / len(others) if others else None}
