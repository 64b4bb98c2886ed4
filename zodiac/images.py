"""Decode an image file safely: any file gives an upright 8-bit RGB image, or an error that says what it is.

Nothing here needs numpy to be imported, so that a process that only looks at files starts quickly.
"""

import io
import os
import re
import warnings

from PIL import (  # noqa: F401  # what FORMATS needs; without them Pillow loads the plugins of all formats at the first WebP or text file
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from zodiac import bombs
from zodiac.errors import UserError, one_line

BACKGROUND = (255, 255, 255)  # what shows through the transparent parts of an image
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF')  # others may start programs (EPS) or read other files
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
SIDEWAYS = tuple(TURNS[orientation] for orientation in (5, 6, 7, 8))
FLIPS_X = tuple(TURNS[orientation] for orientation in (2, 3, 6, 7))  # upright left lies at the end of rows or columns
FLIPS_Y = tuple(TURNS[orientation] for orientation in (3, 4, 7, 8))
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')
TOO_MANY_PIXELS = 'too many pixels'  # the reason of an ImageError

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # `open_image` refuses such files itself
warnings.filterwarnings(
    'ignore', module=r'PIL\.'
)  # a damaged EXIF has thousands, each with a text of its own that is kept


class ImageError(UserError):
    """A file that is no usable image. `reason` is one of a few fixed texts to count by, `detail` may be empty."""

    def __init__(self, message, reason='', detail=''):
        super().__init__(message)
        self.reason = reason
        self.detail = detail


def _error(source, reason, detail=''):
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else 'image'
    return ImageError(f'{name}: {reason}' + (f' ({detail})' if detail else ''), reason, detail)


def open_image(source, max_pixels=MAX_PIXELS):
    """Open a path or binary file by its header alone; the pixels are not decoded yet.

    Returns: PIL image. Raises ImageError when it is missing, no image of FORMATS, has more than `max_pixels` pixels, or so many
    parts that decoding it would take minutes.
    """
    try:
        file = _twice_readable(source)
        too_many = bombs.look(file)
        if too_many:
            raise _error(source, *too_many)
        image = Image.open(file, formats=FORMATS)
    except ImageError:
        raise
    except FileNotFoundError:
        raise _error(source, 'no such file') from None
    except Image.UnidentifiedImageError:
        raise _error(source, 'not an image') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r'\d+', str(error))[0]
        raise _error(source, TOO_MANY_PIXELS, f'{count}, the limit is {max_pixels}') from None
    except Exception as error:  # a decoder can raise anything on hostile bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise _error(source, 'cannot be read', error.strerror) from None
        raise _error(source, 'truncated or damaged', one_line(error)) from None
    if image.width * image.height > max_pixels:
        image.close()
        raise _error(source, TOO_MANY_PIXELS, f'{image.width}x{image.height}, the limit is {max_pixels}')
    if len(image.tile) > bombs.MAX_STRIPS:
        image.close()
        raise _error(source, 'too many strips', f'more than {bombs.MAX_STRIPS}')
    return image


def _twice_readable(source):
    """A pipe as a file in memory, anything else as it is."""
    if isinstance(source, (str, os.PathLike)) and not os.path.isfile(source) and os.path.exists(source):
        with open(source, 'rb') as pipe:
            return io.BytesIO(pipe.read())
    return source


def load_pixels(image, source):
    """Decode an opened image to its end, in place. Raises ImageError when its data is cut off or damaged."""
    try:
        image.load()
    except Exception as error:
        raise _error(source, 'truncated or damaged', one_line(error)) from None
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
            return _high_byte(image).convert('RGB')
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            return Image.alpha_composite(Image.new('RGBA', image.size, BACKGROUND + (255,)), image).convert('RGB')
        return image.convert('RGB')
    except ImageError:
        raise
    except Exception as error:
        raise _error(source, 'cannot be converted to RGB', one_line(error)) from None


def _high_byte(image):
    """A 16-bit grey image as 8-bit grey."""
    import numpy as np

    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def turn(image):
    """The Image.Transpose that EXIF asks for, or None; damaged EXIF data counts as none, the picture itself is sound."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:
        return None


def _upright(image):
    wanted = turn(image)
    if wanted is None:
        return image
    info, image = image.info, image.transpose(wanted)
    image.info = info
    return image


def decode(source, max_pixels=MAX_PIXELS):
    """Read a path or binary file as an upright 8-bit RGB PIL image. Raises ImageError."""
    with open_image(source, max_pixels) as image:
        return to_rgb(load_pixels(image, source), source)


def decode_part(source, choose, side, max_pixels=MAX_PIXELS):
    """What `decode` gives, to have a part of it scaled to `side` pixels and more: of a JPEG at a half, a quarter or an eighth of
    its size where the part has as many even so, which takes less time (libjpeg leaves the finest frequencies out).

    Args:
        choose: callable, (width, height) of the upright picture -> (left, top, right, bottom), the part.
    Returns: PIL image, the part of it. Raises ImageError.
    """
    with open_image(source, max_pixels) as image:
        turned = turn(image)
        width, height = image.size[::-1] if turned in SIDEWAYS else image.size
        part = choose((width, height))
        enough = min(part[2] - part[0], part[3] - part[1]) / side
        factor = next(factor for factor in (8, 4, 2, 1) if factor == 1 or factor <= enough)
        if factor == 1 or image.format != 'JPEG':
            return to_rgb(load_pixels(image, source), source), part
        image.draft(image.mode, (image.width // factor, image.height // factor))
        image = to_rgb(load_pixels(image, source), source)
    # the last of the reduced pixels may stand for less than `factor` ones, and comes first where the picture was turned
    x = image.width - width / factor if turned in FLIPS_X else 0
    y = image.height - height / factor if turned in FLIPS_Y else 0
    left, top, right, bottom = (edge / factor for edge in part)
    return image, (left + x, top + y, right + x, bottom + y)
