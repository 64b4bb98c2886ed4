"""Weights for PyTorch have the names and layouts of torchvision and timm, and can be read back."""

import numpy as np
import pytest

from zodiac.base import networks
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, pretrained, torch_names, weights

NAMES = {  # arch: (program, names in it, the last one that of the last layer)
    'resnet18': ('torchvision', ['conv1.weight', 'layer2.0.downsample.1.running_mean', 'fc.weight']),
    'efficientnet_lite0': (
        'timm',
        [
            'conv_stem.weight',
            'bn1.running_var',
            'blocks.0.0.conv_pw.weight',
            'blocks.6.0.bn3.bias',
            'classifier.weight',
        ],
    ),
    'mobilenet_v3_large': (
        'torchvision',
        [
            'features.0.1.running_mean',
            'features.1.block.0.0.weight',
            'features.4.block.2.fc1.weight',
            'features.4.block.3.1.running_var',
            'features.16.0.weight',
            'classifier.0.bias',
            'classifier.3.weight',
        ],
    ),
    'convnext_tiny': (
        'timm',
        ['stem.1.bias', 'stages.0.blocks.2.gamma', 'stages.3.downsample.1.bias', 'head.norm.weight', 'head.fc.weight'],
    ),
    'resnet9': ('', ['con1.1.running_mean', 'classifier.3.weight']),
    'cifarnet': ('', []),
}


def test_every_family_is_tested():
    assert {networks.NETWORKS[arch].family for arch in NAMES} == {facts.family for facts in networks.NETWORKS.values()}


def built(arch, seed, head='auto'):
    paddle.seed(seed)
    return builder.build(arch, 5, 64 if arch not in ('resnet9', 'cifarnet') else 32, head)


@pytest.mark.parametrize('arch', NAMES)
def test_the_names_are_theirs_and_the_file_fills_another_network(tmp_path, arch):
    pytest.importorskip('safetensors', reason='requirements-deploy.txt is not installed')
    first, second = built(arch, 0), built(arch, 1)
    program, names = NAMES[arch]
    values, found = torch_names.of(first, arch, 'auto')
    assert found == program and set(names) <= set(values)
    assert not any(name.endswith(('_mean', '_variance')) and 'running' not in name for name in values)
    for name in names[-1:]:
        assert values[name].shape == (5, networks.NETWORKS[arch].features)  # PyTorch's layout
    path = tmp_path / 'a.safetensors'
    path.write_bytes(torch_names.dump(first, arch, 'auto', ['猫', 'b', 'c', 'd', 'e']))
    pretrained.load_all(second, str(path))
    for (name, value), other in zip(first.state_dict().items(), second.state_dict().values()):
        np.testing.assert_array_equal(value.numpy(), other.numpy(), err_msg=name)


def test_a_head_of_ones_own_keeps_its_names_in_pytorchs_layouts():
    head = ['global_avg_pool', 'flatten', {'linear': 7}, 'relu', {'linear': 'classes'}]
    values, program = torch_names.of(built('resnet18', 0, head), 'resnet18', head)
    assert program == '' and values['fc.2.weight'].shape == (7, 512) and values['fc.4.weight'].shape == (5, 7)


def test_the_metadata_name_network_program_and_labels(tmp_path):
    safetensors = pytest.importorskip('safetensors', reason='requirements-deploy.txt is not installed')
    path = tmp_path / 'a.safetensors'
    path.write_bytes(torch_names.dump(built('resnet9', 0), 'resnet9', 'auto', ['猫', 'b']))
    with safetensors.safe_open(path, 'np') as file:
        found = file.metadata()
    assert found == {'format': 'pt', 'network': 'resnet9', 'names': 'zodiac', 'labels': '["猫", "b"]'}
    assert set(weights.read(str(path))) == set(torch_names.of(built('resnet9', 0), 'resnet9', 'auto')[0])
