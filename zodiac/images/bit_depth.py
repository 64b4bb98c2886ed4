"""Convert more than 8 bits per channel to 8, scaled by the white level that the file declares, or else by its highest value.

12 bits from a sensor, stored in 16, would be nearly black if scaled by 16 bits. A file declares its white level by `sBIT` (PNG), the
maximum in its header (PGM, PPM), BitsPerSample or MaxSampleValue (TIFF); a level that is just the stored range is ignored.
"""

import sys
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image

BITS, MAXIMUM = 258, 281  # TIFF tags
FULL = 65535
TOO_DEEP = '16 bits per channel in a layout that is not supported: save it with 8'
DARK = 64  # of 255: a lower maximum means that fewer than 16 bits may be used
# Pillow keeps the high byte of 16 bits per channel in colour. Read in the other byte order, the same file gives the low byte.
OTHER_ORDER = {'L': 'B', 'B': 'L', 'N': 'B' if sys.byteorder == 'little' else 'L'}
IN_BOTH_ORDERS = ('RGB', 'RGBX', 'RGBA', 'CMYK')


class Depth(NamedTuple):
    """The range of an image's values. `highest`: the white level that the file declares, or None."""

    bits: int = 8
    highest: Optional[int] = None
    raw_mode: str = ''


def prepare(image):
    """The `Depth` of an opened image, before its pixels are decoded.

    A binary PPM with an unusual maximum is set up for Pillow's C decoder: its Python decoder takes a second per million pixels and
    blocks other threads.
    """
    if image.format not in ('PNG', 'TIFF', 'PPM') or not image.tile:
        return Depth()
    decoder, arguments = image.tile[0][0], image.tile[0][3]
    raw_mode = arguments if isinstance(arguments, str) else arguments[0]
    highest = None
    if decoder == 'ppm_plain':  # text, which Pillow scales to 8 or 16 bits
        highest = FULL if image.mode == 'I' and arguments[1] != FULL else None
    elif decoder == 'ppm':
        highest = arguments[1] if arguments[1] not in (255, FULL) else None
        if arguments[1] > 255:
            raw_mode = 'I;16B' if image.mode == 'I' else f'{image.mode};16B'
        image.tile = [_tile(image.tile[0], 'raw', raw_mode)]
    bits = 32 if ';32' in raw_mode else 16 if ';16' in raw_mode or image.mode.startswith('I') else 8
    if bits > 8 and image.format == 'PNG':
        highest = _by_png(image.fp)
    elif image.format == 'TIFF':
        bits = max(bits, _most(image.tag_v2.get(BITS)))
        highest = _by_tiff(image.tag_v2, bits) if bits > 8 else None
    return Depth(bits, highest, raw_mode)


def to_8_bits(image, depth, open_again):
    """A decoded image with 8 bits per channel.

    Args:
        depth: from `prepare`.
        open_again: callable, () -> context with the same image, opened again.
    Raises: ValueError for 16 bits per channel in a layout whose low bytes Pillow cannot give.
    """
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if depth.raw_mode == 'I;32N':  # unsigned: Pillow has no such mode
            values = values.view(np.uint32)
        return Image.fromarray(_scaled(values, depth.highest))
    if depth.bits == 8:
        if depth.highest is None:
            return image
        shades = [min(255, round(255 * value / depth.highest)) for value in range(256)]
        return image.point(shades * len(image.getbands()))
    bands = [slice(0, 3), slice(3, 4)] if image.mode == 'RGBA' else [slice(0, 4)]  # alpha has its own range
    if ';16' not in depth.raw_mode:  # planes of 16 bits, which Pillow reads wrongly
        raise ValueError(TOO_DEEP)
    tops = [top for _, top in image.getextrema()]
    if not any(_may_hide(max(tops[some]), depth.highest) for some in bands):
        return image
    values = _both_bytes(np.asarray(image), depth, open_again)
    pixels = np.concatenate([_scaled(values[..., some], depth.highest) for some in bands], -1)
    return Image.merge(image.mode, [Image.fromarray(band) for band in np.moveaxis(pixels, -1, 0)])


def _may_hide(top, highest):
    """Whether values may use fewer than 16 bits; `top`: their largest high byte."""
    return top < DARK or highest is not None and top <= highest >> 8


def _both_bytes(high, depth, open_again):
    """uint16 [height, width, channels], from the decoded high bytes and the low bytes of the file."""
    name, _, order = depth.raw_mode.partition(';16')
    with open_again() as image:
        prepare(image)
        if depth.raw_mode == 'LA;16B':  # in RGBA: the bytes of grey, then those of alpha
            image.tile = [_tile(tile, tile[0], 'RGBA') for tile in image.tile]
            image.load()
            grey, alpha = np.moveaxis(np.asarray(image).copy().view('>u2'), -1, 0)
            return np.stack([grey, grey, grey, alpha], -1)
        if name not in IN_BOTH_ORDERS:
            raise ValueError(TOO_DEEP)
        image.tile = [_tile(tile, tile[0], f'{name};16{OTHER_ORDER[order]}') for tile in image.tile]
        image.load()
        return high.astype(np.uint16) << 8 | np.asarray(image)


def _tile(tile, decoder, raw_mode):
    """A Pillow tile, (decoder, extents, offset, arguments), with another decoder and raw mode."""
    arguments = (raw_mode, *tile[3][1:]) if decoder == tile[0] and not isinstance(tile[3], str) else raw_mode
    return getattr(type(tile), '_make', tuple)((decoder, tile[1], tile[2], arguments))


def _scaled(values, highest):
    """Scale integers to uint8: from 0 to white, or from lowest to highest if some are negative."""
    bottom, top = min(0, int(values.min())), int(values.max())
    if bottom < 0:
        white = top - bottom
    elif highest is not None and top <= highest:
        white = highest
    else:
        white = 4 ** -(-top.bit_length() // 2) - 1  # of 2, 4, ... 10, 12, 14, 16 bits
    scaled = np.empty(values.shape, np.uint8)
    for row, out in zip(values, scaled):  # by row: 8 bytes per value need much memory for a large image
        row = row.astype(np.int64) - bottom
        out[:] = row * 256 // (white + 1) if white > 255 else row * 255 // max(1, white)
    return scaled


def _by_png(file):
    """The white level of the sBIT chunk, which comes before the pixels; None without one."""
    back, highest = file.tell(), None
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] not in (b'PLTE', b'IDAT'):
        size = int.from_bytes(head[:4], 'big')
        if head[4:] == b'sBIT':
            bits = max(file.read(min(size, 4)), default=0)
            highest = 2**bits - 1 if 0 < bits < 16 else None
            break
        file.seek(size + 4, 1)
    file.seek(back)
    return highest


def _by_tiff(tags, bits):
    """The white level by BitsPerSample or MaxSampleValue, if less than the stored range; else None."""
    for number in (2 ** _most(tags.get(BITS)) - 1, _most(tags.get(MAXIMUM))):
        if 0 < number < 2**bits - 1:
            return number
    return None


def _most(value):
    """The highest of a tag's numbers; 0 if it has none."""
    numbers = value if isinstance(value, tuple) else (value,)
    return max((number for number in numbers if isinstance(number, int)), default=0)
