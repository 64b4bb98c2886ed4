"""Transforms from an RGB image to the array that the network sees.

The transform of evaluation is plain data, a list of dicts `{'op': name, **parameters}`: it travels with the exported model
in inference.yaml. That of training has random operations (augment.py) in front of the same normalisation.
"""

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


def resize(image, rng, size):
    """Scale to `size` x `size`; the aspect ratio is not kept."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def normalize(image, rng, mean, std):
    """(value / 255 - mean) / std of each channel. Returns float32 [height, width, 3]."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return np.asarray(image, np.float32) * (1 / (255 * std)) - mean / std


def denormalize(image, mean, std):
    """Back from what the network sees, float32 [3, height, width], to a picture, uint8 [height, width, 3]."""
    return ((image.transpose(1, 2, 0) * std + mean) * 255).round().clip(0, 255).astype(np.uint8)


OPS = {'center_crop': center_crop, 'resize': resize, 'normalize': normalize}


def eval_transform(size, mean, std, resize='auto'):
    """The transform of evaluation, as data: short side to `resize` pixels ('auto': size * 256 / 224) and centre crop, or,
    where `resize` is 'squash', both sides to `size`; then normalisation."""
    if resize == 'squash':
        first = {'op': 'resize', 'size': size}
    else:
        first = {'op': 'center_crop', 'size': size, 'resize': round(size * 256 / 224) if resize == 'auto' else resize}
    return [first, {'op': 'normalize', 'mean': list(mean), 'std': list(std)}]


def apply(transform, image, rng=None):
    """Run a transform on an RGB PIL image.

    Args:
        transform: list of dicts as above, or of callables (image, rng) -> image.
        rng: numpy Generator for the callables; not used by an eval transform.
    Returns: float32 array [3, size, size], contiguous; where nothing normalises the image, its pixels, uint8 [size, size, 3].
    """
    for step in transform:
        if callable(step):
            image = step(image, rng)
        else:
            image = OPS[step['op']](image, rng, **{key: value for key, value in step.items() if key != 'op'})
    return np.asarray(image) if isinstance(image, Image.Image) else np.ascontiguousarray(image.transpose(2, 0, 1))


def check(transform, where):
    """Raise UserError unless `transform`, read from the file `where`, runs on an image."""
    try:
        if not transform:
            raise ValueError('it is empty')
        with np.errstate(all='ignore'):
            result = apply(transform, Image.new('RGB', (32, 24)), np.random.default_rng(0))
        if result.dtype not in (np.float32, np.uint8) or result.ndim != 3 or not np.isfinite(result).all():
            raise ValueError('it gives no image')
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise UserError(f'{where}: the transform cannot be used ({one_line(error)}); export the model again') from None
