"""Compare an exported model with the network: how far each engine may differ in each precision, and how far it does."""

import numpy as np

from zodiac.base.errors import UserError
from zodiac.inference.exported_model import softmax

LOGITS = {'fp32': 1e-3, 'int8': 0.25}  # limits for export.logit_tolerance=auto
LOSS = {'fp32': 1e-3, 'int8': 0.05}  # limits for export.loss_tolerance=auto
SOFTMAX = 0.01
LEAST_SPREAD = 1e-3  # logits closer together do not separate classes: their difference is not divided by the spread
LEAST_PROBABILITY = 1e-30  # smaller ones are not exact in float32
MESSAGES = {  # a difference in words, and the setting that holds its limit
    'logit_difference': ('a logit by {:.2g} of their spread', 'export.logit_tolerance'),
    'loss_difference': ('the loss by {:.2g}', 'export.loss_tolerance'),
    'largest_difference': ('a probability by {:.2e}', 'export.tolerance'),
    'softmax_difference': ('a probability by {:.2g} of itself from the softmax of its own logits', ''),
    'top1_agreement': ('the same top-1 on {:.1%} of the images', 'export.agreement'),
}


def quality(logits, labels):
    """top1, and loss, the mean cross-entropy in nats, of logits [N, classes].

    report/metrics.py computes both from float32 probabilities and has to cap the loss at 64 nats per image. An engine must not
    differ unnoticed where probabilities are 0 and 1, so this is exact.
    """
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return {'top1': float((logits.argmax(1) == labels).mean()), 'loss': float(losses.mean())}


def spread(logits):
    """Standard deviation of the logits of an image over the classes, pooled over all images [N, classes]."""
    return float((logits - logits.mean(1, keepdims=True)).std())


def limits(precision, settings):
    """What an engine running in `precision` must meet, from the settings of a config.Export: the least top1_agreement, and the
    largest of the other differences that `measure` returns."""
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
    """Differences between the outputs of an engine and the network.

    Probabilities of 0 and 1 look equal whatever error led to them, so logits and loss are compared too.

    Args:
        expected: logits of the network, float32 [N, classes], divided by the temperature.
        outputs: the engine's 'logits' and, if the graph returns them, 'probabilities'; float32 [N, classes] each.
        labels: int [N].
    Returns: dict of float; inf stands for NaN:
        top1, loss: of the engine.
        largest_difference: of a probability.
        logit_difference: the largest of a logit, divided by the `spread` of the network's.
        loss_difference: in nats; divided by the network's loss where that is above 1.
        softmax_difference: the largest of a probability from the softmax of the engine's own logits, relative to it.
        top1_agreement: share of the images.
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


def compare(engine, precision, expected, outputs, labels, settings):
    """The result of `measure`, with `precision` and `allowed`, its `limits`.

    Raises: UserError that names the engine and each limit that it exceeds.
    """
    found = measure(expected, outputs, labels)
    allowed = limits(precision, settings)
    broken = [
        _describe(name, found[name], limit) for name, limit in allowed.items() if not _holds(name, found[name], limit)
    ]
    if broken:
        raise UserError(
            f'the model run by {engine} differs from the network ({precision}): {", ".join(broken)}; see '
            'docs/deployment.md#engines-and-precision'
        )
    return {'precision': precision, **found, 'allowed': allowed}


def _holds(name, value, limit):
    return value >= limit if name == 'top1_agreement' else value <= limit


def _describe(name, value, limit):
    words, setting = MESSAGES[name]
    return f'{words.format(value)} (limit: {setting + " = " if setting else ""}{limit:.3g})'


def in_words(measured, names):
    """Lines for the terminal, one per engine and precision.

    Args:
        measured: `parity` of inference.yaml; names: of the engines.
    """
    network, lines = measured['network'], []
    for found_by_engine in (measured, measured.get('int8', {})):
        for engine in filter(found_by_engine.get, names):
            found = found_by_engine[engine]
            lines.append(
                f'{engine} ({found["precision"]}) against the network on {measured["images"]} validation images: largest difference of a '
                f'logit {found["logit_difference"]:.2e} of their spread, of a probability {found["largest_difference"]:.2e}; same top-1 '
                f'on {found["top1_agreement"]:.1%}; top-1 {found["top1"]:.4f} and {network["top1"]:.4f}; loss {found["loss"]:.4f} and '
                f'{network["loss"]:.4f}'
            )
    return lines
