"""Any image file gives the same upright 8-bit RGB picture however it is read, or a message that says what it is."""

import concurrent.futures
import contextlib
import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, picture
from image_files import NAMED, UPRIGHT, WRITTEN, box, private_tags, saved, turned
from PIL import Image

from zodiac.data import entry, inspection
from zodiac.images import decoding, file_types, transforms


@pytest.mark.parametrize('name', WRITTEN)
def test_all_eight_orientations_give_the_same_upright_picture_in_full_and_reduced(tmp_path, name):
    if name == 'AVIF' and not decoding.HAS_AVIF:
        pytest.skip('this Pillow has no AVIF')
    path = tmp_path / 'a'
    steps = transforms.eval_transform(24, [0] * 3, [1 / 255] * 3, reduced=True)
    seen = []
    for orientation in range(1, 9):
        path.write_bytes(turned(name, orientation))
        whole = np.asarray(decoding.decode(path), int)
        found = [inspection.inspect(path, True, reduce) for reduce in (True, False)]
        assert {entry.size(one.fingerprint) for one in found} == {UPRIGHT.size} == {whole.shape[1::-1]}
        seen.append((whole, transforms.read(steps, path), transforms.read(steps[1:], path)))
    for whole, reduced, full in seen:
        assert np.abs(whole - seen[0][0]).mean() < 2
        assert np.abs(reduced - seen[0][1]).mean() < 3
        assert np.abs(reduced - full).mean() < 4


def test_an_orientation_behind_the_pixels_of_a_png_counts():
    whole = saved(picture(1), 'PNG')
    tags = Image.Exif()
    tags[decoding.ORIENTATION] = 6
    late = chunk_of(saved(picture(1), 'PNG', exif=tags), b'eXIf')
    image = decoding.decode(io.BytesIO(whole[:-12] + late + whole[-12:]))
    assert np.array_equal(np.asarray(image), np.asarray(picture(1).transpose(decoding.TURNS[6])))


def chunk_of(content, name):
    at = content.index(name) - 4
    return content[at : at + 12 + int.from_bytes(content[at : at + 4], 'big')]


def test_exif_of_thousands_of_tags_is_ignored():
    tags = struct.pack('<H', 60_000) + b''.join(struct.pack('<HHLL', tag, 3, 1, 6) for tag in range(60_000)) + bytes(4)
    content = saved(picture(1), 'PNG', exif=b'Exif\0\0II*\0\x08\0\0\0' + tags)
    assert np.array_equal(np.asarray(decoding.decode(io.BytesIO(content))), np.asarray(picture(1)))


# --- formats


@pytest.mark.parametrize('kind', ['PPM', 'AVIF'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_ppm_and_avif_are_read(kind, mode):
    if kind == 'AVIF' and not decoding.HAS_AVIF:
        pytest.skip('this Pillow has no AVIF')
    image = picture(1, mode=mode)
    found = decoding.decode(io.BytesIO(saved(image, kind)))
    assert np.abs(np.asarray(found, int) - np.asarray(image.convert('RGB'), int)).mean() < (0.1 if kind == 'PPM' else 9)


@pytest.mark.parametrize('name', NAMED)
def test_another_format_is_named_with_what_to_do(name):
    with pytest.raises(
        decoding.ImageError, match=f'^image: {name.split(" by")[0]}, which is not read: save it as JPEG or PNG$'
    ):
        decoding.decode(io.BytesIO(NAMED[name]))


@pytest.mark.parametrize(
    ('content', 'detail'),
    [
        (b'', 'the file is empty'),
        (b'<!DOCTYPE html><html>404</html>', 'an HTML page'),
        (b'version https://git-lfs.github.com/spec/v1\noid', 'a Git LFS pointer: run git lfs pull'),
        (box(b'isom', b'mp42'), 'a video'),
        (b'hello', ''),
    ],
)
def test_what_is_no_image_is_named_where_it_can_be_told(content, detail):
    with pytest.raises(decoding.ImageError) as caught:
        decoding.decode(io.BytesIO(content))
    assert (caught.value.reason, caught.value.detail) == ('not an image', detail)


def test_avif_for_which_pillow_is_too_old_says_so():
    assert file_types.describe(box(b'avif', b'mif1'))[0].startswith('AVIF, which this Pillow does not read: update it')


# --- what C libraries and Pillow say of a damaged file


def wordy():
    """Damaged TIFFs of which libtiff and Pillow have something to say."""
    packed = [
        saved(picture(1).convert('1' if kind.startswith('group') else 'RGB'), 'TIFF', compression=kind)
        for kind in ('tiff_lzw', 'tiff_deflate', 'jpeg', 'group4')
    ]
    spoilt = [content[:40] + b'\x55\xaa\x13' * 9 + content[67:] for content in packed]
    many = saved(picture(1), 'TIFF').replace(struct.pack('<HHLH', 277, 3, 1, 3), struct.pack('<HHLH', 277, 3, 1, 65535))
    return [private_tags(), many, *spoilt, *(content[: len(content) // 2] for content in packed)]


def try_to_decode(source):
    with contextlib.suppress(decoding.ImageError):
        decoding.decode(source)


def test_no_decoder_writes_to_the_terminal_from_threads_or_processes(tmp_path, capfd):
    paths = []
    for number, content in enumerate(wordy()):
        paths.append(str(tmp_path / f'{number}.tif'))
        (tmp_path / f'{number}.tif').write_bytes(content)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(try_to_decode, paths))
    reasons = [found.reason for found in inspection.inspect_all(paths * 40, True, 2)]
    assert len([reason for reason in reasons if reason]) > len(reasons) / 3
    assert capfd.readouterr() == ('', '')


def test_a_file_that_has_the_number_of_a_closed_stderr_is_not_written_to(tmp_path):
    (tmp_path / 'a.tif').write_bytes(private_tags())
    code = (
        'import os, sys; from zodiac.images import decoding; os.close(2)\n'
        "with open('result.txt', 'w') as file:\n"
        "    file.write(f'{file.fileno()}'); file.flush()\n"
        "    decoding.decode('a.tif')\n"
    )
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert (tmp_path / 'result.txt').read_text() == '2'
