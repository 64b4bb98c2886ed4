"""The learning-rate range test: raise the rate a little at each step and watch the loss (Smith 2017, "Cyclical Learning Rates")."""

import itertools
import math

import numpy as np

SKIPPED = 10


def sweep(trainer, loader, low=1e-6, high=1.0, steps=100):
    """Train for up to `steps` batches while the rate rises from `low` to `high` by the same factor each; stop early where the
    loss has grown to four times its lowest. The network is changed by it.

    Args:
        trainer: a prepared `Trainer` whose learning rate has no schedule.
        loader: its training batches, gone through again when they are few.
    Returns: float arrays [n] of the rates and of the smoothed losses (mean with decay 0.9, corrected for its start).
    """
    rates, losses, mean = [], [], 0.0
    for step, (images, labels) in enumerate(itertools.islice(_again_and_again(loader), steps)):
        rate = low * (high / low) ** (step / (steps - 1))
        trainer._optimizer.set_lr(rate)
        trainer.train_batch([images], [labels])
        ((loss_sum, weight, *_),) = trainer.read()
        mean = 0.9 * mean + 0.1 * float(loss_sum / weight)
        smooth = mean / (1 - 0.9 ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    return np.array(rates), np.array(losses)


def propose(rates, losses):
    """The rate at which the loss falls fastest over the logarithm of the rate; None where it never falls.

    The first SKIPPED losses, means of few batches, are left out.
    """
    end = int(losses.argmin()) + 1 if len(losses) else 0
    if end < SKIPPED + 5:
        return None
    slope = np.gradient(losses[SKIPPED:end], np.log(rates[SKIPPED:end]))
    return float(rates[SKIPPED + slope.argmin()])


def _again_and_again(loader):
    batch = ()
    while batch is not None:
        batch = None
        for batch in loader:
            yield batch
