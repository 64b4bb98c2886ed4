"""Networks: built by name, filled with initial weights, and which of their parameters learn."""

import os
import sys

from zodiac.base import device
from zodiac.base.errors import UsageError, UserError
from zodiac.models import foreign_weights, weights

READ_BATCHES = 10  # of predictions that are left on the device before it is waited for


def build(arch, num_classes, image_size=224, head='auto', zero_init_residual=False):
    """A network with a new head: a ResNet (He et al. 2016) from paddle.vision, or one of networks.SMALL.

    Args:
        image_size: pixels a side of the images; a head of one's own and the small networks depend on it.
        head: 'auto' for the network's own (average pool and one linear layer), or a list of layers, see networks.build_head.
        zero_init_residual: start the last BatchNorm weight of each block at zero, so that each block starts as the
            identity (He et al. 2019, "Bag of Tricks for Image Classification", section 3.1).
    Returns: paddle.nn.Layer, float32 [N, 3, H, W] -> logits float32 [N, num_classes].
    Raises: UsageError when the parts do not go together.
    """
    import paddle

    from zodiac.models import networks

    with paddle.utils.unique_name.guard():  # the same parameter names in each process, which optimizer states go by
        if arch in networks.SMALL:
            kind, low, high = networks.SMALL[arch]
            if head != 'auto' or not low <= image_size <= high:
                raise UsageError(
                    f'model.arch = {arch}: is for image.size from {low} to {high} (now {image_size}) and has a head of its '
                    'own: set model.head=auto'
                )
            if zero_init_residual:
                raise UsageError(f'model.zero_init_residual = true: {arch} has no weight to set; set it to false')
            network = kind(num_classes)
        elif head == 'auto':
            network = getattr(paddle.vision.models, arch)(num_classes=num_classes)
        else:
            network = networks.HeadedResNet(arch, num_classes, head, image_size)
    if zero_init_residual:
        for layer in network.sublayers():
            last = {networks.BottleneckBlock: 'bn3', networks.BasicBlock: 'bn2'}.get(type(layer))
            if last:
                weight = getattr(layer, last).weight
                weight.set_value(paddle.zeros_like(weight))
    return network


def head_of(network):
    """Prefix of the parameters of the head, 'fc.' in a ResNet."""
    return f'{[name for name, _ in network.named_children()][-1]}.'


def load_pretrained(network, arch, source, trained=None, labels=None):
    """Fill the network from ImageNet weights (`source` True) or from a weight file; a head of another shape, or that was trained for
    other classes, stays new.

    Args:
        trained: class names that the file was trained for, in order; None where they are not known.
        labels: those of the network.
    Returns: str, what was loaded, for the user. Raises UserError when the weights cannot be had or the backbone differs.
    """
    path = _imagenet_file(arch) if source is True else source
    own = network.state_dict()
    values, how = _fitting(path, own)
    head = head_of(network)
    differing = _differing(values, own)
    _require_fit(path, [name for name in differing if not name.startswith(head)], values, own, arch)
    new_head = differing or trained and trained != labels
    loaded = [name for name in own if not (new_head and name.startswith(head))]
    _fill(network, {name: values[name] for name in loaded})
    if differing:
        made = f'head made anew ({_classes(values, head)} -> {_classes(own, head)} classes)'
    elif new_head:
        why = 'their order is another' if sorted(trained) == sorted(labels) else 'they are others'
        made = f'head made anew (its classes were {", ".join(trained)}: {why})'
    else:
        made = 'head loaded too'
        made += (
            '' if trained else ' (the file does not tell its classes: they are taken to be data.labels, in that order)'
        )
    return f'{path}: {len(loaded)} of {len(own)} tensors loaded{how}, {made}'


def load_all(network, path):
    """Fill the whole network, head included, from a weight file. Raises UserError when any tensor differs."""
    own = network.state_dict()
    values, _ = _fitting(path, own)
    head = head_of(network)
    wrong = _differing(values, own)
    if wrong and all(name.startswith(head) for name in wrong):
        trained, ours = _classes(values, head), _classes(own, head)
        why = (
            f'was trained for {trained} classes, data.labels has {ours}'
            if trained != ours
            else f'its head is not that of model.head and image.size, first {wrong[0]}'
        )
        raise UserError(f'{path}: {why}; use the configuration of that run; see docs/troubleshooting.md#class-count')
    _require_fit(path, wrong, values, own, 'the network')
    _fill(network, values)


def _fitting(path, own):
    """The tensors of a file that are the network's, and how they were found, to follow a message."""
    try:
        values, how = foreign_weights.fitting(weights.read(path), own)
    except ValueError as error:
        raise UserError(f'{path}: {error}') from None
    return values, f' ({how})' if how else ''


def _differing(values, own):
    """Names of tensors that only one side has, or that are of another shape, or whole numbers in place of real ones."""
    names = [name for name, tensor in own.items() if not _fits(values.get(name), tensor)]
    return names + [name for name in values if name not in own]


def _fits(value, tensor):
    shape, kind = getattr(value, 'shape', None), getattr(getattr(value, 'dtype', None), 'kind', None)
    return shape == tuple(tensor.shape) and (kind == 'f') == tensor.is_floating_point()


def _require_fit(path, wrong, values, own, arch):
    if not wrong:
        return
    known = [name for name in own if name in values]
    if 2 * len(known) < len(own):
        others = ', '.join([name for name in values if name not in own][:2])
        strange = f', and others such as {others} where {arch} has {wrong[0]}' if others else ''
        raise UserError(
            f'{path}: has {len(known)} of the {len(own)} tensors of {arch}{strange}; set model.arch to the network it was saved from, or '
            'rename its tensors; see docs/troubleshooting.md#other-weights'
        )
    raise UserError(
        f'{path}: does not fit {arch} of {len(own)} tensors: {len(wrong)} are missing, too many or of another '
        f'shape, first {wrong[0]}; set model.arch to the network it was saved from; see docs/troubleshooting.md#class-count'
    )


def _classes(state, head):
    """Number of classes of a state dict's head, or 'none'."""
    shapes = [tuple(getattr(value, 'shape', ())) for name, value in state.items() if name.startswith(head)]
    return shapes[-1][-1] if shapes and shapes[-1] else 'none'


def _fill(network, values):
    """Set the named tensors, each in the type that the network has it in; the others stay as they are."""
    import paddle

    own = network.state_dict()
    typed = {name: paddle.to_tensor(value).astype(own[name].dtype) for name, value in values.items()}
    network.set_state_dict({**own, **typed})


def predict(network, loader, total):
    """Probabilities of a network over a loader's images. Returns: float32 [total, classes], in the loader's order."""
    import numpy as np
    import paddle
    from tqdm import tqdm

    outputs, unread = [], []
    with paddle.no_grad(), tqdm(total=total, desc='evaluating', unit='image', leave=False, disable=None) as bar:
        for images, _ in loader:
            unread.append(paddle.nn.functional.softmax(network(images)))
            bar.update(len(images))
            if len(unread) == READ_BATCHES:
                outputs.append(paddle.concat(unread).numpy())
                unread = []
    return np.concatenate([*outputs, *(output.numpy() for output in unread)])


def freeze(network, until):
    """Keep a part of the network as it is: its parameters do not learn and its BatchNorm statistics stand still.

    Args:
        until: 'none', 'backbone' for all but the head, or the name of the last stage to keep, such as 'layer2'.
    Returns: names of the parameters that learned before. Raises UsageError when there is no such stage.
    """
    *below, _ = network.named_children()
    stages = [name for name, child in below if child.parameters()]
    if until not in ('none', 'backbone', *stages):
        raise UsageError(
            f'model.freeze = {until}: allowed is none, backbone, or the last stage to keep: {", ".join(stages)}'
        )
    kept = {'none': [], 'backbone': stages}.get(until, stages[: stages.index(until) + 1] if until in stages else [])
    own = dict(network.named_parameters())
    frozen = [name for name in own if name.split('.')[0] in kept and not own[name].stop_gradient]
    _set_learning(network, frozen, False)
    return frozen


def unfreeze(network, frozen):
    """Let the parameters learn again that `freeze` returned, and the BatchNorm statistics move."""
    _set_learning(network, frozen, True)


def count_parameters(network):
    """How many numbers the network holds, BatchNorm's running means and variances among them, and how many of them learn."""
    parameters = network.parameters()
    return (
        sum(parameter.size for parameter in parameters),
        sum(parameter.size for parameter in parameters if not parameter.stop_gradient),
    )


def sync_batch_norm(network):
    """Let the BatchNorm layers that learn take their statistics over the images of all processes, with the parameters they have."""
    from paddle import nn

    for layer in network.sublayers(include_self=True):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.BatchNorm2D) and not child._use_global_stats:
                synced = nn.SyncBatchNorm.convert_sync_batchnorm(child)
                synced.weight, synced.bias = child.weight, child.bias  # Paddle forgets them where one does not learn
                setattr(layer, name, synced)


def batch_norms(network):
    """List of the BatchNorm layers, those that are synchronised over processes among them."""
    from paddle import nn

    kinds = (nn.BatchNorm1D, nn.BatchNorm2D, nn.SyncBatchNorm)
    return [layer for layer in network.sublayers(include_self=True) if isinstance(layer, kinds)]


def moving_statistics(network):
    """The running means and variances of the BatchNorm layers that training moves, as Tensors."""
    layers = [layer for layer in batch_norms(network) if not layer._use_global_stats]
    return [tensor for layer in layers for tensor in (layer._mean, layer._variance)]


def _set_learning(network, names, learns):
    import paddle

    own = dict(network.named_parameters())
    for name in names:
        own[name].stop_gradient = not learns
    for prefix, layer in network.named_sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D) and f'{prefix}.bias' in names:
            # True: normalise with the stored statistics in training too, and leave them
            layer._use_global_stats = None if learns else True


def _imagenet_file(arch):
    """Path of Paddle's published weights, downloaded on first use."""
    from paddle.utils import download
    from paddle.vision.models import resnet

    if arch not in resnet.model_urls:
        raise UsageError(
            f'model.pretrained = true: there are no ImageNet weights of {arch}; set model.pretrained=false'
        )
    url, md5 = resnet.model_urls[arch]
    place = os.path.join(
        os.path.expanduser(getattr(download, 'WEIGHTS_HOME', '~/.cache/paddle/hapi/weights')), os.path.basename(url)
    )
    if not os.path.isfile(place) and device.rank() == 0:
        print(f'model.pretrained = true: fetching the ImageNet weights of {arch} from {url}', file=sys.stderr)
    try:
        return download.get_weights_path_from_url(url, md5)
    except Exception as error:  # whatever the network layer raises
        reason = ' '.join(str(error).split())[:120]
        raise UserError(
            f'model.pretrained = true: cannot download the ImageNet weights of {arch} ({reason}); fetch {url} on another machine '
            f'and put it at {place}, or set model.pretrained=PATH, or model.pretrained=false to train from scratch; see '
            'docs/troubleshooting.md#no-network'
        ) from None
