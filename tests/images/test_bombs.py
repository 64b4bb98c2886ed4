"""A small file that would keep a decoder busy for minutes is refused at once; a sound file with many parts is not."""

import io
import re
import struct
import time
import zlib

import pytest
from conftest import picture
from image_files import jpeg_of_scans, saved, segment
from PIL import Image

from zodiac.data import inspection
from zodiac.images import bombs, decoding


def chunk(name, data=b''):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png_of_chunks(count):
    whole = saved(picture(1), 'PNG')
    return whole[:33] + chunk(b'teSt') * (count - 3) + whole[33:]


def tiff_of_strips(count):
    end = 8 + 2 + 9 * 12 + 4
    tags = [(256, 1), (257, 2), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    entries = [struct.pack('<HHII', tag, 3, 1, value) for tag, value in tags]
    entries += [struct.pack('<HHII', tag, 4, count, place) for tag, place in ((273, end), (279, end + 4 * count))]
    entries.sort(key=lambda entry: struct.unpack('<H', entry[:2]))
    return b'II*\0\x08\0\0\0' + struct.pack('<H', 9) + b''.join(entries) + bytes(4) + struct.pack('<I', 1) * 2 * count


def tiff_of_tags(count, order='<', big=False, pointer=None):
    """A TIFF with `count` private tags in its directory, or in one to which `pointer`, a tag of the first directory, points."""
    place, width, size = ('Q', 8, 16) if big else ('L', 4, 8)
    directory = struct.pack(order + ('Q' if big else 'H'), count)
    for tag in range(count):
        directory += struct.pack(order + 'HH' + 2 * place, tag, 77, 1, 1)
    head = (b'II' if order == '<' else b'MM') + struct.pack(order + 'H', 43 if big else 42)
    head += struct.pack(order + 'HH', 8, 0) if big else b''
    if not pointer:
        return head + struct.pack(order + place, size) + directory
    first = struct.pack(order + ('Q' if big else 'H'), 2)
    for kind, target in ((77, 0), (4, size)):  # the first of two counts
        first += struct.pack(order + 'HH' + place, pointer if kind == 4 else 1, kind, 1)
        first += struct.pack(order + 'L', target).ljust(width, b'\0')
    return head + struct.pack(order + place, size + len(directory)) + directory + first


PHOTO = saved(picture(1, (64, 48)), 'JPEG')
BOMBS = {
    'progressive scans': (lambda: jpeg_of_scans(3000), 'too many scans'),
    'one scan too many': (lambda: jpeg_of_scans(101), 'too many scans'),
    'sequential scans': (lambda: jpeg_of_scans(3000, 0xC0), 'too many scans'),
    'scans after a false end': (
        lambda: jpeg_of_scans(3000, between=segment(0xFE, b'\xff\xd9')),
        'too many scans',
    ),
    'scans after a false segment': (lambda: jpeg_of_scans(3000, between=b'\xff\x01\xff\xff'), 'too many scans'),
    'far scans': (lambda: jpeg_of_scans(3000, between=segment(0xFE, bytes(65000)) * 3), 'too many scans'),
    'segments': (lambda: PHOTO[:20] + segment(0xE1, b'Exif\0\0more') * 200_000 + PHOTO[20:], 'too many segments'),
    'chunks': (lambda: png_of_chunks(1_000_000), 'too many chunks'),
    'strips': (lambda: tiff_of_strips(150_000), 'too many strips'),
    'tags': (lambda: tiff_of_tags(20_000), 'too many tags'),
    'tags of the other order': (lambda: tiff_of_tags(20_000, '>'), 'too many tags'),
    'tags of a BigTIFF': (lambda: tiff_of_tags(20_000, big=True), 'too many tags'),
    'tags of EXIF in a TIFF': (lambda: tiff_of_tags(20_000, pointer=0x8769), 'too many tags'),
    'tags of GPS in a TIFF': (lambda: tiff_of_tags(20_000, '>', pointer=0x8825), 'too many tags'),
    'pixels in text': (lambda: b'P3 4000 4000 255 ' + b'1 ' * 1000, 'too many pixels in text'),
    'a long header': (lambda: b'P6 #' + b'a' * 10_000_000 + b'\n1 1 255 abc', 'too long a header'),
    'comments': (lambda: b'P2 1000 1000 255 ' + b'#\n' * 1_000_000, 'too many comments'),
}


@pytest.mark.parametrize('case', BOMBS)
def test_a_file_with_too_many_parts_is_refused_before_it_is_decoded(case):
    draw, reason = BOMBS[case]
    content = draw()
    start = time.process_time()
    with pytest.raises(decoding.ImageError, match=reason) as caught:
        decoding.decode(io.BytesIO(content))
    assert time.process_time() - start < 2
    assert caught.value.reason == reason and re.search('more than|the limit is', caught.value.detail)


@pytest.mark.parametrize('case', ['progressive scans', 'sequential scans', 'chunks'])
@pytest.mark.parametrize('convert', [False, True])
def test_an_inspection_rejects_it_too(tmp_path, case, convert):
    draw, reason = BOMBS[case]
    (tmp_path / 'a.jpg').write_bytes(draw())
    start = time.process_time()
    assert inspection.inspect(tmp_path / 'a.jpg', convert).reason == reason
    assert time.process_time() - start < 2


def photo_with(marker, data):
    return PHOTO[:2] + segment(marker, data) + PHOTO[2:]


SOUND = {
    'as many scans as allowed': lambda: jpeg_of_scans(100, side=64),
    'progressive': lambda: saved(picture(1, (600, 400)), 'JPEG', progressive=True),
    'progressive with a video appended': lambda: saved(picture(1), 'JPEG', progressive=True) + b'\xff\xda\0\0' * 10_000,
    'a video appended': lambda: PHOTO + b'\xff\xda\0\0' * 10_000,
    'restarts': lambda: saved(picture(1, (600, 400)), 'JPEG', progressive=True, restart_marker_blocks=1),
    'a thumbnail of scans': lambda: photo_with(0xE1, b'Exif\0\0' + b'\xff\xda\0\0' * 10_000),
    'a long profile': lambda: saved(picture(1), 'JPEG', icc_profile=bytes(1_000_000)),
    'fill bytes': lambda: PHOTO[:2] + b'\xff' * 1000 + PHOTO[3:],
    'noise before a marker': lambda: PHOTO[:20] + b'noise' + PHOTO[20:],
    'as many chunks as allowed': lambda: png_of_chunks(100_000),
    'chunks after the end': lambda: saved(picture(1), 'PNG') + chunk(b'teSt') * 200_000,
    'a text of comments': lambda: b'P3 #one\n 2 #two\n 1 255 ' + b'#\n' * 900 + b'1 2 3 4 5 6',
    'one strip per row': lambda: saved(picture(1, (8, 4000)), 'TIFF', tiffinfo={278: 1}),
}


@pytest.mark.parametrize('case', SOUND)
def test_a_sound_image_with_many_parts_is_read(case, tmp_path):
    content = SOUND[case]()
    with Image.open(io.BytesIO(content)) as image:
        expected = image.convert('RGB').tobytes()
    (tmp_path / 'a').write_bytes(content)
    for source in (io.BytesIO(content), tmp_path / 'a'):
        assert decoding.decode(source).tobytes() == expected


def test_a_truncated_jpeg_passes_the_check():
    whole = jpeg_of_scans(50)
    for length in range(0, 700, 7):
        assert bombs.check(io.BytesIO(whole[:length])) in (None, ()), length


@pytest.mark.parametrize('content', [b'II', b'MM\0*', b'MM and more', b'Py' + bytes(100_000), b'P6' + bytes(100_000)])
def test_a_file_that_only_starts_like_a_tiff_or_ppm_passes_the_check(content):
    assert bombs.check(io.BytesIO(content)) is None


def test_the_error_for_too_many_pixels_names_the_given_limit():
    content = saved(Image.new('1', (14000, 14000)), 'PNG')  # Pillow refuses it too, with another limit
    with pytest.raises(decoding.ImageError, match='196000000, the limit is 1000000'):
        decoding.decode(io.BytesIO(content), 1_000_000)
