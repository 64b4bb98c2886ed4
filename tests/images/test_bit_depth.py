"""More than 8 bits per channel are scaled as the file declares, or else by the range of the values."""

import io
import struct

import numpy as np
import pytest
from conftest import picture
from image_files import COLOUR, SHADES, png16, pnm
from PIL import Image

from zodiac.images import decoding


def tiff(values, photometric=1, order='<', **more):
    """An uncompressed TIFF of integers; `more`: tags by number, such as t281=4095."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    signed, bits = values.dtype.kind == 'i', 8 * values.dtype.itemsize
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: channels,
        278: height,
        279: len(data),
    }
    tags.update({339: 2} if signed else {})
    tags.update({int(tag[1:]): value for tag, value in more.items()})
    entries = b''.join(
        struct.pack(order + 'HHLL', tag, 4, 1, value)
        if tag in (273, 279)
        else struct.pack(order + 'HHLHH', tag, 3, 1, value, 0)
        for tag, value in sorted(tags.items())
    )
    head = struct.pack(order + '2sHL', b'II' if order == '<' else b'MM', 42, 8 + len(data))
    return head + data + struct.pack(order + 'H', len(tags)) + entries + bytes(4)


def decoded(content):
    return np.asarray(decoding.decode(io.BytesIO(content)))


def rgb(values):
    values = np.asarray(values, np.uint8)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, -1)


SPREAD = {  # all are pictures of SHADES or COLOUR
    '12 bits in a PNG': (lambda: png16(SHADES << 4 | SHADES >> 4), SHADES),
    '10 bits in a PNG': (lambda: png16(SHADES << 2), SHADES),
    '8 bits in 16 of a PNG': (lambda: png16(SHADES), SHADES),
    '16 bits in a PNG': (lambda: png16(SHADES * 257), SHADES),
    '12 bits in colour': (lambda: png16(COLOUR << 4), COLOUR),
    '16 bits in colour': (lambda: png16(COLOUR * 257), COLOUR),
    '12 bits in colour, alpha in 16': (lambda: png16(np.dstack([COLOUR << 4, np.full_like(SHADES, 65535)])), COLOUR),
    '12 bits in colour and alpha': (lambda: png16(np.dstack([COLOUR << 4, np.full_like(SHADES, 4095)])), COLOUR),
    '12 bits in grey and alpha': (lambda: png16(np.dstack([SHADES << 4, np.full_like(SHADES, 4095)])), SHADES),
    '12 bits in a TIFF': (lambda: tiff(SHADES << 4), SHADES),
    '12 bits in a TIFF of the other order': (lambda: tiff(SHADES << 4, order='>'), SHADES),
    '12 bits in a TIFF in colour': (lambda: tiff(COLOUR << 4, 2), COLOUR),
    '12 bits in a TIFF in colour of the other order': (lambda: tiff(COLOUR << 4, 2, '>'), COLOUR),
    '8 bits in 32': (lambda: tiff(SHADES.astype(np.int32)), SHADES),
    '32 bits': (lambda: tiff(SHADES.astype(np.uint32) << 24), SHADES),
    '31 bits with a sign': (lambda: tiff(SHADES.astype(np.int32) - 100), SHADES),
    '16 bits with a sign': (lambda: tiff(SHADES.astype(np.int16) * 16 - 1000), SHADES),
    '12 bits in a PPM that declares none': (lambda: pnm(COLOUR << 4, 65535), COLOUR),
    '12 bits in a PGM that declares none': (lambda: pnm(SHADES << 4, 65535), SHADES),
}


@pytest.mark.parametrize('name', SPREAD)
def test_values_of_fewer_bits_than_stored_keep_their_shades(name):
    draw, expected = SPREAD[name]
    assert np.abs(decoded(draw()).astype(int) - rgb(expected)).max() <= 1


DARK = {  # at most an eighth of the declared white level
    'sBIT of a PNG': lambda: png16(SHADES << 1, (b'sBIT', b'\x0c')),
    'sBIT of a PNG in colour': lambda: png16(rgb(SHADES >> 3).astype(np.uint16) << 4, (b'sBIT', b'\x0c' * 3)),
    'maximum of a PGM': lambda: pnm(SHADES << 1, 4095),
    'maximum of a PPM': lambda: pnm(rgb(SHADES >> 3).astype(np.uint16) << 4, 4095),
    'maximum of a PGM in 8 bits': lambda: pnm(SHADES >> 4, 127),
    'MaxSampleValue of a TIFF': lambda: tiff(SHADES << 1, t281=4095),
    'BitsPerSample of a TIFF': lambda: tiff_of_12_bits(SHADES << 1),
    'all the bits of 8': lambda: saved(Image.fromarray((SHADES >> 3).astype(np.uint8))),
}


def tiff_of_12_bits(values):
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    return tiff(packed.astype(np.uint8).reshape(values.shape[0], -1), t256=values.shape[1], t258=12)


def saved(image):
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.mark.parametrize('name', DARK)
def test_a_dark_picture_stays_dark_if_the_file_declares_white(name):
    assert np.abs(decoded(DARK[name]()).astype(int) - rgb(SHADES >> 3)).max() <= 1


def test_sbit_is_ignored_for_values_that_use_all_bits():  # as in the PNG standard
    assert np.array_equal(decoded(png16(SHADES * 257, (b'sBIT', b'\x0c'))), rgb(SHADES))


@pytest.mark.parametrize('values', [SHADES * 0, COLOUR * 0], ids=['grey', 'colour'])
def test_black_stays_black(values):
    assert decoded(png16(values)).max() == 0


@pytest.mark.parametrize('more', [{'t284': 2}, {'t338': 1}], ids=['planes', 'premultiplied alpha'])
def test_16_bit_layouts_that_pillow_cannot_read_are_refused(more):
    values = COLOUR << 4 if 't284' in more else np.dstack([COLOUR << 4, np.full_like(SHADES, 4095)])
    with pytest.raises(decoding.ImageError, match='16 bits per channel .*save it with 8'):
        decoded(tiff(values, 2, **more))


@pytest.mark.parametrize('highest', [1, 3, 100, 254, 255, 256, 1000, 65534, 65535])
def test_a_binary_pnm_of_any_maximum_equals_its_text_form(highest):
    values = (COLOUR.astype(int) * highest // 255).astype(np.uint16)
    for part, kinds in ((values, (6, 3)), (values[..., 0], (5, 2))):
        text = f'P{kinds[1]} 48 40 {highest}\n{" ".join(map(str, part.ravel()))}\n'.encode()
        assert np.abs(decoded(pnm(part, highest)).astype(int) - decoded(text)).max() <= 1


def test_a_truncated_pnm_is_refused():
    with pytest.raises(decoding.ImageError, match='truncated'):
        decoded(pnm(COLOUR, 200)[:-1])


def test_a_turned_picture_of_12_bits_is_turned_too(tmp_path):
    tags = Image.Exif()
    tags[decoding.ORIENTATION] = 6
    grey = np.asarray(picture(1, mode='L'))
    expected = rgb(np.rot90(grey, -1))
    for suffix in ('png', 'tif'):
        Image.fromarray(grey.astype(np.uint16) << 4).save(tmp_path / f'a.{suffix}', exif=tags)
        assert np.abs(np.asarray(decoding.decode(tmp_path / f'a.{suffix}'), int) - expected).max() <= 1
