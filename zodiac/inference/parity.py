"""How far an exported model may be from the network, in each precision, and how far it is."""

import numpy as np

from zodiac.base.errors import UserError
from zodiac.inference.runtime import softmax

REDUCED = {'bf16': ('paddle', 'openvino'), 'int8': ('onnxruntime', 'openvino')}  # which engines run in that precision
LOGITS = {'fp32': 1e-3, 'bf16': 0.1, 'int8': 0.25}  # what export.logit_tolerance=auto allows
LOSS = {'fp32': 1e-3, 'bf16': 0.02, 'int8': 0.05}  # and export.loss_tolerance=auto
SOFTMAX = 0.01  # bfloat16 rounds a probability by up to 2**-9
LEAST_SPREAD = 1e-3  # logits closer together tell no classes apart: their difference counts as it is
LEAST_PROBABILITY = 1e-30  # float32 does not hold smaller ones exactly
WORDS = {  # what is measured, for the user, and the setting that allows it
    'logit_difference': ('a logit by {:.2g} of their spread', 'export.logit_tolerance'),
    'loss_difference': ('the loss by {:.2g}', 'export.loss_tolerance'),
    'largest_difference': ('a probability by {:.2e}', 'export.tolerance'),
    'softmax_difference': ('a probability by {:.2g} of itself from that of its own logits', ''),
    'top1_agreement': ('the same top-1 on {:.1%} of the images', 'export.agreement'),
}


def quality(logits, labels):
    """top1, and loss, the mean cross-entropy in nats, of logits [N, classes]: exact also where the probabilities are 0 and 1."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return {'top1': float((logits.argmax(1) == labels).mean()), 'loss': float(losses.mean())}


def spread(logits):
    """How far the logits of an image lie apart: their standard deviation over the classes, over all images [N, classes]."""
    return float((logits - logits.mean(1, keepdims=True)).std())


def limits(precision, settings):
    """What an engine that runs in a precision must keep, by the settings of a config.Export: the least top1_agreement, and the most
    of the other differences that `measure` gives."""
    logits = LOGITS[precision] if settings.logit_tolerance == 'auto' else settings.logit_tolerance
    nats = LOSS[precision] if settings.loss_tolerance == 'auto' else settings.loss_tolerance
    exact = precision == 'fp32'
    return {
        'logit_difference': logits,
        'loss_difference': nats,
        **({'largest_difference': settings.tolerance} if exact else {}),
        'softmax_difference': SOFTMAX,
        'top1_agreement': 1.0 if exact else settings.agreement,
    }


def measure(expected, outputs, labels):
    """How far what an engine gives is from the network.

    Probabilities of 0 and 1 are equal whatever was lost on the way to them, so logits and loss are compared too.

    Args:
        expected: logits of the network, float32 [N, classes], divided by the temperature.
        outputs: logits and, where the graph gives them, probabilities of the engine, by name; float32 [N, classes] each.
        labels: int [N].
    Returns: dict of float: top1 and loss of the engine; largest_difference of a probability; logit_difference, the largest of a
        logit as a share of the `spread` of the network's; loss_difference, in nats, above 1 as a share of the
        network's; softmax_difference, the largest of a probability from that of the engine's own logits, as a share of it;
        top1_agreement, share of the images. inf stands for NaN.
    """
    logits, own = outputs['logits'], softmax(outputs['logits'])
    given, best = outputs.get('probabilities', own), expected.argmax(1)
    network, engine = quality(expected, labels), quality(logits, labels)
    counted = own > LEAST_PROBABILITY
    found = {
        **engine,
        'largest_difference': np.abs(softmax(expected) - given).max(),
        'logit_difference': np.abs(expected - logits).max() / max(spread(expected), LEAST_SPREAD),
        'loss_difference': abs(engine['loss'] - network['loss']) / max(1, network['loss']),
        'softmax_difference': np.abs(given[counted] / own[counted] - 1).max(initial=0),
        'top1_agreement': ((logits.argmax(1) == best) & (given.argmax(1) == best)).mean(),
    }
    return {name: float(value) if np.isfinite(value) else float('inf') for name, value in found.items()}


def compare(engine, expected, outputs, labels, settings):
    """What `measure` gives, precision, the one that the engine runs in, and allowed, the `limits` of it.

    Raises: UserError that names the engine and each limit that it does not keep.
    """
    precision = settings.precision if engine in REDUCED.get(settings.precision, ()) else 'fp32'
    found = measure(expected, outputs, labels)
    allowed = limits(precision, settings)
    broken = [
        _told(name, found[name], limit) for name, limit in allowed.items() if not _keeps(name, found[name], limit)
    ]
    if broken:
        raise UserError(
            f'the model as {engine} runs it differs from the network ({precision}): {", ".join(broken)}; see '
            'docs/deployment.md#engines-and-precision'
        )
    return {'precision': precision, **found, 'allowed': allowed}


def _keeps(name, value, limit):
    return value >= limit if name == 'top1_agreement' else value <= limit


def _told(name, value, limit):
    words, setting = WORDS[name]
    return f'{words.format(value)} (allowed: {setting + " = " if setting else ""}{limit:.3g})'
