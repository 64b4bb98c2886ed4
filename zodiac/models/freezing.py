"""Stages of a network; freeze and unfreeze them: parameters and BatchNorm statistics."""

from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle

nn = paddle.nn
BATCH_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.SyncBatchNorm)


def stages(network):
    """The children of a network that have parameters, from its input to its head.

    Returns: list of lists of names. The last child is the head. A normalisation belongs to the layer before it: a ResNet begins
        with ['conv1', 'bn1'].
    """
    children = list(network.named_children())
    found = []
    for name, child in children[:-1]:
        if found and isinstance(child, (*BATCH_NORMS, nn.LayerNorm)):
            found[-1].append(name)
        elif child.parameters():
            found.append([name])
    return found + [[name] for name, _ in children[-1:]]


def of_stage(names, stage):
    """Those of the names of parameters that belong to a stage, a list of names of children."""
    return [name for name in names if name.split('.')[0] in stage]


def freeze(network, until, keep_statistics=False):
    """Stop the parameters of a part of the network from learning, and its BatchNorm statistics from changing.

    Args:
        until: 'none', 'backbone' for all but the head, or the name of the last child to freeze, such as 'layer2'.
        keep_statistics: keep the BatchNorm statistics of the rest too, whose weights and biases learn.
    Returns: names of the parameters that learned before. Raises UsageError when there is no such child.
    """
    backbone = [name for stage in stages(network)[:-1] for name in stage]
    if until not in ('none', 'backbone', *backbone):
        raise UsageError(
            f'model.freeze = {until}: must be none, backbone, or the last stage to freeze: {", ".join(backbone)}'
        )
    last = {'none': 0, 'backbone': len(backbone)}
    kept = backbone[: last[until] if until in last else backbone.index(until) + 1]
    own = dict(network.named_parameters())
    frozen = [name for name in of_stage(own, kept) if not own[name].stop_gradient]
    for name in frozen:
        own[name].stop_gradient = True
    for layer in batch_norms(network) if keep_statistics else _batch_norms_of(network, frozen):
        layer._use_global_stats = True  # normalise with the running statistics in training too, and do not update them
    return frozen


def unfreeze(network, frozen, keep_statistics=False):
    """Let parameters learn again that `freeze` returned, and the BatchNorm statistics change unless they are kept."""
    own = dict(network.named_parameters())
    for name in frozen:
        own[name].stop_gradient = False
    for layer in [] if keep_statistics else _batch_norms_of(network, frozen):
        layer._use_global_stats = None


def unfreezing(network, frozen, epoch, every=0):
    """When the parameters that `freeze` returned begin to learn: {epoch: their names}.

    Args:
        epoch: the first one, counted from 1; 0 for never.
        every: epochs between two stages, from the head down; 0 for all at once.
    """
    if not epoch or not frozen:
        return {}
    if not every:
        return {epoch: frozen}
    parts = filter(None, (of_stage(frozen, stage) for stage in reversed(stages(network))))
    return {epoch + number * every: names for number, names in enumerate(parts)}


def _batch_norms_of(network, names):
    """The BatchNorm layers whose bias is among these parameters."""
    layers = network.named_sublayers()
    return [layer for prefix, layer in layers if isinstance(layer, BATCH_NORMS) and f'{prefix}.bias' in names]


def count_parameters(network):
    """(all values of the network, BatchNorm's running statistics included; those that learn)."""
    parameters = network.parameters()
    return (
        sum(parameter.size for parameter in parameters),
        sum(parameter.size for parameter in parameters if not parameter.stop_gradient),
    )


def batch_norms(network, frozen=True):
    """List of the BatchNorm layers, synchronised ones included; with frozen=False only those whose statistics training updates."""
    layers = [layer for layer in network.sublayers(include_self=True) if isinstance(layer, BATCH_NORMS)]
    return [layer for layer in layers if frozen or not layer._use_global_stats]


def moving_statistics(network):
    """The running means and variances that training updates, as Tensors."""
    return [tensor for layer in batch_norms(network, frozen=False) for tensor in (layer._mean, layer._variance)]


def sync_batch_norm(network):
    """Replace the BatchNorm layers that are not frozen by ones that take their statistics over all processes; the parameters stay."""
    for layer in network.sublayers(include_self=True):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.BatchNorm2D) and not child._use_global_stats:
                synced = nn.SyncBatchNorm.convert_sync_batchnorm(child)
                synced.weight, synced.bias = child.weight, child.bias  # Paddle drops parameters that do not learn
                setattr(layer, name, synced)
