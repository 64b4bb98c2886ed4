"""Transforms from an RGB image to the input array of the network.

The evaluation transform is plain data, a list of dicts `{'op': name, **parameters}`, and is stored with the exported model in
inference.yaml. The training transform has random operations (augment.py) before the same normalisation.
"""

import functools

import numpy as np
from PIL import Image

from zodiac.base.errors import UserError, one_line
from zodiac.images import decoding

INTERPOLATIONS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


def center_part(shape, size, resize):
    """The part of (width, height) that a centre crop of `size` x `size` shows after the short side is scaled to `resize` pixels:
    (left, top, right, bottom)."""
    short = min(shape)
    width, height = resize * shape[0] // short, resize * shape[1] // short
    left, top = round((width - size) / 2), round((height - size) / 2)
    x, y = shape[0] / width, shape[1] / height
    return left * x, top * y, min((left + size) * x, shape[0]), min((top + size) * y, shape[1])


def whole(shape, size):
    """All of (width, height)."""
    return 0, 0, *shape


def scale(image, part, size, interpolation='bilinear'):
    """Scale a part of an image, (left, top, right, bottom), to `size` x `size`; the aspect ratio is not kept."""
    if image.size == (size, size) and tuple(part) == (0, 0, size, size):
        return image
    return image.resize((size, size), INTERPOLATIONS[interpolation], box=part)


def pad(image, size, fill, interpolation='bilinear'):
    """Scale the long side to `size` and centre the image on a square of the colour `fill`, three numbers from 0 to 255."""
    sides = [max(1, round(side * size / max(image.size))) for side in image.size]
    result = Image.new('RGB', (size, size), tuple(fill))
    result.paste(image.resize(sides, INTERPOLATIONS[interpolation]), tuple((size - side) // 2 for side in sides))
    return result


def shrink(image, short):
    """Scale the short side down to `short` pixels if it is longer."""
    if min(image.size) <= short:
        return image
    size = [max(short, round(side * short / min(image.size))) for side in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)


def normalize(pixels, mean, std):
    """(value / 255 - mean) / std per channel.

    Args:
        pixels: PIL image, or an array [..., height, width, 3].
    Returns: float32 [..., 3, height, width].
    """
    pixels, (factor, shift) = np.asarray(pixels), normal_factors(mean, std)
    *batch, height, width, channels = pixels.shape
    result = np.empty((*batch, channels, height, width), np.float32)
    for channel in range(channels):  # contiguous planes are twice as fast as one operation with strides
        plane = result[..., channel, :, :]
        np.multiply(np.ascontiguousarray(pixels[..., channel]), factor[channel], out=plane, dtype=np.float32)
        plane -= shift[channel]
    return result


def normal_factors(mean, std):
    """(factor, shift), float32 [3] each: normalised = value * factor - shift, for values of 0 to 255."""
    mean, std = (np.broadcast_to(np.asarray(numbers, np.float32), 3) for numbers in (mean, std))
    return 1 / (255 * std), mean / std


def denormalize(image, mean, std):
    """The inverse of `normalize`: float32 [3, height, width] -> uint8 [height, width, 3]."""
    return ((image.transpose(1, 2, 0) * std + mean) * 255).round().clip(0, 255).astype(np.uint8)


OPS = {'normalize': normalize, 'shrink': shrink, 'pad': pad}
PARTS = {'center_crop': center_part, 'resize': whole}  # operations that scale a part of an image
REDUCED = {'op': 'decode_reduced'}  # as the first step: a large JPEG may be decoded at a fraction of its size


def eval_transform(size, mean, std, resize='auto', reduced=False, fit='crop', interpolation='bilinear'):
    """The transform of evaluation, as data.

    Args:
        fit: 'crop' scales the short side to `resize` pixels ('auto': size / 0.875) and cuts the centre; 'squash', also spelled
            resize='squash', scales both sides to `size`; 'pad' scales the long side to `size` and adds borders of the mean colour.
    """
    if fit == 'squash' or resize == 'squash':
        first = {'op': 'resize', 'size': size}
    elif fit == 'pad':
        first = {'op': 'pad', 'size': size, 'fill': [round(255 * value) for value in mean]}
    else:
        first = {'op': 'center_crop', 'size': size, 'resize': round(size * 256 / 224) if resize == 'auto' else resize}
    if interpolation != 'bilinear':
        first['interpolation'] = interpolation
    return [*([REDUCED] if reduced else []), first, {'op': 'normalize', 'mean': list(mean), 'std': list(std)}]


def read(transform, source, rng=None, max_pixels=decoding.MAX_PIXELS):
    """Decode an image, a path or binary file, and run a transform on it; see `apply`. Raises ImageError."""
    if transform[0] != REDUCED:
        return apply(transform, decoding.decode(source, max_pixels), rng)
    _, first, *rest = transform
    if hasattr(first, 'part'):
        size, least, choose = first.size, first.enough * first.size, functools.partial(first.part, rng=rng)
    elif not callable(first) and first['op'] in PARTS:
        size = least = first['size']
        choose = functools.partial(PARTS[first['op']], **_part_settings(first))
    elif not callable(first) and first['op'] == 'shrink':
        image, _ = decoding.decode_part(source, lambda shape: (0, 0, *shape), first['short'], max_pixels)
        return apply(transform, image, rng)
    else:
        return apply(transform, decoding.decode(source, max_pixels), rng)
    image, part = decoding.decode_part(source, choose, least, max_pixels)
    interpolation = first.interpolation if hasattr(first, 'part') else first.get('interpolation', 'bilinear')
    return apply(rest, scale(image, part, size, interpolation), rng)


def apply(transform, image, rng=None):
    """Run a transform on an RGB image.

    Args:
        transform: list of dicts as above, or of callables (image, rng) -> image.
        image: PIL image; for a normalisation alone also pixels, uint8 [..., height, width, 3].
        rng: numpy Generator for the callables; not used by an evaluation transform.
    Returns: contiguous float32 array [3, size, size]; without a normalisation the pixels, uint8 [size, size, 3].
    """
    for step in transform:
        if callable(step):
            image = step(image, rng)
        elif step['op'] in PARTS:
            part = PARTS[step['op']](image.size, **_part_settings(step))
            image = scale(image, part, step['size'], step.get('interpolation', 'bilinear'))
        elif step != REDUCED:
            image = OPS[step['op']](image, **_settings(step))
    return np.asarray(image)


def _settings(step):
    return {key: value for key, value in step.items() if key != 'op'}


def _part_settings(step):
    return {key: value for key, value in step.items() if key not in ('op', 'interpolation')}


def check(transform, where, shape=None):
    """Raise UserError unless `transform` works on an image and gives an array, of this shape if one is given.

    Args:
        where: the file that it was read from, for the message.
    """
    try:
        if not transform:
            raise ValueError('it is empty')
        with np.errstate(all='ignore'):
            result = apply(transform, Image.new('RGB', (32, 24)), np.random.default_rng(0))
        if result.dtype not in (np.float32, np.uint8) or result.ndim != 3 or not np.isfinite(result).all():
            raise ValueError('the result is not an image')
        if shape and list(result.shape) != list(shape):
            raise ValueError(f'it gives {list(result.shape)}, the network takes {list(shape)}')
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise UserError(f'{where}: the transform cannot be used ({one_line(error)}); export the model again') from None
