"""The operations of augmentation: what each does to the pixels, and how a list of them is parsed."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, SIZES, picture, shape_name
from image_files import noise
from PIL import Image, ImageOps

import config
import dataset
from zodiac.base.errors import UsageError
from zodiac.data import augment
from zodiac.data.augment import GREY
from zodiac.images import transforms

BILINEAR = Image.Resampling.BILINEAR
FILLS = ['reflect', 'edge', 'grey']
SIZED = ['resize', 'random_resized_crop', 'random_crop']
ODD_SHAPES = [(1, 1), (2, 1), (1, 2), (3, 2), (1, 60), (60, 1), (33, 97), (64, 64)]
NORMALIZE = {'op': 'normalize', 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}


def pixels(image):
    return np.asarray(image)


def largest_difference(one, other):
    return int(np.abs(pixels(one).astype(int) - pixels(other).astype(int)).max())


def same(one, other):
    return np.array_equal(pixels(one), pixels(other))


def padded(image, margin, fill):
    """uint8 [height + 2 margin, width + 2 margin, 3] by numpy."""
    values = pixels(image)
    if fill != 'grey':
        return np.pad(values, ((margin, margin), (margin, margin), (0, 0)), mode=fill)
    return np.stack([np.pad(values[..., c], margin, constant_values=GREY[c]) for c in range(3)], 2)


def warped(image, matrix, fill, shift=(0, 0)):
    """float [height, width, 3]: the pixel at p is that at matrix @ p + shift of the image, both relative to the centre."""
    height, width = image.height, image.width
    margin = 4 * max(height, width)
    values = padded(image, margin, fill).astype(float)
    y, x = np.mgrid[:height, :width]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])[:, None]
    place = np.stack([x.ravel(), y.ravel()]) - middle
    x, y = matrix @ place + np.reshape(shift, (2, 1)) + middle + margin
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_share, bottom_share = (x - left)[:, None], (y - top)[:, None]
    upper = values[top, left] * (1 - right_share) + values[top, left + 1] * right_share
    lower = values[top + 1, left] * (1 - right_share) + values[top + 1, left + 1] * right_share
    return (upper * (1 - bottom_share) + lower * bottom_share).reshape(height, width, 3)


def rotation(degrees):
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def build_one(name, size=32, **values):
    return augment.build([*([] if name in SIZED else ['resize']), {name: values}], size)[-1]


def refusal(items, size=32):
    """The error message for a list."""
    with pytest.raises(UsageError) as caught:
        augment.build(items, size)
    return str(caught.value)


def test_grey_is_the_mean_of_the_default_normalisation():
    assert [round(255 * mean) for mean in config.Config().image.mean] == list(GREY)


# --- resize


@pytest.mark.parametrize('shape', ODD_SHAPES, ids=shape_name)
def test_resize_squashes_to_the_size(shape):
    image = noise(shape)
    assert same(augment.Resize(size=24)(image, None), image.resize((24, 24), BILINEAR))


def test_resize_does_not_change_an_image_of_the_size():
    image = noise((24, 24))
    assert same(augment.Resize(size=24)(image, None), image)


# --- random_resized_crop


MEMORY_OF_LONG_IMAGES = """
import re
import numpy as np
from PIL import Image
from zodiac.data import augment
from zodiac.images import transforms
def peak():  # getrusage would include the memory of pytest
    return int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])
steps = {steps}
before = peak()
for shape in ((1, 3000), (3000, 1)):
    transforms.apply(steps, Image.new('RGB', shape), np.random.default_rng(0))
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='the peak memory is read from /proc')
@pytest.mark.parametrize(
    'steps',
    [
        'augment.build(["resize"], 224)',
        'augment.build(["random_resized_crop"], 224)',
        'augment.build(["random_crop"], 96)',  # resized as a whole: 96 x 288000 pixels, 83 MB per copy
        'transforms.eval_transform(224, [0] * 3, [1] * 3, 256)[:-1]',  # resized as a whole: 786 MB
        'transforms.eval_transform(224, [0] * 3, [1] * 3, "squash")[:-1]',
    ],
)
def test_an_image_of_3000_by_1_pixels_takes_little_memory(steps):
    code = MEMORY_OF_LONG_IMAGES.format(steps=steps)
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000, 'kilobytes'


class Recorder:
    """A stand-in for a PIL image that records the box that is cropped from it."""

    def __init__(self, size):
        self.size = size
        self.width, self.height = size

    def resize(self, size, resample=None, box=None, **options):
        self.box, self.target = box, size
        return self


def boxes(shape, draws, **parameters):
    rng = np.random.default_rng(7)
    for _ in range(draws):
        recorder = Recorder(shape)
        augment.RandomResizedCrop(**parameters)(recorder, rng)
        yield recorder


def test_random_resized_crop_stays_inside_the_image():
    for size in SIZES:
        for drawn in boxes(size, 60, size=32):
            left, top, right, bottom = drawn.box
            assert 0 <= left < right <= size[0]
            assert 0 <= top < bottom <= size[1]
            assert drawn.target == (32, 32)


def test_random_resized_crop_stays_within_scale_and_ratio():
    areas, aspects = [], []
    for drawn in boxes((400, 300), 400, size=32, scale=[0.2, 0.9], ratio=[0.8, 1.5]):
        left, top, right, bottom = drawn.box
        areas.append((right - left) * (bottom - top) / (400 * 300))
        aspects.append((right - left) / (bottom - top))
    assert min(areas) > 0.2 * 0.98 and max(areas) < 0.9 * 1.02
    assert min(aspects) > 0.8 * 0.98 and max(aspects) < 1.5 * 1.02
    assert max(areas) - min(areas) > 0.5 and max(aspects) - min(aspects) > 0.5  # and uses the ranges


def test_random_resized_crop_reaches_every_edge():
    drawn = np.array([one.box for one in boxes((12, 9), 600, size=8, scale=[0.2, 0.8], ratio=[0.75, 1.333])])
    assert drawn.min(0)[:2].tolist() == [0, 0]
    assert drawn.max(0)[2:].tolist() == [12, 9]


@pytest.mark.parametrize(('size', 'box'), [((3000, 30), (1480, 0, 1520, 30)), ((30, 3000), (0, 1480, 30, 1520))])
def test_random_resized_crop_of_a_very_long_image_is_the_largest_allowed_centre(size, box):
    recorder = next(boxes(size, 1, size=8, scale=[0.9, 1.0], ratio=[3 / 4, 4 / 3]))
    assert recorder.box == box


def test_random_resized_crop_shows_its_box():
    image = noise((40, 30))
    recorder = Recorder(image.size)
    crop = augment.RandomResizedCrop(size=16, scale=[0.2, 0.5], ratio=[0.8, 1.25])
    crop(recorder, np.random.default_rng(3))
    expected = image.crop(recorder.box).resize((16, 16), BILINEAR)
    result = crop(image, np.random.default_rng(3))
    inner = slice(2, -2)  # at the edge of the box the filter may use pixels outside it
    assert largest_difference(pixels(result)[inner, inner], pixels(expected)[inner, inner]) <= 1


# --- random_crop


def offsets(crop, image, base, draws=300):
    """The (top, left) in the array `base` of so many crops; fails for a crop that is not part of it."""
    rng = np.random.default_rng(1)
    places = {}
    for top in range(base.shape[0] - crop.size + 1):
        for left in range(base.shape[1] - crop.size + 1):
            places[base[top : top + crop.size, left : left + crop.size].tobytes()] = top, left
    return {places[pixels(crop(image, rng)).tobytes()] for _ in range(draws)}


@pytest.mark.parametrize('fill', FILLS)
def test_random_crop_takes_every_part_of_the_padded_image(fill):
    image = noise((8, 8))
    crop = augment.RandomCrop(size=8, padding=2, mode=fill)
    assert offsets(crop, image, padded(image, 2, fill)) == {(top, left) for top in range(5) for left in range(5)}


@pytest.mark.parametrize('shape', [(11, 9), (9, 11), (8, 10)], ids=shape_name)
def test_random_crop_does_not_scale_a_larger_image(shape):
    image = noise(shape)
    crop = augment.RandomCrop(size=8, padding=1, mode='reflect')
    expected = {(top, left) for top in range(shape[1] + 2 - 7) for left in range(shape[0] + 2 - 7)}
    assert offsets(crop, image, padded(image, 1, 'reflect'), 600) == expected


@pytest.mark.parametrize(
    ('shape', 'scaled'), [((5, 4), (10, 8)), ((4, 5), (8, 10)), ((7, 7), (8, 8)), ((30, 7), (34, 8)), ((1, 1), (8, 8))]
)
@pytest.mark.parametrize('fill', FILLS)
def test_random_crop_scales_the_short_side_of_a_smaller_image_up(shape, scaled, fill):
    image = noise(shape)
    crop = augment.RandomCrop(size=8, padding=2, mode=fill)
    base = padded(image.resize(scaled, BILINEAR), 2, fill)
    assert offsets(crop, image, base, 20)


@pytest.mark.parametrize('fill', FILLS)
@pytest.mark.parametrize('shape', [(8, 8), (90, 8), (9, 90)], ids=shape_name)
def test_random_crop_may_pad_by_more_than_its_size(shape, fill):
    image = noise(shape)
    base = padded(image, 20, fill)
    crop = augment.RandomCrop(size=8, padding=20, mode=fill)
    for corner in range(4):
        draws = iter([(corner // 2) * (base.shape[0] - 8), (corner % 2) * (base.shape[1] - 8)])
        result = crop(image, SimpleNamespace(integers=lambda count, draws=draws: next(draws)))
        rows, columns = (slice(-8, None) if bit else slice(8) for bit in (corner // 2, corner % 2))
        assert same(result, base[rows, columns])


def test_random_crop_without_padding_does_not_change_an_image_of_the_size():
    image = noise((8, 8))
    assert same(augment.RandomCrop(size=8, padding=0)(image, np.random.default_rng(0)), image)


# --- flips

FLIPS = [(augment.HorizontalFlip, lambda a: a[:, ::-1]), (augment.VerticalFlip, lambda a: a[::-1])]


@pytest.mark.parametrize(('flip', 'mirror'), FLIPS, ids=['horizontal', 'vertical'])
def test_a_flip_mirrors_with_its_probability(flip, mirror):
    image = noise((8, 6))
    rng = np.random.default_rng(0)
    results = [pixels(flip(p=0.25)(image, rng)) for _ in range(400)]
    mirrored = sum(same(result, mirror(pixels(image))) for result in results)
    assert 60 < mirrored < 140
    assert mirrored + sum(same(result, image) for result in results) == 400
    assert all(same(flip(p=1.0)(image, rng), mirror(pixels(image))) for _ in range(20))
    assert all(same(flip(p=0.0)(image, rng), image) for _ in range(20))


# --- affine


def affine(image, turn=0.0, lean=0.0, zoom=(1.0, 1.0), fill='edge'):
    """Apply this rotation in degrees, shear and zoom instead of random ones."""
    draws = iter([turn, lean, np.array(zoom)])
    return augment.Affine(fill=fill)(image, SimpleNamespace(uniform=lambda *limits: next(draws)))


@pytest.mark.parametrize('fill', FILLS)
def test_affine_with_zeros_is_the_identity(fill):
    for shape in ODD_SHAPES:
        image = noise(shape)
        assert same(augment.Affine(fill=fill)(image, np.random.default_rng(0)), image)


def test_affine_draws_from_the_ranges_of_its_settings():
    asked = []

    def uniform(low, high, *count):
        asked.append((low, high, *count))
        return np.ones(count) if count else 0.0

    augment.Affine(rotation=15, shear=0.2, zoom=0.3)(noise((8, 8)), SimpleNamespace(uniform=uniform))
    assert np.allclose(asked[0], [-15, 15])
    assert np.allclose(asked[1], [-0.2, 0.2])
    assert np.allclose(asked[2], [0.7, 1.3, 2])


@pytest.mark.parametrize('shape', [(16, 16), (15, 15)], ids=shape_name)
@pytest.mark.parametrize(('degrees', 'quarters'), [(90, 1), (-90, -1), (180, 2)])
def test_a_quarter_turn_is_counterclockwise_as_in_numpy(shape, degrees, quarters):
    image = noise(shape)
    assert largest_difference(affine(image, turn=degrees), np.rot90(pixels(image), quarters)) <= 1


def test_a_quarter_turn_keeps_the_shape_and_the_centre_of_a_wide_image():
    image = noise((24, 16))
    result = pixels(affine(image, turn=90, fill='grey'))
    turned = np.rot90(pixels(image))  # 16 wide, 24 high
    assert largest_difference(result[:, 4:20], turned[4:20]) <= 1
    assert np.all(result[:, :3] == GREY) and np.all(result[:, 21:] == GREY)


def width_of_bright(image, axis):
    return int((pixels(image)[..., 0] > 127).any(axis).sum())


def test_a_zoom_below_one_magnifies_and_one_above_shrinks():
    values = np.zeros((32, 32, 3), np.uint8)
    values[12:20, 12:20] = 255
    image = Image.fromarray(values)
    results = [affine(image, zoom=zoom) for zoom in ((0.5, 1.0), (1.0, 0.5), (2.0, 1.0), (0.8, 0.8))]
    sizes = [(width_of_bright(result, 0), width_of_bright(result, 1)) for result in results]
    assert sizes == [(16, 8), (8, 16), (4, 8), (10, 10)]


def test_a_shear_moves_rows_in_proportion_to_their_height():
    values = np.zeros((41, 41, 3), np.uint8)
    values[:, 20] = 255
    result = pixels(affine(Image.fromarray(values), lean=0.5))
    for row in (0, 10, 20, 30, 40):
        place = 20 + math.sin(0.5) * (row - 20)
        assert abs(np.average(np.arange(41), weights=result[row, :, 0]) - place) < 0.05
    values = np.zeros((41, 41, 3), np.uint8)
    values[30] = 255
    result = pixels(affine(Image.fromarray(values), lean=0.5))
    assert abs(np.average(np.arange(41), weights=result[:, 20, 0]) - (20 + 10 / math.cos(0.5))) < 0.1


@pytest.mark.parametrize('fill', FILLS)
@pytest.mark.parametrize('shape', [(24, 24), (31, 18), (18, 31)], ids=shape_name)
@pytest.mark.parametrize(
    ('turn', 'lean', 'zoom'),
    [
        (20, 0, (1, 1)),
        (-140, 0, (1, 1)),
        (0, 0.4, (1, 1)),
        (0, -1, (1, 1)),
        (0, 0, (0.8, 1.3)),
        (0, 0, (0.1, 1.9)),
        (35, -0.3, (1.2, 0.7)),
        (180, 1, (1.9, 1.9)),
    ],
)
def test_affine_applies_the_matrix_of_keras(shape, turn, lean, zoom, fill):
    image = picture(3, shape)
    shear = np.array([[1, -math.sin(lean)], [0, math.cos(lean)]])
    expected = warped(image, rotation(turn) @ shear @ np.diag(zoom), fill)
    assert np.abs(pixels(affine(image, turn, lean, zoom, fill)) - expected).max() < 1.01


@pytest.mark.parametrize('fill', FILLS)
def test_affine_leaves_no_black_corner(fill):
    image = Image.new('RGB', (40, 30), (200, 210, 220))
    operation = augment.Affine(rotation=180, shear=1, zoom=0.9, fill=fill)
    for seed in range(40):
        result = pixels(operation(image, np.random.default_rng(seed)))
        assert result.shape == (30, 40, 3)
        if fill == 'grey':
            assert np.all(result >= GREY) and np.all(result <= (200, 210, 220))
        else:
            assert np.all(result == (200, 210, 220))
    if fill == 'grey':
        corners = pixels(affine(image, turn=45, zoom=(1.5, 1.5), fill=fill))[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert np.all(corners == GREY)


# --- rand_augment

CHANGES = [
    'identity',
    'autocontrast',
    'equalize',
    'solarize',
    'posterize',
    'color',
    'contrast',
    'brightness',
    'sharpness',
    'rotate',
    'shear_x',
    'shear_y',
    'translate_x',
    'translate_y',
]
ONE_CHANGE = pytest.mark.parametrize('name', CHANGES)
SIGNED = CHANGES[5:]


def change(image, name, magnitude, sign=1, fill='grey'):
    """Apply this operation of the 14 instead of a random one."""
    rng = SimpleNamespace(
        integers=lambda count, size: np.array([CHANGES.index(name)] * size), random=lambda: 0.1 if sign > 0 else 0.9
    )
    return augment.RandAugment(ops=1, magnitude=magnitude, fill=fill)(image, rng)


def dull(size=(40, 32)):
    """A picture without very dark or bright colours."""
    return picture(2, size).point(lambda value: 40 + value * 160 // 255)


@ONE_CHANGE
@pytest.mark.parametrize('sign', [1, -1])
def test_an_operation_at_magnitude_0_is_the_identity(name, sign):
    image = dull()
    result = change(image, name, 0, sign)
    if name in ('autocontrast', 'equalize'):  # which have no magnitude
        expected = {'autocontrast': ImageOps.autocontrast, 'equalize': ImageOps.equalize}[name](image)
        assert same(result, expected)
        assert not same(result, image)
    else:
        assert same(result, image)


@ONE_CHANGE
def test_an_operation_at_magnitude_10_keeps_size_and_mode(name):
    image = dull()
    for sign in (1, -1):
        result = change(image, name, 10, sign)
        assert (result.size, result.mode) == (image.size, 'RGB')
        assert same(result, image) == (name == 'identity')


@ONE_CHANGE
def test_the_signs_differ_if_an_operation_has_a_direction(name):
    image = dull()
    assert same(change(image, name, 9, 1), change(image, name, 9, -1)) == (name not in SIGNED)


@ONE_CHANGE
def test_the_effect_grows_with_the_magnitude(name):
    image = dull()
    distances = [np.abs(pixels(change(image, name, m)).astype(int) - pixels(image)).mean() for m in (0, 3, 10)]
    if name in CHANGES[:3]:
        assert distances[0] == distances[1] == distances[2]
    else:
        assert distances[0] < distances[1] < distances[2]


@ONE_CHANGE
def test_every_operation_accepts_any_shape(name):
    for shape in ODD_SHAPES:
        for fill in FILLS:
            for sign in (1, -1):
                result = change(noise(shape), name, 10, sign, fill)
                assert (result.size, result.mode) == (shape, 'RGB')


@pytest.mark.parametrize('fill', FILLS)
@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('magnitude', [4, 10])
def test_geometric_operations_reach_30_degrees_and_a_shear_and_shift_of_0_3(fill, sign, magnitude):
    image = dull()
    part = sign * magnitude / 10
    still = np.eye(2)
    expected = {
        'rotate': (rotation(30 * part), (0, 0)),
        'shear_x': (np.array([[1, 0.3 * part], [0, 1]]), (0, 0)),
        'shear_y': (np.array([[1, 0], [0.3 * part, 1]]), (0, 0)),
        'translate_x': (still, (0.3 * part * image.width, 0)),
        'translate_y': (still, (0, 0.3 * part * image.height)),
    }
    for name, (matrix, shift) in expected.items():
        result = pixels(change(image, name, magnitude, sign, fill))
        assert np.abs(result - warped(image, matrix, fill, shift)).max() < 1.01, name


@pytest.mark.parametrize(('sign', 'factor'), [(1, 1.9), (-1, 0.1)])
def test_colour_operations_reach_1_plus_or_minus_0_9(sign, factor):
    image = dull()
    values = pixels(image).astype(float)
    grey = pixels(image.convert('L')).astype(float)
    plain = {'brightness': np.zeros([]), 'contrast': np.round(grey.mean()), 'color': grey[..., None]}
    for name, base in plain.items():
        expected = np.clip(base + (values - base) * factor, 0, 255)
        assert np.abs(pixels(change(image, name, 10, sign)) - expected).max() <= 1, name


def test_sharpness_sharpens_and_blurs():
    image = noise((40, 32)).point(lambda value: 100 + value // 5)
    roughness = [pixels(change(image, 'sharpness', 10, sign)).astype(float).std() for sign in (1, -1)]
    assert roughness[0] > pixels(image).std() > roughness[1]


def test_solarize_inverts_bright_pixels():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    image = Image.fromarray(values)
    assert same(change(image, 'solarize', 0), values)
    assert same(change(image, 'solarize', 10), 255 - values)
    assert same(change(image, 'solarize', 5), np.where(values < 128, values, 255 - values))


def test_posterize_keeps_four_bits_at_the_highest_magnitude():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    image = Image.fromarray(values)
    assert same(change(image, 'posterize', 10), values & 0b11110000)
    assert same(change(image, 'posterize', 9), values & 0b11110000)
    assert same(change(image, 'posterize', 5), values & 0b11111100)


def test_rand_augment_draws_operations_and_signs_uniformly(monkeypatch):
    seen = []

    def noting(number):
        return lambda image, strength, sign, fill: seen.append((number, strength, sign, fill)) or image

    monkeypatch.setattr(augment, 'RAND_AUGMENT', tuple(noting(number) for number in range(14)))
    rng = np.random.default_rng(0)
    operation = augment.RandAugment(ops=3, magnitude=7, fill='edge')
    for _ in range(500):
        operation(noise((8, 8)), rng)
    assert len(seen) == 1500
    counts = np.bincount([number for number, *_ in seen], minlength=14)
    assert counts.shape == (14,) and counts.min() > 70 and counts.max() < 150
    assert 650 < sum(sign == 1 for _, _, sign, _ in seen) < 850
    assert {sign for _, _, sign, _ in seen} == {1, -1}
    assert {(strength, fill) for _, strength, _, fill in seen} == {(0.7, 'edge')}


def test_rand_augment_applies_its_operations_in_order():
    image = dull()
    rng = SimpleNamespace(integers=lambda count, size: np.array([3, 12]), random=lambda: 0.1)
    expected = change(change(image, 'solarize', 6), 'translate_x', 6)
    assert same(augment.RandAugment(ops=2, magnitude=6)(image, rng), expected)


# --- random_erasing

PLAIN = (1, 2, 3)


def holes(operation, shape, draws, seed=0):
    """(left, top, right, bottom) of the erased part in each draw, or None; it must be a rectangle."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        result = operation(Image.new('RGB', shape, PLAIN), rng)
        assert (result.size, result.mode) == (shape, 'RGB')
        mask = np.any(pixels(result) != PLAIN, 2)
        if not mask.any():
            yield None
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
        if operation.fill == 'grey':
            assert np.all(pixels(result)[mask] == GREY)
        yield box


def test_random_erasing_stays_within_scale_and_ratio():
    operation = augment.RandomErasing(p=1.0, scale=[0.05, 0.4], ratio=[0.5, 2.5])
    drawn = np.array(list(holes(operation, (160, 120), 300)))
    width, height = drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]
    areas, aspects = width * height / (160 * 120), width / height
    assert areas.min() > 0.05 * 0.96 and areas.max() < 0.4 * 1.02
    assert aspects.min() > 0.5 * 0.95 and aspects.max() < 2.5 * 1.05
    assert areas.min() < 0.06 and areas.max() > 0.35  # and uses the ranges
    assert aspects.min() < 0.6 and aspects.max() > 2.2
    assert abs(np.mean(np.log(aspects)) - np.log([0.5, 2.5]).mean()) < 0.1


def test_random_erasing_inside_keeps_the_rectangle_whole_and_reaches_every_edge():
    operation = augment.RandomErasing(p=1.0, scale=[0.25, 0.25], ratio=[1.0, 1.0])
    drawn = np.array(list(holes(operation, (16, 16), 400)))
    assert np.all(drawn[:, 2:] - drawn[:, :2] == 8)
    assert set(drawn[:, 0]) == set(drawn[:, 1]) == set(range(9))


def test_random_erasing_over_the_edge_is_cutout():
    operation = augment.RandomErasing(p=1.0, scale=[0.25, 0.25], ratio=[1.0, 1.0], inside=False)
    drawn = np.array(list(holes(operation, (32, 32), 800)))  # a square of 16 with its centre anywhere
    assert set(drawn[:, 0]) == set(range(24)) and set(drawn[:, 2]) == set(range(8, 32)) | {32}
    for low, high in ((drawn[:, 0], drawn[:, 2]), (drawn[:, 1], drawn[:, 3])):
        side = high - low
        assert np.all(side[(low > 0) & (high < 32)] == 16)
        assert np.all(side[(low == 0) | (high == 32)] <= 16)
        assert side.min() == 8 and side.max() == 16
        assert 0.4 < np.mean(side == 16) < 0.65  # 17 of 32 centres


@pytest.mark.parametrize('p', [0.0, 0.3, 1.0])
def test_random_erasing_has_its_probability(p):
    erased = sum(hole is not None for hole in holes(augment.RandomErasing(p=p), (40, 30), 300))
    assert abs(erased / 300 - p) < 0.08
    assert p not in (0, 1) or erased == 300 * p


def test_noise_is_uniform_in_each_channel():
    operation = augment.RandomErasing(p=1.0, scale=[1.0, 1.0], ratio=[1.0, 1.0], fill='noise')
    values = pixels(operation(Image.new('RGB', (64, 64), PLAIN), np.random.default_rng(0))).reshape(-1, 3)
    assert np.all(values.min(0) == 0) and np.all(values.max(0) == 255)
    assert np.all(np.abs(values.mean(0) - 127.5) < 4)
    assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.08


def test_random_erasing_does_not_change_its_input():
    image = noise((20, 20))
    before = pixels(image).copy()
    augment.RandomErasing(p=1.0)(image, np.random.default_rng(0))
    assert same(image, before)


def test_random_erasing_does_nothing_if_no_rectangle_fits():
    operation = augment.RandomErasing(p=1.0, scale=[0.9, 0.9], ratio=[4.0, 5.0])
    assert list(holes(operation, (20, 20), 5)) == [None] * 5


@pytest.mark.parametrize('inside', [True, False])
def test_random_erasing_with_probability_1_always_erases_a_pixel(inside):
    operation = augment.RandomErasing(p=1.0, scale=[0.02, 0.02], ratio=[0.1, 0.1], inside=inside)
    assert None not in list(holes(operation, (8, 8), 20))


# --- all operations

RANDOM = [name for name in augment.OPS if name != 'resize']


@pytest.mark.parametrize('name', RANDOM)
def test_a_draw_is_a_function_of_the_generator(name):
    image = noise((40, 36))
    values = {'rotation': 20, 'shear': 0.2, 'zoom': 0.2} if name == 'affine' else {}
    operation = build_one(name, **values)
    results = [pixels(operation(image, np.random.default_rng(seed))).tobytes() for seed in range(12)]
    assert results == [pixels(operation(image, np.random.default_rng(seed))).tobytes() for seed in range(12)]
    assert len(set(results)) > 1 if 'flip' in name or name == 'random_erasing' else len(set(results)) > 8


@pytest.mark.parametrize('name', augment.OPS)
def test_an_operation_accepts_any_shape_and_returns_rgb(name):
    for shape in ODD_SHAPES:
        values = {'rotation': 180, 'shear': 1, 'zoom': 0.9} if name == 'affine' else {}
        operation = build_one(name, 16, **values)
        for seed in range(4):
            result = operation(noise(shape), np.random.default_rng(seed))
            assert result.mode == 'RGB'
            assert result.size == ((16, 16) if name in SIZED else shape)


# --- the training transform

EVERYTHING = [
    'random_resized_crop',
    {'random_crop': {'padding': 3, 'mode': 'edge'}},
    'horizontal_flip',
    'vertical_flip',
    {'affine': {'rotation': 20, 'shear': 0.1, 'zoom': 0.1}},
    'rand_augment',
    {'random_erasing': {'fill': 'noise'}},
]


@pytest.mark.parametrize('items', [['random_resized_crop', 'horizontal_flip'], EVERYTHING], ids=['default', 'all'])
def test_a_training_transform_gives_contiguous_float32_channels_first(items):
    image = noise((70, 90))
    transform = [*augment.build(items, 56), NORMALIZE]
    first, again = (transforms.apply(transform, image, np.random.default_rng(5)) for _ in range(2))
    other = transforms.apply(transform, image, np.random.default_rng(6))
    assert first.shape == (3, 56, 56)
    assert first.dtype == np.float32
    assert first.flags['C_CONTIGUOUS']
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_training_transform_is_the_augment_list_and_the_normalisation_of_evaluation():
    cfg = config.load(
        overrides=['image.size=32', 'image.mean=[0, 0.5, 1]', 'augment=[{random_crop: {padding: 0}}, vertical_flip]']
    )
    reduced, *transform = dataset.train_transform(cfg)
    assert reduced == transforms.REDUCED
    assert transform[:2] == [augment.RandomCrop(size=32, padding=0), augment.VerticalFlip()]
    assert transform[2:] == [dataset.eval_transform(cfg)[-1]]
    image = noise((32, 32))
    results = [transforms.apply(transform, image, np.random.default_rng(seed)) for seed in range(20)]
    plain, flipped = (transforms.apply(transform[2:], one) for one in (image, ImageOps.flip(image)))
    assert all(np.array_equal(result, plain) or np.array_equal(result, flipped) for result in results)
    assert len({result.tobytes() for result in results}) == 2


def test_a_bad_augment_list_is_refused():
    with pytest.raises(UsageError, match='augment, item 1'):
        dataset.train_transform(config.load(overrides=['augment=[crop]']))


# --- build


def test_names_alone_give_the_defaults():
    operations = augment.build(list(augment.OPS), 48)
    assert [type(operation) for operation in operations] == list(augment.OPS.values())
    assert operations[1] == augment.RandomResizedCrop(size=48, scale=[0.08, 1.0], ratio=[0.75, 4 / 3])
    assert operations[2] == augment.RandomCrop(size=48, padding=4, mode='reflect')
    assert operations[3] == augment.HorizontalFlip(p=0.5)
    assert operations[5] == augment.Affine(rotation=0, shear=0, zoom=0, fill='edge')
    assert operations[6] == augment.RandAugment(ops=2, magnitude=9, fill='grey')


@pytest.mark.parametrize('nothing', [None, {}])
def test_a_name_without_settings_gives_the_defaults(nothing):
    assert augment.build([{'random_crop': nothing}], 32) == augment.build(['random_crop'], 32)


def test_settings_are_converted_to_their_types():
    items = [{'random_crop': {'padding': 6, 'mode': 'edge'}}, {'random_resized_crop': {'scale': [0.5, 1]}}]
    crop, resized = augment.build([*items, {'horizontal_flip': {'p': '1e-1'}}], 32)[:2]
    assert crop == augment.RandomCrop(size=32, padding=6, mode='edge')
    assert resized.scale == [0.5, 1.0] and type(resized.scale[1]) is float
    assert resized.ratio == [0.75, 4 / 3]


def test_lists_do_not_share_settings():
    first, second = (augment.build(['random_resized_crop'], 32)[0] for _ in range(2))
    first.scale[0] = 0.9
    assert second.scale == [0.08, 1.0]


@pytest.mark.parametrize(
    'item',
    ['crop', 'Random_Crop', '', 3, 0.5, True, None, [], ['resize'], {}, {'crop': {}}, {3: None}, {None: {}}]
    + [{'random_crop': {}, 'horizontal_flip': {}}],
    ids=repr,
)
def test_an_unknown_operation_is_refused_with_the_valid_names(item):
    message = refusal(['resize', item])
    assert message.startswith('augment, item 2: ')
    assert repr(item) in message
    for name in augment.OPS:
        assert name in message


@pytest.mark.parametrize(
    ('item', 'words'),
    [
        ({'random_crop': {'pading': 4}}, ['random_crop', 'pading', 'no such setting', 'padding', 'mode']),
        ({'random_crop': {'padding.x': 4}}, ['random_crop', 'padding.x', 'no such setting']),
        ({'random_crop': {3: 4}}, ['random_crop', '3', 'no such setting']),
        ({'resize': {'side': 4}}, ['resize', 'side', 'no such setting', 'none']),
        ({'random_crop': 4}, ['random_crop', '4', '{setting: value}', 'padding', 'mode']),
        ({'horizontal_flip': 0.5}, ['horizontal_flip', '0.5', '{setting: value}', 'p']),
        ({'random_crop': ['padding', 4]}, ['random_crop', "['padding', 4]", '{setting: value}']),
        ({'random_crop': False}, ['random_crop', 'False', '{setting: value}']),
        ({'random_crop': {'padding': 'wide'}}, ['padding', "'wide'", 'a whole number']),
        ({'random_crop': {'padding': 1.5}}, ['padding', '1.5', 'a whole number']),
        ({'random_crop': {'padding': True}}, ['padding', 'True', 'a whole number']),
        ({'random_crop': {'padding': None}}, ['padding', 'None', 'a whole number']),
        ({'random_crop': {'padding': -1}}, ['padding', '-1', 'from 0 to']),
        ({'random_crop': {'mode': 'black'}}, ['mode', "'black'", 'reflect, edge or grey']),
        ({'horizontal_flip': {'p': 1.1}}, ['horizontal_flip', 'p = 1.1', 'from 0 to 1']),
        ({'vertical_flip': {'p': -0.1}}, ['vertical_flip', 'p = -0.1', 'from 0 to 1']),
        ({'horizontal_flip': {'p': float('nan')}}, ['p = nan', 'a number']),
        ({'affine': {'rotation': 181}}, ['rotation', '181', 'to 180']),
        ({'affine': {'shear': 1.5}}, ['shear', '1.5', 'to 1']),
        ({'affine': {'zoom': 1}}, ['zoom', '1', 'to 0.9']),
        ({'affine': {'fill': 'nearest'}}, ['fill', "'nearest'", 'edge']),
        ({'rand_augment': {'ops': 0}}, ['ops', '0', 'from 1']),
        ({'rand_augment': {'magnitude': 11}}, ['magnitude', '11', 'to 10']),
        ({'random_erasing': {'inside': 'no'}}, ['inside', "'no'", 'true or false']),
        ({'random_erasing': {'fill': 'edge'}}, ['fill', "'edge'", 'grey or noise']),
        ({'random_erasing': {'scale': [0, 0.3]}}, ['scale', '[0, 0.3]', '> 0']),
        ({'random_resized_crop': {'scale': [0.5, 1.5]}}, ['scale', '1.5', '<= 1']),
        ({'random_resized_crop': {'scale': 0.5}}, ['scale', '0.5', 'a list']),
    ],
)
def test_a_wrong_setting_is_refused_with_the_valid_values(item, words):
    message = refusal(['resize', item])
    assert message.startswith('augment, item 2: ')
    for word in words:
        assert word in message


@pytest.mark.parametrize('name', ['random_resized_crop', 'random_erasing'])
@pytest.mark.parametrize('key', ['scale', 'ratio'])
@pytest.mark.parametrize('pair', [[0.9, 0.5], [0.5], [], [0.5, 0.6, 0.7]])
def test_a_reversed_or_incomplete_pair_is_refused(name, key, pair):
    message = refusal(['resize', {name: {key: pair}}])
    assert message.startswith(f'augment, item 2: {name}: {key} = ')
    assert 'two numbers, the smaller first' in message


@pytest.mark.parametrize('name', augment.OPS)
def test_size_is_image_size_and_cannot_be_set(name):
    message = refusal(['resize', {name: {'size': 16}}])
    assert f'{name}: size: no such setting' in message
    assert 'size' not in message.rpartition('available: ')[2]


@pytest.mark.parametrize('items', [[], ['horizontal_flip'], ['affine', 'rand_augment', 'random_erasing']])
def test_a_list_without_an_operation_for_the_size_is_refused(items):
    message = refusal(items)
    for word in ('image.size', '32', *SIZED):
        assert word in message


@pytest.mark.parametrize('name', SIZED)
def test_one_operation_for_the_size_is_enough_in_any_place(name):
    for items in ([name], [name, 'horizontal_flip'], ['affine', name]):
        assert len(augment.build(items, 32)) == len(items)
