"""An export that was changed is refused before an engine reads it, and what an engine runs is what was hashed."""

import os
import shutil

import numpy as np
import pytest
import yaml
from small_export import ENGINES, LABELS, PICTURES, predict, write_all

from zodiac.base.errors import UserError
from zodiac.inference import engines, export_folder, exported_model


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    return write_all(tmp_path_factory)


@pytest.fixture
def folder(exports, tmp_path):
    """A copy of the plain export."""
    return shutil.copytree(exports['plain'], tmp_path / 'infer')


def test_the_manifest_describes_the_inputs_and_outputs_of_the_graph(exports):
    manifests = {name: yaml.safe_load((folder / 'inference.yaml').read_text()) for name, folder in exports.items()}
    common = {'name': 'image'}
    tensor = {**common, 'shape': [-1, 3, 32, 32], 'dtype': 'float32', 'layout': 'NCHW'}
    pixels = {**common, 'shape': [-1, 32, 32, 3], 'dtype': 'uint8', 'layout': 'NHWC'}
    assert [manifests[name]['input'] for name in ('plain', 'pixels')] == [tensor, pixels]
    assert [step['op'] for step in manifests['pixels']['transform']] == ['decode_reduced', 'center_crop']
    assert [manifests[name]['output']['name'] for name in manifests] == ['probabilities'] * 2 + ['logits'] * 2
    assert [manifests[name]['outputs'] for name in manifests] == [['probabilities', 'logits']] * 2 + [['logits']] * 2
    assert manifests['everything']['temperature'] == 1.7
    for name, folder in exports.items():
        assert set(manifests[name]['sha256']) == set(os.listdir(folder)) - {'inference.yaml'}


def test_a_damaged_export_is_refused_before_an_engine_reads_it(exports, tmp_path, monkeypatch):
    """300 flipped bits, cuts and missing files, over all files of the folder."""
    source = exports['plain']
    started = []
    monkeypatch.setitem(engines.ENGINES, 'paddle', lambda *_: started.append(1))
    exported_model.load(str(shutil.copytree(source, tmp_path / 'intact')))
    assert started == [1]
    contents = {path.name: path.read_bytes() for path in source.iterdir()}
    rng = np.random.default_rng(0)
    folder = tmp_path / 'damaged'
    for number in range(300):
        name = sorted(contents)[number % len(contents)]
        shutil.copytree(source, folder)
        content = bytearray(contents[name])
        if number % 30 == number % len(contents):
            (folder / name).unlink()
        elif number % 3:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_bytes(content[: rng.integers(len(content))])
        with pytest.raises(UserError, match=name.replace('.', r'\.')):
            exported_model.load(str(folder))
        shutil.rmtree(folder)
    assert started == [1]


INVALID = [
    {'labels': 'cat'},
    {'labels': LABELS[:3]},
    {'labels': [{}, [], 'c', 'd']},
    {'sha256': {'../small.json': 'x'}},
    {'sha256': ['small.json', 'small.pdiparams']},
    {'name': ['small']},
    {'input': 'x'},
    {'input': {'shape': [-1, 3, 32]}},
    {'input': {'dtype': 'float99', 'shape': [-1, 3, 32, 32]}},
    {'output': ['a']},
    {'output': {'name': 'guesses', 'shape': [-1, 4]}},
    {'outputs': ['logits', 'probabilities']},
    {'outputs': None},
    {'outputs': ['features', 'logits']},
    {'parity': None},
    {'trained': None},
]


def test_a_manifest_with_invalid_entries_is_refused_although_its_hash_is_right(folder):
    manifest = export_folder.read_manifest(folder)
    for changed in ({}, [], 'x', *({**manifest, **change} for change in INVALID)):
        export_folder.write_manifest(folder, changed)
        with pytest.raises(UserError, match='inference.yaml: was changed'):
            exported_model.load(str(folder))


def test_a_transform_that_does_not_fit_the_input_of_the_network_is_refused(folder):
    manifest = export_folder.read_manifest(folder)
    crop, normalisation = manifest['transform'][-2:]
    export_folder.write_manifest(folder, {**manifest, 'transform': [{**crop, 'size': 16}, normalisation]})
    with pytest.raises(UserError, match=r'it gives \[3, 16, 16\], the network takes \[3, 32, 32\]'):
        exported_model.load(str(folder))


FILES = {'paddle': 'small.pdiparams', 'onnxruntime': 'small.onnx', 'openvino': 'small.onnx'}


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('change', ['damaged', 'exported again'])
def test_an_engine_runs_what_was_hashed_even_if_the_files_change_meanwhile(
    exports, folder, monkeypatch, engine, change
):
    expected = predict(folder, engine, PICTURES)
    start = engines.ENGINES[engine]

    def change_first(*arguments):
        if change == 'damaged':
            (folder / FILES[engine]).write_bytes(bytes((folder / FILES[engine]).stat().st_size))
        else:  # by another export, with other inputs
            shutil.rmtree(folder)
            shutil.copytree(exports['pixels'], folder)
        return start(*arguments)

    monkeypatch.setitem(engines.ENGINES, engine, change_first)
    if engine == 'paddle':  # reads the files itself
        words = 'small.pdiparams: was changed' if change == 'damaged' else 'infer: was exported again .* start again'
        with pytest.raises(UserError, match=words):
            predict(folder, engine, PICTURES)
    else:
        np.testing.assert_array_equal(predict(folder, engine, PICTURES), expected)
