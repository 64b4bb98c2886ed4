"""preprocess.js and judge.js do what Pillow and NumPy do, in a real browser."""

import base64
import io
import sys

import numpy as np
import PIL
import pytest
from conftest import ROOT, picture
from PIL import Image, ImageCms

from zodiac.images import transforms
from zodiac.inference import label_sets, unknown
from zodiac.training import rejection

sys.path.append(str(ROOT / 'benchmarks'))
from served import static

MEAN, STD = [0.485, 0.456, 0.406], [0.2, 0.3, 0.4]
PIXELS = """async ([content, step]) => {
    const {scaled} = await import('./preprocess.js');
    const blob = await (await fetch(content)).blob();
    const bitmap = await createImageBitmap(blob, {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
    return [...scaled(bitmap, step)];
}"""


@pytest.fixture(scope='module')
def scripts(browser):
    """A page that can import the scripts."""
    with static(ROOT / 'zodiac/web') as (address, _, _):
        page = browser.new_page()
        page.goto(f'{address}judge.js')
        yield page
        page.close()


def encoded(image, **settings):
    file = io.BytesIO()
    image.save(file, 'PNG', **settings)
    return file.getvalue()


def pixels(page, content, step):
    """uint8 [size, size, 3]."""
    address = f'data:image/png;base64,{base64.b64encode(content).decode()}'
    return np.array(page.evaluate(PIXELS, [address, step]), np.uint8).reshape(step['size'], step['size'], 3)


def ours(content, step):
    return transforms.read([step], io.BytesIO(content))


TALL = [(40, 49), (97, 334), (9, 700)]
COLUMNS_FIRST = (
    int(PIL.__version__.partition('.')[0]) >= 13
)  # of tall photos: rounded between the two passes, to another level
CROP, SQUASH = {'op': 'center_crop', 'size': 24, 'resize': 27}, {'op': 'resize', 'size': 32}
PAD = {'op': 'pad', 'size': 32, 'fill': [124, 116, 104]}


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('step', [CROP, SQUASH, PAD], ids=lambda step: step['op'])
def test_the_pixels_are_those_of_pillow(scripts, step, interpolation):
    step = {**step, 'interpolation': interpolation}
    for number, size in enumerate([(48, 40), (257, 255), (333, 97), (7, 5), (1, 1), (32, 32), *TALL]):
        content = encoded(picture(number, size))
        apart = np.abs(pixels(scripts, content, step).astype(int) - ours(content, step)).max()
        assert apart <= (size in TALL and COLUMNS_FIRST), (size, step)


def test_grey_palette_and_turned_photos_are_those_of_pillow(scripts):
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (
        encoded(picture(1, (60, 44), 'L')),
        encoded(picture(2, (60, 44)).quantize(16)),
        encoded(picture(3, (44, 60)), exif=exif),
    ):
        assert np.array_equal(pixels(scripts, content, SQUASH), ours(content, SQUASH))


def test_a_photo_with_a_colour_profile_keeps_its_values(scripts):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB'))
    content = encoded(picture(4, (60, 44)), icc_profile=profile.tobytes(), gamma=1.0)
    assert np.array_equal(pixels(scripts, content, SQUASH), ours(content, SQUASH))


def test_transparent_parts_are_put_on_white_to_one_level(scripts):
    photo = picture(5, (60, 44)).convert('RGBA')
    photo.putalpha(picture(6, (60, 44), 'L'))
    content = encoded(photo)
    apart = pixels(scripts, content, SQUASH).astype(int) - ours(content, SQUASH)
    assert np.abs(apart).max() <= 1


def test_16_bits_that_are_used_in_full_give_the_same_to_one_level(scripts):
    values = np.linspace(0, 65535, 60 * 44).astype(np.uint16).reshape(44, 60)
    content = encoded(Image.fromarray(values))
    apart = pixels(scripts, content, SQUASH).astype(int) - ours(content, SQUASH)
    assert np.abs(apart).max() <= 1


def test_normalised_numbers_are_those_of_numpy(scripts):
    values = np.arange(3 * 256).reshape(16, 16, 3) % 256
    found = scripts.evaluate(
        """async ([pixels, step]) => {
            const {normalize} = await import('./preprocess.js');
            return [...normalize(Uint8Array.from(pixels), step)];
        }""",
        [values.ravel().tolist(), {'mean': MEAN, 'std': STD}],
    )
    expected = transforms.normalize(values.astype(np.uint8), MEAN, STD)
    assert np.array_equal(np.array(found, np.float32), expected.ravel())


@pytest.mark.parametrize('method', sorted(label_sets.METHODS))
def test_scores_and_sets_are_those_of_the_export(scripts, method):
    rng, classes = np.random.default_rng(0), 5
    labels = np.arange(90) % classes
    labels[labels == 4] = rng.integers(0, 4, (labels == 4).sum())
    labels[:3] = 4  # fewer than the nearest photos that are averaged
    features = (rng.normal(size=(90, 20)) + labels[:, None] * np.eye(20)[labels]).astype(np.float32)
    reference = rejection.reference(features, labels)
    found = unknown.Rejection(reference, np.array([0.1, 0.2]), np.array([0.3, 0.4]), 0.5, method, 0.8)
    logits = rng.normal(size=(30, classes)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    names = ('mean', 'basis', 'photos', 'directions', 'gains', 'centers')
    arrays = {name: getattr(reference, name) for name in names}
    about = {
        'shapes': {name: list(array.shape) for name, array in arrays.items()},
        'counts': reference.counts.tolist(),
        'center': [0.1, 0.2],
        'spread': [0.3, 0.4],
        'threshold': 0.5,
        'method': method,
        'at_most': 0.8,
    }
    answers = scripts.evaluate(
        """async ([logits, features, about, arrays]) => {
            const {judge} = await import('./judge.js');
            for (const name of Object.keys(arrays)) arrays[name] = Float32Array.from(arrays[name]);
            const labels = logits[0].map((_, label) => label);
            return logits.map((row, i) => judge(labels, Float32Array.from(row), Float32Array.from(features[i]), about, arrays));
        }""",
        [
            logits.tolist(),
            features[:30].tolist(),
            about,
            {name: array.ravel().tolist() for name, array in arrays.items()},
        ],
    )
    np.testing.assert_allclose([one['score'] for one in answers], found.score(features[:30]), atol=1e-4)
    for one, row, inside in zip(answers, probabilities, found.sets(probabilities)):
        order = np.argsort(-row, kind='stable')
        assert [guess['label'] for guess in one['top']] == order.tolist()
        np.testing.assert_allclose([guess['probability'] for guess in one['top']], row[order], atol=1e-6)
        assert one['set'] == [label for label in order if inside[label]]
        assert one['known'] == (one['score'] >= 0)
