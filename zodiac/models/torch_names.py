"""A network's weights for PyTorch: its names and layouts, the way back from tensor_names.py."""

import json
import re

import numpy as np

from zodiac.base.networks import NETWORKS
from zodiac.models import tensor_names

PROGRAMS = {  # by family: whose network it is
    'resnet': 'torchvision',
    'mobilenet_v3': 'torchvision',
    'efficientnet_lite': 'timm',
    'convnext': 'timm',
}


def dump(network, arch, head, labels):
    """The content of a .safetensors file with what `of` returns. Its metadata: network, names (the program, or zodiac), labels as JSON."""
    from safetensors import numpy as safetensors  # optional package

    values, program = of(network, arch, head)
    about = {
        'format': 'pt',
        'network': arch,
        'names': program or 'zodiac',
        'labels': json.dumps(labels, ensure_ascii=False),
    }
    return safetensors.save(values, about)


def of(network, arch, head):
    """The tensors of a network as its PyTorch counterpart has them in its state dict.

    Args:
        network: as builder.build returns it; arch: its name; head: model.head.
    Returns: ({name: contiguous array}, program). program is 'torchvision' or 'timm' if the names are those of its network; '' if only the
        layouts are PyTorch's, since no program has this network or this head.
    """
    own = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    family = NETWORKS[arch].family
    program = PROGRAMS.get(family, '') if head == 'auto' else ''
    rename = RENAMES.get(family, _same) if program else _same
    return {_statistic(rename(name, own)): _layout(value) for name, value in own.items()}, program


def _statistic(name):
    start, dot, last = name.rpartition('.')
    return start + dot + BATCH_NORM.get(last, last)


def _layout(value):
    """PyTorch keeps the weights of a linear layer, the only ones with two axes, as [units, features]."""
    return np.ascontiguousarray(value.T if value.ndim == 2 else value)  # safetensors writes the memory as it is


def _same(name, own):
    return name


def _timm_lite(name, own):
    block = re.match(r'stage(\d)\.(\d+)\.(\w+\.\w+)\.', name)
    if block:
        part = (TIMM_PARTS if block[1] != '1' else TIMM_FIRST)[block[3]]
        return f'blocks.{int(block[1]) - 1}.{block[2]}.{part}.{name[block.end() :]}'
    return tensor_names.replaced(
        name,
        (r'stem\.conv\.', 'conv_stem.'),
        (r'stem\.bn\.', 'bn1.'),
        (r'last\.conv\.', 'conv_head.'),
        (r'last\.bn\.', 'bn2.'),
        (r'fc\.3\.', 'classifier.'),
    )


def _timm_convnext(name, own):
    stage = (r'stage(\d)\.', lambda match: f'stages.{int(match[1]) - 1}.')
    return tensor_names.replaced(name, stage, (r'norm\.', 'head.norm.'), (r'fc\.', 'head.fc.'))


def _torchvision_mobilenet(name, own):
    """torchvision numbers the parts of a block, of which some have no expansion and some no squeeze-and-excitation."""
    block = re.match(r'blocks\.(\d+)\.(\w+)\.', name)
    if not block:
        last = 1 + max(int(other.split('.')[1]) for other in own if other.startswith('blocks.'))
        return tensor_names.replaced(
            name,
            (r'conv\.', 'features.0.'),
            (r'lastconv\.', f'features.{last + 1}.'),
            (r'hidden\.1\.', 'classifier.0.'),
            (r'fc\.1\.', 'classifier.3.'),
        )
    there = {other.split('.')[2] for other in own if other.startswith(f'blocks.{block[1]}.')}
    parts = [part for part in ('expand_conv', 'bottleneck_conv', 'mid_se', 'linear_conv') if part in there]
    return f'features.{int(block[1]) + 1}.block.{parts.index(block[2])}.{name[block.end() :]}'


BATCH_NORM = {ours: theirs for theirs, ours in tensor_names.STATISTICS.items()}
TIMM_PARTS, TIMM_FIRST = (
    {ours: theirs for theirs, ours in parts.items()} for parts in (tensor_names.TIMM_PARTS, tensor_names.TIMM_FIRST)
)
RENAMES = {  # by family: function of our name and all our tensors
    'efficientnet_lite': _timm_lite,
    'convnext': _timm_convnext,
    'mobilenet_v3': _torchvision_mobilenet,
}
