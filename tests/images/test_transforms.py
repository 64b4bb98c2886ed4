"""Decoding of every kind of image file, and the transform of evaluation, which is data."""

import gc
import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import yaml
from conftest import ROOT, SIZES, picture, shape_name
from PIL import Image

from zodiac.base.errors import UserError
from zodiac.data import augment
from zodiac.images import decoding, transforms
from zodiac.images.decoding import ImageError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
WHITE = (255, 255, 255)


def noise(size, seed=0):
    """A PIL RGB image in which every pixel is random, the hardest case for a resampling."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image, suffix, **options):
    """The bytes of an image file, as a binary file."""
    file = io.BytesIO()
    image.save(file, suffix, **options)
    file.seek(0)
    return file


def pixels(image):
    return np.asarray(image)


def largest_difference(one, other):
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def png_of(width, height):
    """A PNG that declares so many grey pixels and holds next to none of them."""

    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def eval_64():
    return transforms.eval_transform(56, MEAN, STD, resize=64)


def squash_56():
    return transforms.eval_transform(56, MEAN, STD, resize='squash')


BOTH = pytest.mark.parametrize('transform', [eval_64(), squash_56()], ids=['crop', 'squash'])


# Decoding


@pytest.mark.parametrize(
    ('orientation', 'to_stored'),  # how a camera with this orientation stores the upright picture
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


def test_exif_orientation_of_a_jpeg_turns_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoding.decode(encoded(picture(0, (48, 40)), 'JPEG', exif=exif)).size == (40, 48)


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')  # Pillow tells it; the pixels are sound
@pytest.mark.parametrize('exif', [b'garbage', b'', b'II*\0\xff\xff\xff\xff', b'MM\0*\0\0\0\x08\0\x05\x01'])
def test_damaged_exif_does_not_spoil_a_sound_jpeg(exif):
    assert decoding.decode(encoded(picture(0, (48, 40)), 'JPEG', exif=b'Exif\0\0' + exif)).size == (48, 40)


@pytest.mark.parametrize(('mode', 'hidden'), [('RGBA', (200, 10, 30, 0)), ('LA', (7, 0))])
def test_transparent_pixels_become_white_not_their_hidden_colour(mode, hidden):
    decoded = decoding.decode(encoded(Image.new(mode, (4, 3), hidden), 'PNG'))
    assert decoded.mode == 'RGB'
    assert (pixels(decoded) == 255).all()


def test_half_transparent_pixels_are_mixed_with_white():
    decoded = decoding.decode(encoded(Image.new('RGBA', (4, 3), (0, 100, 255, 128)), 'PNG'))
    assert largest_difference(pixels(decoded)[0, 0], np.array([127, 177, 255])) <= 1


def test_opaque_alpha_keeps_the_colours():
    image = noise((6, 5))
    assert np.array_equal(pixels(decoding.decode(encoded(image.convert('RGBA'), 'PNG'))), pixels(image))


def test_palette_with_transparency_is_laid_over_white():
    image = Image.new('P', (2, 1))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.putpixel((1, 0), 1)
    decoded = decoding.decode(encoded(image, 'PNG', transparency=0))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 250)]


def test_palette_with_a_transparency_for_each_colour_is_laid_over_white():
    image = Image.new('P', (2, 1))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.putpixel((1, 0), 1)
    decoded = decoding.decode(encoded(image, 'PNG', transparency=b'\x00\xff'))
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


def test_cmyk_is_converted_to_the_colours_it_shows():
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


def test_float_pixels_are_refused_for_their_unknown_range(tmp_path):
    path = tmp_path / 'depth.tiff'
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(path)
    with pytest.raises(ImageError, match='float') as caught:
        decoding.decode(path)
    assert str(path) in str(caught.value)
    assert caught.value.reason


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'gif', 'bmp'])
@pytest.mark.parametrize('share', [0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path, suffix, share):
    path = tmp_path / f'half.{suffix}'
    noise((64, 48)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=re.escape(str(path))):
        decoding.decode(path)


def test_a_text_file_named_jpg_is_refused(tmp_path):
    path = tmp_path / 'note.jpg'
    path.write_text('not a picture')
    with pytest.raises(ImageError, match=re.escape(str(path)) + '.*not an image'):
        decoding.decode(path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / 'empty.jpg'
    path.touch()
    with pytest.raises(ImageError, match=re.escape(str(path))):
        decoding.decode(path)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / '猫 1.jpg'
    with pytest.raises(ImageError, match=re.escape(str(path)) + '.*no such file'):
        decoding.decode(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match=re.escape(str(tmp_path))):
        decoding.decode(tmp_path)


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize(
    'size', [(20000, 20000), (12000, 10000)]
)  # Pillow refuses the first, and only warns of the other
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, size):
    path = tmp_path / 'bomb.png'
    path.write_bytes(png_of(*size))
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


def test_a_bomb_is_refused_where_warnings_are_errors(tmp_path):
    path = tmp_path / 'bomb.png'
    path.write_bytes(png_of(12000, 10000))
    with pytest.raises(ImageError, match='too many pixels'):
        decoding.decode(path)


def test_the_limit_of_pixels_may_be_lower(tmp_path):
    picture(1, (30, 20)).save(tmp_path / 'a.png')
    assert decoding.decode(tmp_path / 'a.png', 600).size == (30, 20)
    with pytest.raises(ImageError, match='30x20, the limit is 599'):
        decoding.decode(tmp_path / 'a.png', 599)


@pytest.mark.parametrize('kind', ['EPS', 'PCX', 'SGI', 'TGA'])
def test_a_file_of_a_kind_that_nobody_has_as_a_photo_is_not_even_parsed(tmp_path, kind):
    """To show an EPS file Pillow starts Ghostscript; the others have decoders that few look after."""
    picture(1, (30, 20)).save(tmp_path / 'a.jpg', kind)
    with pytest.raises(ImageError, match='EPS, which is not read' if kind == 'EPS' else 'not an image'):
        decoding.decode(tmp_path / 'a.jpg')


def test_every_refusal_is_a_user_error():
    assert issubclass(ImageError, UserError)


# Geometry


def cropped(image, size, resize):
    """uint8 [size, size, 3] by the transform of evaluation."""
    return transforms.apply(transforms.eval_transform(size, MEAN, STD, resize)[:-1], image)


@pytest.mark.parametrize('size', SIZES, ids=shape_name)
def test_center_crop_is_resize_of_the_short_side_then_centre_crop(size):
    from paddle.vision.transforms import CenterCrop, Resize

    image = noise(size, seed=size[0])
    expected = pixels(CenterCrop(28)(Resize(32, 'bilinear')(image)))
    result = cropped(image, 28, 32)
    assert result.shape == expected.shape == (28, 28, 3)
    assert largest_difference(result, expected) <= 1


@pytest.mark.parametrize(('size', 'resize'), [(224, 256), (64, 73), (32, 32)])
@pytest.mark.parametrize('shape', [(500, 375), (375, 500), (98, 196)], ids=shape_name)
def test_center_crop_agrees_at_the_sizes_in_use(shape, size, resize):
    from paddle.vision.transforms import CenterCrop, Resize

    image = noise(shape)
    expected = pixels(CenterCrop(size)(Resize(resize, 'bilinear')(image)))
    assert largest_difference(cropped(image, size, resize), expected) <= 1


MEMORY_OF_LONG_IMAGES = """
import re
from PIL import Image
from zodiac.images import decoding, transforms
def peak():  # getrusage would start at what pytest itself takes
    return int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])
before = peak()
for size in ((1, 3000), (3000, 1)):
    image = Image.new('RGB', size)
    for resize in (256, 'squash'):
        transform = transforms.eval_transform(224, [0] * 3, [1] * 3, resize)
        assert transforms.apply(transform[:-1], image).shape == (224, 224, 3)
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='the peak of memory is read from /proc')
def test_a_line_of_3000_pixels_takes_little_memory():
    # 256 x 768000 pixels, were it resized as a whole: 786 MB
    done = subprocess.run([sys.executable, '-c', MEMORY_OF_LONG_IMAGES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000, 'kilobytes'


@pytest.mark.parametrize('size', SIZES, ids=shape_name)
def test_resize_squashes_the_whole_image_as_paddle_does(size):
    from paddle.vision.transforms import Resize

    image = noise(size, seed=size[0])
    result = cropped(image, 28, 'squash')
    assert result.shape == (28, 28, 3)
    assert largest_difference(result, pixels(Resize((28, 28), 'bilinear')(image))) <= 1


def test_resize_leaves_an_image_of_the_size_alone():
    image = noise((28, 28))
    assert np.array_equal(cropped(image, 28, 'squash'), pixels(image))


# Reduced decoding


def photo(size, seed=0):
    """A PIL image with the frequencies of a photo: noise at every scale, the coarser the stronger."""
    rng, result = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    for octave in range(2, 9):
        coarse = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), dtype=np.uint8))
        result += pixels(coarse.resize(size, Image.Resampling.BICUBIC)) / 2.0 ** (octave - 1)
    return Image.fromarray(result.clip(0, 255).astype(np.uint8))


def reduced(transform):
    return [transforms.REDUCED, *transform]


@BOTH
@pytest.mark.parametrize('shape', [(1200, 800), (801, 1203), (130, 113), (56, 56), (40, 30)], ids=shape_name)
def test_reduced_decoding_gives_nearly_the_same_pixels(transform, shape):
    file = encoded(photo(shape), 'JPEG', quality=90)
    fast, exact = (transforms.read(steps[:-1], file) for steps in (reduced(transform), transform))
    difference = np.abs(fast.astype(int) - exact)
    assert fast.shape == exact.shape
    assert difference.mean() < 2.5
    assert np.percentile(difference, 99) < 12


@BOTH
def test_reduced_decoding_of_a_large_jpeg_reads_fewer_pixels(transform, monkeypatch):
    seen = []
    monkeypatch.setattr(decoding, 'to_rgb', lambda image, source: seen.append(image.size) or image.copy())
    file = encoded(photo((1200, 800)), 'JPEG')
    transforms.read(reduced(transform), file)
    transforms.read(transform, file)
    assert seen == [(150, 100), (1200, 800)]


@pytest.mark.parametrize('suffix', ['PNG', 'WEBP', 'BMP', 'TIFF'])
def test_reduced_decoding_changes_no_other_format(suffix):
    file = encoded(photo((400, 300)), suffix)
    assert np.array_equal(transforms.read(reduced(eval_64()), file), transforms.read(eval_64(), file))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_reduced_decoding_cuts_a_turned_photo_where_full_decoding_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(photo((801, 403)), 'JPEG', exif=exif, quality=95)
    crop = augment.RandomResizedCrop(size=32, scale=[0.3, 0.3])
    seeds = range(8)
    fast, exact = (
        np.stack([transforms.read(steps, file, np.random.default_rng(seed)) for seed in seeds])
        for steps in (reduced([crop]), [crop])
    )
    assert np.abs(fast.astype(int) - exact).mean() < 2.5


def test_reduced_decoding_draws_what_full_decoding_draws():
    file = encoded(photo((640, 480)), 'JPEG')
    crop = augment.RandomResizedCrop(size=32)
    states = []
    for steps in (reduced([crop]), [crop]):
        rng = np.random.default_rng(3)
        transforms.read(steps, file, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_where_nothing_scales_first_a_jpeg_is_decoded_in_full():
    file = encoded(photo((640, 480)), 'JPEG')
    steps = [augment.HorizontalFlip(p=1.0), *eval_64()]
    read = [transforms.read(part, file, np.random.default_rng(0)) for part in (reduced(steps), steps)]
    assert np.array_equal(*read)


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
def test_reduced_decoding_takes_grey_and_cmyk_jpegs(mode):
    file = encoded(photo((640, 480)).convert(mode), 'JPEG')
    fast, exact = (transforms.read(steps[:-1], file) for steps in (reduced(eval_64()), eval_64()))
    assert np.abs(fast.astype(int) - exact).mean() < 2.5


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.99])
def test_reduced_decoding_finds_a_truncated_jpeg(share, tmp_path):
    path = tmp_path / 'cut.jpg'
    content = encoded(photo((640, 480)), 'JPEG').read()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match='truncated') as caught:
        transforms.read(reduced(eval_64()), str(path))
    assert str(path) in str(caught.value)


# Values


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation():
    values = np.array([[[0, 128, 255]]], np.uint8)
    result = transforms.normalize(Image.fromarray(values), MEAN, STD)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert result.dtype == np.float32
    assert np.allclose(result[0, 0], expected, rtol=0, atol=1e-6)


@BOTH
@pytest.mark.parametrize('shape', [(70, 90), (56, 56)], ids=shape_name)
def test_apply_gives_contiguous_float32_channels_first(transform, shape):
    result = transforms.apply(transform, noise(shape))
    assert result.shape == (3, 56, 56)
    assert result.dtype == np.float32
    assert result.flags['C_CONTIGUOUS']


@BOTH
def test_without_normalisation_apply_gives_the_pixels_and_denormalize_gives_them_back(transform):
    image = noise((90, 70))
    pixels = transforms.apply(transform[:-1], image)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    settings = {key: transform[-1][key] for key in ('mean', 'std')}
    assert np.array_equal(transforms.denormalize(transforms.apply(transform, image), **settings), pixels)


def test_apply_keeps_the_channels_in_the_order_red_green_blue():
    image = Image.new('RGB', (64, 64), (255, 128, 0))
    result = transforms.apply(transforms.eval_transform(8, [0, 0, 0], [1, 1, 1]), image)
    assert np.allclose(result.mean((1, 2)), [1, 128 / 255, 0], atol=1e-6)


def test_apply_runs_callables_with_the_generator_before_and_after_data():
    seen = []

    def note(image, rng):
        seen.append((image.size, rng))
        return image

    rng = np.random.default_rng(0)
    image = noise((70, 90))
    result = transforms.apply([note, eval_64()[0], note, eval_64()[1]], image, rng)
    assert seen == [((70, 90), rng), ((56, 56), rng)]
    assert np.array_equal(result, transforms.apply(eval_64(), image))


@BOTH
def test_eval_transform_needs_no_generator_and_repeats(transform):
    image = noise((70, 90))
    assert np.array_equal(transforms.apply(transform, image), transforms.apply(transform, image))


@pytest.mark.parametrize(('size', 'resize'), [(224, 256), (112, 128), (64, 73), (8, 9)])
def test_eval_resize_keeps_the_share_of_256_to_224(size, resize):
    assert transforms.eval_transform(size, MEAN, STD)[0] == {'op': 'center_crop', 'size': size, 'resize': resize}


def test_eval_resize_squash_takes_the_whole_image():
    assert squash_56()[0] == {'op': 'resize', 'size': 56}
    assert squash_56()[1:] == eval_64()[1:]
    image = noise((70, 90))
    result = transforms.apply(squash_56(), image)
    squashed = image.resize((56, 56), Image.Resampling.BILINEAR)
    assert np.array_equal(result, transforms.apply(squash_56()[1:], squashed))


@BOTH
def test_a_transform_survives_yaml(transform):
    read = yaml.safe_load(yaml.safe_dump(transform))
    assert read == transform
    image = noise((70, 90))
    ours, theirs = (transforms.apply(t, image) for t in (transform, read))
    assert np.array_equal(ours, theirs)


NORMALIZE = {'op': 'normalize', 'mean': MEAN, 'std': STD}
CROP = {'op': 'center_crop', 'size': 8, 'resize': 9}
RESIZE = {'op': 'resize', 'size': 8}


@pytest.mark.parametrize('transform', [eval_64(), squash_56(), [CROP, NORMALIZE], [RESIZE, NORMALIZE], [CROP]])
def test_check_accepts_what_runs(transform):
    transforms.check(transform, 'inference.yaml')


@pytest.mark.parametrize(
    'transform',
    [
        pytest.param([{'op': 'os.system', 'command': 'true'}, NORMALIZE], id='unknown op'),
        pytest.param([{'op': 'apply'}, NORMALIZE], id='a function that is no op'),
        pytest.param([{'op': ['center_crop']}, NORMALIZE], id='op is a list'),
        pytest.param([{'size': 8}, NORMALIZE], id='no op'),
        pytest.param([{'op': 'center_crop', 'size': 8}, NORMALIZE], id='missing parameter'),
        pytest.param([{**CROP, 'angle': 3}, NORMALIZE], id='unknown parameter'),
        pytest.param([{**CROP, 'size': 'eight'}, NORMALIZE], id='size is text'),
        pytest.param([{**CROP, 'size': 0}, NORMALIZE], id='size 0'),
        pytest.param([{**CROP, 'size': -8}, NORMALIZE], id='size below 0'),
        pytest.param([{**CROP, 'size': 8.5}, NORMALIZE], id='size is no whole number'),
        pytest.param([{**CROP, 'size': 0, 'resize': 0}, NORMALIZE], id='resize 0'),
        pytest.param([{**CROP, 'size': 10**30}, NORMALIZE], id='size beyond any memory'),
        pytest.param([{**RESIZE, 'size': 'eight'}, NORMALIZE], id='squash to text'),
        pytest.param([{**RESIZE, 'size': 0}, NORMALIZE], id='squash to 0'),
        pytest.param([{**RESIZE, 'size': -8}, NORMALIZE], id='squash to below 0'),
        pytest.param([{**RESIZE, 'size': 8.5}, NORMALIZE], id='squash to no whole number'),
        pytest.param([{**RESIZE, 'size': 10**30}, NORMALIZE], id='squash beyond any memory'),
        pytest.param([{**RESIZE, 'resize': 9}, NORMALIZE], id='squash with a short side'),
        pytest.param([{'op': 'random_crop', 'size': 8}, NORMALIZE], id='an operation of training'),
        pytest.param([CROP, {**NORMALIZE, 'mean': [0.5, 0.5]}], id='two means'),
        pytest.param([CROP, {**NORMALIZE, 'std': 'wide'}], id='std is text'),
        pytest.param([NORMALIZE, CROP], id='wrong order'),
        pytest.param([], id='empty'),
        pytest.param(None, id='null'),
        pytest.param('center_crop', id='a text'),
        pytest.param([None], id='a list of nothing'),
        pytest.param({'op': 'normalize'}, id='a dict'),
    ],
)
def test_check_refuses_a_transform_that_cannot_run(transform):
    with pytest.raises(UserError, match='model/inference.yaml'):
        transforms.check(transform, 'model/inference.yaml')


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_check_refuses_a_deviation_of_zero():
    with pytest.raises(UserError, match='inference.yaml'):
        transforms.check([CROP, {**NORMALIZE, 'std': [0.2, 0.0, 0.2]}], 'inference.yaml')
