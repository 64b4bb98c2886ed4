"""A program that runs an exported model, as data: each field is a choice, from decoding the photo to the numbers that it reports."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
from PIL import Image

from zodiac.base.errors import UserError
from zodiac.explain import scaling
from zodiac.images import decoding, transforms

UNDONE = {  # the turns that are not their own inverse
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


LOOK = (True, 'ours', 'smooth')  # upright, modes and chroma of a Program that makes no mistake in them


@dataclass(frozen=True)
class Program:
    """`of_export` gives the program that does as the export says; mistakes.py changes fields of it."""

    frame: (
        Tuple  # ('crop', short side, how it is centred, rounded), ('squash', side, then cut to size) or ('pad', colour)
    )
    filter: str  # one of scaling.FILTERS
    numbers: Optional[
        Tuple
    ]  # (factor, shift) of each channel: value * factor - shift; None: pixels, for the export to normalise
    reduced: object  # False, 'ours' (see transforms.REDUCED), 'draft' (Pillow's draft mode), 2, 4 or 8
    upright: bool = True  # EXIF orientation is applied
    modes: str = (
        'ours'  # how other modes become RGB: 'ours', 'plain' (Pillow's convert) or 'black' behind transparent parts
    )
    chroma: str = 'smooth'  # how a JPEG decoder enlarges the colours: 'smooth' or 'blocks'
    order: str = 'RGB'
    layout: str = (
        'planes'  # 'reshaped': numbers of interleaved pixels taken for planes; 'turned': width and height swapped
    )
    mirror: bool = False  # logits averaged over the image and its mirror image
    precision: str = 'fp32'
    outputs: str = 'softmax'  # or 'logits', 'twice', 'sigmoid', 'log', 'percent'
    temperature: float = 1.0  # by which logits are multiplied
    labels: Optional[Tuple] = None  # number i is reported for the class `labels[i]`; None: i


def decoding_key(program):
    """What programs that decode a photo in the same way have in common, for sorting."""
    return program.upright, program.modes, program.chroma, str(program.reduced), str(program.frame), program.filter


def of_export(manifest, where):
    """The Program of an export. Raises UserError for a transform that is none of `transforms.eval_transform`."""
    steps = list(manifest['transform'])
    reduced = 'ours' if steps[0] == transforms.REDUCED else False
    steps = steps[1:] if reduced else steps
    first, last = steps[0], steps[-1]
    numbers = numbers_of(last['mean'], last['std']) if last['op'] == 'normalize' else None
    if first['op'] not in ('center_crop', 'resize', 'pad') or len(steps) != 1 + (numbers is not None):
        raise UserError(f'{where}: its transform is not one that this program knows; export the model again')
    frames = {
        'center_crop': lambda: ('crop', first['resize'], 'round', False),
        'resize': lambda: ('squash', first['size']),
        'pad': lambda: ('pad', tuple(first['fill'])),
    }
    return Program(frames[first['op']](), first.get('interpolation', 'bilinear'), numbers, reduced)


def numbers_of(mean, std, scale=1 / 255):
    """`Program.numbers` of (value * scale - mean) / std, with one number or three."""
    mean, std = (np.broadcast_to(np.asarray(values, np.float32), 3) for values in (mean, std))
    if scale == 1 / 255:
        factor, shift = transforms.normal_factors(mean, std)  # bit by bit as the export does it
    else:
        factor, shift = np.float32(scale) / std, mean / std
    return tuple(factor.tolist()), tuple(shift.tolist())


class Photo:
    """A photo, decoded and scaled in each way once."""

    def __init__(self, path, size):
        self.path, self.size = path, size
        decoding.decode(path)  # raises ImageError
        self.decoded = functools.lru_cache(maxsize=2)(self._decoded)  # each may have many megapixels
        self.pixels = functools.lru_cache(maxsize=None)(self._pixels)

    def framed(self, program):
        """What a program shows to the network: PIL image, RGB, size x size."""
        look = (program.upright, program.modes, program.chroma)
        return self.pixels(look, program.reduced, program.frame, program.filter)

    def rounded(self, program, rows_first):
        """As `framed` of a photo that is decoded in full, scaled in two steps, of which the first one rounds: PIL image.

        A frame that is not scaled in one step is returned as it is.
        """
        program, size = dataclasses.replace(program, reduced=False), self.size
        frame, name = program.frame, program.filter
        if frame[0] == 'pad' or not _is_whole(frame, size):
            return self.framed(program)
        image = self.decoded(*LOOK, False)
        left, top, right, bottom = part_of(frame, image.size, size)
        if rows_first:
            rows = scaling.scale(image, (0, top, image.width, bottom), (image.width, size), name)
            return scaling.scale(rows, (left, 0, right, size), (size, size), name)
        columns = scaling.scale(image, (left, 0, right, image.height), (size, image.height), name)
        return scaling.scale(columns, (0, top, size, bottom), (size, size), name)

    def _pixels(self, look, reduced, frame, name):
        if reduced == 'ours' and look == LOOK and frame[0] != 'pad' and _is_whole(frame, self.size):
            choose = functools.partial(part_of, frame, size=self.size)
            image, part = decoding.decode_part(self.path, choose, self.size)
            return scaling.scale(image, part, (self.size, self.size), name)
        image = self.decoded(*look, self._factor(frame) if reduced == 'ours' else reduced)
        if frame[0] == 'pad':
            return _padded(image, self.size, frame[1], name)
        if _is_whole(frame, self.size):
            return scaling.scale(image, part_of(frame, image.size, self.size), (self.size, self.size), name)
        squashed, edge = (
            scaling.scale(image, (0, 0, *image.size), (frame[1], frame[1]), name),
            (frame[1] - self.size) // 2,
        )
        return squashed.crop((edge, edge, edge + self.size, edge + self.size))

    def _factor(self, frame):
        """The part of its size at which `decoding.decode_part` decodes this photo: 8, 4, 2, or False for all of it."""
        if frame[0] == 'pad' or not _is_whole(frame, self.size):
            return False
        left, top, right, bottom = part_of(frame, self.decoded(*LOOK, False).size, self.size)
        enough = min(right - left, bottom - top) / self.size
        return next((factor for factor in (8, 4, 2) if factor <= enough), False)

    def _decoded(self, upright, modes, chroma, reduced):
        with decoding.open_image(self.path) as image:
            is_jpeg = image.format == 'JPEG'
            if reduced and is_jpeg:
                sides = (self.size, self.size) if reduced == 'draft' else tuple(side // reduced for side in image.size)
                image.draft(image.mode, sides)
            if chroma == 'blocks' and is_jpeg and image.mode == 'RGB' and not reduced:
                image.draft('YCbCr', image.size)
            if modes == 'ours' and image.mode != 'YCbCr':
                upright_image, turned = decoding.to_rgb(image, self.path), decoding.turn(image)
                return (
                    upright_image if upright or turned is None else upright_image.transpose(UNDONE.get(turned, turned))
                )
            image.load()
            turned = decoding.turn(image)
            converted = _as_rgb[image.mode if image.mode == 'YCbCr' else modes](image)
            return converted.transpose(turned) if upright and turned is not None else converted


def _is_whole(frame, size):
    """Whether a frame is scaled in one step: a stretched photo may be cut afterwards."""
    return frame[0] != 'squash' or frame[1] == size


def part_of(frame, shape, size):
    """The part of (width, height) that a frame shows: (left, top, right, bottom); not for 'pad'."""
    if frame[0] == 'squash':
        return transforms.whole(shape, size)
    _, resize, centred, rounded = frame
    if centred == 'round' and not rounded:
        return transforms.center_part(shape, size, resize)
    short = min(shape)
    width, height = (math.floor(resize * side / short + 0.5) if rounded else resize * side // short for side in shape)
    places = {
        'round': lambda room: round(room / 2),
        'floor': lambda room: room // 2,
        'ceil': lambda room: -(-room // 2),
        'before': lambda room: round(room / 2) - 1,
        'after': lambda room: round(room / 2) + 1,
        'first': lambda room: 0,
    }
    left, top = (min(max(0, places[centred](room)), room) for room in (width - size, height - size))
    x, y = shape[0] / width, shape[1] / height
    return left * x, top * y, min((left + size) * x, shape[0]), min((top + size) * y, shape[1])


def inputs(program, image, as_pixels):
    """What a program passes to the network.

    Args:
        image: PIL image, RGB, from `Photo.framed`.
        as_pixels: whether the network takes uint8 [height, width, 3]; else float32 [3, height, width].
    """
    pixels = np.asarray(image)
    if program.order == 'BGR':
        pixels = pixels[..., ::-1]
    if as_pixels:
        values = pixels if program.numbers is None else (pixels * np.float32(program.numbers[0][0])).astype(np.uint8)
        planes = {'planes': lambda: values, 'turned': lambda: values.swapaxes(0, 1)}
        planes['reshaped'] = lambda: np.ascontiguousarray(values.transpose(2, 0, 1)).reshape(values.shape)
        return np.ascontiguousarray(planes[program.layout]())
    factor, shift = (np.asarray(values, np.float32) for values in program.numbers)
    values = pixels * factor - shift
    planes = {
        'planes': lambda: values.transpose(2, 0, 1),
        'turned': lambda: values.transpose(2, 1, 0),
        'reshaped': lambda: values.reshape(3, *values.shape[:2]),
    }
    return np.ascontiguousarray(planes[program.layout]())


def seen(values, step):
    """An input of the network as the network takes it, as an image: numbers outside of its range become black or white.

    Args:
        values: from `inputs`; step: the normalisation that the export says, not used for pixels.
    """
    if values.dtype == np.uint8:
        return Image.fromarray(values)
    mean, std = (np.broadcast_to(np.asarray(step[key], np.float32), 3) for key in ('mean', 'std'))
    return Image.fromarray(transforms.denormalize(values, mean, std))


def reported(program, logits):
    """(values, sensitivity), float64 [N, classes] each: the numbers that a program reports for logits of the export, and by how much
    they change if each logit changes by up to 1 (first order)."""
    logits = logits.astype(np.float64) * program.temperature
    p = softmax(logits)
    soft = 2 * p * (1 - p)
    again = softmax(p)
    sigmoid = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    found = {
        'softmax': (p, soft),
        'percent': (100 * p, 100 * soft),
        'log': (np.log(np.maximum(p, 1e-300)), 2 * (1 - p) + 1e-9),
        'logits': (logits, np.ones_like(logits)),
        'sigmoid': (sigmoid, sigmoid * (1 - sigmoid)),
        'twice': (again, 2 * again * (1 - again) * soft.max(1, keepdims=True)),
    }[program.outputs]
    if program.labels is not None:
        found = tuple(values[:, list(program.labels)] for values in found)
    return found


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _padded(image, size, fill, name):
    sides = [max(1, round(side * size / max(image.size))) for side in image.size]
    result = Image.new('RGB', (size, size), tuple(fill))
    result.paste(scaling.scale(image, (0, 0, *image.size), sides, name), tuple((size - side) // 2 for side in sides))
    return result


def _with_blocks(image):
    """A JPEG in YCbCr as RGB, with its colours enlarged without smoothing, as some decoders do."""
    light, *colours = image.split()
    colours = [
        plane.reduce(2)
        .resize([side + side % 2 for side in plane.size], Image.Resampling.NEAREST)
        .crop((0, 0, *plane.size))
        for plane in colours
    ]
    return Image.merge('YCbCr', [light, *colours]).convert('RGB')


def _on_black(image):
    if image.mode not in ('RGBA', 'LA', 'PA', 'RGBa', 'La') and 'transparency' not in image.info:
        return image.convert('RGB')
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, (0, 0, 0, 255)), image).convert('RGB')


_as_rgb = {'plain': lambda image: image.convert('RGB'), 'black': _on_black, 'YCbCr': _with_blocks}
