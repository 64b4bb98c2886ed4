"""Names of other programs are mapped to those of our networks."""

import pickle
import re

import numpy as np
import pytest

from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, efficientnet_lite, pretrained, tensor_names

PAIRS = {  # program: {name in its file: ours}
    'efficientnet_lite_pytorch': {
        '_conv_stem.weight': 'stem.conv.weight',
        '_bn0._mean': 'stem.bn._mean',
        '_blocks.0._depthwise_conv.weight': 'stage1.0.depthwise.conv.weight',
        '_blocks.0._bn2.bias': 'stage1.0.project.bn.bias',
        '_blocks.1._expand_conv.weight': 'stage2.0.expand.conv.weight',
        '_blocks.2._bn0.weight': 'stage2.1.expand.bn.weight',
        '_blocks.3._bn1._variance': 'stage3.0.depthwise.bn._variance',
        '_blocks.15._project_conv.weight': 'stage7.0.project.conv.weight',  # of 16: lite0
        '_conv_head.weight': 'last.conv.weight',
        '_bn1.weight': 'last.bn.weight',
        '_fc.bias': 'fc.3.bias',
    },
    'timm (EfficientNet-Lite)': {
        'conv_stem.weight': 'stem.conv.weight',
        'bn1.bias': 'stem.bn.bias',
        'blocks.0.0.conv_dw.weight': 'stage1.0.depthwise.conv.weight',
        'blocks.0.0.bn1.weight': 'stage1.0.depthwise.bn.weight',
        'blocks.0.0.conv_pw.weight': 'stage1.0.project.conv.weight',
        'blocks.0.0.bn2.weight': 'stage1.0.project.bn.weight',
        'blocks.3.1.conv_pw.weight': 'stage4.1.expand.conv.weight',
        'blocks.3.1.bn1.weight': 'stage4.1.expand.bn.weight',
        'blocks.3.1.conv_dw.weight': 'stage4.1.depthwise.conv.weight',
        'blocks.3.1.bn2.weight': 'stage4.1.depthwise.bn.weight',
        'blocks.3.1.conv_pwl.weight': 'stage4.1.project.conv.weight',
        'blocks.3.1.bn3.weight': 'stage4.1.project.bn.weight',
        'conv_head.weight': 'last.conv.weight',
        'bn2.weight': 'last.bn.weight',
        'classifier.weight': 'fc.3.weight',
    },
    'timm (ConvNeXt)': {
        'stem.0.weight': 'stem.0.weight',
        'stages.0.blocks.2.gamma': 'stage1.blocks.2.gamma',
        'stages.3.downsample.1.bias': 'stage4.downsample.1.bias',
        'stages.1.blocks.0.mlp.fc1.weight': 'stage2.blocks.0.mlp.fc1.weight',
        'head.norm.weight': 'norm.weight',
        'head.fc.bias': 'fc.bias',
    },
    'Paddle (MobileNetV3)': {
        'blocks.3.mid_se.fc1.weight': 'blocks.3.mid_se.fc1.weight',
        'classifier.0.weight': 'hidden.1.weight',
        'classifier.3.bias': 'fc.1.bias',
    },
    'torchvision (MobileNetV3)': {
        'features.0.0.weight': 'conv.0.weight',
        'features.1.block.0.0.weight': 'blocks.0.bottleneck_conv.0.weight',
        'features.1.block.1.0.weight': 'blocks.0.linear_conv.0.weight',
        'features.4.block.0.1._mean': 'blocks.3.expand_conv.1._mean',
        'features.4.block.1.0.weight': 'blocks.3.bottleneck_conv.0.weight',
        'features.4.block.2.fc1.weight': 'blocks.3.mid_se.fc1.weight',
        'features.4.block.2.fc2.bias': 'blocks.3.mid_se.fc2.bias',
        'features.4.block.3.1.weight': 'blocks.3.linear_conv.1.weight',
        'features.16.0.weight': 'lastconv.0.weight',
        'classifier.0.weight': 'hidden.1.weight',
        'classifier.3.weight': 'fc.1.weight',
    },
}
OWN = {
    'efficientnet_lite_pytorch': 'efficientnet_lite0',
    'timm (EfficientNet-Lite)': 'efficientnet_lite0',
    'timm (ConvNeXt)': 'convnext_tiny',
    'Paddle (MobileNetV3)': 'mobilenet_v3_large',
    'torchvision (MobileNetV3)': 'mobilenet_v3_large',
}


@pytest.mark.parametrize('program', tensor_names.RENAMES)
def test_names_of_other_programs_become_ours(program):
    pairs = PAIRS[program]
    own = builder.build(OWN[program], 3, 64).state_dict()
    for theirs, ours in pairs.items():
        assert tensor_names.RENAMES[program](theirs, pairs) == ours and ours in own, theirs


def test_the_blocks_of_lite1_are_counted_over_its_longer_stages():
    names = [f'_blocks.{number}._bn1.weight' for number in range(sum(efficientnet_lite.depths('efficientnet_lite1')))]
    found = [tensor_names.RENAMES['efficientnet_lite_pytorch'](name, names) for name in names]
    own = builder.build('efficientnet_lite1', 3, 64).state_dict()
    assert found == [name for name in own if re.fullmatch(r'stage.*\.depthwise\.bn\.weight', name)]


@pytest.mark.parametrize('name', ['_blocks.0._other.x', 'blocks.1.0.other.x', 'features.1.block.x.y', '_blocks.1', ''])
def test_names_that_only_begin_like_those_of_a_program_are_left_alone(tmp_path, name):
    values = {name: np.zeros(1, np.float32), 'features.1.block.0.x': np.zeros(1, np.float32)}
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps(values, protocol=4))
    with pytest.raises(UserError, match='has 0 of the'):
        pretrained.load_pretrained(builder.build('cifarnet', 3, 32), 'cifarnet', str(path))


def of_timm(values):
    """The tensors of a ConvNeXt with timm's names and PyTorch's layouts, as DataParallel saves them."""
    renamed = {}
    for name, value in values.items():
        name = re.sub(r'^stage(\d)\.', lambda match: f'stages.{int(match[1]) - 1}.', name)
        name = re.sub(r'^(norm|fc)\.', r'head.\1.', name)
        renamed[f'module.{name}'] = value.T if value.ndim == 2 else value
    return renamed


def test_a_convnext_of_timm_gives_the_same_logits(tmp_path):
    paddle.seed(0)
    network, filled = builder.build('convnext_tiny', 3, 64), builder.build('convnext_tiny', 3, 64)
    values = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({'state_dict': of_timm(values)}, protocol=4))
    said = pretrained.load_pretrained(filled, 'convnext_tiny', str(path))
    for words in ("under 'state_dict'", "prefix 'module.' removed", 'timm (ConvNeXt)', '182 of 182 tensors loaded'):
        assert words in said
    images = paddle.rand([2, 3, 64, 64])
    with paddle.no_grad():
        assert np.array_equal(network(images).numpy(), filled(images).numpy())


@pytest.mark.parametrize('number', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, number):
    network = builder.build('cifarnet', 3, 32)
    values = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    values['whiten.bias'][5] = number
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps(values, protocol=4))
    with pytest.raises(UserError, match=r'w\.pdparams: whiten\.bias contains NaN or infinity'):
        pretrained.load_pretrained(network, 'cifarnet', str(path))
