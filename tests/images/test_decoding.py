"""Any image file gives an upright 8-bit RGB image, the same in every way of reading it, or an error that says what the file is."""

import concurrent.futures
import contextlib
import gc
import io
import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT, picture
from image_files import NAMED, UPRIGHT, WRITTEN, box, encoded, noise, png, private_tags, saved, turned
from PIL import Image

from zodiac.data import entry, inspection
from zodiac.images import decoding, file_types, transforms
from zodiac.images.decoding import ImageError

WHITE = (255, 255, 255)


def pixels(image):
    return np.asarray(image)


# --- modes, transparency, damage


@pytest.mark.parametrize(
    ('orientation', 'to_stored'),  # how a camera stores the upright picture
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, 1)),
        (7, lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_exif_orientation_is_applied(orientation, to_stored, mode):
    upright = noise((7, 5)).convert(mode)
    stored = Image.fromarray(np.ascontiguousarray(to_stored(pixels(upright))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decoding.decode(encoded(stored, 'PNG', exif=exif))
    assert np.array_equal(pixels(decoded), pixels(upright.convert('RGB')))


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')  # a warning of Pillow
@pytest.mark.parametrize('exif', [b'garbage', b'', b'II*\0\xff\xff\xff\xff', b'MM\0*\0\0\0\x08\0\x05\x01'])
def test_damaged_exif_in_a_sound_jpeg_is_ignored(exif):
    assert decoding.decode(encoded(picture(0, (48, 40)), 'JPEG', exif=b'Exif\0\0' + exif)).size == (48, 40)


@pytest.mark.parametrize(('mode', 'hidden'), [('RGBA', (200, 10, 30, 0)), ('LA', (7, 0))])
def test_fully_transparent_pixels_become_white(mode, hidden):
    decoded = decoding.decode(encoded(Image.new(mode, (4, 3), hidden), 'PNG'))
    assert decoded.mode == 'RGB'
    assert (pixels(decoded) == 255).all()


@pytest.mark.parametrize(('alpha', 'expected'), [(128, [127, 177, 255]), (255, [0, 100, 255])])
def test_transparent_pixels_are_composited_over_white(alpha, expected):
    decoded = decoding.decode(encoded(Image.new('RGBA', (4, 3), (0, 100, 255, alpha)), 'PNG'))
    assert np.abs(pixels(decoded)[0, 0].astype(int) - expected).max() <= 1


def test_a_single_transparent_pixel_is_enough_to_composite():
    image = Image.new('RGBA', (4, 3), (0, 100, 255, 255))
    image.putpixel((3, 2), (0, 100, 255, 0))
    decoded = pixels(decoding.decode(encoded(image, 'PNG')))
    assert decoded[2, 3].tolist() == [255, 255, 255]
    assert (decoded.reshape(-1, 3)[:-1] == (0, 100, 255)).all()


@pytest.mark.parametrize('suffix', ['PNG', 'GIF'])
@pytest.mark.parametrize('transparency', [0, b'\x00\xff'], ids=['one colour', 'by colour'])
def test_a_transparent_palette_colour_becomes_white(suffix, transparency):
    image = Image.new('P', (2, 1))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.putpixel((1, 0), 1)
    decoded = decoding.decode(encoded(image, suffix, transparency=0 if suffix == 'GIF' else transparency))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 250)]


@pytest.mark.parametrize(('mode', 'key', 'other'), [('L', 9, 80), ('RGB', (9, 8, 7), (80, 81, 82))])
def test_a_colour_declared_transparent_becomes_white(mode, key, other):
    image = Image.new(mode, (2, 1), other)
    image.putpixel((0, 0), key)
    decoded = decoding.decode(encoded(image, 'PNG', transparency=key))
    assert decoded.getpixel((0, 0)) == WHITE
    assert decoded.getpixel((1, 0)) == (other if mode == 'RGB' else (other,) * 3)


@pytest.mark.parametrize('suffix', ['PNG', 'TIFF'])
def test_16_bit_grey_is_scaled_to_8_bits(suffix):
    values = np.array([[0, 255, 256, 32768, 40000, 65535]], np.uint16)
    decoded = decoding.decode(encoded(Image.fromarray(values), suffix))
    assert decoded.mode == 'RGB'
    assert pixels(decoded)[0].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 156, 255)]


def test_cmyk_is_converted_to_the_colours_that_it_shows():
    image = picture(3)
    exact = decoding.decode(encoded(image.convert('CMYK'), 'TIFF'))
    lossy = decoding.decode(encoded(image.convert('CMYK'), 'JPEG', quality=95))
    assert exact.mode == lossy.mode == 'RGB'
    assert np.array_equal(pixels(exact), pixels(image))
    assert np.abs(pixels(lossy).astype(int) - pixels(image)).mean() < 6


@pytest.mark.parametrize('mode', ['1', 'L', 'P'])
def test_one_bit_grey_and_palette_images_keep_their_values(mode):
    image = picture(4).convert(mode)
    decoded = decoding.decode(encoded(image, 'PNG'))
    assert decoded.mode == 'RGB'
    assert np.array_equal(pixels(decoded), pixels(image.convert('RGB')))


@pytest.mark.parametrize('suffix', ['GIF', 'WEBP', 'PNG'])
def test_an_animation_gives_its_first_frame(suffix):
    frames = [Image.new('RGB', (8, 6), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {'lossless': True} if suffix == 'WEBP' else {}
    file = encoded(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
    assert Image.open(file).n_frames == 3
    decoded = decoding.decode(file)
    assert decoded.mode == 'RGB'
    assert set(map(tuple, pixels(decoded).reshape(-1, 3).tolist())) == {(250, 0, 0)}


def test_float_pixels_are_refused(tmp_path):
    path = tmp_path / 'depth.tiff'
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(path)
    with pytest.raises(ImageError, match='float') as caught:
        decoding.decode(path)
    assert str(path) in str(caught.value)
    assert caught.value.reason == 'float pixels'


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'gif', 'bmp'])
@pytest.mark.parametrize('share', [0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path, suffix, share):
    path = tmp_path / f'half.{suffix}'
    noise((64, 48)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=re.escape(str(path))):
        decoding.decode(path)


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('size', [(20000, 20000), (12000, 10000)])  # Pillow refuses the first and warns of the other
def test_a_decompression_bomb_is_refused_without_decoding_it(tmp_path, size):
    path = tmp_path / 'bomb.png'
    path.write_bytes(png(size, 8, 0, b''))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match='too many pixels') as caught:
            decoding.decode(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert caught.value.reason == 'too many pixels'
    del caught
    gc.collect()  # a file that was left open warns now


@pytest.mark.parametrize(('name', 'reason'), [('猫 1.jpg', 'no such file'), ('', '')])
def test_a_missing_file_and_a_folder_are_named(tmp_path, name, reason):
    with pytest.raises(ImageError, match=re.escape(str(tmp_path / name)) + f'.*{reason}'):
        decoding.decode(tmp_path / name)


def test_a_decompression_bomb_is_refused_if_warnings_are_errors(tmp_path):
    path = tmp_path / 'bomb.png'
    path.write_bytes(png((12000, 10000), 8, 0, b''))
    with pytest.raises(ImageError, match='too many pixels'):
        decoding.decode(path)


def test_the_limit_of_pixels_may_be_lower(tmp_path):
    picture(1, (30, 20)).save(tmp_path / 'a.png')
    assert decoding.decode(tmp_path / 'a.png', 600).size == (30, 20)
    with pytest.raises(ImageError, match='30x20, the limit is 599'):
        decoding.decode(tmp_path / 'a.png', 599)


@pytest.mark.parametrize('kind', ['EPS', 'PCX', 'SGI', 'TGA'])
def test_formats_other_than_those_of_photos_are_not_parsed(tmp_path, kind):
    """For an EPS file Pillow would start Ghostscript; the decoders of the others are hardly maintained."""
    picture(1, (30, 20)).save(tmp_path / 'a.jpg', kind)
    with pytest.raises(ImageError, match='EPS, which is not read' if kind == 'EPS' else 'not an image'):
        decoding.decode(tmp_path / 'a.jpg')


# --- orientation


@pytest.mark.parametrize('name', WRITTEN)
def test_all_orientations_give_the_same_upright_image_in_full_and_reduced(tmp_path, name):
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


def test_an_orientation_after_the_pixels_of_a_png_is_applied():
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
def test_an_unsupported_format_is_named_with_the_next_step(name):
    with pytest.raises(ImageError, match=f'^image: {name.split(" by")[0]}, which is not read: save it as JPEG or PNG$'):
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
def test_a_file_that_is_not_an_image_is_identified(content, detail):
    with pytest.raises(ImageError) as caught:
        decoding.decode(io.BytesIO(content))
    assert (caught.value.reason, caught.value.detail) == ('not an image', detail)


def test_an_old_pillow_is_named_as_the_reason_for_unsupported_avif():
    assert file_types.describe(box(b'avif', b'mif1'))[0].startswith('AVIF, which this Pillow does not read: update it')


# --- messages of C libraries and Pillow


def noisy_tiffs():
    """Damaged TIFFs that make libtiff and Pillow print messages."""
    packed = [
        saved(picture(1).convert('1' if kind.startswith('group') else 'RGB'), 'TIFF', compression=kind)
        for kind in ('tiff_lzw', 'tiff_deflate', 'jpeg', 'group4')
    ]
    spoilt = [content[:40] + b'\x55\xaa\x13' * 9 + content[67:] for content in packed]
    many = saved(picture(1), 'TIFF').replace(struct.pack('<HHLH', 277, 3, 1, 3), struct.pack('<HHLH', 277, 3, 1, 65535))
    return [private_tags(), many, *spoilt, *(content[: len(content) // 2] for content in packed)]


def try_to_decode(source):
    with contextlib.suppress(ImageError):
        decoding.decode(source)


def test_no_decoder_writes_to_the_terminal_from_threads_or_processes(tmp_path, capfd):
    paths = []
    for number, content in enumerate(noisy_tiffs()):
        paths.append(str(tmp_path / f'{number}.tif'))
        (tmp_path / f'{number}.tif').write_bytes(content)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(try_to_decode, paths))
    reasons = [found.reason for found in inspection.inspect_all(paths * 40, True, 2)]
    assert len([reason for reason in reasons if reason]) > len(reasons) / 3
    assert capfd.readouterr() == ('', '')


def test_messages_are_not_written_to_a_file_with_the_number_of_a_closed_stderr(tmp_path):
    (tmp_path / 'a.tif').write_bytes(private_tags())
    code = (
        'import os, sys; from zodiac.images import decoding; os.close(2)\n'
        "with open('result.txt', 'w') as file:\n"
        "    file.write(f'{file.fileno()}'); file.flush()\n"
        "    decoding.decode('a.tif')\n"
    )
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert (tmp_path / 'result.txt').read_text() == '2'


def test_only_the_decoders_of_photo_formats_are_loaded(tmp_path):
    (tmp_path / 'a.jpg').write_text('not an image')
    code = (
        'import sys; from zodiac.images import decoding\n'
        'try: decoding.decode(sys.argv[1])\n'
        'except decoding.ImageError: pass\n'
        "print(*sorted({'PIL.EpsImagePlugin', 'PIL.PdfImagePlugin', 'PIL.WmfImagePlugin'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, '-c', code, tmp_path / 'a.jpg'], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ''), done.stderr


def test_a_pipe_is_read_like_a_file(tmp_path):
    picture(0).save(tmp_path / 'a.png')
    os.mkfifo(tmp_path / 'pipe')
    writer = threading.Thread(target=lambda: (tmp_path / 'pipe').write_bytes((tmp_path / 'a.png').read_bytes()))
    writer.start()
    found = decoding.decode(str(tmp_path / 'pipe'))
    writer.join()
    assert np.array_equal(np.asarray(found), np.asarray(picture(0)))
