"""Draw the splits that have no folder from the training images, and check that no split is empty."""

import collections
import os
import random

from zodiac.base.errors import UserError
from zodiac.data.scan import SPLITS


def draw(entries, duplicates, fractions, seed):
    """Move a stratified, seeded share of the training entries to other splits.

    Entries with equal pixels go to the same split. A class keeps at least one image to train on.

    Args:
        duplicates: see `exact_duplicates.groups`.
        fractions: {split: share of the training images of each class}.
    """
    if not fractions:
        return
    copies = {}  # {path of the first training entry of an image: its other training entries}
    for same in duplicates:
        in_train = [entry for entry in same if entry.split == 'train']
        copies.update({entry.path: in_train[1:] for entry in in_train[:1]})
    others = {entry.path for same in copies.values() for entry in same}
    by_label = collections.defaultdict(list)
    for entry in entries:
        if entry.split == 'train' and entry.path not in others:
            by_label[entry.label].append(entry)
    for label, images in by_label.items():
        total = len(images)
        random.Random(f'{seed}/{label}').shuffle(images)  # a string seeds the same on every machine
        for later, (split, fraction) in zip(range(len(fractions) - 1, -1, -1), fractions.items()):
            count = min(max(1, round(total * fraction)), len(images) - 1 - later) if total > len(fractions) else 0
            for image in images[:count]:
                for entry in (image, *copies.get(image.path, ())):
                    entry.split = split
            images = images[count:]


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
        fix = f'to draw {" and ".join(drawn)}, a class needs at least {len(drawn) + 1} different images: add some'
    if 'mode ' in listed:
        fix += ', or set annotate.non_rgb=convert'
    elif empty != 'train' and empty in tree.given_splits:
        folder = os.path.basename(tree.given_splits[empty])
        fix += f', or remove the empty folder {folder}/ to draw the split from train'
    raise UserError(f'{tree.root}: no usable images for {empty}{why}; {fix}')
