"""Grad-CAM is bright where the class is."""

import numpy as np
import paddle
import pytest
from paddle import nn

from zodiac.models import builder, freezing
from zodiac.report import gradcam


class Bright(nn.Layer):
    """Class 0 is as probable as the image is red, class 1 as it is green; the last feature map shows where."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Conv2D(3, 2, 8, stride=8, bias_attr=False)
        weight = np.zeros((2, 3, 8, 8), np.float32)
        weight[0, 0] = weight[1, 1] = 1 / 64
        self.stage.weight.set_value(weight)
        self.pool = nn.AdaptiveAvgPool2D(1)

    def forward(self, x):
        return self.pool(self.stage(x)).flatten(1)


def test_heat_is_where_the_predicted_class_is():
    images = np.zeros((2, 3, 32, 32), np.float32)
    images[0, 0, 8:16, 16:24] = images[1, 1, 24:32, 0:8] = 1
    heat = gradcam.heat(Bright(), images)
    assert heat.shape == (2, 4, 4) and heat.dtype == np.float32
    for number, place in enumerate([(1, 2), (3, 0)]):
        assert np.unravel_index(heat[number].argmax(), (4, 4)) == place
        assert heat[number].sum() == pytest.approx(1)


def test_another_class_in_the_image_stays_dark():
    images = np.zeros((2, 3, 32, 32), np.float32)
    images[:, 0, 8:16, 16:24] = [[[1]], [[0.6]]]
    images[:, 1, 24:32, 0:8] = [[[0.6]], [[1]]]  # the red of the one is more, the green of the other
    heat = gradcam.heat(Bright(), images)
    for number, place in enumerate([(1, 2), (3, 0)]):
        assert heat[number][place] == 1 and heat[number].sum() == pytest.approx(1)


def test_where_nothing_speaks_for_the_class_there_is_no_heat():
    assert (gradcam.heat(Bright(), np.zeros((1, 3, 32, 32), np.float32)) == 0).all()


@pytest.mark.parametrize(
    ('arch', 'size', 'head', 'shape'),
    [
        ('resnet18', 128, 'auto', (4, 4)),
        ('resnet18', 64, 'auto', (4, 4)),  # its last map is 2 x 2
        ('resnet50', 48, 'auto', (6, 6)),
        ('resnet18', 96, ['flatten', {'dropout': 0.5}, {'linear': 'classes'}], (6, 6)),
        ('resnet9', 32, 'auto', (4, 4)),
        ('cifarnet', 32, 'auto', (7, 7)),
    ],
)
@pytest.mark.parametrize('frozen', [False, True])
def test_the_networks_have_a_last_feature_map_of_four_or_more_a_side(arch, size, head, shape, frozen):
    paddle.seed(0)
    network = builder.build(arch, 3, size, head)
    if frozen:
        freezing.freeze(network, 'backbone')
    network.eval()
    images = np.random.default_rng(0).standard_normal((2, 3, size, size), dtype=np.float32)
    before = network(paddle.to_tensor(images)).numpy()
    heat = gradcam.heat(network, images)
    assert heat.shape == (2, *shape) and np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1
    assert np.array_equal(network(paddle.to_tensor(images)).numpy(), before)


def test_the_map_holds_all_that_the_network_knows_there():
    paddle.seed(0)
    network = builder.build('resnet50', 3, 48)
    network.eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 48, 48), dtype=np.float32)
    x = network.maxpool(network.relu(network.bn1(network.conv1(paddle.to_tensor(images)))))
    features = network.layer2(
        network.layer1(x)
    )  # 6 x 6; so is a map inside the first block of layer3, past which a shortcut goes
    logits = network.fc(network.avgpool(network.layer4(network.layer3(features))).flatten(1))
    (gradient,) = paddle.grad(logits.max(1).sum(), features)
    expected = paddle.nn.functional.relu((gradient.mean([2, 3], keepdim=True) * features).sum(1)).numpy()
    assert gradcam.heat(network, images) == pytest.approx(expected / expected.max((1, 2), keepdims=True), abs=1e-5)


def test_a_residual_block_is_looked_at_from_outside():
    paddle.seed(0)
    network = builder.build('resnet9', 3, 32)
    network.eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    seen = []
    hook = network.classifier.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    logits = network(paddle.to_tensor(images, stop_gradient=False))
    hook.remove()
    (gradient,) = paddle.grad(logits.max(1).sum(), seen[0])
    expected = paddle.nn.functional.relu((gradient.mean([2, 3], keepdim=True) * seen[0]).sum(1)).numpy()
    assert gradcam.heat(network, images) == pytest.approx(expected / expected.max((1, 2), keepdims=True), abs=1e-5)
