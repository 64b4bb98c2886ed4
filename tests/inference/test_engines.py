"""Every engine gives the probabilities of the network, in the precision it was asked for; `auto` takes the fastest."""

import gc
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from small_export import (
    ENGINES,
    ONNX,
    OPENVINO,
    PICTURES,
    VARIANTS,
    logits_of,
    network_of,
    predict,
    settings,
    write,
    write_all,
)

from zodiac.base import device
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.images import transforms
from zodiac.inference import engines, export_folder, exported_model
from zodiac.inference.exported_model import softmax
from zodiac.models import convert, wrappers

ALL = ('paddle', 'onnxruntime', 'openvino')


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    return write_all(tmp_path_factory)


@pytest.mark.parametrize('kind', ['flip average', 'cifarnet', 'headed'])
def test_an_export_gives_the_probabilities_of_the_network(tmp_path, kind):
    network, cfg = network_of(kind), settings()
    network.eval()
    write(tmp_path, network, cfg)
    expected = softmax(logits_of(network, cfg, PICTURES))
    for engine in ('paddle', *(['onnxruntime'] if convert.can_save_onnx() else [])):
        assert np.abs(predict(tmp_path, engine, PICTURES) - expected).max() < 1e-5


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('count', [1, 5])
def test_probabilities_do_not_depend_on_the_inputs_and_outputs_of_the_graph(exports, name, engine, count):
    overrides, temperature = VARIANTS[name]
    expected = softmax(logits_of(network_of('small'), settings(*overrides), PICTURES[:count]) / temperature)
    assert expected.std() > 1e-2
    got = predict(exports[name], engine, PICTURES[:count])
    assert got.shape == (count, 4) and np.abs(got - expected).max() < 1e-5


@pytest.mark.parametrize('kind', ['small', 'flip average', 'headed'])
@pytest.mark.parametrize('options', [[], ['export.softmax=false', 'export.preprocess=true']])
def test_each_engine_returns_the_features_that_enter_the_last_layer(tmp_path, kind, options):
    network, cfg = network_of(kind), settings('export.features=true', *options)
    network.eval()
    own = getattr(network, 'network', network)
    last = [layer for layer in own.sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
    seen = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
    logits = logits_of(network, cfg, PICTURES)
    hook.remove()
    scale = 9 if kind == 'flip average' else 1  # of cifarnet, behind its last layer
    features = np.mean(seen, 0) / scale
    write(tmp_path, network, cfg)
    for engine in ('paddle', *(name for name in ALL[1:] if convert.can_save_onnx() and engines.installed(name))):
        model = exported_model.load(str(tmp_path), 'cpu', engine, 'fp32', checked=False)
        answers = model.answers(np.stack([transforms.apply(model.transform, image) for image in PICTURES]))
        found = np.stack([answer.features for answer in answers])
        assert found.dtype == np.float32 and found.shape == features.shape
        assert np.abs(found - features).max() < 2e-3 * np.abs(features).max()  # OpenVINO approximates GELU
        assert np.abs(np.stack([answer.probabilities for answer in answers]) - softmax(logits)).max() < 1e-4


def test_features_need_a_linear_layer_at_the_end():
    network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(12, 4), paddle.nn.ReLU())
    with pytest.raises(UserError, match='export.features: the last layer .* is ReLU'):
        wrappers.before_last(network)


@OPENVINO
def test_openvino_gives_the_same_for_single_images_and_batches_of_any_size(exports):
    model = exported_model.load(str(exports['plain']), 'cpu', 'openvino')
    batch = np.stack([transforms.apply(model.transform, image) for image in PICTURES])
    single, expected = model.predict(batch[:1]), model.predict(batch)
    for count in (1, 2, 3, 5, 1):
        assert np.abs(model.predict(batch[:count]) - expected[:count]).max() < 1e-6
    assert np.abs(single - expected[:1]).max() < 1e-6


def note_parity(folder, *names):
    """Write a result of the comparison into the manifest, as an earlier export.py did."""
    manifest = export_folder.read_manifest(folder)
    export_folder.write_manifest(folder, {**manifest, 'parity': {name: {'top1_agreement': 1.0} for name in names}})


@pytest.mark.parametrize('precision', ['bf16', 'fp32'])
def test_paddle_is_asked_for_bf16(exports, monkeypatch, precision):
    requested = []

    class Config(paddle.inference.Config):
        def enable_mkldnn_bfloat16(self):
            requested.append('bf16')

    monkeypatch.setattr(paddle.inference, 'Config', Config)
    monkeypatch.setattr(device, 'has_bf16', lambda: True)
    exported_model.load(str(exports['plain']), 'cpu', 'paddle', precision, checked=False)
    assert requested == ['bf16'] * (precision == 'bf16')


@OPENVINO
@pytest.mark.parametrize(('precision', 'hint'), [('bf16', 'bf16'), ('fp32', 'f32')])
def test_openvino_is_asked_for_bf16(exports, monkeypatch, tmp_path, precision, hint):
    import openvino  # optional

    requested = []

    class Core(openvino.Core):
        def compile_model(self, graph, place, options):
            requested.append(options['INFERENCE_PRECISION_HINT'])
            return super().compile_model(graph, place, {**options, 'INFERENCE_PRECISION_HINT': 'f32'})

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(openvino, 'Core', Core)
    monkeypatch.setattr(device, 'has_bf16', lambda: True)
    model = exported_model.load(str(exports['plain']), 'cpu', 'openvino', precision, checked=False)
    model.predict(transforms.apply(model.transform, PICTURES[0])[None])
    assert requested == [hint]


@ONNX
def test_the_bytes_of_a_model_are_not_kept_in_memory_beside_the_engine(exports, monkeypatch):
    import onnxruntime  # optional

    contents = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, content, *arguments, **options):
            super().__init__(content, *arguments, **options)
            contents.append(content)

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    model = exported_model.load(str(exports['plain']), 'cpu', 'onnxruntime')
    gc.collect()
    holders = [holder for holder in gc.get_referrers(contents[0]) if type(holder).__name__ != 'frame']
    assert model and holders == [contents]


@pytest.mark.parametrize('engine', ENGINES)
def test_an_error_while_running_names_the_file_and_the_engine(exports, engine):
    model = exported_model.load(str(exports['plain']), 'cpu', engine)
    with pytest.raises(UserError, match=f'small.*(?i:{engine}) cannot run it .*export the model again'):
        model.predict(np.zeros((1, 2, 32, 32), 'float32'))


def test_an_engine_without_its_file_says_what_to_do(tmp_path):
    write(tmp_path, network_of('small'), settings(), with_onnx=False)
    for engine in ('onnxruntime', 'openvino'):
        with pytest.raises(UserError, match='has no small.onnx, .*requirements-deploy.txt'):
            exported_model.load(str(tmp_path), 'cpu', engine)


@ONNX
@pytest.mark.parametrize(
    ('engine', 'place', 'error', 'words'),
    [
        ('openvino', 'gpu', UsageError, '--device gpu: the engine openvino .* --device cpu'),
        ('onnxruntime', 'gpu:0', UserError, 'no CUDAExecutionProvider; pip install onnxruntime-gpu'),
    ],
)
def test_an_engine_says_which_device_it_cannot_use(exports, monkeypatch, engine, place, error, words):
    import onnxruntime  # optional

    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(error, match=words):
        exported_model.load(str(exports['plain']), place, engine)


@ONNX
@pytest.mark.parametrize(('place', 'number'), [('auto', None), ('gpu', 0), ('gpu:1', 1)])
def test_onnx_runtime_gets_the_gpu_that_was_named(exports, monkeypatch, place, number):
    import onnxruntime  # optional

    asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, options, providers):
            asked.extend(providers)
            super().__init__(path, options, providers=['CPUExecutionProvider'])

    known = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: known)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    exported_model.load(str(exports['plain']), place, 'onnxruntime')
    gpu = [] if number is None else [('CUDAExecutionProvider', {'device_id': number})]
    assert asked == [*gpu, 'CPUExecutionProvider']


WITHOUT_PADDLE = """
import sys
sys.modules['paddle'] = None
from zodiac.inference import exported_model
assert exported_model.load(sys.argv[1], 'cpu', 'auto').engine == 'onnxruntime'
"""


@ONNX
def test_the_onnx_model_runs_where_paddle_is_not_installed(tmp_path):
    write(tmp_path, network_of('small'), settings())
    note_parity(tmp_path, 'onnxruntime')
    command = [sys.executable, '-c', WITHOUT_PADDLE, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(('precision', 'setting'), [('fp32', 'export.onnx=true'), ('int8', 'export.int8=true')])
def test_a_missing_onnx_file_names_the_setting_that_writes_it(precision, setting):
    source = engines.Source('infer', {'name': 'small', 'sha256': {}}, None, precision)
    with pytest.raises(UserError, match=f'infer: has no small.* export again with {setting}'):
        engines._onnx_path(source, 'openvino')
