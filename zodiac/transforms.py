"""Transforms from an RGB image to the array that the network sees, as plain data.

A transform is a list of dicts, `{'op': name, **parameters}`. It is the same object in training, evaluation and export,
and travels with the exported model in inference.yaml.
"""

import math

import numpy as np
from PIL import Image

from zodiac.errors import UserError, one_line


def center_crop(image, rng, size, resize):
    """Scale the short side to `resize` pixels, then cut `size` x `size` from the middle."""
    short = min(image.size)
    width, height = resize * image.width // short, resize * image.height // short
    left, top = round((width - size) / 2), round((height - size) / 2)
    x, y = image.width / width, image.height / height
    right, bottom = min((left + size) * x, image.width), min((top + size) * y, image.height)
    box = (left * x, top * y, right, bottom)  # only what is kept gets scaled
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def random_resized_crop(image, rng, size, scale, ratio):
    """Cut a random part (share of the area in `scale`, width / height in `ratio`) and scale it to `size` x `size`.

    The "Inception" crop of Szegedy et al. 2015, as in paddle.vision.transforms.RandomResizedCrop.
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            break
    else:  # a very long image: the largest centred part with an allowed aspect
        w, h = min(width, max(1, round(height * ratio[1]))), min(height, max(1, round(width / ratio[0])))
        left, top = (width - w) // 2, (height - h) // 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))


def horizontal_flip(image, rng, p):
    """Mirror left and right with probability `p`."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < p else image


def normalize(image, rng, mean, std):
    """(value / 255 - mean) / std of each channel. Returns float32 [height, width, 3]."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return np.asarray(image, np.float32) * (1 / (255 * std)) - mean / std


OPS = {
    'center_crop': center_crop,
    'random_resized_crop': random_resized_crop,
    'horizontal_flip': horizontal_flip,
    'normalize': normalize,
}


def train_transform(size, mean, std, scale, ratio, flip):
    """RandomResizedCrop, horizontal flip, normalisation, as data."""
    return [
        {'op': 'random_resized_crop', 'size': size, 'scale': list(scale), 'ratio': list(ratio)},
        {'op': 'horizontal_flip', 'p': flip},
        {'op': 'normalize', 'mean': list(mean), 'std': list(std)},
    ]


def eval_transform(size, mean, std, resize='auto'):
    """Resize the short side, centre crop, normalisation, as data. `resize` 'auto' is size * 256 / 224."""
    return [
        {'op': 'center_crop', 'size': size, 'resize': round(size * 256 / 224) if resize == 'auto' else resize},
        {'op': 'normalize', 'mean': list(mean), 'std': list(std)},
    ]


def apply(transform, image, rng=None):
    """Run a transform on an RGB PIL image.

    Args:
        rng: numpy Generator for the random ops; not used by an eval transform.
    Returns: float32 array [3, size, size], contiguous.
    """
    for step in transform:
        parameters = {key: value for key, value in step.items() if key != 'op'}
        image = OPS[step['op']](image, rng, **parameters)
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def check(transform, where):
    """Raise UserError unless `transform`, read from the file `where`, runs on an image."""
    try:
        with np.errstate(all='ignore'):
            result = apply(transform, Image.new('RGB', (32, 24)), np.random.default_rng(0))
        if result.dtype != np.float32 or result.ndim != 3 or not np.isfinite(result).all():
            raise ValueError('it gives no float32 image')
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise UserError(f'{where}: the transform cannot be used ({one_line(error)}); export the model again') from None
