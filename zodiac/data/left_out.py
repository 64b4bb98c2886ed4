"""Images that are left out: how many for which reason, which setting would include them, and whether there are too many."""

import collections

from zodiac.base import schema
from zodiac.base.errors import UserError
from zodiac.data.entry import setting_for
from zodiac.images.decoding import IMAGE_SUFFIXES


def require_few(tree, most, whole=True):
    """Raise UserError if more than the share `most` of the image files is unusable, or a class has no training image.

    Files that are not images by name and content, such as notes, do not count.

    Args:
        tree: the `scan.Tree`, with a verdict on each entry.
        most: annotate.max_left_out; 1: accept anything.
        whole: whether each class must have a training image.
    """
    if most >= 1:
        return
    lost = [entry for entry in tree.entries if entry.verdict.reason and _is_image(entry)]
    total = len(lost) + sum(not entry.verdict.reason for entry in tree.entries)
    if len(lost) > most * total:
        fixes = [*_fixes(lost), 'set annotate.max_left_out=1 to leave them out']
        written = '; no index was written' if whole else ''
        raise UserError(
            f'{tree.root}: {len(lost)} of {total} image files ({len(lost) / total:.1%}) cannot be used, more than annotate.max_left_out = '
            f'{most:g}: {in_words(lost)}{written}; {", or ".join(fixes)}'
        )
    left = {entry.label for entry in tree.entries if not entry.verdict.reason and entry.split == 'train'}
    empty = [label for label in tree.labels if label not in left]
    if empty and whole:
        of_class = [entry for entry in lost if entry.label in empty]
        why = f' ({in_words(of_class)})' if of_class else ''
        fixes = [*_fixes(of_class), 'add some']
        if len(left) > 1:
            others = schema.override('data.labels', [label for label in tree.labels if label in left])
            fixes.append(f'leave it out: -o {others} annotate.unknown_class=skip')
        raise UserError(
            f'{tree.root}: class {", ".join(empty)} has no usable training image{why}; no index was written; {", or ".join(fixes)}'
        )


def in_words(entries):
    """The number of entries for each reason, with an example."""
    reasons = collections.defaultdict(list)
    for entry in entries:
        reasons[entry.verdict.reason].append(entry.path)
    most_first = sorted(reasons.items(), key=lambda item: -len(item[1]))
    return ', '.join(f'{len(paths)} {reason} (such as {paths[0]!r})' for reason, paths in most_first)


def _fixes(entries):
    """What to do, as a list."""
    settings = [setting for entry in entries if (setting := setting_for(entry.verdict.reason))]
    fixes = [f'set {setting} to include {settings.count(setting)} of them' for setting in dict.fromkeys(settings)]
    missing = sum(entry.verdict.reason == 'no such file' for entry in entries)  # of a list
    fixes += ['correct the list'] if missing else []
    return fixes + (['repair or remove the files'] if len(settings) + missing < len(entries) else [])


def _is_image(entry):
    return entry.verdict.reason != 'not an image' or entry.path.lower().endswith(IMAGE_SUFFIXES)
