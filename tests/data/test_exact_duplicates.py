"""Files with equal pixels are found in any format; images that differ in a pixel, or only look equal at reduced size, are not."""

from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from image_files import ZOO, segment
from PIL import Image

from zodiac.data import entry, exact_duplicates, inspection
from zodiac.images import decoding


def groups(folder):
    """The names in a folder of files with equal pixels, group by group."""
    entries = [entry.Entry(str(path), 'train', 'cat') for path in sorted(Path(folder).iterdir())]
    stamps = bytearray(len(entries) * len(entry.NEVER))
    inspection.inspect_entries(entries, range(len(entries)), stamps, False, 1)
    return [[Path(one.path).name for one in same] for same in exact_duplicates.groups(entries)]


@pytest.mark.parametrize(
    ('first', 'second'), [('png', 'bmp'), ('jpeg', 'png'), ('jpeg', 'bmp'), ('png', 'tiff'), ('png', 'png')]
)
def test_equal_pixels_are_found_in_any_format(tmp_path, decoder, first, second):
    picture(77).save(tmp_path / f'a.{first}')
    with Image.open(tmp_path / f'a.{first}') as image:
        image.save(tmp_path / f'b.{second}')
    picture(78).save(tmp_path / 'other.png')
    assert groups(tmp_path) == [[f'a.{first}', f'b.{second}']]


@pytest.mark.parametrize('second', ['png', 'bmp', 'jpg'])
@pytest.mark.parametrize('first', ['large.jpg', 'large, turned by exif.jpg'])
def test_equal_pixels_of_a_large_jpeg_are_found_in_any_format(tmp_path, decoder, first, second):
    (tmp_path / 'source.png').write_bytes(
        ZOO['large.png']()
    )  # the same size, other pixels: from before it was saved as a JPEG
    data = ZOO[first]()
    (tmp_path / 'a.jpg').write_bytes(data)
    if second == 'jpg':  # other bytes
        (tmp_path / 'b.jpg').write_bytes(data[:2] + segment(0xFE, b'a comment') + data[2:])
    else:
        decoding.decode(tmp_path / 'a.jpg').save(tmp_path / f'b.{second}')
    assert groups(tmp_path) == [['a.jpg', f'b.{second}']]


def test_large_jpegs_that_are_equal_only_at_reduced_size_differ(tmp_path, decoder):
    pixels = np.full((320, 320, 3), 128, np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.jpg', subsampling=0)
    pixels[::8] += 60
    pixels[1::8] -= 60  # the mean of each block of 8 x 8 stays the same
    Image.fromarray(pixels).save(tmp_path / 'b.jpg', subsampling=0)
    one, other = (inspection.inspect(tmp_path / name, False).fingerprint for name in ('a.jpg', 'b.jpg'))
    assert entry.pixels(one) == entry.pixels(other)
    assert groups(tmp_path) == []


def test_images_that_differ_in_one_pixel_differ(tmp_path):
    image = picture(77)
    image.save(tmp_path / 'a.png')
    image.putpixel((5, 5), tuple(255 - value for value in image.getpixel((5, 5))))
    image.save(tmp_path / 'b.png')
    assert groups(tmp_path) == []


def test_images_of_equal_bytes_but_another_shape_differ(tmp_path):
    for size in ((6, 4), (4, 6)):
        Image.new('RGB', size).save(tmp_path / f'{size[0]}.png')
    assert groups(tmp_path) == []
