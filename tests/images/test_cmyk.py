"""CMYK images are converted by the colour profile in the file, and by the plain formula where that cannot be used."""

import struct

import numpy as np
import pytest
from conftest import picture
from image_files import encoded
from PIL import Image, ImageCms

from zodiac.data import inspection
from zodiac.images import cmyk, decoding

KINDS = [('JPEG', {'quality': 100}), ('TIFF', {})]


RED, BLUE = (130, 210, 190), (90, 170, 30)  # L*a*b* in 8 bits


def profile(cyan=RED):
    """A small ICC profile of a printer that has ink of another colour in place of cyan.

    ICC.1:2022, sections 7.2 (header) and 10.10 (lut8Type).
    """
    colours = {0: (255, 128, 128), 8: cyan}  # of no ink, and of cyan alone
    grid = bytes(value for number in range(16) for value in colours.get(number, (10, 128, 128)))
    unit = struct.pack('>9i', *(65536 * (number % 4 == 0) for number in range(9)))
    table = b'mft1' + bytes(4) + bytes([4, 3, 2, 0]) + unit + bytes(range(256)) * 4 + grid + bytes(range(256)) * 3
    tags = struct.pack('>I4sII', 1, b'A2B0', 144, len(table))
    head = struct.pack('>I4sI', 144 + len(table), b'none', 0x02400000) + b'prtrCMYKLab '
    head += struct.pack('>6H', 2026, 1, 1, 0, 0, 0) + b'acsp' + bytes(28) + struct.pack('>3I', 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b'\0') + tags + table


def plain(kind, options):
    return np.asarray(decoding.decode(encoded(picture(1, mode='CMYK'), kind, **options)))


@pytest.mark.parametrize(('kind', 'options'), KINDS)
def test_the_profile_decides_the_colours(kind, options):
    image = Image.new('CMYK', (40, 30), (255, 0, 0, 0))
    for cyan, strongest in ((RED, 0), (BLUE, 2)):
        found = np.asarray(decoding.decode(encoded(image, kind, icc_profile=profile(cyan), **options)))
        assert found.shape == (30, 40, 3)
        assert (np.delete(found, strongest, -1).max(-1) + 50 < found[..., strongest]).all()


@pytest.mark.parametrize(('kind', 'options'), KINDS)
@pytest.mark.parametrize(
    'damage',
    [
        lambda data: b'no profile',
        lambda data: data[:200],
        lambda data: data[:140] + b'\xff' * 20 + data[160:],
        lambda data: data + bytes(cmyk.MAX_BYTES),
        lambda data: ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(),
    ],
    ids=['text', 'cut short', 'damaged', 'too large', 'of RGB'],
)
def test_a_profile_that_cannot_be_used_gives_the_plain_colours(kind, options, damage):
    file = encoded(picture(1, mode='CMYK'), kind, icc_profile=damage(profile()), **options)
    assert np.array_equal(np.asarray(decoding.decode(file)), plain(kind, options))


def test_an_image_of_another_mode_is_not_changed_by_its_profile():
    for mode in ('RGB', 'L'):
        image = picture(1, mode=mode)
        found = decoding.decode(encoded(image, 'PNG', icc_profile=profile()))
        assert np.array_equal(np.asarray(found), np.asarray(image.convert('RGB')))


def test_annotate_sees_the_colours_that_training_and_serving_see(tmp_path):
    path = str(tmp_path / 'a.jpg')
    picture(1, (300, 200), 'CMYK').save(path, icc_profile=profile())
    seen = inspection._usable(np.asarray(decoding.decode(path)), (300, 200), 'CMYK')[1]
    assert inspection.inspect(path, convert=True, reduce=False).fingerprint[8:18] == seen[1]
