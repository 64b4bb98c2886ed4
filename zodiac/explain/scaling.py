"""Resize a part of an image as other libraries do, with NumPy alone: OpenCV's filters do not average when they shrink an image."""

import numpy as np
from PIL import Image

PILLOW = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'box': Image.Resampling.BOX,
    'hamming': Image.Resampling.HAMMING,
    'lanczos': Image.Resampling.LANCZOS,
}


def linear(x):
    return np.maximum(0, 1 - np.abs(x))


def cubic(x, a=-0.75):
    """Keys' kernel with OpenCV's a; Pillow has -0.5."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def lanczos4(x):
    return np.where(np.abs(x) < 4, np.sinc(x) * np.sinc(x / 4), 0)


KERNELS = {'cv linear': (linear, 1), 'cv cubic': (cubic, 2), 'cv lanczos': (lanczos4, 4)}  # and the taps on each side
FILTERS = [*PILLOW, 'cv nearest', *KERNELS, 'cv area']


def scale(image, part, sides, name):
    """A part of an image in other sides.

    Args:
        image: PIL image, RGB.
        part: (left, top, right, bottom) in its pixels, fractions allowed.
        sides: (width, height) of the result.
        name: one of FILTERS.
    Returns: PIL image.
    """
    if name in PILLOW:
        if image.size == tuple(sides) and tuple(part) == (0, 0, *sides):
            return image
        return image.resize(sides, PILLOW[name], box=part)
    left, top, right, bottom = part
    pixels = np.asarray(image)
    if name == 'cv area' and (bottom - top < sides[1] or right - left < sides[0]):
        name = 'cv enlarged area'
    rows = _taps(name, top, bottom, sides[1], image.height)
    columns = _taps(name, left, right, sides[0], image.width)
    result = _along(_along(pixels, rows).swapaxes(0, 1), columns).swapaxes(0, 1)
    return Image.fromarray(np.clip(np.rint(result), 0, 255).astype(np.uint8))


def _taps(name, start, stop, count, limit):
    """[(first, weights), ...]: the pixels of a row or column, and their weights, that each of `count` new pixels is made of."""
    step = (stop - start) / count
    if name == 'cv nearest':
        places = np.minimum(np.floor(start + np.arange(count) * step + 1e-9).astype(int), limit - 1)
        return [(place, np.ones(1, np.float32)) for place in places]
    if name == 'cv enlarged area':
        return [_two(number, start, step, limit) for number in range(count)]
    if name == 'cv area':
        return [_covered(start + number * step, start + (number + 1) * step, limit) for number in range(count)]
    kernel, reach = KERNELS[name]
    found = []
    for middle in start + (np.arange(count) + 0.5) * step - 0.5:
        first = int(np.floor(middle)) - reach + 1
        places = np.arange(first, first + 2 * reach)
        inside = np.clip(places, 0, limit - 1)  # the pixel at the edge is repeated
        weights = np.zeros(inside[-1] - inside[0] + 1)
        np.add.at(weights, inside - inside[0], kernel(places - middle))
        found.append((int(inside[0]), (weights / weights.sum()).astype(np.float32)))
    return found


def _covered(low, high, limit):
    """The pixels between two places, weighted by how much of each lies there."""
    first, last = int(np.floor(low + 1e-9)), min(limit, int(np.ceil(high - 1e-9)))
    edges = np.clip(np.arange(first, last + 1), low, high)
    weights = np.diff(edges)
    return first, (weights / weights.sum()).astype(np.float32)


def _two(number, start, step, limit):
    """The pixel at the start of a new one, and the share of the next: OpenCV's INTER_AREA where one of the sides grows."""
    place = start + number * step
    first = int(np.floor(place + 1e-9))
    share = max(0.0, 1 - (first + 1 - place) / step) % 1
    if first + 1 >= limit:
        return min(first, limit - 1), np.ones(1, np.float32)
    return first, np.array([1 - share, share], np.float32)


def _along(pixels, taps):
    """Weighted sums of rows: [height, width, 3] -> float32 [len(taps), width, 3]."""
    result = np.empty((len(taps), *pixels.shape[1:]), np.float32)
    for row, (first, weights) in zip(result, taps):
        row[...] = np.tensordot(weights, pixels[first : first + len(weights)].astype(np.float32), 1)
    return result
