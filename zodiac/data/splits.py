"""Draw the splits that have no folder from the training images, and check that no split is empty.

A photo keeps its split when others come or go: splits.tsv in data.root holds the split of each, by its pixels. Only new ones are drawn.
"""

import collections
import contextlib
import hashlib
import itertools
import os
import sys

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.data import groups
from zodiac.data.entry import content
from zodiac.data.scan import DRAWN, SPLITS

DECIDING = ('seed', 'drawn_splits', 'valid_fraction', 'test_fraction')  # another value of one draws all splits anew


def draw(entries, duplicates, fractions, seed, kept):
    """Move a stratified share of the training entries to other splits: known images to theirs, then new ones until each split has its
    share, in the order of a hash of seed, class and pixels.

    Entries with equal pixels or of one group go to the same split, see `_draw_groups`. The first images of a class, if none is known, go to
    each split in turn. If no training image of a class is left and none is new, another one becomes one, which is said on stderr: train.py
    needs one.

    Args:
        duplicates: see `exact_duplicates.groups`.
        fractions: {split: share of the training images of each class}.
        kept: see `earlier`; used up, as it is large.
    Returns: the part of `kept` whose images are not among the entries, for `record`: they may come back.
    """
    if not fractions:
        return {}
    for entry in entries:
        if entry.split in fractions:  # drawn before, with other groups
            entry.split = 'train'
    first = {}  # {path of a training entry: the first one with the same pixels}
    for same in duplicates:
        in_train = [entry for entry in same if entry.split == 'train']
        first.update((entry.path, in_train[0]) for entry in in_train[1:])
    by_label = collections.defaultdict(list)
    in_train = [entry for entry in entries if entry.split == 'train']
    if any(entry.group for entry in in_train):
        _draw_groups(in_train, first, fractions, seed, kept)
        in_train = []
    for entry in in_train:
        by_label[first.get(entry.path, entry).label].append(entry)
    for label, of_label in by_label.items():
        images = collections.defaultdict(list)
        for entry in of_label:
            images[content(first.get(entry.path, entry).fingerprint)].append(entry)
        split_of = {key: split for key, same in images.items() if (split := _known(same, kept))}
        order = _order(seed, label)
        new = sorted((key for key in images if key not in split_of), key=order)
        split_of.update(zip(new, _vacant(len(images), fractions, collections.Counter(split_of.values()))))
        if len(split_of) == len(images) and 'train' not in split_of.values():
            moved = min(images, key=lambda key: (split_of[key] == 'test', order(key)))
            print(f'{label}: no training image is left; one of {split_of[moved]} becomes one', file=sys.stderr)
            split_of[moved] = 'train'
        for key, split in split_of.items():
            for entry in images[key]:
                entry.split = split
    for entry in entries:
        kept.pop(content(entry.fingerprint), None)
    return kept


def _draw_groups(entries, first, fractions, seed, kept):
    """`draw` for entries of which some have groups. A unit, what must stay together, has equal pixels or one group, also through others.

    Known units keep their split. Then come new ones, and those whose images were in several splits, the largest first: each to the split
    that brings the images of all classes nearest to their shares, as in scikit-learn's StratifiedGroupKFold, the last ones of a class to
    splits that have none of it.
    """
    splits = ('train', *fractions)
    originals = [first.get(entry.path, entry) for entry in entries]
    units = collections.defaultdict(list)
    keys = [content(entry.fingerprint) for entry in originals], [entry.group or None for entry in entries]
    for entry, unit in zip(entries, groups.joined(*keys)):
        units[unit].append(entry)
    units = [_Unit(same, kept, seed) for same in units.values()]
    with_label = collections.Counter(label for unit in units for label in unit.counts)
    totals = sum((unit.counts for unit in units), collections.Counter())
    shares = {
        label: _shares(total, fractions if with_label[label] > len(fractions) else {})
        for label, total in totals.items()
    }
    taken = {label: dict.fromkeys(splits, 0) for label in totals}
    waiting = collections.Counter(label for unit in units if not unit.split for label in unit.counts)

    def cost(unit, split):
        return sum(
            (taken[label][each] + (count if each == split else 0) - share) ** 2 / share
            for label, count in unit.counts.items()
            for each, share in shares[label].items()
        )

    moved = 0
    for unit in sorted(units, key=lambda unit: (not unit.split, -len(unit.entries), unit.order)):
        if not unit.split:
            possible = [split for split in splits if all(split in shares[label] for label in unit.counts)]
            label = unit.counts.most_common(1)[0][0]
            empty = [split for split in possible if not taken[label][split]]
            if empty and waiting[label] <= len(empty):
                possible = empty
            unit.split = min(possible, key=lambda split: (cost(unit, split), splits.index(split)))
            waiting.subtract(unit.counts.keys())
        moved += sum(unit.known.values()) - unit.known[unit.split]
        for label, count in unit.counts.items():
            taken[label][unit.split] += count
        for entry in unit.entries:
            entry.split = unit.split
    if moved:
        images = '1 image changes its split' if moved == 1 else f'{moved} images change their split'
        print(f'{images}, to be in that of the group', file=sys.stderr)
    for label in totals:
        if not taken[label]['train']:
            unit = min(
                (unit for unit in units if label in unit.counts), key=lambda unit: (len(unit.entries), unit.order)
            )
            print(f'{label}: no training image is left; a group of {unit.split} becomes one', file=sys.stderr)
            for entry in unit.entries:
                entry.split = 'train'


class _Unit:
    """Entries that share a split. `known`: {split: number of images}; `split`: the known one, '' if there is none or several."""

    def __init__(self, entries, kept, seed):
        self.entries, self.counts = entries, collections.Counter(entry.label for entry in entries)
        keys = {content(entry.fingerprint) for entry in entries}
        self.known = collections.Counter(kept[key] for key in keys if key in kept)
        self.split = next(iter(self.known)) if len(self.known) == 1 else ''
        name = min((entry.group for entry in entries if entry.group), default='').encode('utf-8', 'surrogatepass')
        self.order = hashlib.sha256(f'{seed}/'.encode() + (name or min(keys))).digest()


def _known(same, kept):
    """The split of an image by any of its copies; None for a new one."""
    return next((kept[key] for key in (content(entry.fingerprint) for entry in same) if key in kept), None)


def _order(seed, label):
    """The sort key of a class's images, which is the same on every machine."""
    return lambda key: hashlib.sha256(f'{seed}/{label}/'.encode() + key).digest()


def _vacant(total, fractions, taken):
    """The splits in which a class lacks images, once per image: first those with the fewest. Further images stay in train.

    Args:
        total: number of images of the class; taken: {split: number of those that are known}.
    """
    shares = {**_shares(total, fractions), 'train': 1}
    places = [(nth, split) for split, share in shares.items() for nth in range(taken[split], share)]
    return [split for _, split in sorted(places, key=lambda place: place[0])]


def _shares(total, fractions):
    """{split: its number of images} of a class, for train and the splits to draw; each has one if there are enough."""
    shares, left = {'train': total}, total
    for later, (split, fraction) in zip(range(len(fractions) - 1, -1, -1), fractions.items()):
        shares[split] = min(max(1, round(total * fraction)), left - 1 - later) if total > len(fractions) else 0
        left -= shares[split]
    return {**shares, 'train': left}


def earlier(root, settings, entries):
    """{content: split} of the images that an earlier run has drawn with the same settings, by their pixels or, where these are new or not
    recorded, by their paths. If there was a run with other settings, this is said on stderr, and the result is empty.

    Args:
        settings: as in annotation.json; entries: the usable ones.
    """
    before = files.read_json(f'{root}/annotation.json')
    before = before.get('settings') if isinstance(before, dict) else None
    if not settings['drawn_splits'] or not isinstance(before, dict) or not before.get('drawn_splits'):
        return {}
    changed = [key for key in DECIDING if before.get(key) != settings.get(key)]
    if changed:
        listed = ', '.join(f'{key} was {before.get(key)}, now {settings.get(key)}' for key in changed)
        print(f'{root}: all images get a new split ({listed})', file=sys.stderr)
        return {}
    kept = dict(_recorded(f'{root}/{DRAWN}'))
    keys = ((entry.path, content(entry.fingerprint)) for entry in entries if entry.split == 'train')
    unknown = {path: key for path, key in keys if key not in kept}
    for split in ('train', *settings['drawn_splits']) if unknown else ():
        for path, _ in _pairs(f'{root}/{split}.txt'):
            if path in unknown:
                kept.setdefault(unknown[path], split)
    return kept


def record(by_split, drawn, gone):
    """Yield the lines of splits.tsv: for each image of train and the drawn splits, and those of `draw` that are gone, its content in
    hexadecimal, and its split."""
    present = ((content(entry.fingerprint), split) for split in ('train', *drawn) for entry in by_split[split])
    for key, split in itertools.chain(present, gone.items()):
        yield f'{key.hex()}\t{split}\n'


def _recorded(path):
    """Yield (content, split) of the lines that `record` wrote."""
    for key, split in _pairs(path):
        try:
            yield bytes.fromhex(key), SPLITS[SPLITS.index(split)]
        except ValueError:  # someone has edited the line
            continue


def _pairs(path):
    """Yield the two columns of each line of a file; nothing if it cannot be read."""
    with contextlib.suppress(OSError), open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            first, _, second = line.rstrip('\n').rpartition('\t')
            yield first, second


def require_images(splits, tree, drawn):
    """Raise UserError if a split has no images.

    Args:
        splits: {split: entries}; tree: the `scan.Tree`.
        drawn: splits that are drawn from the training images.
    """
    empty = next((split for split in SPLITS if not splits[split]), None)
    if empty == 'valid' and splits['valid'] is splits['test']:
        empty = 'test'
    if not empty:
        return
    reasons = collections.Counter(entry.verdict.reason for entry in tree.entries if entry.verdict.reason)
    listed = ', '.join(f'{count} {reason}' for reason, count in reasons.most_common())
    why = f' (left out: {listed})' if listed else ''
    fix = 'add some'
    if empty in drawn and splits['train']:
        what = 'groups of images' if any(entry.group for entry in splits['train']) else 'images'
        fix = f'to draw {" and ".join(drawn)}, a class needs at least {len(drawn) + 1} different {what}: add some'
    if 'mode ' in listed:
        fix += ', or set annotate.non_rgb=convert'
    elif empty != 'train' and empty in tree.given_splits:
        given = tree.given_splits[empty]
        name = os.path.basename(given)
        what = f'the split from {name}' if os.path.isfile(given) else f'the empty folder {name}/'
        fix += f', or remove {what} to draw the split from train'
    raise UserError(f'{tree.root}: no usable images for {empty}{why}; {fix}')
