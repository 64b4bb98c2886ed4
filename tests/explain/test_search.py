"""Mistakes of other programs, one or two at a time, are found from their numbers."""

import os
import types
import zipfile
from pathlib import Path

import numpy as np
import other_programs
import pytest
import small_export
from PIL import Image

from zodiac.base.paddle_setup import paddle
from zodiac.explain import programs, running, search, theirs
from zodiac.inference import export_folder, exported_model

LABELS = ['pig', 'Bee', 'cat', 'ant']


class Sensitive(paddle.nn.Layer):
    """A small network whose answer depends on colours, details and places."""

    def __init__(self):
        super().__init__()
        nn = paddle.nn
        self.layers = nn.Sequential(
            nn.Conv2D(3, 12, 3), nn.ReLU(), nn.Conv2D(12, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2D(4), nn.Flatten()
        )
        self.last = nn.Linear(192, 4)
        self.last.weight.set_value(4 * self.last.weight)

    def forward(self, x):
        return self.last(self.layers(x))


def detailed(seed, size):
    """A photo-like picture: noise at several scales."""
    rng, total = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    for side, strength in ((3, 60), (9, 40), (40, 30), (size[0], 20)):
        small = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        total += strength / 75 * (np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float64) - 128)
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Three photos: sideways by its EXIF orientation, with transparent parts, portrait."""
    folder = tmp_path_factory.mktemp('photos')
    exif = Image.Exif()
    exif[0x0112] = 6
    detailed(1, (403, 262)).save(folder / 'phone.jpg', quality=95, exif=exif)
    clear = detailed(2, (310, 205)).convert('RGBA')
    clear.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 310).astype(np.uint8), (205, 1))))
    clear.save(folder / 'clear.png')
    detailed(3, (180, 331)).save(folder / 'portrait.png')
    return [str(folder / name) for name in ('phone.jpg', 'clear.png', 'portrait.png')]


@pytest.fixture(scope='module')
def export(tmp_path_factory):
    paddle.seed(3)
    folder, network = tmp_path_factory.mktemp('export'), Sensitive()
    network.eval()
    overrides = [
        'image.resize=37',
        f'data.labels={LABELS}',
        'image.interpolation=bilinear',
        'data.reduced_decoding=false',
    ]
    cfg = small_export.settings(*overrides)
    assert cfg.image.mean == list(other_programs.MEAN) and cfg.image.std == list(other_programs.STD)
    small_export.write(folder, network, cfg, with_onnx=False)
    return str(folder), network


@pytest.fixture(scope='module')
def network(export):
    def logits(batch):
        with paddle.no_grad():
            return export[1](paddle.to_tensor(batch)).numpy()

    return logits


@pytest.fixture(scope='module')
def session(export, photos):
    """(Runner, own Program, manifest, Noise), once for all tests: inputs that were run are kept."""
    manifest = export_folder.read_manifest(export[0])
    model = exported_model.load(export[0], 'cpu', 'paddle', 'fp32', checked=False)
    own = programs.of_export(manifest, 'inference.yaml')
    runner = running.Runner(model, manifest, [programs.Photo(path, 32) for path in photos])
    return runner, own, manifest, running.noise(runner, own)


def of(values, digits=None):
    values = np.asarray(values, np.float64)
    values = values if digits is None else values.round(digits)
    rounding = np.full(values.shape, 1e-6 if digits is None else 0.5 * 10**-digits)
    return theirs.Theirs(values, rounding, values.argmax(1))


def explained(session, given):
    runner, own, manifest, noise = session
    return search.explain(runner, own, manifest, given, noise)


ONE = {  # words of the explanation: what the other program does
    'BGR': {'bgr': True},
    '0 to 255, without': {'scale': 1, 'mean': 0, 'std': 1},
    'not scaled by 1/255: (0..255 - mean)': {'scale': 1},
    'scaled by 1/255 twice': {'scale': 1 / 255**2},
    'mean and std of ImageNet': {'std': (0.229, 0.224, 0.225)},
    'which gives -1 to 1': {'mean': 0.5, 'std': 0.5},
    'EfficientNet-Lite': {'mean': 127 / 255, 'std': 128 / 255},
    '0 to 1, without': {'mean': 0, 'std': 1},
    'not divided by std': {'std': 1},
    'order BGR': {'mean': other_programs.MEAN[::-1], 'std': other_programs.STD[::-1]},
    'stretched to a square': {'fit': 'stretch'},
    'borders of black': {'fit': 'pad'},
    'short side scaled to 32': {'short': 32},
    'crop ratio 0.9)': {'short': 35},
    'too far to the right and bottom': {'shift': 1},
    'nearest pixel': {'how': 'nearest'},
    'bicubic with': {'how': 'bicubic'},
    'Lanczos filter of Pillow': {'how': 'lanczos'},
    'box filter': {'how': 'box'},
    'INTER_LINEAR': {'how': 'opencv linear'},
    'INTER_AREA': {'how': 'opencv area'},
    'EXIF': {'exif': False},
    'reshaped': {'reshape': True},
    'dropped': {'behind': None},
    'on black': {'behind': (0, 0, 0)},
    'mirror image': {'mirror': True},
    'without softmax': {'softmax': 'never'},
    'softmax applied twice': {'softmax': 'twice'},
    'sorted by name': {'names': [3, 0, 2, 1]},
    'Bee is what the model calls cat': {'names': [0, 2, 1, 3]},
}


def test_the_numbers_of_a_program_without_a_mistake_need_no_explanation(session, photos, network):
    result = explained(session, of(other_programs.run(network, photos)))
    assert [fit.mistakes for fit in result.fits] == [()] and result.level <= 1


@pytest.mark.parametrize('words', ONE)
def test_one_mistake_is_found(session, photos, network, words):
    result = explained(session, of(other_programs.run(network, photos, **ONE[words])))
    assert {len(fit.mistakes) for fit in result.fits} == {1}
    texts = [fit.text for fit in result.fits]
    if 'scale' in ONE[words]:  # probabilities are 0 and 1, or those of a grey picture, whatever the rest is
        assert any(words in text for text in texts)
    else:
        assert words in texts[0] and len(texts) == 1, texts


PAIRS = [
    ('BGR', 'stretched to a square'),
    ('BGR', '0 to 1, without'),
    ('BGR', 'INTER_LINEAR'),
    ('INTER_LINEAR', 'stretched to a square'),
    ('INTER_AREA', 'short side scaled to 32'),
    ('EXIF', 'dropped'),
    ('EXIF', 'nearest pixel'),
    ('reshaped', 'which gives -1 to 1'),
    ('BGR', 'without softmax'),
    ('INTER_LINEAR', 'softmax applied twice'),
    ('EXIF', 'sorted by name'),
    ('borders of black', 'Bee is what the model calls cat'),
    ('softmax applied twice', 'Bee is what the model calls cat'),
    ('too far to the right and bottom', 'bicubic with'),
    ('0 to 255, without', 'borders of black'),
]


@pytest.mark.parametrize('pair', PAIRS, ids=' and '.join)
def test_two_mistakes_are_found(session, photos, network, pair):
    result = explained(session, of(other_programs.run(network, photos, **ONE[pair[0]], **ONE[pair[1]])))
    assert {len(fit.mistakes) for fit in result.fits} == {2}
    texts = [fit.text for fit in result.fits]
    assert any(all(words in text for words in pair) for text in texts if text == texts[0] or 'scaled' in text), texts


def test_a_third_mistake_is_found_when_two_come_close(session, photos, network):
    """What a first program with OpenCV often does."""
    how = {'bgr': True, 'how': 'opencv linear', 'fit': 'stretch'}
    texts = [fit.text for fit in explained(session, of(other_programs.run(network, photos, **how))).fits]
    assert len(texts) == 1 and all(words in texts[0] for words in ('BGR', 'INTER_LINEAR', 'stretched to a square')), (
        texts
    )


def test_the_same_mistakes_in_another_order_are_one_explanation():
    one, two, three = (types.SimpleNamespace(text=text) for text in ('one', 'two', 'three'))
    fits = [search.Fit(some, None, 0.0, 0.0) for some in ((one, two, three), (two, three, one), (one, two))]
    assert [fit.text for fit in search._best(fits, 0.1)] == ['one + two + three', 'one + two']


def test_decoding_in_full_is_no_mistake(tmp_path, export, photos, network):
    """Where the export says that a large JPEG may be decoded at a fraction of its size, which most programs do not do."""
    cfg = small_export.settings('image.resize=37', f'data.labels={LABELS}', 'image.interpolation=bilinear')
    small_export.write(tmp_path / 'infer', export[1], cfg, with_onnx=False)
    manifest = export_folder.read_manifest(str(tmp_path / 'infer'))
    loaded = exported_model.load(str(tmp_path / 'infer'), 'cpu', 'paddle', 'fp32', checked=False)
    own = programs.of_export(manifest, 'inference.yaml')
    assert own.reduced == 'ours'
    runner = running.Runner(loaded, manifest, [programs.Photo(path, 32) for path in photos])
    noise = running.noise(runner, own)
    for words, how in (('', {}), ('EXIF', {'exif': False}), ('INTER_LINEAR', {'how': 'opencv linear'})):
        result = search.explain(runner, own, manifest, of(other_programs.run(network, photos, **how)), noise)
        assert words in result.fits[0].text and len(result.fits[0].mistakes) == bool(words), result.fits
    values = np.concatenate([runner.logits(number, [own]) for number in range(3)])
    given = of(programs.softmax(values.astype(np.float64)))
    assert search.explain(runner, own, manifest, given, noise).fits[0].mistakes == ()


OTHER_EXPORTS = {  # settings of the export; what the program does otherwise; words of the explanation
    'pixels': (['export.preprocess=true'], {'bgr': True}, 'BGR'),
    'pixels, no mistake': (['export.preprocess=true'], {}, ''),
    'stretched': (['image.fit=squash'], {'short': 32}, 'short side scaled to 32'),
    'padded': (['image.fit=pad'], {'fit': 'stretch'}, 'stretched to a square'),
    'logits only': (['export.softmax=false'], {'softmax': 'never', 'exif': False}, 'EXIF'),
}


@pytest.mark.parametrize('kind', OTHER_EXPORTS)
def test_other_kinds_of_exports(kind, tmp_path, export, photos, network):
    overrides, how, words = OTHER_EXPORTS[kind]
    cut = 'auto' if 'image.fit' in overrides[0] else 37
    cfg = small_export.settings(
        f'image.resize={cut}', f'data.labels={LABELS}', 'data.reduced_decoding=false', *overrides
    )
    small_export.write(tmp_path / 'infer', export[1], cfg, with_onnx=False)
    manifest = export_folder.read_manifest(str(tmp_path / 'infer'))
    loaded = exported_model.load(str(tmp_path / 'infer'), 'cpu', 'paddle', 'fp32', checked=False)
    own = programs.of_export(manifest, 'inference.yaml')
    runner = running.Runner(loaded, manifest, [programs.Photo(path, 32) for path in photos])
    given = of(other_programs.run(network, photos, **how))
    result = search.explain(runner, own, manifest, given, running.noise(runner, own))
    assert len(result.fits) == 1 and words in result.fits[0].text, result
    for fit in (*result.fits, *result.closest):
        assert programs.seen(runner.inputs(0, fit.program)[0], manifest['transform'][-1]).size == (32, 32)


def test_the_orientation_in_a_png_is_noticed_too(session, photos, network, tmp_path):
    runner, own, manifest, _ = session
    exif = Image.Exif()
    exif[0x0112] = 8
    detailed(7, (211, 160)).save(tmp_path / 'a.png', exif=exif)
    path = str(tmp_path / 'a.png')
    alone = running.Runner(runner.model, manifest, [programs.Photo(path, 32)])
    given = of(other_programs.run(network, [path], exif=False))
    result = search.explain(alone, own, manifest, given, running.noise(alone, own))
    assert [fit.text for fit in result.fits] == ['EXIF orientation ignored']


def test_numbers_printed_with_four_digits_are_enough(session, photos, network):
    for words in ('BGR', 'INTER_LINEAR', 'EXIF'):
        result = explained(session, of(other_programs.run(network, photos, **ONE[words]), digits=4))
        assert words in result.fits[0].text and len(result.fits[0].mistakes) == 1


def test_the_most_probable_classes_alone_are_enough(session, photos, network):
    values = other_programs.run(network, photos, bgr=True)
    values[values < np.sort(values, 1)[:, -2:-1]] = np.nan
    given = theirs.Theirs(values, np.full(values.shape, 1e-6), np.nanargmax(values, 1))
    assert 'BGR' in explained(session, given).fits[0].text


def test_of_class_names_alone_all_explanations_are_given(session, photos, network):
    values = other_programs.run(network, photos, mirror=True)
    nothing = np.full(values.shape, np.nan)
    result = explained(session, theirs.Theirs(nothing, nothing, values.argmax(1)))
    assert 'averaged over the photo and its mirror image' in [fit.text for fit in result.fits]
    values = other_programs.run(network, photos, exif=False, bgr=True)
    texts = [fit.text for fit in explained(session, theirs.Theirs(nothing, nothing, values.argmax(1))).fits]
    assert len(texts) > 1 and any('BGR' in text and 'EXIF' in text for text in texts)


def test_mistakes_that_give_the_same_numbers_are_given_together(session, photos, network):
    """On a photo without an EXIF orientation that is opaque."""
    runner, own, manifest, _ = session
    alone = running.Runner(runner.model, manifest, [programs.Photo(photos[2], 32)])
    given = of(other_programs.run(network, photos[2:], bgr=True, behind=None, exif=False))
    result = search.explain(alone, own, manifest, given, running.noise(alone, own))
    assert [fit.text for fit in result.fits] == ['BGR instead of RGB']
    unseen = [mistake.text for mistake in result.unseen]
    assert 'EXIF orientation ignored' in unseen and 'transparent parts placed on black, not white' in unseen
    square = photos[2].replace('portrait', 'square')
    Image.open(photos[2]).crop((0, 0, 180, 180)).save(square)
    alone = running.Runner(runner.model, manifest, [programs.Photo(square, 32)])
    given = of(other_programs.run(network, [square], fit='stretch'))
    texts = [fit.text for fit in search.explain(alone, own, manifest, given, running.noise(alone, own)).fits]
    assert {'stretched to a square, not cut', 'short side scaled to 32 pixels (crop ratio 1), then the centre cut'} <= {
        *texts
    }


def test_numbers_of_another_model_are_not_explained(session, photos):
    values = np.random.default_rng(1).dirichlet([1, 1, 1, 1], 3)
    result = explained(session, of(values))
    assert result.fits == [] and result.level == -1
    assert len(result.closest) == 5 and result.closest[0].largest > 0.1


def test_another_jpeg_decoder_is_told_from_a_mistake(session, photos, network):
    values = other_programs.run(network, photos, smooth=False)
    assert [fit.mistakes for fit in explained(session, of(values)).fits] == [()]
    values = other_programs.run(network, photos, smooth=False, bgr=True)
    assert explained(session, of(values)).fits[0].text == 'BGR instead of RGB'


ARCHIVE = Path(os.environ.get('ZODIAC_DATA', '')) / 'animals8.zip'


@pytest.mark.skipif(not ARCHIVE.is_file(), reason='ZODIAC_DATA names no folder with animals8.zip')
def test_mistakes_on_real_photos_are_found(session, network, tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith('.png')]
        paths = [archive.extract(name, tmp_path) for name in names[:: len(names) // 3][:3]]
    runner, own, manifest, _ = session
    runner = running.Runner(runner.model, manifest, [programs.Photo(path, 32) for path in paths])
    noise = running.noise(runner, own)
    for words in (['BGR'], ['INTER_LINEAR'], ['stretched to a square'], ['BGR', 'INTER_AREA']):
        how = {key: value for one in words for key, value in ONE[one].items()}
        given = of(other_programs.run(network, paths, **how))
        texts = [fit.text for fit in search.explain(runner, own, manifest, given, noise).fits]
        assert len(texts) == 1 and all(word in texts[0] for word in words), texts
