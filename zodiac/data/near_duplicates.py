"""Near-copies: images that look the same although their pixels differ. Nearly all that were saved again or scaled are found, most that
were brightened or cropped a little; none that were mirrored, rotated or framed, or turned grey.

An image is reduced to a sketch, the mean colours of 9 x 9 cells. Two images look the same if their difference hashes differ in at most
MAX_DISTANCE bits, and the colours of their cells correlate as well: an orange has the hash of an apple.

A bit of the hash says whether a cell is darker than the next one, along rows and columns (dHash: N. Krawetz, "Kind of Like That",
hackerfactor.com, 2013, and B. Hoyt's package dhash). It must be darker by a step that saving and scaling do not make; on a plain
background the bits would be chance otherwise. As few bits are set there and most cells have the colour of the background, the cells
must also correlate after their mean colour is subtracted.
"""

import collections
import functools
import operator

import numpy as np

from zodiac.data.entry import SKETCH_BYTES

CELLS = 9  # per side; times three colours: SKETCH_BYTES
BITS = 2 * (CELLS - 1) ** 2
MAX_DISTANCE = 12  # bits; with the next two chosen by looking at pairs in CIFAR-10, Natural Images and flowers
MIN_CORRELATION = 0.97
MIN_PATTERN = 0.95  # correlation after subtracting the mean colour
MIN_STEP = 0.05  # of the range of brightness in the image: a smaller difference between cells counts as none
LEAST_STEP = 10  # lower bound of the step, in sevenths of a grey level
MIN_CONTRAST = 12  # between the darkest and the brightest cell, of 255: blank images are not compared
SAMPLES = 128  # most pixels per side that are averaged, so that large images cost little more than small ones
BANDS = 10  # of the hash; with more, ten times as many pairs are compared to find 1 % more
CROWD = 1000  # most known images that are compared per band: where all are alike, one of them is found anyway
BLOCK = 1 << 16  # pairs compared at once
HASHED = 1 << 12  # sketches hashed at once


def sample(pixels):
    """The pixels that `sketches` averages, of uint8 [H, W, 3]: all, or every n-th so that no side is longer than SAMPLES."""
    height, width = pixels.shape[:2]
    if height <= SAMPLES and width <= SAMPLES:
        return pixels
    return pixels[:: -(-height // SAMPLES), :: -(-width // SAMPLES)].copy()


def sketches(samples):
    """The mean colours of the cells of each sample, row by row: a list of SKETCH_BYTES bytes each. Equal sizes are computed together."""
    by_size = collections.defaultdict(list)
    for number, pixels in enumerate(samples):
        by_size[pixels.shape].append(number)
    made = [b''] * len(samples)
    for (height, width, _), numbers in by_size.items():
        pixels = np.stack([samples[number] for number in numbers]).reshape(len(numbers), height, width * 3)
        cells = _weights(height) @ pixels.astype(np.float32) @ _colour_weights(width)
        for number, colours in zip(numbers, (cells + 0.5).astype(np.uint8)):
            made[number] = colours.tobytes()
    return made


@functools.cache
def _weights(length):
    """float32 [CELLS, length]: the weight of each pixel of a line in the mean of each cell."""
    edges, pixel = np.linspace(0, length, CELLS + 1)[:, None], np.arange(length)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return (np.maximum(covered, 0) * CELLS / length).astype(np.float32)


@functools.cache
def _colour_weights(length):
    """The same for a line of red, green, blue, red, ...: float32 [3 * length, 3 * CELLS]."""
    return np.kron(_weights(length).T, np.eye(3, dtype=np.float32))


def of_training(splits):
    """The valid and test images that look like a training image, each with the nearest one, in order of distance.

    Args:
        splits: {split: entries}.
    Returns: list of dicts as in annotation.json.
    """
    training = splits['train']
    others = splits['test'] if splits['valid'] is splits['test'] else splits['valid'] + splits['test']
    nearest, distance = find(*([entry.fingerprint for entry in part] for part in (training, others)))
    pairs = [
        {
            'distance': int(bits),
            'path': entry.path,
            'split': entry.split,
            'class': entry.label,
            'train_path': training[number].path,
            'train_class': training[number].label,
        }
        for entry, number, bits in zip(others, nearest, distance)
        if number >= 0
    ]
    return sorted(pairs, key=operator.itemgetter('distance'))


def find(known, images):
    """For each image, the one of `known` that looks the same and has the nearest hash.

    Args:
        known, images: lists of bytes that end with the sketch of an image.
    Returns: int64 [images], its number in `known`, or -1; int64 [images], the number of bits in which the hashes differ.

    Only images whose hashes agree in one of BANDS bands of bits are compared. That includes all that differ in fewer bits than there are
    bands, and nearly all that differ in MAX_DISTANCE bits (99.4 % if the bits are independent). Images that are first compared in band
    k differ in at least k bits, so the search ends for an image that has a nearer match.
    """
    nearest, distance = np.full(len(images), -1), np.full(len(images), MAX_DISTANCE + 1)
    (known_words, known_bands, known_numbers), (words, bands, numbers) = _hashes(known), _hashes(images)
    for band, (known_keys, keys) in enumerate(zip(known_bands, bands)):
        order = np.argsort(known_keys, kind='stable')
        first = np.searchsorted(known_keys[order], np.arange(keys.max(initial=0) + 2))
        count = np.minimum(first[keys + 1] - first[keys], CROWD) * (distance[numbers] > band)
        for block in _blocks(count):
            i = np.repeat(block, count[block])
            before = np.cumsum(count[block]) - count[block]
            j = order[np.arange(len(i)) + np.repeat(first[keys[block]] - before, count[block])]
            differing = sum(_bit_count(a[j] ^ b[i]) for a, b in zip(known_words, words)).astype(int)
            i, j = numbers[i], known_numbers[j]
            closer = differing < distance[i]
            i, j, differing = i[closer], j[closer], differing[closer]
            same = _alike(*(_cells([part[n] for n in at]) for part, at in ((known, j), (images, i))))
            i, j, differing = i[same], j[same], differing[same]
            best_last = np.argsort(-differing, kind='stable')
            nearest[i[best_last]], distance[i[best_last]] = j[best_last], differing[best_last]
    return nearest, distance


def _cells(fingerprints):
    return np.frombuffer(b''.join([fingerprint[-SKETCH_BYTES:] for fingerprint in fingerprints]), np.uint8).reshape(
        -1, CELLS, CELLS, 3
    )


def _hashes(fingerprints):
    """Of the M images with enough contrast: hashes, uint64 [2, M]; their bands, int16 [BANDS, M]; the images' numbers, int64 [M]."""
    words = np.empty((2, len(fingerprints)), np.uint64)
    bands = np.empty((BANDS, len(fingerprints)), np.int16)
    numbers = np.empty(len(fingerprints), np.int64)
    done = 0
    for start in range(0, len(fingerprints), HASHED):
        bits, of_block = _hash(_cells(fingerprints[start : start + HASHED]))
        part = slice(done, done + len(bits))
        words[:, part] = np.packbits(bits, axis=1).view(np.uint64).T
        bands[:, part] = [_key(bits, band) for band in range(BANDS)]
        numbers[part] = of_block + start
        done = part.stop
    return words[:, :done], bands[:, :done], numbers[:done]


def _hash(cells):
    """bool [M, BITS] of the M images that have contrast, and int64 [M], their numbers."""
    brightness = cells.astype(np.int16) @ np.array([2, 4, 1], np.int16)  # near to luma, and exact
    contrast = np.ptp(brightness, (1, 2))
    numbers = np.flatnonzero(contrast >= 7 * MIN_CONTRAST)
    brightness, contrast = brightness[numbers], contrast[numbers]
    limit = brightness[:, :-1, :-1] + np.maximum(contrast * MIN_STEP, LEAST_STEP).astype(np.int16)[:, None, None]
    to_right = limit < brightness[:, :-1, 1:]
    below = limit < brightness[:, 1:, :-1]
    return np.concatenate([to_right, below], 1).reshape(-1, BITS), numbers


def _key(bits, band):
    """The bits of a band, every BANDS-th of all, as int16 [M]: bits that are far apart are the least dependent."""
    bits = bits[:, band::BANDS]
    return bits @ (1 << np.arange(bits.shape[1], dtype=np.int16))


def _blocks(count):
    """The indices of `count` in parts of about BLOCK pairs each."""
    ends = np.cumsum(count)
    return np.split(np.arange(len(count)), np.searchsorted(ends, np.arange(BLOCK, ends.max(initial=0), BLOCK)))


def _bit_count(words):
    """The number of bits set in each of uint64 [N] (H. Warren, Hacker's Delight, section 5-1)."""
    words = words - (words >> 1 & 0x5555555555555555)
    words = (words & 0x3333333333333333) + (words >> 2 & 0x3333333333333333)
    words = words + (words >> 4) & 0x0F0F0F0F0F0F0F0F
    return words * 0x0101010101010101 >> 56


def _alike(first, second):
    """Whether the colours of each pair correlate, bool [N]; `first`, `second`: uint8 [N, CELLS, CELLS, 3]."""
    same = _correlation(first, second) >= MIN_CORRELATION
    patterns = (part[same] - part[same].mean((1, 2), keepdims=True) for part in (first, second))
    same[same] = _correlation(*patterns) >= MIN_PATTERN
    return same


def _correlation(first, second):
    """Pearson's correlation of each pair, float32 [N]; `first`, `second`: [N, CELLS, CELLS, 3]."""
    first, second = (part.reshape(len(part), 3 * CELLS**2).astype(np.float32) for part in (first, second))
    first, second = (part - part.mean(1, keepdims=True) for part in (first, second))
    return _dot(first, second) / np.sqrt(_dot(first, first) * _dot(second, second))


def _dot(first, second):
    return np.einsum('ij,ij->i', first, second)
