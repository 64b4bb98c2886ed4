"""Decode an image file safely: any file gives an upright 8-bit RGB image, or an error that says what it is.

Every door decodes here, so that all accept the same files and see the same pixels.
"""

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
import warnings

from PIL import (  # noqa: F401  # what FORMATS needs; without them Pillow loads the plugins of all formats at the first WebP or text file
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from zodiac.base.errors import UserError, one_line
from zodiac.images import bombs, depth, kinds

try:
    from PIL import AvifImagePlugin  # Pillow 11.3 and newer

    HAS_AVIF = AvifImagePlugin.SUPPORTED
except ImportError:
    HAS_AVIF = False

BACKGROUND = (255, 255, 255)  # what shows through the transparent parts of an image
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')  # others may start programs (EPS) or read other files
FORMATS += ('AVIF',) if HAS_AVIF else ()
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
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm')
IMAGE_SUFFIXES += ('.avif', '.heic', '.heif')  # those that cannot be read are looked at too, and named
TOO_MANY_PIXELS = 'too many pixels'  # the reason of an ImageError

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # `open_image` refuses such files itself
warnings.filterwarnings(
    'ignore', module=r'PIL\.'
)  # a damaged EXIF has thousands, each with a text of its own that is kept
logging.getLogger('PIL').setLevel(logging.CRITICAL)  # what it says of damaged files is in our own errors
with contextlib.suppress(AttributeError, OSError):  # Windows, where it cannot be reached
    # libtiff writes what it finds wrong to the file descriptor 2, whatever that is. The setting is the process's, and its children's.
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class ImageError(UserError):
    """A file that is no usable image. `reason` is one of a few fixed texts to count by, `detail` may be empty."""

    def __init__(self, message, reason='', detail=''):
        super().__init__(message)
        self.reason = reason
        self.detail = detail


def _error(source, reason, detail=''):
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else 'image'
    return ImageError(f'{name}: {reason}' + (f' ({detail})' if detail else ''), reason, detail)


@contextlib.contextmanager
def open_image(source, max_pixels=MAX_PIXELS):
    """Open a path or binary file by its header alone, as a context; the pixels are not decoded yet.

    Yields: PIL image. Raises ImageError when it is missing, no image of FORMATS, has more than `max_pixels` pixels, or so many
    parts that decoding it would take minutes.
    """
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(_binary(source))
            too_many = bombs.look(file)
            image = None if too_many else opened.enter_context(_identify(file))
        except FileNotFoundError:
            raise _error(source, 'no such file') from None
        except Image.UnidentifiedImageError:
            file.seek(0)
            raise _error(source, *kinds.describe(file.read(kinds.HEAD))) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            count = re.search(r'\d+', str(error))[0]
            raise _error(source, TOO_MANY_PIXELS, f'{count}, the limit is {max_pixels}') from None
        except Exception as error:  # a decoder can raise anything on hostile bytes
            if isinstance(error, OSError) and error.errno is not None:
                raise _error(source, 'cannot be read', error.strerror) from None
            raise _error(source, kinds.DAMAGED, one_line(error)) from None
        if too_many:
            raise _error(source, *too_many)
        if image.width * image.height > max_pixels:
            raise _error(source, TOO_MANY_PIXELS, f'{image.width}x{image.height}, the limit is {max_pixels}')
        if len(image.tile) > bombs.MAX_STRIPS:
            raise _error(source, 'too many strips', f'more than {bombs.MAX_STRIPS}')
        yield image


@contextlib.contextmanager
def _binary(source):
    """A path as a binary file, a pipe as one in memory, a binary file as it is."""
    if not isinstance(source, (str, os.PathLike)):
        yield source
        return
    with open(source, 'rb') as file:
        yield file if file.seekable() else io.BytesIO(file.read())


def _identify(file):
    return Image.open(file, formats=FORMATS)


def to_rgb(image, source='image'):
    """Decode an opened image to its end, as upright 8-bit RGB.

    EXIF orientation is applied, transparency is laid over BACKGROUND, more than 8 bits are scaled (see `depth`), an animation
    gives its first frame. Raises ImageError when its data is cut off or damaged, and for float pixels, whose range is unknown.
    """
    try:
        file, stored = image.fp, depth.prepare(image)
        image.load()  # once, before anything else is asked of the image: of a PNG even its orientation may come after the pixels
    except Exception as error:
        raise _error(source, kinds.DAMAGED, one_line(error)) from None
    if image.mode == 'F':
        raise _error(source, 'float pixels', 'convert the file to 8 bits')
    try:
        turned = turn(image)
        image = depth.to_8_bits(image, stored, functools.partial(_identify, file))
        if turned is not None:
            info, image = image.info, image.transpose(turned)
            image.info = info
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, BACKGROUND + (255,)), image)
        return image.convert('RGB') if image.mode != 'RGB' else image
    except Exception as error:
        raise _error(source, 'cannot be converted to RGB', one_line(error)) from None


def turn(image):
    """The Image.Transpose that EXIF asks for, or None. Damaged EXIF data counts as none, the picture itself is sound.

    Ask for it of a decoded image, or of a JPEG: a PNG is decoded for it, and what is damaged would pass for no orientation. A TIFF
    is turned by Pillow.
    """
    if image.format == 'TIFF':
        return None
    try:
        if bombs.in_tags(image.info.get('exif', b'').replace(b'Exif\0\0', b'', 1)):
            return None
        return TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:
        return None


def decode(source, max_pixels=MAX_PIXELS):
    """Read a path or binary file as an upright 8-bit RGB PIL image. Raises ImageError."""
    with open_image(source, max_pixels) as image:
        return to_rgb(image, source)


def decode_part(source, choose, side, max_pixels=MAX_PIXELS):
    """What `decode` gives, to have a part of it scaled to `side` pixels and more: of a JPEG at a half, a quarter or an eighth of
    its size where the part has as many even so, which takes less time (libjpeg leaves the finest frequencies out).

    Args:
        choose: callable, (width, height) of the upright picture -> (left, top, right, bottom), the part.
    Returns: PIL image, the part of it. Raises ImageError.
    """
    with open_image(source, max_pixels) as image:
        if image.format != 'JPEG':
            image = to_rgb(image, source)
            return image, choose(image.size)
        turned = turn(image)
        width, height = image.size[::-1] if turned in SIDEWAYS else image.size
        part = choose((width, height))
        enough = min(part[2] - part[0], part[3] - part[1]) / side
        factor = next(factor for factor in (8, 4, 2, 1) if factor == 1 or factor <= enough)
        if factor == 1:
            return to_rgb(image, source), part
        image.draft(image.mode, (image.width // factor, image.height // factor))
        image = to_rgb(image, source)
    # the last of the reduced pixels may stand for less than `factor` ones, and comes first where the picture was turned
    x = image.width - width / factor if turned in FLIPS_X else 0
    y = image.height - height / factor if turned in FLIPS_Y else 0
    left, top, right, bottom = (edge / factor for edge in part)
    return image, (left + x, top + y, right + x, bottom + y)
