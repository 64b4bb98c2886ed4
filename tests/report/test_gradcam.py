"""Grad-CAM is bright where the class is."""

import numpy as np
import pytest

from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, freezing
from zodiac.report import gradcam


class Bright(paddle.nn.Layer):
    """Class 0 is red, class 1 green; the only feature map shows where."""

    def __init__(self):
        super().__init__()
        self.stage = paddle.nn.Conv2D(3, 2, 8, stride=8, bias_attr=False)
        weight = np.zeros((2, 3, 8, 8), np.float32)
        weight[0, 0] = weight[1, 1] = 1 / 64
        self.stage.weight.set_value(weight)
        self.pool = paddle.nn.AdaptiveAvgPool2D(1)

    def forward(self, x):
        return self.pool(self.stage(x)).flatten(1)


@pytest.mark.parametrize('other', [0, 0.6])
def test_heat_is_at_the_predicted_class_only(other):
    images = np.zeros((2, 3, 32, 32), np.float32)
    images[:, 0, 8:16, 16:24] = [[[1]], [[other]]]
    images[:, 1, 24:32, 0:8] = [[[other]], [[1]]]
    heat = gradcam.heat(Bright(), images)
    assert heat.shape == (2, 4, 4) and heat.dtype == np.float32
    for number, place in enumerate([(1, 2), (3, 0)]):
        assert heat[number][place] == pytest.approx(1) and heat[number].sum() == pytest.approx(1)


def test_heat_of_another_class_is_at_that_class():
    images = np.zeros((1, 3, 32, 32), np.float32)
    images[:, 0, 8:16, 16:24], images[:, 1, 24:32, 0:8] = 1, 0.6
    assert gradcam.heat(Bright(), images, [1])[0][3, 0] == pytest.approx(1)


def test_a_blank_image_has_no_heat():
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
def test_the_heat_map_has_four_or_more_cells_per_side(arch, size, head, shape, frozen):
    network, images = network_and_images(arch, size, head)
    if frozen:
        freezing.freeze(network, 'backbone')
    before = network(paddle.to_tensor(images)).numpy()
    heat = gradcam.heat(network, images)
    assert heat.shape == (2, *shape) and np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1
    assert np.array_equal(network(paddle.to_tensor(images)).numpy(), before)


def grad_cam(features, logits):
    """The formula, for the most probable class."""
    (gradient,) = paddle.grad(logits.max(1).sum(), features)
    heat = paddle.nn.functional.relu((gradient.mean([2, 3], keepdim=True) * features).sum(1)).numpy()
    return heat / heat.max((1, 2), keepdims=True)


def test_heat_is_computed_at_the_end_of_a_stage():
    network, images = network_and_images('resnet50', 48)
    x = network.maxpool(network.relu(network.bn1(network.conv1(paddle.to_tensor(images)))))
    features = network.layer2(network.layer1(x))  # 6 x 6, and so is a map inside the first block of layer3
    logits = network.fc(network.avgpool(network.layer4(network.layer3(features))).flatten(1))
    assert gradcam.heat(network, images) == pytest.approx(grad_cam(features, logits), abs=1e-5)


def test_maps_inside_a_residual_block_are_not_used():
    network, images = network_and_images('resnet9', 32)
    seen = []
    hook = network.classifier.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    logits = network(paddle.to_tensor(images, stop_gradient=False))
    hook.remove()
    assert gradcam.heat(network, images) == pytest.approx(grad_cam(seen[0], logits), abs=1e-5)


def network_and_images(arch, size, head='auto'):
    paddle.seed(0)
    network = builder.build(arch, 3, size, head)
    network.eval()
    return network, np.random.default_rng(0).standard_normal((2, 3, size, size), dtype=np.float32)
