"""Which unlabelled photos to label first: uncertain ones that differ from each other. Plain arrays; no Paddle.

BADGE (Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower bounds", arXiv:1906.03671): each photo is described
by the gradient that its most probable label would give the head, the features times the error of the probabilities. The gradient is long
where the head is uncertain, and differs in direction where photos or classes differ. k-means++ draws photos that are far apart.
"""

import numpy as np


def rank(features, probabilities, count, seed=0):
    """Numbers of `count` photos, int [count], in the order in which to label them.

    Args:
        features: float [n, d]; probabilities: float [n, classes], of a head that learned from the labelled photos.
    """
    values, errors = np.asarray(features, np.float64), np.array(probabilities, np.float64)
    if not len(values):
        return np.array([], int)
    values = values / max(float(np.sqrt(np.square(values).sum(1).mean())), 1e-12)
    errors[np.arange(len(errors)), errors.argmax(1)] -= 1
    square = np.square(values).sum(1) * np.square(errors).sum(1)
    rng, chosen = np.random.default_rng(seed), []
    distance = None  # squared, to the nearest chosen photo
    for _ in range(min(count, len(values))):
        if distance is None:
            new = int(square.argmax())
        else:
            weights = np.where(np.isin(np.arange(len(values)), chosen), 0, distance)
            left = np.setdiff1d(np.arange(len(values)), chosen)
            new = int(rng.choice(len(values), p=weights / weights.sum())) if weights.sum() > 0 else int(left[0])
        chosen.append(new)
        to_new = square + square[new] - 2 * (values @ values[new]) * (errors @ errors[new])
        distance = np.maximum(to_new if distance is None else np.minimum(distance, to_new), 0)
    return np.array(chosen, int)
