"""export.py compares what it writes with the network; the static model, ONNX, and int8."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from small_export import HAS_OPENVINO, ONNX, Photos, network_of, settings, write, write_sealed

import export
from zodiac.base import device
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.inference import export_folder, exported_model, image_batches, parity, reference
from zodiac.inference.exported_model import softmax
from zodiac.models import convert, wrappers

FAULTS = {
    'none': lambda layer: layer.scale,
    'another scale': lambda layer: layer.scale * 0.5,
    'blue first': lambda layer: layer.scale.flip(1),
}


@pytest.mark.parametrize('fault', [*FAULTS, 'temperature'])
def test_the_comparison_finds_errors_in_the_layers_around_the_network(tmp_path, monkeypatch, fault):
    """The network is run as evaluate.py runs it, without these layers."""

    class Faulty(wrappers.Deployed):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.scale.set_value(FAULTS.get(fault, FAULTS['none'])(self))

    network, cfg = network_of('small'), settings('export.preprocess=true', 'export.temperature=true')
    network.eval()
    monkeypatch.setattr(wrappers, 'Deployed', Faulty)
    infer = tmp_path / 'infer'
    manifest = write(infer, network, cfg, 1.7, with_onnx=False)
    manifest['temperature'] *= 3 if fault == 'temperature' else 1
    comparison = (network, manifest, str(infer), ['paddle'], Photos(tmp_path), cfg)
    if fault == 'none':
        assert export.compare(*comparison)['largest_difference'] < 1e-5
    else:
        with pytest.raises(UserError, match='run by paddle differs from the network'):
            export.compare(*comparison)


def test_the_static_model_is_compared_on_the_device_of_the_settings_and_onnx_on_the_cpu(tmp_path, monkeypatch):
    asked = []

    def load(folder, place, engine, precision, checked):
        asked.append((engine, place, precision, checked))
        raise UserError('stop here')

    monkeypatch.setattr(exported_model, 'load', load)
    cfg = settings('device=gpu:0')
    manifest = {**export.describe(cfg, {}, 1.0, False), 'sha256': {}}
    for engine, place in (('paddle', 'gpu:0'), ('onnxruntime', 'cpu')):
        with pytest.raises(UserError, match='stop here'):
            export.compare(network_of('small'), manifest, str(tmp_path), [engine], Photos(tmp_path), cfg)
        assert asked.pop() == (engine, place, 'fp32', False)


class Convolving(paddle.nn.Layer):
    """A residual block, a pool and a linear layer, like a ResNet."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (paddle.nn.Conv2D(channels, 8, 3, padding=1) for channels in (3, 8))
        self.norm = paddle.nn.BatchNorm2D(8)
        self.mix = paddle.nn.Linear(8, 4, weight_attr=paddle.nn.initializer.Normal(0, 20))

    def forward(self, x):
        x = paddle.nn.functional.relu(self.first(x))
        x = paddle.nn.functional.relu(self.norm(self.second(x)) + x)
        return self.mix(x.mean([2, 3]))


def export_of(folder, cfg, names):
    """Export a small network with these settings; returns the folder and `parity` of its manifest."""
    paddle.seed(1)
    network, photos = Convolving(), Photos(folder)
    network.eval()
    infer = folder / 'infer'
    transform = export.describe(cfg, {}, 1.0, False)['transform']
    examples = image_batches.read_indexed(photos.paths, transform, 8) if cfg.export.int8 else None
    return infer, write_sealed(infer, network, cfg, names, examples=examples)['parity']


@ONNX
@pytest.mark.parametrize('options', [[], ['export.preprocess=true'], ['export.softmax=false']])
def test_int8_quantization_leaves_logits_and_softmax_in_float32(tmp_path, options):
    import onnx  # optional

    names = ['paddle', 'onnxruntime', *(['openvino'] if HAS_OPENVINO else [])]
    infer, measured = export_of(tmp_path, settings('export.int8=true', *options), names)

    nodes = onnx.load(infer / 'small.int8.onnx').graph.node
    from_integers = {name for node in nodes if node.op_type == 'DequantizeLinear' for name in node.output}
    fed = {node.op_type for node in nodes if from_integers & set(node.input)}
    assert 'Conv' in fed and not fed & {'Softmax', 'Identity'}
    assert [measured[name]['precision'] for name in names] == ['fp32'] * len(names)
    assert measured['logit_difference'] < 1e-3  # the files in fp32 are as they were
    assert [*measured['int8']] == names[1:]
    for found in measured['int8'].values():
        assert found['precision'] == 'int8' and 1e-4 < found['logit_difference'] < 0.25 and 0 < found['share'] <= 1
    model = exported_model.load(str(infer), 'cpu', 'onnxruntime', 'int8')
    assert (model.engine, model.precision) == ('onnxruntime', 'int8')
    outputs = model.outputs(next(image_batches.read_indexed(Photos(tmp_path).paths, model.transform, 8)))
    logits = outputs['logits']
    assert len(np.unique(logits)) == logits.size, 'the logits are quantized'
    np.testing.assert_allclose(outputs.get('probabilities', softmax(logits)).sum(1), 1, atol=1e-6)


@pytest.mark.skipif(not device.has_bf16(), reason='this processor has no bfloat16')
def test_bf16_is_close_to_the_network_in_each_engine_that_runs_it(tmp_path):
    infer, _ = export_of(tmp_path, settings(), ['paddle'])
    pixels, expected, _ = reference.unpack((infer / 'small.reference.npz').read_bytes(), 32)
    batch = reference.inputs(export_folder.read_manifest(infer), pixels)
    for name in ['paddle', *(['openvino'] if HAS_OPENVINO else [])]:
        got = exported_model.load(str(infer), 'cpu', name, 'bf16', checked=False).outputs(batch)['logits']
        assert 1e-5 < np.abs(got - expected).max() / parity.spread(expected) < 0.1


STOPPED = """
import os, signal
from zodiac.base import errors, files
from zodiac.base.paddle_setup import paddle
from zodiac.models import convert

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


def test_ctrl_c_while_a_static_model_is_written_leaves_no_partial_export(tmp_path):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    (tmp_path / 'stopped.py').write_text(STOPPED)  # Paddle reads the source
    command = [sys.executable, 'stopped.py']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')
    assert os.listdir(tmp_path) == ['stopped.py']


@ONNX
def test_the_onnx_file_names_its_input_and_outputs_and_takes_batches_of_any_size(tmp_path):
    import onnx  # optional

    write(tmp_path, network_of('small'), settings('export.preprocess=true'))
    graph = onnx.load(tmp_path / 'small.onnx').graph
    (image,) = graph.input
    assert [image.name, *(output.name for output in graph.output)] == ['image', 'probabilities', 'logits']
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == ['N', 32, 32, 3]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@ONNX
@pytest.mark.parametrize('content', [b'', b'no graph'])
def test_a_static_model_that_cannot_be_converted_is_named(tmp_path, content):
    for suffix in ('.json', '.pdiparams'):
        (tmp_path / f'small{suffix}').write_bytes(content)
    with pytest.raises(UserError, match='small.onnx: the static model cannot be converted .*export.onnx=false'):
        convert.save_onnx(str(tmp_path / 'small'), ['probabilities', 'logits'])


@ONNX
def test_quantization_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match='export.int8=true needs .*requirements-deploy.txt'):
        convert.quantize_onnx(str(tmp_path / 'a.onnx'), str(tmp_path / 'b.onnx'), [])


@ONNX
def test_quantization_is_not_blamed_for_a_training_image_that_cannot_be_read(tmp_path):
    write(tmp_path, network_of('small'), settings())
    transform = export_folder.read_manifest(tmp_path)['transform']
    images = image_batches.read_indexed([str(tmp_path / 'gone.jpg')], transform, 8)
    with pytest.raises(UserError, match='gone.jpg: no such file; .*annotate.py again$'):
        convert.quantize_onnx(str(tmp_path / 'small.onnx'), str(tmp_path / 'small.int8.onnx'), images)
