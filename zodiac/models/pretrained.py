"""Fill a network from a weight file or from ImageNet weights."""

import numpy as np

from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import imagenet, tensor_names, weights
from zodiac.models.builder import head_of

CLASSES_HELP = 'see docs/troubleshooting.md#class-count'


def load_pretrained(network, arch, source, trained=None, labels=None):
    """Load ImageNet weights (`source` True) or a weight file. The head stays new when it has another shape or was trained for other
    classes.

    Args:
        trained: class names that the file was trained for, in order; None when unknown.
        labels: class names of the network, in order.
    Returns: str, what was loaded, for the user. Raises UserError when there are no weights or the backbone differs.
    """
    path = imagenet.find(arch) if source is True else source
    own = network.state_dict()
    values, how = _read(path, own)
    head = head_of(network)
    differing = _differing(values, own)
    _require_fit(path, [name for name in differing if not name.startswith(head)], values, own, arch)
    new_head = differing or trained and trained != labels
    loaded = {name: values[name] for name in own if not (new_head and name.startswith(head))}
    _require_finite(path, loaded)
    _fill(network, loaded)
    if differing:
        of_head = f'new head ({_classes(values, head)} -> {_classes(own, head)} classes)'
    elif new_head:
        why = 'in another order' if sorted(trained) == sorted(labels) else 'not data.labels'
        of_head = f'new head (the file has the classes {", ".join(trained)}: {why})'
    elif trained:
        of_head = 'head loaded too'
    else:
        of_head = 'head loaded too (the file does not name its classes: assumed to be data.labels, in this order)'
    skipped = [name for name in values if name not in loaded]
    of_head += f'; skipped: {", ".join(skipped)}' if skipped else ''
    return f'{path}: {len(loaded)} of {len(own)} tensors loaded{how}, {of_head}'


def load_all(network, path):
    """Fill the whole network, head included, from a weight file. Raises UserError when any tensor differs."""
    own = network.state_dict()
    values, _ = _read(path, own)
    head = head_of(network)
    wrong = _differing(values, own)
    if wrong and all(name.startswith(head) for name in wrong):
        trained, ours = _classes(values, head), _classes(own, head)
        why = (
            f'was trained for {trained} classes, data.labels has {ours}'
            if trained != ours
            else f'its head does not match model.head and image.size, first at {wrong[0]}'
        )
        raise UserError(f'{path}: {why}; use the configuration of that run; {CLASSES_HELP}')
    _require_fit(path, wrong, values, own, 'the network')
    _fill(network, values)


def _read(path, own):
    """The tensors of a file for the network, and how they were found, as the end of a phrase."""
    try:
        values, how = tensor_names.fitting(weights.read(path), own)
    except ValueError as error:
        raise UserError(f'{path}: {error}') from None
    return values, f' ({how})' if how else ''


def _differing(values, own):
    """Names of tensors that only one side has, or that differ in shape or in kind of number."""
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
        f'{path}: does not fit {arch} of {len(own)} tensors: {len(wrong)} are missing, unknown or of another '
        f'shape, first {wrong[0]}; set model.arch to the network it was saved from; {CLASSES_HELP}'
    )


def _classes(state, head):
    """Number of classes of a state dict's head, or 'none'."""
    shapes = [tuple(getattr(value, 'shape', ())) for name, value in state.items() if name.startswith(head)]
    return shapes[-1][-1] if shapes and shapes[-1] else 'none'


def _fill(network, values):
    """Set the named tensors, cast to the network's types; the others stay."""
    own = network.state_dict()
    typed = {name: paddle.to_tensor(value).astype(own[name].dtype) for name, value in values.items()}
    network.set_state_dict({**own, **typed})


def _require_finite(path, values):
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise UserError(
                f'{path}: {name} contains NaN or infinity: the training that wrote it diverged, or the file is damaged'
            )
