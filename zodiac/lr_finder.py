"""The learning-rate range test: raise the rate a little at each step and watch the loss (Smith 2017, "Cyclical Learning Rates")."""

import itertools
import math

import numpy as np

from zodiac.errors import UserError


def sweep(trainer, loader, low=1e-6, high=1.0, steps=100):
    """Train for up to `steps` batches while the rate rises from `low` to `high` by the same factor each; stop early where the
    loss has grown to four times its lowest. The network is changed by it.

    Args:
        trainer: a prepared paddle.Model. loader: its training batches, gone through again when they are few.
    Returns: float arrays [n] of the rates and of the smoothed losses (mean with decay 0.9, corrected for its start).
    """
    rates, losses, mean = [], [], 0.0
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for step, (images, labels) in enumerate(itertools.islice(batches, steps)):
        rate = low * (high / low) ** (step / (steps - 1))
        trainer._optimizer._learning_rate = rate
        (loss,), _ = trainer.train_batch([images], [labels])
        mean = 0.9 * mean + 0.1 * loss.item()
        smooth = mean / (1 - 0.9 ** (step + 1))
        if not math.isfinite(smooth) or (losses and smooth > 4 * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
    return np.array(rates), np.array(losses)


def propose(rates, losses):
    """The rate at which the loss falls fastest over the logarithm of the rate. Raises UserError where it never falls."""
    end = int(losses.argmin()) + 1 if len(losses) else 0
    if end < 5:
        raise UserError(
            'no learning rate made the loss fall; check the images and labels, or the other settings of optim'
        )
    slope = np.gradient(losses[:end], np.log(rates[:end]))
    return float(rates[slope.argmin()])
