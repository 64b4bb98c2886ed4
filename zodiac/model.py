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
    wrong = [name for name in _differing(values, own) if not name.startswith(HEAD)]
    _require_fit(path, wrong, own, arch)
    head_fits = not _differing(values, own)
    loaded = [name for name in own if head_fits or not name.startswith(HEAD)]
    _fill(network, {name: values[name] for name in loaded})
    made = 'head loaded too' if head_fits else f'head made anew ({_classes(values)} -> {_classes(own)} classes)'
    return f'{path}: {len(loaded)} of {len(own)} tensors loaded, {made}'


def load_all(network, path):
    """Fill the whole network, head included, from a .pdparams file. Raises UserError when any tensor differs."""
    values = weights.read(path)
    own = network.state_dict()
    wrong = _differing(values, own)
    if wrong and all(name.startswith(HEAD) for name in wrong):
        raise UserError(
            f'{path}: was trained for {_classes(values)} classes, data.labels has {_classes(own)}; '
            'use the configuration of that run'
        )
    _require_fit(path, wrong, own, 'the network')
    _fill(network, values)


def _differing(values, own):
    """Names of tensors that only one side has, or that are of another shape."""
    names = [name for name in own if tuple(getattr(values.get(name), 'shape', ())) != tuple(own[name].shape)]
    return names + [name for name in values if name not in own]


def _require_fit(path, wrong, own, arch):
    if wrong:
        raise UserError(
            f'{path}: does not fit {arch} of {len(own)} tensors: {len(wrong)} are missing, too many or of another '
            f'shape, first {wrong[0]}; set model.arch to the network it was saved from'
        )


def _classes(state):
    """Number of classes of a state dict's head, or 'none'."""
    shape = getattr(state.get(f'{HEAD}bias'), 'shape', ())
    return shape[0] if len(shape) == 1 else 'none'


def _fill(network, values):
    """Set the named tensors; the others stay as they are."""
    network.set_state_dict(
        {**network.state_dict(), **{name: value.astype('float32') for name, value in values.items()}}
    )


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
