"""Photos that look the same and have different labels: one of the labels is wrong, or the photo shows both classes."""

import os

import numpy as np

from zodiac.data import inspection, inspection_cache, near_duplicates
from zodiac.data.entry import NEVER, Entry, identity


def find(paths, labels, root, non_rgb, workers):
    """{number of a photo: number of a photo of another class that looks the same}, in both directions.

    Args:
        paths: as in the index; labels: int [n].
        root: data.root, whose cache of inspections saves the decoding; non_rgb: annotate.non_rgb; workers: processes that decode.
    """
    entries = [Entry(path.replace(os.sep, '/'), 'train', '') for path in paths]
    cached = inspection_cache.load(root, inspection_cache.key(non_rgb))
    stamps = inspection_cache.stamps(entries) if cached else bytearray(len(entries) * len(NEVER))
    unread = inspection_cache.restore(cached, root, entries, stamps) if cached else range(len(entries))
    inspection.inspect_entries(entries, unread, stamps, non_rgb == 'convert', workers)
    usable = [number for number, entry in enumerate(entries) if entry.fingerprint]
    return pairs([entries[number].fingerprint for number in usable], np.asarray(labels)[usable], usable)


def pairs(fingerprints, labels, numbers):
    """`find` for fingerprints; labels: int [m]; numbers: list [m], those of the photos."""
    found = {}
    by_pixels = {}
    for place, fingerprint in enumerate(fingerprints):
        by_pixels.setdefault(identity(fingerprint), []).append(place)
    for same in by_pixels.values():
        for one in same:
            other = next((other for other in same if labels[other] != labels[one]), None)
            if other is not None:
                found[numbers[one]] = numbers[other]
    for label in np.unique(labels):
        own, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        nearest, _ = near_duplicates.find([fingerprints[n] for n in others], [fingerprints[n] for n in own])
        for place, other in zip(own, nearest):
            if other >= 0:
                found.setdefault(numbers[place], numbers[others[other]])
    return found
