"""Images that look the same though their pixels differ: saved again or scaled nearly always, somewhat brightened or cut by a little
mostly. Mirrored, turned and framed ones are not found, nor is one in grey beside one in colour.

An image is reduced to a sketch, the mean colours of 9 x 9 cells. Two look the same when their difference hashes differ in no more
than MAX_DISTANCE bits (dHash: N. Krawetz, "Kind of Like That", hackerfactor.com, 2013; a bit says whether a cell is darker than the
next one; along rows and columns, as in B. Hoyt's package dhash), and when the colours of the cells correlate too, for an orange has
the hash of an apple. Darker is what differs by a step that saving and scaling do not make: on a plain background the bits would be
chance otherwise. There they tell little, and so does the colour of the background: what is on it must correlate as well.
"""

import collections
import functools

import numpy as np

from zodiac.data.file_facts import SKETCH_BYTES

CELLS = 9  # a side; each has three colours, which makes SKETCH_BYTES
BITS = 2 * (CELLS - 1) ** 2
MAX_DISTANCE = 12  # bits; chosen, like the next, by looking at what is found in CIFAR-10, Natural Images and flowers
MIN_CORRELATION = 0.97
MIN_PATTERN = 0.95  # correlation without the mean colour, which is all of a plain background
MIN_STEP = 0.05  # of the range of brightness in the picture; a cell darker by less counts as no darker than the next
LEAST_STEP = 10  # the same in sevenths of a grey level
MIN_CONTRAST = 12  # between the darkest and the brightest cell, of 255; blank images all look the same
SAMPLES = 128  # pixels a side that are averaged at most, so that large images cost little more than small ones
BANDS = 10  # of the hash: more would compare ten times as many pairs for a hundredth of the finds
CROWD = 1000  # known images in a band that are compared at most: where all are alike, one of them is found anyway
BLOCK = 1 << 16  # pairs compared at a time
HASHED = 1 << 12  # sketches hashed at a time


def sample(pixels):
    """What `sketches` needs of uint8 [H, W, 3]: itself, or of a large image every n-th pixel, so that no side is above SAMPLES."""
    height, width = pixels.shape[:2]
    if height <= SAMPLES and width <= SAMPLES:
        return pixels
    return pixels[:: -(-height // SAMPLES), :: -(-width // SAMPLES)].copy()


def sketches(samples):
    """The mean colours of the cells of each sample: a list of CELLS * CELLS * 3 bytes, row by row. Those of a size are made together."""
    by_size = collections.defaultdict(list)
    for number, pixels in enumerate(samples):
        by_size[pixels.shape].append(number)
    made = [b''] * len(samples)
    for (height, width, _), numbers in by_size.items():
        pixels = np.stack([samples[number] for number in numbers]).reshape(len(numbers), height, width * 3)
        cells = _shares(height) @ pixels.astype(np.float32) @ _shares_of_colours(width)  # too small for threads of BLAS
        for number, colours in zip(numbers, (cells + 0.5).astype(np.uint8)):
            made[number] = colours.tobytes()
    return made


@functools.cache
def _shares(length):
    """float32 [CELLS, length]: how much each pixel of a line counts in the mean of each cell."""
    edges, pixel = np.linspace(0, length, CELLS + 1)[:, None], np.arange(length)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return (np.maximum(covered, 0) * CELLS / length).astype(np.float32)


@functools.cache
def _shares_of_colours(length):
    """The same for a line of red, green, blue, red, ...: float32 [3 * length, 3 * CELLS]."""
    return np.kron(_shares(length).T, np.eye(3, dtype=np.float32))


def find(known, images):
    """For each image the one of `known` that looks the same and has the nearest hash.

    Args:
        known, images: lists of bytes that end with the sketch of an image.
    Returns: int64 [images], its number in `known`, or -1; int64 [images], the bits in which the hashes differ.

    Only images whose hashes agree in one of BANDS bands of bits are compared. Hashes that differ in fewer bits than there are bands do,
    and those that differ in MAX_DISTANCE bits all but surely (where the bits are independent, 99.4 %). Images that are first compared
    for the band of number k differ in at least k bits, so that whoever has found a nearer one is done.
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


def _cells(pictures):
    return np.frombuffer(b''.join([picture[-SKETCH_BYTES:] for picture in pictures]), np.uint8).reshape(
        -1, CELLS, CELLS, 3
    )


def _hashes(pictures):
    """Of the M pictures that have contrast: the hashes, uint64 [2, M]; the bands of these, int16 [BANDS, M]; their numbers, int64 [M]."""
    words = np.empty((2, len(pictures)), np.uint64)
    bands = np.empty((BANDS, len(pictures)), np.int16)
    numbers = np.empty(len(pictures), np.int64)
    done = 0
    for start in range(0, len(pictures), HASHED):
        bits, of_block = _hash(_cells(pictures[start : start + HASHED]))
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
    """The bits of a band, every BANDS-th of all, as int16 [M]. Bits far apart depend on each other the least."""
    bits = bits[:, band::BANDS]
    return bits @ (1 << np.arange(bits.shape[1], dtype=np.int16))


def _blocks(count):
    """The numbers of `count` in parts that hold BLOCK pairs each, or a little more."""
    ends = np.cumsum(count)
    return np.split(np.arange(len(count)), np.searchsorted(ends, np.arange(BLOCK, ends.max(initial=0), BLOCK)))


def _bit_count(words):
    """How many bits are set in each of uint64 [N] (H. Warren, Hacker's Delight, section 5-1)."""
    words = words - (words >> 1 & 0x5555555555555555)
    words = (words & 0x3333333333333333) + (words >> 2 & 0x3333333333333333)
    words = words + (words >> 4) & 0x0F0F0F0F0F0F0F0F
    return words * 0x0101010101010101 >> 56


def _alike(first, second):
    """Whether the colours of each of uint8 [N, CELLS, CELLS, 3] correlate with those of its partner, bool [N]."""
    same = _correlation(first, second) >= MIN_CORRELATION
    patterns = (part[same] - part[same].mean((1, 2), keepdims=True) for part in (first, second))
    same[same] = _correlation(*patterns) >= MIN_PATTERN
    return same


def _correlation(first, second):
    """Pearson's correlation of each of [N, CELLS, CELLS, 3] with its partner, float32 [N]."""
    first, second = (part.reshape(len(part), 3 * CELLS**2).astype(np.float32) for part in (first, second))
    first, second = (part - part.mean(1, keepdims=True) for part in (first, second))
    return _dot(first, second) / np.sqrt(_dot(first, first) * _dot(second, second))


def _dot(first, second):
    return np.einsum('ij,ij->i', first, second)
