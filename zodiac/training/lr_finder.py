"""The learning-rate range test: raise the rate a little at each step and watch the loss (Smith 2017, "Cyclical Learning Rates")."""

import itertools
import math

import numpy as np

from zodiac.base import device
from zodiac.training import progress

SKIPPED = 10  # losses at the beginning, means of few batches, that `propose` ignores


def sweep(trainer, loader, low=1e-6, high=1.0, steps=100):
    """Train for up to `steps` batches while the learning rate rises geometrically from `low` to `high`; stop early once the smoothed
    loss is above four times its lowest. Changes the network, and shows its progress.

    Args:
        trainer: a prepared `Trainer` whose learning rate has no schedule.
        loader: its training batches, repeated if there are too few.
    Returns: float arrays [n] of the rates and of the smoothed losses (mean with decay 0.9, bias-corrected).
    """
    rates, losses, mean = [], [], 0.0
    bar = progress.Bar('trying learning rates', steps) if device.rank() == 0 else None
    for step, (images, labels) in enumerate(itertools.islice(_repeated(loader), steps)):
        rate = low * (high / low) ** (step / (steps - 1))
        trainer.optimizer.set_lr(rate)
        trainer.train_batch([images], [labels])
        ((loss_sum, weight, *_),) = trainer.read()
        mean = 0.9 * mean + 0.1 * float(loss_sum / weight)
        smooth = mean / (1 - 0.9 ** (step + 1))
        if bar:
            bar.update(f'rate {rate:.2g} loss {smooth:.3f}')
        if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    if bar:
        bar.close()
    return np.array(rates), np.array(losses)


def propose(rates, losses):
    """The rate at which the loss falls fastest over the logarithm of the rate; None where it never falls."""
    end = int(losses.argmin()) + 1 if len(losses) else 0
    if end < SKIPPED + 5:
        return None
    slope = np.gradient(losses[SKIPPED:end], np.log(rates[SKIPPED:end]))
    return float(rates[SKIPPED + slope.argmin()])


def _repeated(loader):
    batch = ()
    while batch is not None:
        batch = None
        for batch in loader:
            yield batch
