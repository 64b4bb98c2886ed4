"""Find a network's tensors in the content of a weight file, under the names of Paddle, torchvision, timm or another program."""

import os
import re

import numpy as np

from zodiac.models import efficientnet_lite

MAX_DEPTH = 4  # of nested dicts that are searched
STATISTICS = {'running_mean': '_mean', 'running_var': '_variance'}


def fitting(content, own):
    """Find a network's tensors in the content of a file.

    They may be under a key, beside those of an optimizer; have a prefix, as from DataParallel; or have the names and layouts of
    another program, such as the transposed linear layers of PyTorch.

    Args:
        content: dict of arrays, possibly in nested dicts.
        own: {name: Tensor} of the network.
    Returns: ({name: array}, str). The text says what was changed to find them, '' for nothing. If no set of tensors has half of the
        network's, the largest set is returned unchanged.
    Raises: ValueError if several sets fit.
    """
    found = {}
    for key, values in _sets(content):
        for named, change in _variants(values):
            for prefix in _prefixes(named, own):
                part = {name[len(prefix) :]: value for name, value in named.items() if name.startswith(prefix)}
                score = sum(np.shape(part.get(name)) == tuple(tensor.shape) for name, tensor in own.items())
                how = [f'found under {key!r}'] if key else []
                how += [f'prefix {prefix!r} removed'] if prefix else []
                how += [change] if change else []
                if score > found.get((key, prefix), (0,))[0]:
                    found[key, prefix] = score, part, ', '.join(how)
    best = max((score for score, *_ in found.values()), default=0)
    if 2 * best < len(own):
        return max((values for _, values in _sets(content)), key=len, default={}), ''
    first, *others = [place for place, item in found.items() if item[0] == best]
    if others:
        names = ', '.join(repr(' '.join(place).strip()) for place in (first, *others))
        raise ValueError(f'contains several sets of weights of this network, under {names}; save only one of them')
    return found[first][1:]


def _sets(content, key='', seen=None):
    """Yield (key, {name: array}) for each dict of arrays in nested dicts."""
    seen = {id(content)} if seen is None else seen
    arrays = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    if arrays:
        yield key, arrays
    for name, value in content.items():
        if isinstance(value, dict) and key.count('.') < MAX_DEPTH and id(value) not in seen:
            seen.add(id(value))
            yield from _sets(value, f'{key}.{name}' if key else str(name), seen)


def _prefixes(values, own):
    """'' and everything that precedes a name of the network in the names of a file."""
    ends = ((name, dot.end()) for name in values for dot in re.finditer(r'\.', name))
    return {'', *(name[:end] for name, end in ends if name[end:] in own)}


def _variants(values):
    """Yield (tensors, what was changed): as they are, from PyTorch's layouts, and each with the names of other programs replaced."""
    torch = "converted from PyTorch's names and layouts"
    bases = [(values, '')]
    if any(name.endswith('running_mean') for name in values):
        bases = [(_from_torch(values), torch)]
    elif any(value.ndim == 2 for value in values.values()):  # networks without BatchNorm, such as ConvNeXt
        bases.append((_from_torch(values), torch))
    for base, change in bases:
        yield base, change
        shared = os.path.commonprefix(list(base)).rpartition('.')[0]
        prefix = f'{shared}.' if shared else ''
        plain = {name[len(prefix) :]: value for name, value in base.items()}
        for program, rename in RENAMES.items():
            try:
                renamed = {rename(name, plain): value for name, value in plain.items()}
            except (ValueError, LookupError):  # names of yet another program
                continue
            if renamed.keys() != plain.keys() and len(renamed) == len(plain):
                removed = f'prefix {prefix!r} removed' if prefix else ''
                yield renamed, ', '.join(filter(None, [removed, change, f'renamed from {program}']))


def _from_torch(values):
    """The tensors with Paddle's names of statistics and layout of linear layers."""
    named = {}
    for name, value in values.items():
        start, dot, last = name.rpartition('.')
        if last != 'num_batches_tracked':
            named[start + dot + STATISTICS.get(last, last)] = value.T if value.ndim == 2 else value
    return named


def replaced(name, *rules):
    """The name after the first of the rules (pattern, replacement) that matches its beginning."""
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(f'^{pattern}', replacement, name)
    return name


LITE_PARTS = {  # of a block
    '_expand_conv': 'expand.conv',
    '_bn0': 'expand.bn',
    '_depthwise_conv': 'depthwise.conv',
    '_bn1': 'depthwise.bn',
    '_project_conv': 'project.conv',
    '_bn2': 'project.bn',
}
TIMM_FIRST = {  # of a block of the first stage, which has no expansion
    'conv_dw': 'depthwise.conv',
    'bn1': 'depthwise.bn',
    'conv_pw': 'project.conv',
    'bn2': 'project.bn',
}
TIMM_PARTS = {
    'conv_pw': 'expand.conv',
    'bn1': 'expand.bn',
    'conv_dw': 'depthwise.conv',
    'bn2': 'depthwise.bn',
    'conv_pwl': 'project.conv',
    'bn3': 'project.bn',
}


def _lite(name, values):
    """EfficientNet-Lite of efficientnet_lite_pytorch, which numbers the blocks of all stages together."""
    block = re.match(r'_blocks\.(\d+)\.(\w+)\.', name)
    if not block:
        return replaced(
            name,
            (r'_conv_stem\.', 'stem.conv.'),
            (r'_bn0\.', 'stem.bn.'),
            (r'_conv_head\.', 'last.conv.'),
            (r'_bn1\.', 'last.bn.'),
            (r'_fc\.', 'fc.3.'),
        )
    count = 1 + _last(r'_blocks\.(\d+)\.', values)
    depths = next(d for d in [*map(efficientnet_lite.depths, efficientnet_lite.SCALES), [count]] if sum(d) == count)
    number, stage = int(block[1]), 1
    while number >= depths[stage - 1]:
        number, stage = number - depths[stage - 1], stage + 1
    return f'stage{stage}.{number}.{LITE_PARTS[block[2]]}.{name[block.end() :]}'


def _last(pattern, names):
    """The highest number that the group of a pattern has in these names."""
    return max(int(match[1]) for match in map(re.compile(pattern).match, names) if match)


def _timm_lite(name, values):
    block = re.match(r'blocks\.(\d)\.(\d+)\.(\w+)\.', name)
    if block:
        part = (TIMM_PARTS if block[1] != '0' else TIMM_FIRST)[block[3]]
        return f'stage{int(block[1]) + 1}.{block[2]}.{part}.{name[block.end() :]}'
    return replaced(
        name,
        (r'conv_stem\.', 'stem.conv.'),
        (r'bn1\.', 'stem.bn.'),
        (r'conv_head\.', 'last.conv.'),
        (r'bn2\.', 'last.bn.'),
        (r'classifier\.', 'fc.3.'),
    )


def _timm_convnext(name, values):
    stage = (r'stages\.(\d)\.', lambda match: f'stage{int(match[1]) + 1}.')
    return replaced(name, stage, (r'head\.norm\.', 'norm.'), (r'head\.fc\.', 'fc.'))


def _paddle_mobilenet(name, values):
    return replaced(name, (r'classifier\.0\.', 'hidden.1.'), (r'classifier\.3\.', 'fc.1.'))


def _torchvision_mobilenet(name, values):
    """MobileNetV3 of torchvision, which numbers the parts of a block. One of three convolutions is an expansion."""
    block = re.match(r'features\.(\d+)\.block\.(\d+)\.', name)
    if not block:
        number = _last(r'features\.(\d+)\.', values)
        return _paddle_mobilenet(
            replaced(name, (r'features\.0\.', 'conv.'), (rf'features\.{number}\.', 'lastconv.')), values
        )
    start = name[: block.start(2)]
    parts = {int(other[len(start) :].partition('.')[0]) for other in values if other.startswith(start)}
    squeeze = {part for part in parts if f'{start}{part}.fc1.weight' in values}
    convolutions = sorted(parts - squeeze)
    kinds = ['expand_conv', 'bottleneck_conv', 'linear_conv'][-len(convolutions) :]
    kind = 'mid_se' if int(block[2]) in squeeze else kinds[convolutions.index(int(block[2]))]
    return f'blocks.{int(block[1]) - 1}.{kind}.{name[block.end() :]}'


RENAMES = {  # program: function of a name and all tensors of the file
    'efficientnet_lite_pytorch': _lite,
    'timm (EfficientNet-Lite)': _timm_lite,
    'timm (ConvNeXt)': _timm_convnext,
    'Paddle (MobileNetV3)': _paddle_mobilenet,
    'torchvision (MobileNetV3)': _torchvision_mobilenet,
}
