"""Build a network by name; split it into backbone and head."""

import copy
import functools
import itertools

from zodiac.base import networks
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models.cifarnet import CifarNet
from zodiac.models.convnext import ConvNeXt
from zodiac.models.efficientnet_lite import EfficientNetLite
from zodiac.models.heads import HeadedResNet
from zodiac.models.mobilenet_v3 import MobileNetV3
from zodiac.models.resnet9 import ResNet9

SIMPLE = {'mobilenet_v3': MobileNetV3, 'convnext': ConvNeXt, 'resnet9': ResNet9, 'cifarnet': CifarNet}  # by family

nn = paddle.nn
resnet = paddle.vision.models.resnet


def build(arch, num_classes, image_size=224, head='auto', zero_init_residual=False):
    """A network of zodiac.base.networks with a new head.

    Args:
        arch: its name.
        image_size: height and width of the images in pixels.
        head: 'auto' for the network's own, or a list of layers, see heads.build_head.
        zero_init_residual: start the last BatchNorm weight of each block at zero, so that each block starts as the
            identity (He et al. 2019, "Bag of Tricks for Image Classification", section 3.1).
    Returns: paddle.nn.Layer, float32 [N, 3, H, W] -> logits float32 [N, num_classes].
    Raises: UsageError when the settings do not go together.
    """
    facts = networks.NETWORKS[arch]
    low, high = facts.sizes
    if not low <= image_size <= high:
        raise UsageError(f'model.arch = {arch}: takes image.size from {low} to {high} (now {image_size})')
    if head != 'auto' and not facts.takes_head:
        raise UsageError(f'model.arch = {arch}: has its own head; set model.head=auto')
    if zero_init_residual and facts.family != 'resnet':
        raise UsageError(f'model.zero_init_residual = true: is for ResNets only; set it to false for {arch}')
    with paddle.utils.unique_name.guard():  # the same parameter names in each process; optimizer states use them
        if facts.family == 'efficientnet_lite':
            return EfficientNetLite(arch, num_classes, head, image_size)
        if facts.family in SIMPLE:
            return SIMPLE[facts.family](num_classes)
        if head == 'auto':
            network = getattr(paddle.vision.models, arch)(num_classes=num_classes)
        else:
            network = HeadedResNet(arch, num_classes, head, image_size)
    if zero_init_residual:
        for layer in network.sublayers():
            last = {resnet.BottleneckBlock: 'bn3', resnet.BasicBlock: 'bn2'}.get(type(layer))
            if last:
                weight = getattr(layer, last).weight
                weight.set_value(paddle.zeros_like(weight))
    return network


def head_of(network):
    """Prefix of the names of the head's parameters, 'fc.' in a ResNet."""
    return f'{[name for name, _ in network.named_children()][-1]}.'


def before_last(network):
    """A network as two layers: images -> features, float32 [N, D], and the last linear layer, features -> logits.

    Returns: (backbone, linear). `backbone` is a copy in eval mode; what follows the linear layer, a factor or Dropout, is part of it.
        `linear` is the network's own.
    Raises: UserError where the last layer is another one.
    """
    name, linear = list(network.named_sublayers())[-1]
    if not isinstance(linear, nn.Linear):
        raise UserError(
            f'export.features: the last layer of this network must be linear, and is {type(linear).__name__}; end model.head with linear: '
            'classes, or set export.features=false'
        )
    with paddle.utils.unique_name.guard():
        backbone = copy.deepcopy(network)
    *parents, last = name.split('.')
    setattr(functools.reduce(getattr, parents, backbone), last, nn.Identity())
    backbone.eval()
    return backbone, linear


def split(network):
    """A network as two layers that run one after the other.

    Returns: (backbone, rest). `backbone`, images -> features, is a copy in eval mode, with the first layers of the head as far as
        they neither learn nor draw; `rest`, features -> logits, is the network's own layers behind it.
    """
    name = head_of(network)[:-1]
    head = getattr(network, name)
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    fixed = list(
        itertools.takewhile(lambda layer: not layer.parameters() and not isinstance(layer, nn.Dropout), layers)
    )
    with paddle.utils.unique_name.guard():
        backbone = copy.deepcopy(network)
        setattr(backbone, name, nn.Sequential(nn.Identity(), *fixed))
    backbone.eval()
    return backbone, nn.Sequential(*layers[len(fixed) :])
