"""Networks: ResNet from paddle.vision, its initial weights, and which of its parameters learn."""

import os

from zodiac import weights
from zodiac.errors import UserError

HEAD = 'fc.'  # the last linear layer of paddle.vision's ResNets


def build(arch, num_classes, zero_init_residual=False):
    """A ResNet (He et al. 2016) with a new head.

    Args:
        zero_init_residual: start the last BatchNorm weight of each block at zero, so that each block starts as the
            identity (He et al. 2019, "Bag of Tricks for Image Classification", section 3.1).
    Returns: paddle.nn.Layer, float32 [N, 3, H, W] -> logits float32 [N, num_classes].
    """
    import paddle
    from paddle.vision.models.resnet import BasicBlock, BottleneckBlock

    with paddle.utils.unique_name.guard():  # the same parameter names in each process, which optimizer states go by
        network = getattr(paddle.vision.models, arch)(num_classes=num_classes)
    if zero_init_residual:
        for layer in network.sublayers():
            last = (
                getattr(layer, 'bn3', None)
                if isinstance(layer, BottleneckBlock)
                else layer.bn2
                if isinstance(layer, BasicBlock)
                else None
            )
            if last is not None:
                last.weight.set_value(paddle.zeros_like(last.weight))
    return network


def load_pretrained(network, arch, source):
    """Fill the network from ImageNet weights (`source` True) or from a .pdparams file; a head of another size stays new.

    Returns: str, what was loaded, for the user. Raises UserError when the weights cannot be had or the backbone differs.
    """
    path = _imagenet_file(arch) if source is True else source
    values = weights.read(path)
    own = network.state_dict()
    backbone = [name for name in own if not name.startswith(HEAD)]
    wrong = [name for name in backbone if name not in values or tuple(values[name].shape) != tuple(own[name].shape)]
    if wrong:
        raise UserError(
            f'{path}: does not fit {arch}: {len(wrong)} of {len(backbone)} backbone tensors are missing or of another shape, '
            f'first {wrong[0]}; set model.arch to the network it was saved from'
        )
    head = [name for name in own if name.startswith(HEAD)]
    head_fits = all(name in values and tuple(values[name].shape) == tuple(own[name].shape) for name in head)
    loaded = backbone + (head if head_fits else [])
    network.set_state_dict({name: values[name] for name in loaded})
    classes = values[f'{HEAD}bias'].shape[0] if f'{HEAD}bias' in values else 'none'
    made = 'head loaded too' if head_fits else f'head made anew ({classes} -> {own[f"{HEAD}bias"].shape[0]} classes)'
    return f'{path}: {len(loaded)} of {len(own)} tensors loaded, {made}'


def load_all(network, path):
    """Fill the whole network, head included, from a .pdparams file. Raises UserError when any tensor differs."""
    values = weights.read(path)
    own = network.state_dict()
    classes = values.get(f'{HEAD}bias')
    if classes is not None and classes.shape[0] != own[f'{HEAD}bias'].shape[0]:
        raise UserError(
            f'{path}: was trained for {classes.shape[0]} classes, data.labels has {own[f"{HEAD}bias"].shape[0]}; '
            'use the configuration of that run'
        )
    wrong = [name for name in own if name not in values or tuple(values[name].shape) != tuple(own[name].shape)]
    if wrong:
        raise UserError(
            f'{path}: does not fit the network: {len(wrong)} of {len(own)} tensors are missing or of another shape, '
            f'first {wrong[0]}; set model.arch to the network it was saved from'
        )
    network.set_state_dict({name: values[name] for name in own})


def freeze_backbone(network):
    """Let only the head learn: the other parameters and the BatchNorm statistics stand still."""
    import paddle

    for name, parameter in network.named_parameters():
        parameter.stop_gradient = not name.startswith(HEAD)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._use_global_stats = True  # normalise with the stored statistics in training too, and leave them


def _imagenet_file(arch):
    """Path of Paddle's published weights, downloaded on first use."""
    from paddle.utils import download
    from paddle.vision.models import resnet

    url, md5 = resnet.model_urls[arch]
    try:
        return download.get_weights_path_from_url(url, md5)
    except Exception as error:  # whatever the network layer raises
        place = os.path.join(
            os.path.expanduser(getattr(download, 'WEIGHTS_HOME', '~/.cache/paddle/hapi/weights')), os.path.basename(url)
        )
        reason = ' '.join(str(error).split())[:120]
        raise UserError(
            f'model.pretrained = true: cannot download the ImageNet weights of {arch} ({reason}); fetch {url} on another machine '
            f'and put it at {place}, or set model.pretrained=PATH, or model.pretrained=false to train from scratch'
        ) from None
