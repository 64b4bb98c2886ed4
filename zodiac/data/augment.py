"""Random augmentation of training images: dataclasses whose fields are the settings, called with (image, rng).

A configuration lists them by name, in order:

    augment:
      - random_crop: {padding: 4, mode: reflect}
      - horizontal_flip
"""

import math
from dataclasses import dataclass
from typing import List, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from zodiac.base import schema
from zodiac.base.errors import UsageError
from zodiac.base.schema import setting
from zodiac.images import transforms

Fill = Literal['reflect', 'edge', 'grey']
GREY = (124, 116, 104)  # the mean of ImageNet, which normalisation maps to zero


@dataclass
class Resize:
    """Scale to size x size; the aspect ratio is not kept."""

    size: int = 0
    interpolation: str = 'bilinear'
    enough = 1.0  # reduced decoding must leave this share of `size` per side

    def part(self, shape, rng):
        return transforms.whole(shape, self.size)

    def __call__(self, image, rng):
        return transforms.scale(image, self.part(image.size, rng), self.size, self.interpolation)


@dataclass
class RandomResizedCrop:
    """Crop a random part (share of the area in `scale`, width / height in `ratio`) and scale it to size x size.

    The "Inception" crop of Szegedy et al. 2015, as in paddle.vision.transforms.RandomResizedCrop.
    """

    size: int = 0
    interpolation: str = 'bilinear'
    scale: List[float] = setting([0.08, 1.0], above=0, high=1)
    ratio: List[float] = setting([0.75, 4 / 3], above=0)
    enough = 0.75  # see Resize; less, as it is scaled up as often as down

    def part(self, shape, rng):
        """A random (left, top, right, bottom) of an image of this (width, height)."""
        width, height = shape
        low, high = self.ratio
        for _ in range(10):
            w, h = _random_sides(rng, width * height, self.scale, self.ratio)
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                break
        else:  # a very long image: the largest centred part with an allowed aspect ratio
            w, h = min(width, max(1, round(height * high))), min(height, max(1, round(width / low)))
            left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def __call__(self, image, rng):
        return transforms.scale(image, self.part(image.size, rng), self.size, self.interpolation)


@dataclass
class RandomCrop:
    """Scale the short side up to `size` if it is smaller, pad all sides, crop size x size at a random place."""

    size: int = 0
    padding: int = setting(4, low=0, high=4096)
    mode: Fill = 'reflect'

    def __call__(self, image, rng):
        size, pad = self.size, self.padding
        factor = max(1, size / min(image.size))
        width, height = (max(size, round(side * factor)) for side in image.size)
        top = int(rng.integers(height + 2 * pad - size + 1)) - pad
        left = int(rng.integers(width + 2 * pad - size + 1)) - pad
        # Scale and pad only what the crop can show: itself, and what is mirrored into it.
        reach = size + 2 * pad
        x, y = max(0, left - reach), max(0, top - reach)
        right, bottom = min(width, left + size + reach), min(height, top + size + reach)
        if (right - x, bottom - y) != image.size or factor != 1:
            across, down = image.width / width, image.height / height
            box = (x * across, y * down, min(right * across, image.width), min(bottom * down, image.height))
            image = image.resize((right - x, bottom - y), BILINEAR, box=box)
        top, left = top - y + pad, left - x + pad
        return Image.fromarray(_pad(image, pad, self.mode)[top : top + size, left : left + size])


@dataclass
class HorizontalFlip:
    """Mirror left and right with probability `p`."""

    p: float = setting(0.5, low=0, high=1)

    def __call__(self, image, rng):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < self.p else image


@dataclass
class VerticalFlip:
    """Mirror top and bottom with probability `p`."""

    p: float = setting(0.5, low=0, high=1)

    def __call__(self, image, rng):
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if rng.random() < self.p else image


@dataclass
class Affine:
    """Rotate by up to ±`rotation` degrees, shear by up to ±`shear` radians, divide width and height by 1 ± `zoom` each.

    One resampling for all three, around the centre. The matrix is that of Keras' ImageDataGenerator in coordinates (x, y), whose shear
    is in degrees. Put it after crops and resizes: its time grows with the size of the image.
    """

    rotation: float = setting(0.0, low=0, high=180)
    shear: float = setting(0.0, low=0, high=1)
    zoom: float = setting(0.0, low=0, high=0.9)
    fill: Fill = 'edge'

    def __call__(self, image, rng):
        turn = math.radians(rng.uniform(-self.rotation, self.rotation))
        lean = rng.uniform(-self.shear, self.shear)
        zoom_x, zoom_y = rng.uniform(1 - self.zoom, 1 + self.zoom, 2)
        shear = np.array([[1, -math.sin(lean)], [0, math.cos(lean)]])
        return _warp(image, _rotation(turn) @ shear @ np.diag([zoom_x, zoom_y]), fill=self.fill)


@dataclass
class RandAugment:
    """Apply `ops` operations drawn from 14, all at one magnitude of 0 to 10 (Cubuk et al. 2020, "RandAugment")."""

    ops: int = setting(2, low=1, high=14)
    magnitude: float = setting(9.0, low=0, high=10)
    fill: Fill = 'grey'

    def __call__(self, image, rng):
        for number in rng.integers(len(RAND_AUGMENT), size=self.ops):
            sign = 1 if rng.random() < 0.5 else -1
            image = RAND_AUGMENT[number](image, self.magnitude / 10, sign, self.fill)
        return image


@dataclass
class RandomErasing:
    """With probability `p` fill a rectangle (share of the area in `scale`, width / height in `ratio`) at a random place.

    Zhong et al. 2020, "Random Erasing". With p 1, a fixed scale, ratio [1, 1] and `inside` false, which lets the rectangle reach over
    the edge, it is DeVries and Taylor's Cutout.
    """

    p: float = setting(0.5, low=0, high=1)
    scale: List[float] = setting([0.02, 0.33], above=0, high=1)
    ratio: List[float] = setting([0.3, 3.3], above=0)
    inside: bool = True
    fill: Literal['grey', 'noise'] = 'grey'

    def __call__(self, image, rng):
        if rng.random() >= self.p:
            return image
        width, height = image.size
        for _ in range(10):
            w, h = (max(1, side) for side in _random_sides(rng, width * height, self.scale, self.ratio))
            if not self.inside or (w <= width and h <= height):
                break
        else:
            return image
        if self.inside:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        else:
            left, top = int(rng.integers(width)) - w // 2, int(rng.integers(height)) - h // 2
        pixels = np.array(image)
        hole = pixels[max(0, top) : max(0, top + h), max(0, left) : max(0, left + w)]
        hole[...] = GREY if self.fill == 'grey' else rng.integers(256, size=hole.shape)
        return Image.fromarray(pixels)


BILINEAR = Image.Resampling.BILINEAR
OPS = {
    'resize': Resize,
    'random_resized_crop': RandomResizedCrop,
    'random_crop': RandomCrop,
    'horizontal_flip': HorizontalFlip,
    'vertical_flip': VerticalFlip,
    'affine': Affine,
    'rand_augment': RandAugment,
    'random_erasing': RandomErasing,
}


def build(items, size, interpolation='bilinear'):
    """Operations from a configuration's list: a name, or {name: {setting: value}}.

    Args:
        size: pixels per side of the resulting image, for the crops and resizes.
    Returns: list of callables (PIL RGB image, numpy Generator) -> PIL RGB image.
    Raises: UsageError naming the item and the valid choices.
    """
    result = []
    for number, item in enumerate(items):
        where = f'augment, item {number + 1}'
        name, values = schema.item(item)
        if name not in OPS:
            raise UsageError(
                f'{where}: {item!r}: write a name or {{name: {{setting: value}}}}, names: {", ".join(OPS)}'
            )
        result.append(
            schema.build(OPS[name], values, f'{where}: {name}', fixed={'size': size, 'interpolation': interpolation})
        )
        for field in ('scale', 'ratio'):
            pair = getattr(result[-1], field, [0, 0])
            if len(pair) != 2 or pair[0] > pair[1]:
                raise UsageError(f'{where}: {name}: {field} = {pair}: must be two numbers, the smaller first')
    if not any(hasattr(op, 'size') for op in result):
        raise UsageError(
            f'augment: no operation gives images of image.size ({size}); add resize, random_crop or random_resized_crop (resize does not '
            'change images of that size)'
        )
    return result


def _random_sides(rng, area, scale, ratio):
    """Width and height of a rectangle of a random share of `area`, its aspect ratio log-uniform within `ratio`."""
    area = area * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def _pad(image, margin, fill):
    """uint8 [height + 2 margin, width + 2 margin, 3]."""
    if fill == 'grey':
        return np.asarray(ImageOps.expand(image, margin, GREY))
    return np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode=fill)


def _rotation(angle):
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _warp(image, matrix, shift=(0, 0), fill='grey'):
    """Resample: the pixel at p is taken from matrix @ p + shift of the image, both relative to the centre."""
    corner = np.array([image.width, image.height]) / 2
    reach = np.abs(matrix) @ corner + np.abs(shift)
    margin = max(0, math.ceil((reach - corner).max()) + 1)
    padded = Image.fromarray(_pad(image, margin, fill)) if margin else image
    offset = corner + margin + shift - matrix @ corner
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return padded.transform(image.size, Image.Transform.AFFINE, coefficients, BILINEAR)


def _turn(image, strength, sign, fill):
    return _warp(image, _rotation(math.radians(30 * strength * sign)), fill=fill)


def _shear(axis):
    matrix = np.array([[[0, 1], [0, 0]], [[0, 0], [1, 0]]])[axis]
    return lambda image, strength, sign, fill: _warp(image, np.eye(2) + 0.3 * strength * sign * matrix, fill=fill)


def _translate(axis):
    unit = np.eye(2)[axis]
    return lambda image, strength, sign, fill: _warp(
        image, np.eye(2), unit * 0.3 * strength * sign * image.size[axis], fill=fill
    )


def _enhance(kind):
    return lambda image, strength, sign, fill: kind(image).enhance(1 + 0.9 * strength * sign)


RAND_AUGMENT = (
    lambda image, strength, sign, fill: image,
    lambda image, strength, sign, fill: ImageOps.autocontrast(image),
    lambda image, strength, sign, fill: ImageOps.equalize(image),
    lambda image, strength, sign, fill: ImageOps.solarize(image, round(256 * (1 - strength))),
    lambda image, strength, sign, fill: ImageOps.posterize(image, 8 - round(4 * strength)),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _turn,
    _shear(0),
    _shear(1),
    _translate(0),
    _translate(1),
)
