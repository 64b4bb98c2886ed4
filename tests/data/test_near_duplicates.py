"""Near-copies are found, other images are not, for any number of images."""

import io
import random

import numpy as np
import pytest
from conftest import SIZES, picture, shape_name
from PIL import Image, ImageDraw, ImageEnhance

from zodiac.data import near_duplicates


def sketch_of(image):
    return near_duplicates.sketches([near_duplicates.sample(np.asarray(image))])[0]


def find(known, images):
    """For each image the number of its near-copy in `known`, or -1."""
    return near_duplicates.find([sketch_of(image) for image in known], [sketch_of(image) for image in images])[
        0
    ].tolist()


def saved_again(image, quality=50):
    stream = io.BytesIO()
    image.save(stream, 'JPEG', quality=quality)
    return Image.open(stream)


def cut(image):
    width, height = image.size
    return image.crop((width // 100, height // 100, width, height))


CHANGES = {
    'none': lambda image: image,
    'saved again': saved_again,
    'half as large': lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
    'larger': lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR),
    'square': lambda image: image.resize((64, 64), Image.Resampling.BILINEAR),
    'darker': lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    'paler': lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    'cut': cut,
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_found_among_others(change):
    known = [picture(seed, (300, 200)) for seed in range(20)]
    assert find(known, [change(known[number]) for number in (3, 17)]) == [3, 17]


def test_another_picture_is_not_found():
    known = [picture(seed) for seed in range(200)]
    assert find(known, [picture(seed) for seed in range(200, 400)]) == [-1] * 200


def test_of_several_near_copies_the_nearest_is_found():
    known = [saved_again(picture(0), 5), picture(1), saved_again(picture(0), 95)]
    numbers, bits = near_duplicates.find([sketch_of(image) for image in known], [sketch_of(picture(0))])
    assert numbers.tolist() == [2]
    assert 0 <= bits[0] <= 2


def fruit(colour):
    """A disc, lit from above, on white."""
    y, x = np.mgrid[-1:1:60j, -1:1:60j]
    light = (1 - 0.5 * y)[..., None] * np.array(colour)
    return Image.fromarray(np.where((x**2 + y**2 < 0.7)[..., None], light, 255).clip(0, 255).astype(np.uint8))


def test_the_same_shape_in_another_colour_is_not_a_near_copy():
    orange, apple = fruit((200, 100, 20)), fruit((90, 130, 60))
    assert find([orange], [apple]) == [-1]
    assert find([orange, apple], [saved_again(apple), saved_again(orange)]) == [1, 0]


def shapes(seed, background=None, count=12, size=(200, 150)):
    """Discs and boxes on one plain colour."""
    rng = random.Random(seed)
    image = Image.new('RGB', size, background or tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(count):
        x, y, side = rng.randrange(size[0]), rng.randrange(size[1]), rng.randrange(10, 50)
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape([x, y, x + side, y + side], fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


PLAIN = {
    'any': {},
    'few shapes': {'count': 4},
    'white': {'background': 'white', 'count': 5},
    'grey': {'background': 'grey'},
}


@pytest.mark.parametrize('how', PLAIN.values(), ids=PLAIN)
def test_only_near_copies_are_found_on_a_plain_background(how):
    known = [saved_again(shapes(seed, **how), 90) for seed in range(60)]
    halves = [saved_again(image.resize((100, 75)), 75) for image in known]
    found = find(known, halves)
    assert sum(number == wanted for wanted, number in enumerate(found)) >= 58
    assert find(known, [saved_again(shapes(seed, **how), 90) for seed in range(1000, 1200)]) == [-1] * 200


def test_a_shared_plain_background_is_not_enough():
    def spot(x, y):
        image = Image.new('RGB', (90, 90), (240, 30, 30))
        ImageDraw.Draw(image).ellipse([x, y, x + 15, y + 15], fill=(90, 10, 10))
        return image

    places = [(x, y) for x in (5, 40, 70) for y in (5, 40, 70)]
    assert find([spot(*place) for place in places[:4]], [spot(*place) for place in places[4:]]) == [-1] * 5
    assert find([spot(*place) for place in places], [saved_again(spot(*place)) for place in places]) == [*range(9)]


def test_blank_images_are_never_near_copies():
    blank = [Image.new('RGB', (30, 30), colour) for colour in ('white', 'black', (250, 250, 251))]
    assert find(blank, blank) == [-1] * 3


def test_without_images_nothing_is_found():
    assert find([], [picture(0)]) == [-1]
    assert find([picture(0)], []) == []


def noisy(sketches, rng, noise):
    """The sketches with a little noise, which changes some bits of the hash; blank ones are not changed."""
    cells = np.frombuffer(b''.join(sketches), np.uint8).reshape(len(sketches), -1)
    changed = cells + rng.normal(0, noise, cells.shape) * cells.any(1, keepdims=True)
    return [row.tobytes() for row in changed.clip(0, 255).astype(np.uint8)]


def hash_of(sketch):
    cells = np.frombuffer(sketch, np.uint8).reshape(9, 9, 3).astype(int)
    grey = [[2 * r + 4 * g + b for r, g, b in row] for row in cells.tolist()]
    values = [value for row in grey for value in row]
    step = int(max(0.05 * (max(values) - min(values)), 10))
    return [grey[y][x] + step < grey[y + dy][x + dx] for dy, dx in ((0, 1), (1, 0)) for y in range(8) for x in range(8)]


def colours_agree(*sketches):
    cells = [np.frombuffer(sketch, np.uint8).reshape(81, 3).astype(float) for sketch in sketches]
    whole, pattern = (
        np.corrcoef(*(part.ravel() for part in parts))[0, 1]
        for parts in (cells, [part - part.mean(0) for part in cells])
    )
    return whole >= near_duplicates.MIN_CORRELATION and pattern >= near_duplicates.MIN_PATTERN


def each_with_each(known, images):
    """The results of `find` by brute force: (bits, number) of the nearest known image of each, or None."""
    hashes = [hash_of(sketch) for sketch in known]
    for sketch in images:
        own = hash_of(sketch)
        pairs = [(sum(a != b for a, b in zip(own, other)), number) for number, other in enumerate(hashes)]
        near = [pair for pair in pairs if pair[0] <= near_duplicates.MAX_DISTANCE and any(sketch)]
        yield min((pair for pair in near if colours_agree(sketch, known[pair[1]])), default=None)


@pytest.mark.parametrize('block', [1, 40, 1 << 16])
def test_find_equals_brute_force(monkeypatch, block):
    monkeypatch.setattr(near_duplicates, 'BLOCK', block)
    rng = np.random.default_rng(0)
    first = [bytes(243), *(sketch_of(picture(seed)) for seed in range(29))]  # a blank one, and others
    known = [sketch for noise in (4, 1, 3, 2, 3) for sketch in noisy(first, rng, noise)]
    images = [*noisy(first, rng, 2), *noisy(first, rng, 5), *(sketch_of(picture(seed)) for seed in range(100, 110))]
    expected = list(each_with_each(known, images))
    assert {pair and pair[0] for pair in expected} >= {None, 2, 5, 8}
    numbers, bits = near_duplicates.find(known, images)
    assert [number >= 0 for number in numbers] == [pair is not None for pair in expected]
    found = [(bits[i], numbers[i] % 30) for i in np.flatnonzero(numbers >= 0)]  # either of two that are equally near
    assert found == [(pair[0], pair[1] % 30) for pair in expected if pair]


def test_if_all_images_are_alike_each_finds_one(monkeypatch):
    monkeypatch.setattr(near_duplicates, 'CROWD', 10)
    rng = np.random.default_rng(0)
    known, images = (noisy([sketch_of(picture(0))] * count, rng, 1) for count in (500, 50))
    numbers, _ = near_duplicates.find(known, images)
    assert (numbers >= 0).all()


# --- the sketch


@pytest.mark.parametrize('size', [*SIZES, (9, 9), (64, 65), (5000, 3000)], ids=shape_name)
def test_a_plain_image_has_its_colour_in_every_cell(size):
    cells = np.frombuffer(sketch_of(Image.new('RGB', size, (255, 128, 1))), np.uint8).reshape(-1, 3)
    assert cells.tolist() == [[255, 128, 1]] * 81


def test_a_cell_is_the_mean_of_its_pixels_in_row_order():
    pixels = np.random.default_rng(0).integers(0, 256, (18, 27, 3), dtype=np.uint8)
    expected = pixels.reshape(9, 2, 9, 3, 3).mean((1, 3))
    found = np.frombuffer(sketch_of(Image.fromarray(pixels)), np.uint8).reshape(9, 9, 3)
    assert np.abs(found - expected).max() <= 0.51


def test_a_sketch_does_not_depend_on_the_others():
    samples = [near_duplicates.sample(np.asarray(picture(seed, size))) for seed, size in enumerate([*SIZES, *SIZES])]
    assert near_duplicates.sketches(samples) == [near_duplicates.sketches([one])[0] for one in samples]


def test_a_sample_of_a_large_image_does_not_keep_its_pixels_in_memory():
    sample = near_duplicates.sample(np.zeros((1000, 500, 3), np.uint8))
    assert sample.base is None
    assert max(sample.shape) <= near_duplicates.SAMPLES


@pytest.mark.parametrize('side', [96, 128])
def test_every_pixel_of_a_small_image_is_averaged(side):
    board = (np.indices((side, side)).sum(0) % 2 * 255).astype(np.uint8)  # grey on average
    cells = np.frombuffer(sketch_of(Image.fromarray(board).convert('RGB')), np.uint8)
    assert np.abs(cells.astype(int) - 127).max() <= 4
