"""Find the order of class names in which another program reports the numbers of a model."""

import numpy as np
from scipy.optimize import linear_sum_assignment

LEAST = 3  # classes that the numbers must tell apart: fewer can be matched by chance


def match(theirs, rounding, values, allowed):
    """An order in which `values`, reported for the classes `order`, are `theirs`.

    Args:
        theirs, rounding, values, allowed: float64 [photos, classes]: numbers of the other program and how they are rounded, ours and
            how far they may be off.
    Returns: (order, a tuple: class i of theirs is number order[i] of ours; sure, a set: the classes i that can be no other);
        None if there is none, it is the one that the model has, or the numbers do not tell enough classes apart.
    """
    if (np.abs(np.sort(theirs, 1) - np.sort(values, 1)) > rounding.max() + 2 * allowed.max()).any():
        return None
    fits = (np.abs(theirs[:, :, None] - values[:, None, :]) <= rounding[:, :, None] + allowed[:, None, :]).all(0)
    if fits.diagonal().all():
        return None
    order = _assigned(fits)
    if order is None:
        return None
    alone = fits.sum(1) == 1
    sure = {number for number in np.flatnonzero(alone).tolist() if order[number] != number}
    return (tuple(order), sure) if sure and alone.sum() >= min(LEAST, len(order)) else None


def in_words(order, sure, labels):
    """Which class gets the number of which, as far as it is sure."""
    moved = [f'{labels[number]} is what the model calls {labels[order[number]]}' for number in sorted(sure)]
    return ', '.join(moved[:4]) + (f', and {len(moved) - 4} more' if len(moved) > 4 else '')


def _assigned(fits):
    """A column for each row of a bool matrix, all different, its own one where possible; None if there is none."""
    cost = np.where(fits, 1.0, len(fits) + 1.0)
    cost[np.diag_indices_from(cost)] -= fits.diagonal() * 0.5
    rows, columns = linear_sum_assignment(cost)
    return columns.tolist() if fits[rows, columns].all() else None
