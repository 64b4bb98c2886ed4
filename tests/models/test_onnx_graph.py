"""Each network and each operation gives in ONNX Runtime what it gives in Paddle."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from small_export import ONNX

from zodiac.base import networks
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, convert, convnext, onnx_graph, static_graph, wrappers

pytestmark = ONNX
nn, functional = paddle.nn, paddle.nn.functional

HEAD = [
    'global_max_pool',
    'flatten',
    *({'linear': 8}, 'batch_norm', 'relu', {'linear': 8}, 'elu', {'linear': 8}, 'gelu', 'dropout'),
    {'linear': 'classes'},
]
OF_EACH_FAMILY = {  # arch: size of the images. The other networks differ in the number and width of their layers.
    'resnet18': 64,
    'resnet50': 64,
    'efficientnet_lite0': 65,  # the padding is asymmetric, or not, by the size
    'mobilenet_v3_large': 64,
    'convnext_tiny': 64,
    'resnet9': 32,
    'cifarnet': 32,
}


def images_of(count, *shape):
    return np.random.default_rng(count).standard_normal((count, *shape), dtype=np.float32)


def save(layer, folder, shape, outputs, dtype='float32'):
    """Write a layer as <folder>/a.onnx; returns a session of ONNX Runtime."""
    import onnxruntime

    layer.eval()
    path = str(folder / 'a')
    with paddle.utils.unique_name.guard():
        convert.save_static(layer, path, [-1, *shape], dtype)
    convert.save_onnx(path, outputs)
    return onnxruntime.InferenceSession(f'{path}.onnx', providers=['CPUExecutionProvider'])


def require_equal(session, layer, images):
    """Fail unless each output is within 1e-5 of its spread of Paddle's."""
    with paddle.no_grad():
        expected = layer(paddle.to_tensor(images))
    for got, value in zip(
        session.run(None, {'image': images}), expected if isinstance(expected, tuple) else [expected]
    ):
        assert got.shape == tuple(value.shape) and got.dtype == np.float32
        assert np.abs(got - value.numpy()).max() <= 1e-5 * np.ptp(value.numpy())


def built(arch, size, head='auto'):
    paddle.seed(0)
    with paddle.utils.unique_name.guard():
        return builder.build(arch, 5, size, head)


@pytest.mark.parametrize(('arch', 'size'), OF_EACH_FAMILY.items())
def test_a_network_gives_the_same_logits_for_batches_of_any_size(tmp_path, monkeypatch, arch, size):
    monkeypatch.setattr(convnext, 'WIDTHS', (8, 16, 24, 32))  # the same operations in less time
    monkeypatch.setattr(convnext, 'DEPTHS', (1, 1, 2, 1))
    layer = built(arch, size)
    session = save(layer, tmp_path, [3, size, size], ['logits'])
    for count in (3, 1):
        require_equal(session, layer, images_of(count, 3, size, size))


def test_every_network_is_of_a_family_that_is_tested():
    families = {networks.NETWORKS[arch].family for arch in OF_EACH_FAMILY}
    assert families == {facts.family for facts in networks.NETWORKS.values()}


@pytest.mark.parametrize('averaged', [False, True])
@pytest.mark.parametrize('deployed', [wrappers.Deployed, wrappers.WithFeatures])
def test_pixels_mirror_images_features_temperature_and_softmax_are_converted(tmp_path, deployed, averaged):
    network = built('cifarnet', 32)
    network = wrappers.FlipAverage(network) if averaged else network
    layer = deployed(network, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], preprocess=True, softmax=True, temperature=1.7)
    outputs = ['probabilities', 'logits', 'features'][: 2 + (deployed is wrappers.WithFeatures)]
    session = save(layer, tmp_path, [32, 32, 3], outputs, 'uint8')
    assert [output.name for output in session.get_outputs()] == outputs
    require_equal(session, layer, np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8))


def test_every_layer_that_a_head_may_have_is_converted(tmp_path):
    layer = built('resnet18', 64, HEAD)
    require_equal(save(layer, tmp_path, [3, 64, 64], ['logits']), layer, images_of(2, 3, 64, 64))


def test_the_backbone_takes_images_of_any_size(tmp_path):
    layer, _ = builder.split(built('efficientnet_lite0', 64))
    session = save(layer, tmp_path, [3, -1, -1], ['features'])
    for height, width in ((64, 64), (65, 47)):
        require_equal(session, layer, images_of(2, 3, height, width))


class Function(nn.Layer):
    """A function of the image, or a layer, behind a weight: Paddle saves no graph without one."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = (
            function,
            self.create_parameter([1], default_initializer=nn.initializer.Constant(1.5)),
        )

    def forward(self, x):
        return self.function(x * self.weight)


LAYERS = {
    'a convolution with four paddings': lambda: nn.Conv2D(3, 4, 3, padding=[0, 1, 2, 3]),
    'a convolution without padding': lambda: nn.Conv2D(3, 4, 3, padding='VALID', bias_attr=False),
    'an even kernel with SAME padding': lambda: nn.Conv2D(3, 4, (2, 4), stride=2, padding='SAME'),
    'dilation and groups': lambda: nn.Conv2D(3, 6, 3, dilation=2, groups=3, padding=(1, 2)),
    'a maximum with padding': lambda: nn.MaxPool2D(3, 2, padding=1),
    'a mean without its padding': lambda: nn.AvgPool2D(3, 2, padding=1),
    'a mean with its padding': lambda: nn.AvgPool2D(3, 2, padding=1, exclusive=False),
    'an adaptive mean': lambda: nn.AdaptiveAvgPool2D((3, 1)),
    'an adaptive maximum': lambda: nn.AdaptiveMaxPool2D(3),
    'a mean over axes': lambda: lambda x: x.mean([2, 3]),
    'a mean that keeps them': lambda: lambda x: x.mean([1], keepdim=True),
    'two axes flipped': lambda: lambda x: x.flip([1, 3]),
    'differences and quotients': lambda: lambda x: (x - 2) / (x * x + 3) - x / 4,
    'a softmax over channels': lambda: nn.Softmax(1),
    'a reshaped image': lambda: lambda x: x.reshape([-1, 27, 9]),
}


@pytest.mark.parametrize('layer', LAYERS)
def test_an_operation_gives_the_same_values(tmp_path, layer):
    paddle.seed(0)
    made = Function(LAYERS[layer]())
    require_equal(save(made, tmp_path, [3, 9, 9], ['values']), made, images_of(2, 3, 9, 9))


def test_one_value_under_two_names_and_the_input_itself_can_be_outputs(tmp_path):
    class Repeating(nn.Linear):
        def forward(self, x):
            values = nn.Linear.forward(self, x)  # Paddle 2.6 cannot export super()
            return values, values + 0, x

    layer = Repeating(4, 4)
    session = save(layer, tmp_path, [4], ['a', 'b', 'c'])
    require_equal(session, layer, images_of(2, 4))


@pytest.mark.parametrize(
    ('layer', 'what'),
    [
        (lambda x: x.cumsum(1), 'cumsum'),
        (lambda x: paddle.concat([x, x], 1), '(combine|concat)'),  # Paddle 3 makes a list first
        (nn.Flatten(1, 2), 'flatten up to an axis before the last'),
        (nn.AvgPool2D(2, 2, ceil_mode=True), 'pool2d with ceil_mode=True'),
        (nn.AdaptiveAvgPool2D(2), 'pool2d from 9 x 9 to 2 x 2 cells'),
        (nn.GELU(approximate=True), 'gelu with approximate=True'),
        (lambda x: paddle.matmul(x, x, transpose_y=True), 'matmul with transpose_y=True'),
    ],
)
def test_what_cannot_be_converted_is_named_with_the_way_out(tmp_path, layer, what):
    with pytest.raises(UserError, match=f'a.onnx: the operation {what} cannot be .*export.onnx=false.*#onnx-export$'):
        save(Function(layer), tmp_path, [3, 9, 9], ['values'])
    assert not (tmp_path / 'a.onnx').exists()


def test_the_file_is_of_the_opset_and_version_that_older_engines_read(tmp_path):
    import onnx

    save(nn.Linear(3, 2), tmp_path, [3], ['values'])
    model = onnx.load(tmp_path / 'a.onnx')
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (8, [17])


@pytest.mark.parametrize('content', [None, b'damaged'])
def test_reading_a_graph_leaves_paddle_in_dynamic_mode(tmp_path, content):
    layer, path = nn.Linear(3, 2), tmp_path / 'a'
    convert.save_static(layer, str(path), [-1, 3], 'float32')
    if content:
        (tmp_path / 'a.pdiparams').write_bytes(content)
        with pytest.raises((RuntimeError, ValueError, OSError)):
            static_graph.read(str(path))
    else:
        graph = static_graph.read(str(path))
        weights = next(value for value in graph.constants.values() if value.shape == (3, 2))
        np.testing.assert_array_equal(weights, layer.weight.numpy())
    assert paddle.in_dynamic_mode()


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(UserError, match='a.onnx: .*onnx.*requirements-deploy.txt'):
        convert.save_onnx(str(tmp_path / 'a'), ['logits'])


PADDLE2ONNX = """
import inspect, sys
import paddle2onnx
options = {'opset_version': 17}
if 'optimize_tool' in inspect.signature(paddle2onnx.export).parameters:  # otherwise it installs packages by itself
    options['optimize_tool'] = 'None'
paddle2onnx.export(*sys.argv[1:], **options)
"""


@pytest.mark.skipif(importlib.util.find_spec('paddle2onnx') is None, reason='paddle2onnx is not installed')
def test_paddle2onnx_gives_the_same(tmp_path):
    """An independent converter. It needs an old onnx, so requirements-dev.txt does not have it; .ci/run installs it with Paddle 2.6."""
    import onnxruntime

    layer = wrappers.WithFeatures(built('efficientnet_lite0', 64), [0.5] * 3, [0.2] * 3, preprocess=True)
    session = save(layer, tmp_path, [64, 64, 3], ['probabilities', 'logits', 'features'], 'uint8')
    path, target = str(tmp_path / 'a'), str(tmp_path / 'theirs.onnx')
    command = [sys.executable, '-c', PADDLE2ONNX, convert.network_of(path), f'{path}.pdiparams', target]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    theirs = onnxruntime.InferenceSession(target, providers=['CPUExecutionProvider'])
    for own, other in zip(session.run(None, {'image': images}), theirs.run(None, {'image': images})):
        assert np.abs(own - other).max() <= 1e-5 * np.ptp(other)


def test_the_operations_are_those_of_the_table():
    assert set(static_graph.ARGUMENTS) <= set(onnx_graph.OPERATIONS)
    assert {kind for kind, _ in static_graph.LEGACY.values()} <= set(onnx_graph.OPERATIONS)
    assert set(static_graph.LEGACY_ATTRIBUTES) <= set(onnx_graph.OPERATIONS)
