"""What leaves the house: static graph and ONNX give the numbers of the network, with what is put around it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, picture

import config
import export
from zodiac.base import device, packages, paddle_setup
from zodiac.base.errors import UsageError, UserError
from zodiac.images import transforms
from zodiac.inference import engines, runtime
from zodiac.models import builder, convert, wrappers

paddle = paddle_setup.import_paddle()

LABELS = ['a', 'b', 'c', 'd']
ONNX = pytest.mark.skipif(not convert.can_save_onnx(), reason='requirements-deploy.txt is not installed')
OPENVINO = pytest.mark.skipif(
    not (convert.can_save_onnx() and engines.installed('openvino')), reason='openvino is not installed'
)
ENGINES = [
    'paddle',
    pytest.param('onnxruntime', marks=ONNX),
    pytest.param('openvino', marks=OPENVINO),
]


class Small(paddle.nn.Layer):
    """The mean red, green and blue of the four quarters, mixed at random."""

    def __init__(self):
        super().__init__()
        self.pool, self.mix = paddle.nn.AdaptiveAvgPool2D(2), paddle.nn.Linear(12, 4)

    def forward(self, x):
        return self.mix(self.pool(x).flatten(1))


def network_of(kind):
    paddle.seed(0)
    if kind == 'small':
        return Small()
    if kind == 'flip average':
        return wrappers.FlipAverage(builder.build('cifarnet', 4, 32))
    head = ['flatten', {'dropout': 0.5}, {'linear': 'classes'}] if kind == 'headed' else 'auto'
    return builder.build('cifarnet' if kind == 'cifarnet' else 'resnet18', 4, 32, head)


def settings(*overrides):
    common = ['name=small', f'data.labels={LABELS}', 'image.size=32', 'image.resize=32', 'image.std=[0.2,0.3,0.4]']
    return config.load(overrides=[*common, *overrides])


def write(folder, network, cfg, temperature=1.0):
    with_onnx = convert.can_save_onnx()
    around = (cfg.export.preprocess, cfg.export.softmax, temperature)
    layer = wrappers.Deployed(network, cfg.image.mean, cfg.image.std, *around)
    layer.eval()
    export.write_models(layer, export.describe(cfg, {}, temperature, with_onnx), str(folder), with_onnx)


class Enlarging(paddle.nn.Layer):
    """float32 [N, 3, 8, 8] -> [N, 3]; Paddle 3.3 hands oneDNN no scale of `interpolate`, and fails at the first batch."""

    def __init__(self):
        super().__init__()
        self.convolution = paddle.nn.Conv2D(3, 3, 3)

    def forward(self, image):
        return paddle.nn.functional.interpolate(self.convolution(image), scale_factor=2, mode='bilinear').mean([2, 3])


@pytest.fixture
def enlarging(tmp_path):
    """A layer, and the files of its static graph."""
    layer = Enlarging()
    layer.eval()
    convert.save_static(layer, str(tmp_path / 'a'), [-1, 3, 8, 8], 'float32')
    graph = next(str(path) for path in tmp_path.iterdir() if path.suffix in ('.json', '.pdmodel'))
    return layer, graph, str(tmp_path / 'a.pdiparams')


BATCH = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)


def test_a_graph_that_paddle_fails_at_on_onednn_is_run_all_the_same(enlarging, capsys):
    layer, graph, weights = enlarging
    run = engines.paddle_runner(graph, weights, 'cpu')
    for count in (2, 1):
        expected = layer(paddle.to_tensor(BATCH[:count])).numpy()
        np.testing.assert_allclose(run(BATCH[:count])[0], expected, atol=1e-5)
    if paddle.__version__.startswith('3.3'):
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and said.startswith(f'{graph}: oneDNN cannot run it (')
        assert 'ConvertPirAttribute2RuntimeAttribute' in said and said.endswith('docs/troubleshooting.md#onednn\n')


class Failing:
    """A predictor that raises where oneDNN is on, or always."""

    def __init__(self, predictor, fails):
        self.predictor, self.fails = predictor, fails

    def __getattr__(self, name):
        return getattr(self.predictor, name)

    def run(self):
        if self.fails:
            raise NotImplementedError('stack\n(Unimplemented) no such attribute  (at /paddle/onednn.cc:116)\n')
        return self.predictor.run()


@pytest.mark.parametrize('place', ['first run', 'creation'])
def test_the_first_failure_of_onednn_turns_it_off_and_is_told_once(enlarging, monkeypatch, capsys, place):
    layer, graph, weights = enlarging
    create, modes = paddle.inference.create_predictor, []

    def created(config):
        modes.append(config.mkldnn_enabled())
        if place == 'creation' and modes[-1]:
            raise RuntimeError('could not create a primitive descriptor')
        return Failing(create(config), modes[-1])

    monkeypatch.setattr(paddle.inference, 'create_predictor', created)
    run = engines.paddle_runner(graph, weights, 'cpu')
    for _ in range(3):
        np.testing.assert_allclose(run(BATCH)[0], layer(paddle.to_tensor(BATCH)).numpy(), atol=1e-5)
    assert modes == [True, False]
    assert capsys.readouterr().err.count('oneDNN cannot run it') == 1


def test_a_graph_that_runs_neither_way_is_named_and_onednn_is_not_blamed(enlarging, monkeypatch, capsys):
    _, graph, weights = enlarging
    create = paddle.inference.create_predictor
    monkeypatch.setattr(paddle.inference, 'create_predictor', lambda config: Failing(create(config), True))
    with pytest.raises(UserError, match=r'Paddle cannot run it \(\(Unimplemented\) no such attribute\)'):
        engines.paddle_runner(graph, weights, 'cpu')(BATCH)
    assert 'oneDNN' not in capsys.readouterr().err


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def logits_of(network, cfg, pictures):
    transform = transforms.eval_transform(32, cfg.image.mean, cfg.image.std, 32)
    batch = np.stack([transforms.apply(transform, image) for image in pictures])
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(batch)).numpy()


class Config(paddle.inference.Config):
    """Remembers whether bfloat16 was asked for."""

    asked = False

    def enable_mkldnn_bfloat16(self):
        Config.asked = True


FIGURES = {'top1': 1.0, 'largest_difference': 0.01, 'top1_agreement': 1.0}


def note_parity(folder, *engines):
    """Write figures of a comparison into the manifest, as export.py does when it has made one."""
    manifest = runtime.read_manifest(folder)
    runtime.write_manifest(folder, {**manifest, 'parity': dict.fromkeys(engines, FIGURES)})


@pytest.mark.parametrize(
    ('precision', 'has_it', 'compared', 'expected'),
    [
        ('bf16', True, ['paddle'], True),
        ('bf16', False, ['paddle'], False),
        ('bf16', True, [], False),
        ('bf16', True, ['openvino'], False),
        ('fp32', True, ['paddle'], False),
    ],
)
def test_paddle_runs_in_bf16_where_it_was_exported_so_and_measured_and_the_processor_has_it(
    tmp_path, monkeypatch, precision, has_it, compared, expected
):
    monkeypatch.setattr(convert, 'can_save_onnx', lambda: False)
    write(tmp_path, network_of('small'), settings(f'export.precision={precision}'))
    note_parity(tmp_path, *compared)
    monkeypatch.setattr(Config, 'asked', False)
    monkeypatch.setattr(paddle.inference, 'Config', Config)
    monkeypatch.setattr(device, 'has_bf16', lambda: has_it)

    runtime.load(str(tmp_path), 'cpu')

    assert Config.asked == expected


@OPENVINO
@pytest.mark.parametrize(
    ('precision', 'has_it', 'compared', 'hint'),
    [
        ('bf16', True, ['openvino'], 'bf16'),
        ('bf16', False, ['openvino'], 'f32'),
        ('bf16', True, ['paddle'], 'f32'),
        ('fp32', True, ['openvino'], 'f32'),
    ],
)
def test_openvino_is_asked_for_bf16_only_where_it_was_exported_so_and_measured(
    tmp_path, monkeypatch, precision, has_it, compared, hint
):
    import openvino

    asked = []

    class Core(openvino.Core):
        def compile_model(self, graph, place, settings):
            asked.append(settings['INFERENCE_PRECISION_HINT'])
            return super().compile_model(graph, place)

    write(tmp_path, network_of('small'), settings(f'export.precision={precision}'))
    note_parity(tmp_path, *compared)
    monkeypatch.setattr(openvino, 'Core', Core)
    monkeypatch.setattr(device, 'has_bf16', lambda: has_it)

    predict(tmp_path, 'openvino', PICTURES[:1])

    assert asked == [hint]


@OPENVINO
def test_openvino_gives_the_same_for_an_image_alone_and_in_batches_of_any_size(exports):
    exported = runtime.load(str(exports['plain'][0]), 'cpu', 'openvino')
    batch = np.stack([transforms.apply(exported.transform, image) for image in PICTURES])
    expected = exported.predict(batch[:1]), exported.predict(batch)
    for count in (1, 2, 3, 5, 1):
        assert np.abs(exported.predict(batch[:count]) - expected[1][:count]).max() < 1e-6
    assert np.abs(expected[0] - expected[1][:1]).max() < 1e-6


ALL = ('paddle', 'onnxruntime', 'openvino')


@pytest.mark.parametrize(
    ('place', 'compared', 'there', 'precision', 'expected'),
    [
        ('cpu', ALL, ('openvino', 'onnxruntime'), 'fp32', 'openvino'),
        ('auto', ALL, ('openvino', 'onnxruntime'), 'int8', 'openvino'),
        ('cpu', ALL, ('onnxruntime',), 'fp32', 'onnxruntime'),
        ('cpu', ALL[:2], ('openvino', 'onnxruntime'), 'fp32', 'onnxruntime'),
        ('cpu', ALL, (), 'fp32', 'paddle'),
        ('cpu', (), ('openvino', 'onnxruntime'), 'fp32', 'paddle'),
        ('gpu', ALL, ('openvino', 'onnxruntime'), 'fp32', 'paddle'),
        ('cpu', ALL, ('onnxruntime',), 'bf16', 'paddle'),
        ('cpu', ALL, ('openvino', 'onnxruntime'), 'bf16', 'openvino'),
        ('cpu', ALL[:2], ('openvino', 'onnxruntime'), 'bf16', 'paddle'),
        ('cpu', ALL[1:], ('onnxruntime',), 'bf16', 'onnxruntime'),
    ],
)
def test_the_engine_is_the_fastest_of_those_that_the_export_has_compared(
    monkeypatch, place, compared, there, precision, expected
):
    monkeypatch.setattr(engines, 'installed', there.__contains__)
    monkeypatch.setattr(device.shutil, 'which', lambda name: None)
    monkeypatch.setattr(device, 'has_bf16', lambda: True)
    manifest = {'parity': {engine: {'top1_agreement': 1.0} for engine in compared}, 'precision': precision}

    assert engines.fastest(manifest, place) == expected
    assert engines.fastest({'precision': precision}, place) == 'paddle'


@ONNX
def test_auto_takes_the_onnx_model_only_where_the_export_has_compared_it(exports, tmp_path):
    folder = str(shutil.copytree(exports['plain'][0], tmp_path / 'infer'))
    assert runtime.load(folder, 'cpu', 'auto').engine == 'paddle'
    manifest = runtime.read_manifest(folder)
    runtime.write_manifest(folder, {**manifest, 'parity': {'onnxruntime': {'top1_agreement': 1.0}}})
    assert runtime.load(folder, 'cpu', 'auto').engine == 'onnxruntime'


def test_a_machine_with_a_gpu_keeps_paddle(monkeypatch):
    monkeypatch.setattr(device.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    monkeypatch.setattr(engines, 'installed', lambda package: True)
    assert engines.fastest({'parity': dict.fromkeys(ALL)}, 'auto') == 'paddle'


def predict(folder, engine, pictures):
    exported = runtime.load(str(folder), 'cpu', engine)
    return exported.predict(np.stack([transforms.apply(exported.transform, image) for image in pictures]))


PICTURES = [picture(number) for number in range(5)]


@pytest.mark.parametrize('kind', ['flip average', 'cifarnet', 'headed'])
def test_an_export_gives_the_probabilities_of_the_network(tmp_path, kind):
    network, cfg = network_of(kind), settings()
    network.eval()
    write(tmp_path, network, cfg)
    expected = softmax(logits_of(network, cfg, PICTURES))
    for engine in ('paddle', *(['onnxruntime'] if convert.can_save_onnx() else [])):
        assert np.abs(predict(tmp_path, engine, PICTURES) - expected).max() < 1e-5


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    """{options: (folder, configuration, temperature)} of the small network."""
    made = {}
    for name, options, temperature in (
        ('plain', [], 1.0),
        ('pixels', ['export.preprocess=true'], 1.0),
        ('logits', ['export.softmax=false'], 1.0),
        ('everything', ['export.preprocess=true', 'export.softmax=false', 'export.temperature=true'], 1.7),
    ):
        folder, cfg = tmp_path_factory.mktemp(name), settings(*options)
        write(folder, network_of('small'), cfg, temperature)
        made[name] = folder, cfg, temperature
    return made


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', ['plain', 'pixels', 'logits', 'everything'])
@pytest.mark.parametrize('count', [1, 5])
def test_whatever_the_graph_takes_and_gives_the_probabilities_are_the_same(exports, name, engine, count):
    folder, cfg, temperature = exports[name]
    expected = softmax(logits_of(network_of('small'), cfg, PICTURES[:count]) / temperature)
    assert expected.std() > 1e-2
    got = predict(folder, engine, PICTURES[:count])
    assert got.shape == (count, 4) and np.abs(got - expected).max() < 1e-5


def test_the_manifest_says_what_the_graph_takes_and_gives(exports):
    manifests = {
        name: yaml.safe_load((folder / 'inference.yaml').read_text()) for name, (folder, *_) in exports.items()
    }
    assert manifests['plain']['input'] == {
        **{'name': 'image', 'shape': [-1, 3, 32, 32], 'dtype': 'float32', 'layout': 'NCHW'}
    }
    assert manifests['pixels']['input'] == {
        **{'name': 'image', 'shape': [-1, 32, 32, 3], 'dtype': 'uint8', 'layout': 'NHWC'}
    }
    assert [step['op'] for step in manifests['pixels']['transform']] == ['decode_reduced', 'center_crop']
    assert [manifests[name]['output']['name'] for name in manifests] == ['probabilities'] * 2 + ['logits'] * 2
    assert [manifests[name]['outputs'] for name in manifests] == [['probabilities', 'logits']] * 2 + [['logits']] * 2
    assert manifests['everything']['temperature'] == 1.7
    for name, (folder, *_) in exports.items():
        assert set(manifests[name]['sha256']) == set(os.listdir(folder)) - {'inference.yaml'}


def test_an_export_that_is_not_as_it_was_written_is_refused_before_an_engine_sees_it(exports, tmp_path, monkeypatch):
    """300 flipped bits, cuts and missing files, over all files of the folder."""
    source = exports['plain'][0]
    started = []
    monkeypatch.setitem(runtime.ENGINES, 'paddle', lambda *_: started.append(1))
    runtime.load(str(shutil.copytree(source, tmp_path / 'whole')))
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
            runtime.load(str(folder))
        shutil.rmtree(folder)
    assert started == [1]


OTHER_SHAPES = [
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
    {'parity': None},
    {'parity': {'openvino': 1}},
    {'trained': None},
]


def test_a_manifest_of_another_shape_is_refused_though_its_hash_is_right(exports, tmp_path):
    folder = shutil.copytree(exports['plain'][0], tmp_path / 'infer')
    manifest = runtime.read_manifest(folder)
    for changed in ({}, [], 'x', *({**manifest, **change} for change in OTHER_SHAPES)):
        runtime.write_manifest(folder, changed)
        with pytest.raises(UserError, match='inference.yaml: is not as'):
            runtime.load(str(folder))


def test_a_transform_that_gives_what_the_network_does_not_take_is_refused(exports, tmp_path):
    folder = shutil.copytree(exports['plain'][0], tmp_path / 'infer')
    manifest = runtime.read_manifest(folder)
    crop, normalisation = manifest['transform'][-2:]
    runtime.write_manifest(folder, {**manifest, 'transform': [{**crop, 'size': 16}, normalisation]})
    with pytest.raises(UserError, match=r'it gives \[3, 16, 16\], the network takes \[3, 32, 32\]'):
        runtime.load(str(folder))


STOPPED = """
import os, signal
from zodiac.base import errors, files, paddle_setup; from zodiac.models import convert
paddle = paddle_setup.import_paddle()

@paddle.jit.not_to_static
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Interrupted(paddle.nn.Layer):
    def forward(self, x):
        interrupt()  # while Paddle reads this code
        return x * 2

def main():
    layer = Interrupted()
    layer.eval()
    with files.atomic_folder('infer') as folder:
        convert.save_static(layer, f'{folder}/a', [-1, 8], 'float32')

errors.run(main)
"""


def test_a_stop_while_a_static_model_is_written_leaves_no_half_of_it(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    (tmp_path / 'stopped.py').write_text(STOPPED)  # Paddle reads the source
    command = [sys.executable, 'stopped.py']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')
    assert os.listdir(tmp_path) == ['stopped.py']


class Photos:
    """Eight drawn photos, as a dataset that export.py compares on."""

    def __init__(self, folder):
        self.paths, self.labels = [], np.arange(8) % 4
        for number in range(8):
            self.paths.append(str(folder / f'{number}.png'))
            picture(number).save(self.paths[-1])

    def spread(self, count):
        return list(range(8))


class Halved(wrappers.Deployed):
    def __init__(self, *around):
        super().__init__(*around)
        self.scale.set_value(self.scale * 0.5)


class BlueFirst(wrappers.Deployed):
    def __init__(self, *around):
        super().__init__(*around)
        self.scale.set_value(self.scale.flip(1))


class Warm(wrappers.Deployed):
    def __init__(self, network, mean, std, preprocess, softmax, temperature):
        super().__init__(network, mean, std, preprocess, softmax, 3 * temperature)


@pytest.mark.parametrize('fault', [None, Halved, BlueFirst, Warm])
def test_a_fault_in_what_is_put_around_the_network_does_not_pass_the_comparison(tmp_path, monkeypatch, fault):
    """The network is asked as evaluate.py asks it, without anything around it."""
    network, cfg = network_of('small'), settings('export.preprocess=true', 'export.temperature=true')
    network.eval()
    monkeypatch.setattr(wrappers, 'Deployed', fault or wrappers.Deployed)
    monkeypatch.setattr(convert, 'can_save_onnx', lambda: False)
    (tmp_path / 'infer').mkdir()
    write(tmp_path / 'infer', network, cfg, 1.7)
    manifest = runtime.read_manifest(tmp_path / 'infer')
    comparison = (network, manifest, str(tmp_path / 'infer'), ['paddle'], Photos(tmp_path), cfg)
    if fault:
        with pytest.raises(UserError, match='paddle runs it differs from the network'):
            export.compare(*comparison)
    else:
        assert export.compare(*comparison)['largest_difference'] < 1e-5


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_what_is_exported_in_bf16_is_compared_in_bf16_on_the_cpu(tmp_path, monkeypatch, precision):
    """Whatever the device: nothing but a CPU runs it so."""
    asked = []

    def load(folder, place, engine, compared):
        bf16 = engines.runs_in_bf16({'precision': precision}, engine, compared)
        asked.append((engine, place, bf16))
        raise UserError('stop here')

    monkeypatch.setattr(device, 'has_bf16', lambda: True)
    monkeypatch.setattr(runtime, 'load', load)
    cfg = settings(f'export.precision={precision}', 'device=gpu:0')
    manifest = export.describe(cfg, {}, 1.0, False)
    with pytest.raises(UserError, match='stop here'):
        export.compare(network_of('small'), manifest, str(tmp_path), ['paddle'], Photos(tmp_path), cfg)
    assert asked == [('paddle', 'cpu', True) if precision == 'bf16' else ('paddle', 'gpu:0', False)]


SPOILED = {'paddle': 'small.pdiparams', 'onnxruntime': 'small.onnx', 'openvino': 'small.onnx'}


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('how', ['spoiled', 'exported again'])
def test_what_an_engine_runs_is_what_was_hashed_though_the_files_are_exchanged_meanwhile(
    exports, tmp_path, monkeypatch, engine, how
):
    folder = shutil.copytree(exports['plain'][0], tmp_path / 'infer')
    expected = predict(folder, engine, PICTURES)
    start = engines.ENGINES[engine]

    def exchange_first(*arguments):
        if how == 'spoiled':
            (folder / SPOILED[engine]).write_bytes(bytes((folder / SPOILED[engine]).stat().st_size))
        else:  # by another export, of other classes
            shutil.rmtree(folder)
            shutil.copytree(exports['pixels'][0], folder)
        return start(*arguments)

    monkeypatch.setitem(runtime.ENGINES, engine, exchange_first)
    if engine == 'paddle':  # it reads the files itself
        words = 'small.pdiparams: is not the file' if how == 'spoiled' else 'infer: was exported again .* start again'
        with pytest.raises(UserError, match=words):
            predict(folder, engine, PICTURES)
    else:
        np.testing.assert_array_equal(predict(folder, engine, PICTURES), expected)


@ONNX
def test_the_bytes_of_a_model_are_not_kept_beside_the_engine(exports, monkeypatch):
    import gc

    import onnxruntime

    sessions = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, content, *how, **options):
            super().__init__(content, *how, **options)
            sessions.append((self, content))

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    exported = runtime.load(str(exports['plain'][0]), 'cpu', 'onnxruntime')
    _, content = sessions[0]
    gc.collect()
    holders = [holder for holder in gc.get_referrers(content) if holder is not sessions[0]]
    assert exported and [type(holder).__name__ for holder in holders if type(holder).__name__ != 'frame'] == []


@pytest.mark.parametrize(
    'engine', ['paddle', pytest.param('onnxruntime', marks=ONNX), pytest.param('openvino', marks=OPENVINO)]
)
def test_a_batch_that_an_engine_cannot_run_is_told_with_the_file_and_the_engine(exports, engine):
    exported = runtime.load(str(exports['plain'][0]), 'cpu', engine)
    with pytest.raises(UserError, match=f'small.*(?i:{engine}) cannot run it .*export the model again'):
        exported.predict(np.zeros((1, 2, 32, 32), 'float32'))


@ONNX
def test_the_onnx_file_names_its_input_and_outputs_and_takes_batches_of_any_size(exports):
    import onnx

    graph = onnx.load(exports['pixels'][0] / 'small.onnx').graph
    (image,) = graph.input
    assert [image.name, *(output.name for output in graph.output)] == ['image', 'probabilities', 'logits']
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == ['N', 32, 32, 3]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@ONNX
@pytest.mark.parametrize('content', [b'', b'no graph'])
def test_a_static_model_that_cannot_be_converted_is_named(tmp_path, content):
    for suffix in ('.json', '.pdiparams'):
        (tmp_path / f'small{suffix}').write_bytes(content)
    with pytest.raises(UserError, match='small.onnx: paddle2onnx could not convert .*export.onnx=false'):
        convert.save_onnx(str(tmp_path / 'small'), ['probabilities', 'logits'])


class Convolving(paddle.nn.Layer):
    """A residual block, a pool and a product: what a ResNet is made of."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (paddle.nn.Conv2D(channels, 8, 3, padding=1) for channels in (3, 8))
        self.norm, self.mix = (
            paddle.nn.BatchNorm2D(8),
            paddle.nn.Linear(8, 4, weight_attr=paddle.nn.initializer.Normal(0, 20)),
        )

    def forward(self, x):
        x = paddle.nn.functional.relu(self.first(x))
        x = paddle.nn.functional.relu(self.norm(self.second(x)) + x)
        return self.mix(x.mean([2, 3]))


def export_of(folder, cfg, names):
    """What export.py measures of a small network that it exports with these settings."""
    paddle.seed(1)
    network, photos = Convolving(), Photos(folder)
    network.eval()
    infer = folder / 'infer'
    infer.mkdir()
    layer = wrappers.Deployed(network, cfg.image.mean, cfg.image.std, cfg.export.preprocess, cfg.export.softmax)
    layer.eval()
    manifest = export.describe(cfg, {}, 1.0, convert.can_save_onnx())
    examples = runtime.sound_batches(photos.paths, manifest['transform'], 8)
    export.write_models(layer, manifest, str(infer), convert.can_save_onnx(), examples)
    return infer, export.compare(network, manifest, str(infer), names, photos, cfg)


@ONNX
@pytest.mark.parametrize('options', [[], ['export.preprocess=true'], ['export.softmax=false']])
def test_8_bit_integers_leave_logits_and_softmax_alone(tmp_path, options):
    import onnx

    cfg = settings('export.precision=int8', *options)
    names = ['paddle', 'onnxruntime', *(['openvino'] if engines.installed('openvino') else [])]
    infer, measured = export_of(tmp_path, cfg, names)

    nodes = onnx.load(infer / 'small.onnx').graph.node
    from_integers = {name for node in nodes if node.op_type == 'DequantizeLinear' for name in node.output}
    fed = {node.op_type for node in nodes if from_integers & set(node.input)}
    assert 'Conv' in fed and not fed & {'Softmax', 'Identity'}
    assert [measured[name]['precision'] for name in names] == ['fp32', *['int8'] * (len(names) - 1)]
    assert 1e-4 < measured['onnxruntime']['logit_difference'] < 0.25
    outputs = runtime.load(str(infer), 'cpu', 'onnxruntime').outputs(
        next(runtime.sound_batches(Photos(tmp_path).paths, runtime.read_manifest(infer)['transform'], 8))
    )
    logits = outputs['logits']
    assert len(np.unique(logits)) == logits.size, 'logits in steps'
    np.testing.assert_allclose(outputs.get('probabilities', softmax(logits)).sum(1), 1, atol=1e-6)


@pytest.mark.skipif(not device.has_bf16(), reason='this processor has no bfloat16')
def test_bfloat16_is_near_enough_to_the_network_in_each_engine_that_runs_it(tmp_path):
    names = ['paddle', *(['openvino'] if convert.can_save_onnx() and engines.installed('openvino') else [])]
    _, measured = export_of(tmp_path, settings('export.precision=bf16'), names)
    for name in names:
        assert measured[name]['precision'] == 'bf16' and 1e-5 < measured[name]['logit_difference'] < 0.1


@ONNX
def test_quantization_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match='int8 needs .*requirements-deploy.txt'):
        convert.quantize_onnx(str(tmp_path / 'a.onnx'), [])


@ONNX
def test_a_training_image_that_cannot_be_read_is_not_blamed_on_the_quantization(exports, tmp_path):
    path = shutil.copy(exports['plain'][0] / 'small.onnx', tmp_path)
    transform = runtime.read_manifest(exports['plain'][0])['transform']
    gone = str(tmp_path / 'gone.jpg')
    with pytest.raises(UserError, match='gone.jpg: no such file; .*annotate.py again$'):
        convert.quantize_onnx(path, runtime.sound_batches([gone], transform, 8))


def test_without_what_writes_onnx_the_reason_and_the_step_are_known(monkeypatch):
    there = {'paddle2onnx': '2.1.0', 'onnx': '1.17.0', 'onnxruntime': '1.20'}
    monkeypatch.setattr(packages, 'installed_version', lambda *names: there.get(names[0], ''))
    monkeypatch.setattr(paddle, '__version__', '3.3.1')
    assert convert.why_no_onnx() == ()
    monkeypatch.setattr(paddle, '__version__', '2.6.2')
    assert convert.why_no_onnx()[0] == 'paddle2onnx 2.1.0 is not for Paddle 2.6.2'
    monkeypatch.setattr(sys, 'version_info', (3, 12, 1))
    del there['onnx']
    why, step = convert.why_no_onnx()
    assert why == 'not installed: onnx' and 'requirements-deploy.txt' in step
    monkeypatch.setattr(sys, 'version_info', (3, 13, 0))
    assert convert.why_no_onnx() == (
        'paddle2onnx and onnx are not published for Python 3.13',
        'export with Python 3.12 or older',
    )


def test_an_engine_without_its_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, 'can_save_onnx', lambda: False)
    write(tmp_path, network_of('small'), settings())
    assert not list(Path(tmp_path).glob('*.onnx'))
    for engine in ('onnxruntime', 'openvino'):
        with pytest.raises(UserError, match='has no small.onnx, .*requirements-deploy.txt'):
            runtime.load(str(tmp_path), 'cpu', engine)


@ONNX
@pytest.mark.parametrize(
    ('engine', 'place', 'error', 'words'),
    [
        ('openvino', 'gpu', UsageError, '--device gpu: the engine openvino .* --device cpu'),
        ('tensorrt', 'cpu', UsageError, '--device cpu: the engine tensorrt .* --device gpu'),
        ('onnxruntime', 'gpu:0', UserError, 'no CUDAExecutionProvider; pip install onnxruntime-gpu'),
        ('tensorrt', 'auto', UserError, 'no TensorrtExecutionProvider; pip install onnxruntime-gpu'),
    ],
)
def test_an_engine_says_where_it_cannot_run(exports, monkeypatch, engine, place, error, words):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(error, match=words):
        runtime.load(str(exports['plain'][0]), place, engine)


@ONNX
@pytest.mark.parametrize(
    ('engine', 'place', 'providers'),
    [
        ('onnxruntime', 'auto', []),
        ('onnxruntime', 'gpu', [('CUDAExecutionProvider', 0)]),
        ('tensorrt', 'gpu:1', [('TensorrtExecutionProvider', 1), ('CUDAExecutionProvider', 1)]),
    ],
)
def test_onnx_runtime_is_asked_for_the_gpu_that_was_named(exports, monkeypatch, engine, place, providers):
    import onnxruntime

    asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, options, providers):
            asked.extend(providers)
            super().__init__(path, options, providers=['CPUExecutionProvider'])

    known = ['TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: known)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    runtime.load(str(exports['plain'][0]), place, engine)
    assert asked == [*((name, {'device_id': number}) for name, number in providers), 'CPUExecutionProvider']
