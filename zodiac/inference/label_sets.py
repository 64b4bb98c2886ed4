"""Sets of labels that hold the right one with a given probability: split-conformal prediction. Plain NumPy.

A new photo is drawn as the calibration photos were, which the model did not learn from. Then the set of all labels whose score is at most
the ceil((n + 1) * coverage)-th smallest of the n calibration photos' own scores holds its label with a probability of `coverage` or more
(Vovk et al. 2005, "Algorithmic learning in a random world"; Angelopoulos and Bates 2023, arXiv:2107.07511, section 1). The promise is for
photos of the trained classes, and on average over them, not for each class.
"""

import math

import numpy as np

REGULAR = 1  # label that raps does not penalise
PENALTY = 0.01  # of raps, for each further label


def lac(probabilities):
    """1 - probability, float [n, classes]: the smallest sets on average (Sadinle et al. 2019, "Least ambiguous set-valued classifiers with
    bounded error levels", arXiv:1609.00451)."""
    return 1 - probabilities


def raps(probabilities):
    """The probability of a label and of all more probable ones, with a penalty for each label beyond the first ones, float [n, classes]:
    larger sets for hard photos (Angelopoulos et al. 2021, "Uncertainty sets for image classifiers using conformal prediction",
    arXiv:2009.14193; without its random part, so that a photo always gets the same set)."""
    order = np.argsort(-probabilities, axis=1, kind='stable')
    sums = np.cumsum(np.take_along_axis(probabilities, order, 1), axis=1)
    sums += PENALTY * np.maximum(0, np.arange(1, sums.shape[1] + 1) - REGULAR)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, 1)
    return scores


METHODS = {'lac': lac, 'raps': raps}


def possible(coverage, count):
    """The coverage that `count` calibration photos allow, at most `coverage`: an n-th smallest of n scores promises n / (n + 1)."""
    return min(coverage, count / (count + 1))


def needed(coverage):
    """The least number of calibration photos for a coverage below 1."""
    return math.ceil(round(coverage / (1 - coverage), 9))


def limit(scores, coverage):
    """The score that as many new photos do not exceed; scores: float [n], n of 1 or more; coverage: as `possible` returns it."""
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def sets(probabilities, method, at_most):
    """bool [n, classes]: which labels are in the set of each photo; the most probable one always is.

    Args:
        probabilities: float [n, classes]; method: a key of METHODS; at_most: of `limit`.
    """
    found = METHODS[method](probabilities) <= at_most
    found[np.arange(len(found)), probabilities.argmax(1)] = True
    return found
