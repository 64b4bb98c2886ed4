"""Freeze and unfreeze parts of a network: parameters and BatchNorm statistics."""

from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle

nn = paddle.nn


def freeze(network, until):
    """Stop the parameters of a part of the network from learning, and its BatchNorm statistics from changing.

    Args:
        until: 'none', 'backbone' for all but the head, or the name of the last stage to freeze, such as 'layer2'.
    Returns: names of the parameters that learned before. Raises UsageError when there is no such stage.
    """
    *below, _ = network.named_children()
    stages = [name for name, child in below if child.parameters()]
    if until not in ('none', 'backbone', *stages):
        raise UsageError(
            f'model.freeze = {until}: must be none, backbone, or the last stage to freeze: {", ".join(stages)}'
        )
    kept = {'none': [], 'backbone': stages}.get(until, stages[: stages.index(until) + 1] if until in stages else [])
    own = dict(network.named_parameters())
    frozen = [name for name in own if name.split('.')[0] in kept and not own[name].stop_gradient]
    _set_learning(network, frozen, False)
    return frozen


def unfreeze(network, frozen):
    """Let the parameters learn again that `freeze` returned, and the BatchNorm statistics change."""
    _set_learning(network, frozen, True)


def _set_learning(network, names, learns):
    own = dict(network.named_parameters())
    for name in names:
        own[name].stop_gradient = not learns
    for prefix, layer in network.named_sublayers():
        if isinstance(layer, nn.BatchNorm2D) and f'{prefix}.bias' in names:
            # True: normalise with the running statistics in training too, and do not update them
            layer._use_global_stats = None if learns else True


def count_parameters(network):
    """(all values of the network, BatchNorm's running statistics included; those that learn)."""
    parameters = network.parameters()
    return (
        sum(parameter.size for parameter in parameters),
        sum(parameter.size for parameter in parameters if not parameter.stop_gradient),
    )


def batch_norms(network, frozen=True):
    """List of the BatchNorm layers, synchronised ones included; with frozen=False only those whose statistics training updates."""
    kinds = (nn.BatchNorm1D, nn.BatchNorm2D, nn.SyncBatchNorm)
    layers = [layer for layer in network.sublayers(include_self=True) if isinstance(layer, kinds)]
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
