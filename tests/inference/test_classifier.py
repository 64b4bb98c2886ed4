"""zodiac.load: images in every form, in order, from several threads, without Paddle."""

import concurrent.futures
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, picture
from image_files import saved
from PIL import Image
from small_export import HAS_OPENVINO, LABELS, ONNX, PICTURES, logits_of, network_of, settings, write

import zodiac
from zodiac.base.errors import UserError
from zodiac.inference import export_folder, exported_model


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A working directory with output/small, a run with an export."""
    folder = tmp_path_factory.mktemp('work')
    infer = folder / 'output/small/infer'
    infer.parent.mkdir(parents=True)
    manifest = write(infer, network_of('small'), settings())
    manifest['parity'] = {engine: {} for engine in ('onnxruntime', 'openvino')}
    export_folder.write_manifest(str(infer), manifest)
    for number, image in enumerate(PICTURES):
        (folder / 'photos').mkdir(exist_ok=True)
        image.save(folder / f'photos/{number}.png')
    (folder / 'photos/notes.txt').write_text('no image')
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
    return folder


@pytest.fixture
def model(run, monkeypatch):
    monkeypatch.chdir(run)
    return zodiac.load('output/small', 'paddle', 'cpu')


def expected():
    return exported_model.softmax(logits_of(network_of('small'), settings(), PICTURES))


def test_a_run_is_loaded_by_its_name_its_folder_and_that_of_its_export(run, monkeypatch):
    monkeypatch.chdir(run)
    for name in ('small', 'output/small', Path('output/small/infer')):
        model = zodiac.load(name, 'paddle', 'cpu')
        assert (model.name, model.labels, model.engine) == ('small', LABELS, 'paddle')
    with pytest.raises(UserError, match='^output/other: not an exported model'):
        zodiac.load('output/other')
    with pytest.raises(UserError, match="^engine 'torch': must be auto, paddle"):
        zodiac.load('small', 'torch')


def test_every_form_of_an_image_gives_the_same_prediction(run, model):
    paths = [f'photos/{number}.png' for number in range(5)]
    forms = {
        'paths': [Path(path) for path in paths],
        'a folder': 'photos',
        'bytes': [Path(path).read_bytes() for path in paths],
        'PIL images in memory': PICTURES,
        'PIL images of files': map(Image.open, paths),
        'arrays': [np.asarray(image) for image in PICTURES],
        'an array': np.stack([np.asarray(image) for image in PICTURES]),
    }
    for name, images in forms.items():
        found = model.predict(images, top=2, batch_size=2)
        assert len(found) == 5, name
        for prediction, row in zip(found, expected()):
            first, second = row.argsort()[::-1][:2]
            assert prediction.label == LABELS[first], name
            assert prediction.probability == pytest.approx(row[first], abs=1e-5), name
            assert [label for label, _ in prediction.top] == [LABELS[first], LABELS[second]], name
    assert [one.path for one in model.predict('photos')] == paths
    assert [one.path for one in model.predict(PICTURES)] == [None] * 5


def test_a_single_image_gives_a_list_of_one_and_no_image_an_empty_one(model):
    for one in ('photos/0.png', PICTURES[0], np.asarray(PICTURES[0]), Path('photos/0.png').read_bytes()):
        assert len(model.predict(one)) == 1
    assert model.predict([]) == []


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'LA', 'CMYK', '1', 'I;16'])
def test_an_image_in_memory_is_converted_as_one_in_a_file(model, mode):
    image = (
        Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30)
        if mode == 'I;16'
        else picture(1).convert(mode)
    )
    assert image.mode == mode
    if mode == 'RGBA':
        image.putalpha(Image.linear_gradient('L').resize(image.size))
    file = saved(image, 'TIFF')
    (memory,), (read,) = model.predict(image), model.predict(file)
    assert dict(memory.top) == pytest.approx(dict(read.top), abs=1e-5)


def test_a_bad_image_is_named_and_can_be_left_out(model):
    bad = {
        'broken.jpg: truncated or damaged': 'broken.jpg',
        'gone.png: no such file': 'gone.png',
        'image 1: not an image': b'hello',
        r'image 1: an array of float64 \[4, 4, 3\]; it must be uint8': np.zeros((4, 4, 3)),
        r'image 1: an array of uint8 \[3, 40, 48\]': np.zeros((3, 40, 48), np.uint8),
        'image 1: int is not an image': 7,
        'image 1: float pixels': Image.new('F', (4, 4)),
    }
    for message, image in bad.items():
        images, errors = [PICTURES[0], image, PICTURES[1]], []
        with pytest.raises(UserError, match=f'^{message}'):
            model.predict(images)
        assert len(model.predict(images, on_error=errors.append)) == 2
        assert len(errors) == 1
    with pytest.raises(UserError, match='int'):
        model.predict(7)


def test_features_are_returned_where_the_export_has_them(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(run)
    with pytest.raises(UserError, match='features=True: .* export it again: .*export.* small -o export.features=true$'):
        model.predict(PICTURES, features=True)
    write(tmp_path, network_of('small'), settings('export.features=true'))
    other = zodiac.load(tmp_path, 'paddle', 'cpu', 'fp32')
    found = np.stack([one.features for one in other.predict(PICTURES, features=True)])
    mix = network_of('small').mix
    logits = found @ mix.weight.numpy() + mix.bias.numpy()
    np.testing.assert_allclose(logits, logits_of(network_of('small'), settings(), PICTURES), atol=1e-4)
    assert other.predict(PICTURES[0])[0].features is None


def test_threads_get_their_own_predictions(model):
    right = [LABELS[number] for number in expected().argmax(1)]

    def ask(turn):
        order = [(turn + number) % 5 for number in range(5)]
        found = model.predict([PICTURES[number] for number in order], batch_size=2)
        return [one.label for one in found] == [right[number] for number in order]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(40)))


WITHOUT_PADDLE = """
import sys
sys.modules['paddle'] = sys.modules['visualdl'] = None
import zodiac
assert not {'numpy', 'PIL', 'typing'} & {*sys.modules}
print(zodiac.load('small').engine, *(one.label for one in zodiac.load('small').predict('photos')))
"""


@ONNX
def test_no_paddle_is_needed_where_another_engine_is_installed(run):
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_PADDLE],
        cwd=run,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    engine = 'openvino' if HAS_OPENVINO else 'onnxruntime'
    assert done.stdout.split() == [engine, *(LABELS[number] for number in expected().argmax(1))]
