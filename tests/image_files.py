"""Image files of every format, mode and fault, drawn in memory."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from conftest import picture
from PIL import Image

from zodiac.images import decoding

LARGE = (517, 389)  # decoded at an eighth of its size


def png(size, depth, colour, rows, *chunks):
    """The bytes of a PNG, written by hand: IHDR, `chunks`, then `rows` as IDAT."""

    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

    header = struct.pack('>IIBBBBB', *size, depth, colour, 0, 0, 0)
    parts = [(b'IHDR', header), *chunks, (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def encoded(image, kind, **options):
    """An image file in memory."""
    return io.BytesIO(saved(image, kind, **options))


def noise(size, seed=0):
    """A PIL RGB image in which every pixel is random."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def jpeg(size=(48, 40), mode='RGB', **options):
    return saved(picture(1, size, mode), 'JPEG', **options)


def segment(marker, body=b''):
    return b'\xff' + bytes([marker]) + struct.pack('>H', len(body) + 2) + body


def jpeg_with(marker, body):
    """A JPEG with one more segment at its start."""
    data = jpeg()
    return data[:2] + segment(marker, body) + data[2:]


def patched(data, place, new):
    return data[:place] + new + data[place + len(new) :]


def sof(data):
    return data.index(b'\xff\xc0')


def exif(**more):
    tags = Image.Exif()
    tags[decoding.ORIENTATION] = 6
    tags.update({int(tag[1:]): value for tag, value in more.items()})
    return tags.tobytes()


def palette(transparent=None):
    image = picture(1).quantize(8)
    return saved(image, 'PNG', **({} if transparent is None else {'transparency': transparent}))


def with_alpha(mode='RGBA'):
    image = picture(1).convert(mode)
    image.putalpha(picture(2).convert('L'))
    return image


def grey16(rows=None):
    rows = [[0, 255, 256, 32768, 65535]] * 4 if rows is None else rows
    body = b''.join(b'\0' + struct.pack(f'>{len(row)}H', *row) for row in rows)
    return png((len(rows[0]), len(rows)), 16, 0, body)


RGB = {
    'plain.jpg': lambda: jpeg(),
    'progressive.jpg': lambda: jpeg(progressive=True),
    'no subsampling.jpg': lambda: jpeg(subsampling=0),
    'half subsampling.jpg': lambda: jpeg(subsampling=1),
    'odd size.jpg': lambda: jpeg(size=(301, 203)),
    'narrow.jpg': lambda: jpeg(size=(3, 1)),
    'large.jpg': lambda: jpeg(LARGE),
    'large progressive.jpg': lambda: jpeg(LARGE, progressive=True),
    'large, no subsampling.jpg': lambda: jpeg(LARGE, subsampling=0),
    'large, half subsampling.jpg': lambda: jpeg(LARGE, subsampling=1),
    'large, turned by exif.jpg': lambda: jpeg(LARGE, exif=exif()),
    'large, flipped bits.jpg': lambda: patched(jpeg(LARGE), len(jpeg(LARGE)) - 60, b'\x00\x11'),
    'large, two pictures.jpg': lambda: saved(
        picture(1, LARGE), 'MPO', save_all=True, append_images=[picture(2, LARGE)]
    ),
    'flat.jpg': lambda: jpeg((3000, 70)),
    'large.png': lambda: saved(picture(1, LARGE), 'PNG'),
    'worst quality.jpg': lambda: jpeg(quality=1),
    'best quality.jpg': lambda: jpeg(quality=100),
    'stored as rgb.jpg': lambda: jpeg(keep_rgb=True),
    'restart markers.jpg': lambda: jpeg(restart_marker_blocks=2),
    'turned by exif.jpg': lambda: jpeg(exif=exif()),
    'wrong exif.jpg': lambda: jpeg(exif=exif(_271='maker').replace(b'\x01\x0f\0\x02', b'\x01\0\0\x02')),
    'not exif.jpg': lambda: jpeg_with(0xE1, b'Exif\0\0nothing of the kind'),
    'bytes after the end.jpg': lambda: jpeg() + b'rest' * 20,
    'flipped bits.jpg': lambda: patched(jpeg(), len(jpeg()) - 60, b'\x00\x11'),
    'fill bytes.jpg': lambda: jpeg()[:2] + b'\xff\xff\xff' + jpeg()[2:],
    'higher than its data.jpg': lambda: patched(jpeg(), sof(jpeg()) + 5, struct.pack('>H', 56)),
    'two pictures.jpg': lambda: saved(picture(1), 'MPO', save_all=True, append_images=[picture(2)]),
    'really a png.jpg': lambda: saved(picture(1), 'PNG'),
    'really a jpeg.png': lambda: jpeg(),
    'no suffix': lambda: jpeg(),
    'plain.png': lambda: saved(picture(1), 'PNG'),
    'one colour is transparent.png': lambda: saved(picture(1), 'PNG', transparency=(0, 0, 0)),
    '16 bits per channel.png': lambda: png((2, 2), 16, 2, (b'\0' + bytes(range(12))) * 2),
    'animated.png': lambda: saved(picture(1), 'PNG', save_all=True, append_images=[picture(2)]),
    'plain.bmp': lambda: saved(picture(1), 'BMP'),
    'plain.webp': lambda: saved(picture(1), 'WEBP'),
    'plain.tif': lambda: saved(picture(1), 'TIFF'),
}
OTHER_MODES = {
    'grey.jpg': lambda: jpeg(mode='L'),
    'cmyk.jpg': lambda: jpeg(mode='CMYK'),
    'large grey.jpg': lambda: jpeg(LARGE, 'L'),
    'large cmyk.jpg': lambda: jpeg(LARGE, 'CMYK'),
    'grey.png': lambda: saved(picture(1, mode='L'), 'PNG'),
    'one colour of grey is transparent.png': lambda: saved(picture(1, mode='L'), 'PNG', transparency=0),
    'bilevel.png': lambda: saved(picture(1, mode='1'), 'PNG'),
    'grey of 16 bits.png': grey16,
    'alpha.png': lambda: saved(with_alpha(), 'PNG'),
    'grey with alpha.png': lambda: saved(with_alpha('L'), 'PNG'),
    'palette.png': palette,
    'palette with a transparent colour.png': lambda: palette(0),
    'palette with many transparent colours.png': lambda: palette(bytes([0, 128, 255])),
    'palette.bmp': lambda: saved(picture(1).quantize(8), 'BMP'),
    'still.gif': lambda: saved(picture(1).quantize(8), 'GIF'),
    'animated.gif': lambda: saved(
        picture(1).quantize(8), 'GIF', save_all=True, append_images=[picture(2).quantize(8)], duration=50
    ),
    'alpha.webp': lambda: saved(with_alpha(), 'WEBP'),
    'cmyk.tif': lambda: saved(picture(1, mode='CMYK'), 'TIFF'),
    'grey of 32 bits.tif': lambda: saved(picture(1, mode='L').convert('I'), 'TIFF'),
}
BROKEN = {
    'half.jpg': lambda: jpeg()[: len(jpeg()) // 2],
    'almost whole.jpg': lambda: jpeg()[:-10],
    'without its end.jpg': lambda: jpeg()[:-2],
    'half, large.jpg': lambda: jpeg(LARGE)[: len(jpeg(LARGE)) // 2],
    'large, without its end.jpg': lambda: jpeg(LARGE)[:-2],
    'half, large, turned by exif.jpg': lambda: jpeg(LARGE, exif=exif())[: len(jpeg(LARGE)) // 2],
    'half progressive.jpg': lambda: jpeg(size=(301, 203), progressive=True)[:2500],
    'half.png': lambda: saved(picture(1), 'PNG')[:300],
    'half.bmp': lambda: saved(picture(1), 'BMP')[:900],
    'half.webp': lambda: saved(picture(1), 'WEBP', lossless=True)[:-200],
    'half.tif': lambda: saved(picture(1), 'TIFF')[:900],
    'text.jpg': lambda: b'I am no picture.\n' * 20,
    'text after a start.jpg': lambda: b'\xff\xd8' + b'I am no picture.\n' * 20,
    'empty.jpg': lambda: b'',
    'two bytes.jpg': lambda: b'\xff\xd8',
    'page.jpg': lambda: b'<!DOCTYPE html><html><body>404</body></html>',
    'two starts.jpg': lambda: b'\xff\xd8' + jpeg(),
    'no height.jpg': lambda: patched(jpeg(), sof(jpeg()) + 5, b'\0\0'),
    '12 bits.jpg': lambda: patched(jpeg(), sof(jpeg()) + 4, b'\x0c'),
    'short jfif.jpg': lambda: b'\xff\xd8' + segment(0xE0, b'JFIF') + jpeg()[20:],
    'short adobe.jpg': lambda: jpeg_with(0xEE, b'Adobe'),
    'short icc.jpg': lambda: jpeg_with(0xE2, b'ICC_PROFILE\0'),
    'wrong crc.png': lambda: patched(saved(picture(1), 'PNG'), 29, b'abcd'),
    'bomb.png': lambda: png((20000, 20000), 8, 2, bytes(100_000)),
    'bomb of grey.png': lambda: png((20000, 20000), 8, 0, bytes(100_000)),
    'bomb.jpg': lambda: patched(jpeg(), sof(jpeg()) + 5, struct.pack('>HH', 65000, 65000)),
}
ZOO = {**RGB, **OTHER_MODES, **BROKEN}


def draw(name, folder):
    """Write this file of ZOO into a folder; returns its path."""
    path = Path(folder) / name
    path.write_bytes(ZOO[name]())
    return str(path)


# --- more than 8 bits per channel

SHADES = np.linspace(0, 255, 48 * 40).reshape(40, 48).astype(np.uint16)  # all greys
COLOUR = np.stack([SHADES, SHADES[::-1], SHADES // 2], -1)


def png16(values, *chunks):
    """A PNG of 16 bits per channel; the last axis of `values` has grey, grey and alpha, colour, or colour and alpha."""
    values = values if values.ndim == 3 else values[..., None]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    return png(values.shape[1::-1], 16, {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]], rows, *chunks)


def pnm(values, highest):
    values = values if values.ndim == 3 else values[..., None]
    kind = 5 if values.shape[2] == 1 else 6
    head = f'P{kind} {values.shape[1]} {values.shape[0]} {highest}\n'.encode()
    return head + values.astype('>u2' if highest > 255 else 'u1').tobytes()


# --- orientations

UPRIGHT = picture(1, (160, 96))
STORED = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # by orientation, the one whose turn gives the stored pixels
WRITTEN = {  # Pillow's formats with an orientation, with options for `save`
    'JPEG': {'quality': 95, 'subsampling': 0},
    'grey JPEG': {'mode': 'L', 'quality': 95},
    'CMYK JPEG': {'mode': 'CMYK', 'quality': 95},
    'progressive JPEG': {'quality': 95, 'subsampling': 0, 'progressive': True},
    'MPO': {'quality': 95, 'subsampling': 0, 'save_all': True, 'append_images': [picture(2)]},
    'PNG': {},
    'palette PNG': {'mode': 'P'},
    'transparent PNG': {'mode': 'RGBA'},
    'animated PNG': {'save_all': True, 'append_images': [picture(2)]},
    'WEBP': {'lossless': True},
    'TIFF': {},
    'CMYK TIFF': {'mode': 'CMYK'},
    'grey TIFF': {'mode': 'L', 'compression': 'tiff_deflate'},
    'LZW TIFF': {'compression': 'tiff_lzw'},
    'JPEG TIFF': {'compression': 'jpeg', 'quality': 95},
    'pages TIFF': {'save_all': True, 'append_images': [picture(2)]},
    'AVIF': {'quality': 95, 'subsampling': '4:4:4'},
}


def turned(name, orientation):
    """The bytes of UPRIGHT as stored by a camera with this orientation."""
    options = {**WRITTEN[name]}
    image = UPRIGHT.convert(options.pop('mode', 'RGB'))
    if orientation in STORED:
        image = image.transpose(decoding.TURNS[STORED[orientation]])
    tags = Image.Exif()
    tags[decoding.ORIENTATION] = orientation
    return saved(image, name.split()[-1], exif=tags, **options)


# --- refused files


def box(*brands):
    return struct.pack('>I', 12 + 4 * len(brands)) + b'ftyp' + brands[0] + bytes(4) + b''.join(brands[1:]) + bytes(900)


NAMED = {
    'HEIC': box(b'heic', b'mif1', b'heic'),
    'HEIC by its second brand': box(b'mif1', b'miaf', b'heic'),
    'JPEG 2000': saved(picture(1), 'JPEG2000'),
    'a TIFF of this kind': struct.pack('<4sLH', b'II*\0', 8, 0) + bytes(40),
    'SVG': b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    'PDF': b'%PDF-1.7\n',
}


def private_tags(count=900):
    """A TIFF with many tags of types for each of which libtiff prints a warning."""
    sound = saved(picture(1), 'TIFF', compression='tiff_lzw')
    (start,) = struct.unpack_from('<L', sound, 4)
    (own,) = struct.unpack_from('<H', sound, start)
    entries = sound[start + 2 : start + 2 + 12 * own]
    more = b''.join(
        struct.pack('<HHLL', 40_000 + number, (0, 14, 16, 18, 77)[number % 5], 3, 8) for number in range(count)
    )
    place = len(sound) + len(sound) % 2
    directory = struct.pack('<H', own + count) + entries + more + bytes(4)
    return (sound[:4] + struct.pack('<L', place) + sound[8:]).ljust(place, b'\0') + directory


def jpeg_of_scans(count, frame=0xC2, side=4000, between=b''):
    """A grey picture of three components in `count` scans of one byte each."""
    numbers = [1, 2, 3]
    tables = b''.join(segment(0xC4, bytes([kind, 1, *[0] * 15, 0])) for kind in (0x00, 0x10))
    shape = struct.pack('>BHHB', 8, side, side, 3) + b''.join(bytes([number, 0x11, 0]) for number in numbers)

    def scan(chosen, tail):
        return segment(0xDA, bytes([len(chosen)]) + b''.join(bytes([number, 0]) for number in chosen) + tail) + b'\0'

    if frame == 0xC2:  # all bits but the last of the first coefficient, then that bit repeatedly
        scans = scan(numbers, b'\0\0\1') + between + scan(numbers, b'\0\0\x10') * (count - 1)
    else:
        scans = scan([1], b'\0\x3f\0') + between + scan([2], b'\0\x3f\0') * (count - 2) + scan([3], b'\0\x3f\0')
    return b'\xff\xd8' + segment(0xDB, bytes([0, *[1] * 64])) + segment(frame, shape) + tables + scans + b'\xff\xd9'
