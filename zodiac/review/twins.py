"""Photos that look the same and have different labels: one of the labels is wrong, or the photo shows both classes."""

import os

import numpy as np

from zodiac.data import inspection, inspection_cache, near_duplicates
from zodiac.data.entry import NEVER, Entry, identity


def find(photos, root, non_rgb, workers):
    """{number of a photo: number of a photo of another class that looks the same}, in both directions; photos: a `Photos`, for the other
    arguments see `fingerprints`."""
    return pairs(fingerprints(photos.paths, root, non_rgb, workers), photos.labels)


def fingerprints(paths, root, non_rgb, workers):
    """The fingerprint of each photo, see `entry`; b'' for one that cannot be used.

    Args:
        paths: as in the index; root: data.root, whose cache of inspections saves the decoding; non_rgb: annotate.non_rgb.
        workers: processes that decode.
    """
    entries = [Entry(path.replace(os.sep, '/'), 'train', '') for path in paths]
    cached = inspection_cache.load(root, inspection_cache.key(non_rgb))
    stamps = inspection_cache.stamps(entries) if cached else bytearray(len(entries) * len(NEVER))
    unread = inspection_cache.restore(cached, root, entries, stamps) if cached else range(len(entries))
    inspection.inspect_entries(entries, unread, stamps, non_rgb == 'convert', workers)
    return [entry.fingerprint for entry in entries]


def pairs(prints, labels):
    """`find` for fingerprints; labels: int [n]."""
    labels, usable = np.asarray(labels), [number for number, one in enumerate(prints) if one]
    found, by_pixels = {}, {}
    for number in usable:
        by_pixels.setdefault(identity(prints[number]), []).append(number)
    for same in by_pixels.values():
        for one in same:
            other = next((other for other in same if labels[other] != labels[one]), None)
            if other is not None:
                found[one] = other
    near = {}  # {number: (distance, number of the other)}
    for bit in range(int(labels.max(initial=0)).bit_length()):  # two classes differ in a bit of their numbers
        sides = [[number for number in usable if labels[number] >> bit & 1 == side] for side in (0, 1)]
        for own, others in (sides, sides[::-1]):
            nearest, distance = near_duplicates.find([prints[n] for n in others], [prints[n] for n in own])
            for number, other, bits in zip(own, nearest, distance):
                if other >= 0:
                    near[number] = min(near.get(number, (np.inf, 0)), (int(bits), others[other]))
    return {**{number: other for number, (_, other) in near.items()}, **found}
