"""Decode an image file safely, to an upright 8-bit RGB image or an error that says what the file is.

Every script decodes here, so that all accept the same files and see the same pixels.
"""

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
import warnings

from PIL import (  # noqa: F401  # all that FORMATS needs: otherwise the first WebP or text file makes Pillow load all its plugins
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
from zodiac.images import bit_depth, bombs, cmyk, file_types

try:
    from PIL import AvifImagePlugin  # Pillow 11.3 and newer

    HAS_AVIF = AvifImagePlugin.SUPPORTED
except ImportError:
    HAS_AVIF = False

BACKGROUND = (255, 255, 255)  # behind the transparent parts of an image
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')  # others may start programs (EPS) or read other files
FORMATS += ('AVIF',) if HAS_AVIF else ()
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow's limit against decompression bombs
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
FLIPS_X = tuple(TURNS[orientation] for orientation in (2, 3, 6, 7))  # the upright left is at the end of rows or columns
FLIPS_Y = tuple(TURNS[orientation] for orientation in (3, 4, 7, 8))
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm')
IMAGE_SUFFIXES += ('.avif', '.heic', '.heif')  # also unsupported ones, to report them
TOO_MANY_PIXELS = 'too many pixels'  # the reason of an ImageError

warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)  # `open_image` refuses such files itself
warnings.filterwarnings('ignore', module=r'PIL\.')  # damaged EXIF data gives thousands, each kept for its unique text
logging.getLogger('PIL').setLevel(logging.CRITICAL)  # our errors report damaged files
with contextlib.suppress(AttributeError, OSError):  # Windows
    # libtiff writes errors to file descriptor 2, whatever that is. This setting is for the process and its children.
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class ImageError(UserError):
    """A file that is not a usable image. `reason` is one of a few fixed texts, `detail` may be empty."""

    def __init__(self, message, reason='', detail=''):
        super().__init__(message)
        self.reason = reason
        self.detail = detail


def _error(source, reason, detail=''):
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else 'image'
    return ImageError(f'{name}: {reason}' + (f' ({detail})' if detail else ''), reason, detail)


@contextlib.contextmanager
def open_image(source, max_pixels=MAX_PIXELS):
    """Context that opens a path or binary file by its header, without decoding the pixels.

    Yields: PIL image. Raises ImageError if the file is missing, is not an image of FORMATS, has more than `max_pixels` pixels, or
    has so many parts that decoding would take minutes.
    """
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(_binary(source))
            too_many = bombs.check(file)
            image = None if too_many else opened.enter_context(_identify(file))
        except FileNotFoundError:
            raise _error(source, 'no such file') from None
        except Image.UnidentifiedImageError:
            file.seek(0)
            raise _error(source, *file_types.describe(file.read(file_types.HEAD))) from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            count = re.search(r'\d+', str(error))[0]
            raise _error(source, TOO_MANY_PIXELS, f'{count}, the limit is {max_pixels}') from None
        except Exception as error:  # a decoder can raise anything on hostile bytes
            if isinstance(error, OSError) and error.errno is not None:
                raise _error(source, 'cannot be read', error.strerror) from None
            raise _error(source, file_types.DAMAGED, one_line(error)) from None
        if too_many:
            raise _error(source, *too_many)
        if image.width * image.height > max_pixels:
            raise _error(source, TOO_MANY_PIXELS, f'{image.width}x{image.height}, the limit is {max_pixels}')
        if len(image.tile) > bombs.MAX_STRIPS:
            raise _error(source, 'too many strips', f'more than {bombs.MAX_STRIPS}')
        yield image


@contextlib.contextmanager
def _binary(source):
    """A path as a binary file; a pipe is read into memory; a binary file is returned as is."""
    if not isinstance(source, (str, os.PathLike)):
        yield source
        return
    with open(source, 'rb') as file:
        yield file if file.seekable() else io.BytesIO(file.read())


def _identify(file):
    return Image.open(file, formats=FORMATS)


def to_rgb(image, source='image'):
    """Decode an opened image in full, to upright 8-bit RGB.

    EXIF orientation is applied, transparency is composited over BACKGROUND, more than 8 bits are scaled (see `bit_depth`), CMYK is
    converted by its colour profile, and an animation gives its first frame. Raises ImageError if the data is truncated or damaged, and
    for float pixels, whose range is unknown.
    """
    try:
        file, stored = image.fp, bit_depth.prepare(image)
        image.load()  # first of all: in a PNG even the orientation may come after the pixels
    except Exception as error:
        raise _error(source, file_types.DAMAGED, one_line(error)) from None
    if image.mode == 'F':
        raise _error(source, 'float pixels', 'convert the file to 8 bits')
    try:
        turned, profile = turn(image), image.info.get('icc_profile')
        image = bit_depth.to_8_bits(image, stored, functools.partial(_identify, file))
        if turned is not None:
            info, image = image.info, image.transpose(turned)
            image.info = info
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            if image.getchannel('A').getextrema()[0] < 255:  # most alpha channels of photos are opaque
                image = Image.alpha_composite(Image.new('RGBA', image.size, BACKGROUND + (255,)), image)
        if image.mode == 'CMYK':
            image = cmyk.to_rgb(image, profile)
        return image.convert('RGB') if image.mode != 'RGB' else image
    except Exception as error:
        raise _error(source, 'cannot be converted to RGB', one_line(error)) from None


def turn(image):
    """The Image.Transpose for the EXIF orientation, or None. Damaged EXIF data is ignored.

    The image must be decoded, or a JPEG: reading it decodes a PNG, and damage to the pixels would pass for damaged EXIF data. Pillow
    itself turns a TIFF.
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
    """Decode an image of which a part is to be scaled to at least `side` pixels.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the part still has that many pixels, which is faster: libjpeg leaves out the
    highest frequencies.

    Args:
        choose: callable, (width, height) of the upright image -> (left, top, right, bottom), the part.
    Returns: PIL image, as from `decode` but perhaps smaller; the part in its coordinates. Raises ImageError.
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
    # the last reduced pixel may cover fewer than `factor` full ones, and comes first if the image was turned
    x = image.width - width / factor if turned in FLIPS_X else 0
    y = image.height - height / factor if turned in FLIPS_Y else 0
    left, top, right, bottom = (edge / factor for edge in part)
    return image, (left + x, top + y, right + x, bottom + y)
