"""The evaluation transform: its geometry and values, reduced decoding, and the check of one that was read from a file."""

import numpy as np
import pytest
import yaml
from conftest import SIZES, shape_name
from image_files import encoded, noise
from PIL import Image

from zodiac.base.errors import UserError
from zodiac.data import augment
from zodiac.images import decoding, transforms
from zodiac.images.decoding import ImageError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pixels(image):
    return np.asarray(image)


def largest_difference(one, other):
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def eval_64():
    return transforms.eval_transform(56, MEAN, STD, resize=64)


def squash_56():
    return transforms.eval_transform(56, MEAN, STD, resize='squash')


BOTH = pytest.mark.parametrize('transform', [eval_64(), squash_56()], ids=['crop', 'squash'])


# Geometry


def cropped(image, size, resize):
    """uint8 [size, size, 3] by the evaluation transform."""
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


@pytest.mark.parametrize('size', SIZES, ids=shape_name)
def test_resize_squashes_the_whole_image_as_paddle_does(size):
    from paddle.vision.transforms import Resize

    image = noise(size, seed=size[0])
    result = cropped(image, 28, 'squash')
    assert result.shape == (28, 28, 3)
    assert largest_difference(result, pixels(Resize((28, 28), 'bilinear')(image))) <= 1


def test_resize_does_not_change_an_image_of_the_size():
    image = noise((28, 28))
    assert np.array_equal(cropped(image, 28, 'squash'), pixels(image))


# Reduced decoding


def photo(size, seed=0):
    """A PIL image with the frequencies of a photo: noise at every scale, stronger at coarser ones."""
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
def test_reduced_decoding_of_a_large_jpeg_decodes_fewer_pixels(transform, monkeypatch):
    seen = []
    monkeypatch.setattr(decoding, 'to_rgb', lambda image, source: seen.append(image.size) or image.copy())
    file = encoded(photo((1200, 800)), 'JPEG')
    transforms.read(reduced(transform), file)
    transforms.read(transform, file)
    assert seen == [(150, 100), (1200, 800)]


@pytest.mark.parametrize('suffix', ['PNG', 'WEBP', 'BMP', 'TIFF'])
def test_reduced_decoding_does_not_change_other_formats(suffix):
    file = encoded(photo((400, 300)), suffix)
    assert np.array_equal(transforms.read(reduced(eval_64()), file), transforms.read(eval_64(), file))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_reduced_decoding_crops_a_turned_photo_at_the_same_place(orientation):
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


def test_reduced_decoding_uses_the_same_random_numbers():
    file = encoded(photo((640, 480)), 'JPEG')
    crop = augment.RandomResizedCrop(size=32)
    states = []
    for steps in (reduced([crop]), [crop]):
        rng = np.random.default_rng(3)
        transforms.read(steps, file, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_a_jpeg_is_decoded_in_full_unless_it_is_scaled_first():
    file = encoded(photo((640, 480)), 'JPEG')
    steps = [augment.HorizontalFlip(p=1.0), *eval_64()]
    read = [transforms.read(part, file, np.random.default_rng(0)) for part in (reduced(steps), steps)]
    assert np.array_equal(*read)


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
def test_reduced_decoding_supports_grey_and_cmyk_jpegs(mode):
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
    assert np.allclose(result[:, 0, 0], expected, rtol=0, atol=1e-6)


def test_every_pixel_of_a_batch_is_normalised_as_one_product_and_one_difference():
    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    factor, shift = transforms.normal_factors(MEAN, STD)
    expected = (batch.astype(np.float32) * factor - shift).transpose(0, 3, 1, 2)
    result = transforms.normalize(batch, MEAN, STD)
    assert result.flags['C_CONTIGUOUS']
    assert np.array_equal(result, expected)
    assert np.array_equal(transforms.normalize(batch[1], MEAN, STD), expected[1])


@BOTH
@pytest.mark.parametrize('shape', [(70, 90), (56, 56)], ids=shape_name)
def test_apply_gives_contiguous_float32_channels_first(transform, shape):
    result = transforms.apply(transform, noise(shape))
    assert result.shape == (3, 56, 56)
    assert result.dtype == np.float32
    assert result.flags['C_CONTIGUOUS']


@BOTH
def test_denormalize_is_the_inverse_of_the_normalisation(transform):
    image = noise((90, 70))
    pixels = transforms.apply(transform[:-1], image)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    settings = {key: transform[-1][key] for key in ('mean', 'std')}
    assert np.array_equal(transforms.denormalize(transforms.apply(transform, image), **settings), pixels)


def test_apply_keeps_the_channel_order_rgb():
    image = Image.new('RGB', (64, 64), (255, 128, 0))
    result = transforms.apply(transforms.eval_transform(8, [0, 0, 0], [1, 1, 1]), image)
    assert np.allclose(result.mean((1, 2)), [1, 128 / 255, 0], atol=1e-6)


def test_apply_calls_operations_with_the_generator():
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
def test_the_evaluation_transform_is_deterministic_without_a_generator(transform):
    image = noise((70, 90))
    assert np.array_equal(transforms.apply(transform, image), transforms.apply(transform, image))


@pytest.mark.parametrize(('size', 'resize'), [(224, 256), (112, 128), (64, 73), (8, 9)])
def test_the_default_resize_has_the_ratio_256_to_224(size, resize):
    assert transforms.eval_transform(size, MEAN, STD)[0] == {'op': 'center_crop', 'size': size, 'resize': resize}


def test_squash_uses_the_whole_image():
    assert squash_56()[0] == {'op': 'resize', 'size': 56}
    assert squash_56()[1:] == eval_64()[1:]
    image = noise((70, 90))
    result = transforms.apply(squash_56(), image)
    squashed = image.resize((56, 56), Image.Resampling.BILINEAR)
    assert np.array_equal(result, transforms.apply(squash_56()[1:], squashed))


@BOTH
def test_a_transform_can_be_stored_as_yaml(transform):
    read = yaml.safe_load(yaml.safe_dump(transform))
    assert read == transform
    image = noise((70, 90))
    ours, theirs = (transforms.apply(t, image) for t in (transform, read))
    assert np.array_equal(ours, theirs)


NORMALIZE = {'op': 'normalize', 'mean': MEAN, 'std': STD}
CROP = {'op': 'center_crop', 'size': 8, 'resize': 9}
RESIZE = {'op': 'resize', 'size': 8}


@pytest.mark.parametrize('transform', [eval_64(), squash_56(), [CROP, NORMALIZE], [RESIZE, NORMALIZE], [CROP]])
def test_check_accepts_a_transform_that_runs(transform):
    transforms.check(transform, 'inference.yaml')


@pytest.mark.parametrize(
    'transform',
    [
        pytest.param([{'op': 'os.system', 'command': 'true'}, NORMALIZE], id='unknown op'),
        pytest.param([{'op': 'apply'}, NORMALIZE], id='a function that is not an op'),
        pytest.param([{'op': ['center_crop']}, NORMALIZE], id='op is a list'),
        pytest.param([{'size': 8}, NORMALIZE], id='no op'),
        pytest.param([{'op': 'center_crop', 'size': 8}, NORMALIZE], id='missing parameter'),
        pytest.param([{**CROP, 'angle': 3}, NORMALIZE], id='unknown parameter'),
        pytest.param([{**CROP, 'size': 'eight'}, NORMALIZE], id='size is text'),
        pytest.param([{**CROP, 'size': 0}, NORMALIZE], id='size 0'),
        pytest.param([{**CROP, 'size': -8}, NORMALIZE], id='size below 0'),
        pytest.param([{**CROP, 'size': 8.5}, NORMALIZE], id='size is not an integer'),
        pytest.param([{**CROP, 'size': 0, 'resize': 0}, NORMALIZE], id='resize 0'),
        pytest.param([{**CROP, 'size': 10**30}, NORMALIZE], id='huge size'),
        pytest.param([{**RESIZE, 'size': 'eight'}, NORMALIZE], id='squash to text'),
        pytest.param([{**RESIZE, 'size': 0}, NORMALIZE], id='squash to 0'),
        pytest.param([{**RESIZE, 'size': -8}, NORMALIZE], id='squash to below 0'),
        pytest.param([{**RESIZE, 'size': 8.5}, NORMALIZE], id='squash to a fraction'),
        pytest.param([{**RESIZE, 'size': 10**30}, NORMALIZE], id='huge squash'),
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
