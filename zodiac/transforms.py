"""From an image file to the array that the network sees: safe decoding, and transforms that are plain data.

A transform is a list of dicts, `{'op': name, **parameters}`. It is the same object in training, evaluation and export,
and travels with the exported model in inference.yaml.
"""

import math
import os
import warnings

import numpy as np
from PIL import Image

from zodiac.errors import UserError

BACKGROUND = (255, 255, 255)  # what shows through the transparent parts of an image
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow's limit: beyond it a file may be a decompression bomb
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')
JUNK_NAMES = ('thumbs.db', 'desktop.ini', '__macosx')

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # `open_image` refuses such files itself


class ImageError(UserError):
    """A file that is no usable image. `reason` is one of a few fixed texts to count by, `detail` may be empty."""

    def __init__(self, message, reason='', detail=''):
        super().__init__(message)
        self.reason = reason
        self.detail = detail


def _error(source, reason, detail=''):
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else 'image'
    return ImageError(f'{name}: {reason}' + (f' ({detail})' if detail else ''), reason, detail)


def is_junk(name):
    """Whether a file or folder name is litter of an operating system or an editor, never meant as an image."""
    return name.startswith('.') or name.lower() in JUNK_NAMES


def open_image(source):
    """Open a path or binary file by its header alone; the pixels are not decoded yet.

    Returns: PIL image. Raises ImageError when it is missing, no image, or has more than MAX_PIXELS pixels.
    """
    try:
        image = Image.open(source)
    except FileNotFoundError:
        raise _error(source, 'no such file') from None
    except Image.UnidentifiedImageError:
        raise _error(source, 'not an image') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _error(source, 'too many pixels', str(error).split(',')[0]) from None
    except Exception as error:  # a decoder can raise anything on hostile bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise _error(source, 'cannot be read', error.strerror) from None
        raise _error(source, 'truncated or damaged', _words(error)) from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise _error(source, 'too many pixels', f'{image.width}x{image.height}, the limit is {MAX_PIXELS}')
    return image


def load_pixels(image, source):
    """Decode an opened image to its end, in place. Raises ImageError when its data is cut off or damaged."""
    try:
        image.load()
    except Exception as error:
        raise _error(source, 'truncated or damaged', _words(error)) from None
    return image


def to_rgb(image, source='image'):
    """A decoded PIL image of any mode as upright 8-bit RGB.

    EXIF orientation is applied, transparency is laid over BACKGROUND, 16-bit grey is scaled to 8 bits, an animation
    gives its first frame. Raises ImageError for float pixels, whose range is unknown.
    """
    try:
        image = _upright(image)
        if image.mode == 'RGB' and 'transparency' not in image.info:
            return image
        if image.mode == 'F':
            raise _error(source, 'float pixels', 'convert the file to 8 bits')
        if image.mode.startswith('I'):
            return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert(
                'RGB'
            )
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            return Image.alpha_composite(Image.new('RGBA', image.size, BACKGROUND + (255,)), image).convert('RGB')
        return image.convert('RGB')
    except ImageError:
        raise
    except Exception as error:
        raise _error(source, 'cannot be converted to RGB', _words(error)) from None


def _upright(image):
    """Apply the EXIF orientation; damaged EXIF data counts as none, the picture itself is sound."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:
        return image
    if turn is None:
        return image
    info, image = image.info, image.transpose(turn)
    image.info = info
    return image


def decode(source):
    """Read a path or binary file as an upright 8-bit RGB PIL image. Raises ImageError."""
    with open_image(source) as image:
        return to_rgb(load_pixels(image, source), source)


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
        raise UserError(f'{where}: the transform cannot be used ({_words(error)}); export the model again') from None


def _words(error):
    return ' '.join(f'{error or type(error).__name__}'.split())[:200]
