"""Rank the photos of a run by how likely their label is wrong. Plain arrays; no Paddle.

Two judges that did not learn from the photo give probabilities, and their mean counts: a head (over folds), and the nearest photos.
Confident learning (Northcutt et al. 2021, "Confident learning: estimating uncertainty in dataset labels", arXiv:1911.00068; the package
cleanlab) compares them with the labels. Wrong labels also mislead the judges, so they judge twice: the second time they do not learn from
photos whose label they doubted.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.neighbors import NearestNeighbors

from zodiac.training import linear_head, rejection

FOLDS = 5
ROUNDS = 2
VOTERS, SHARPNESS = 10, 10.0  # nearest photos that vote; a vote weighs exp(SHARPNESS * cosine)
NO_VOTE = 1e-3  # added to the votes for each class
MOST_VOTERS = 20_000  # photos at most among which the nearest are searched, drawn at random
NEAREST = 4  # photos shown of a class
BLOCK = 1024  # photos whose distances are computed at once
STRANGE = 2.0  # standard deviations by which a photo is less familiar than the mean one: an outlier


@dataclass(frozen=True)
class Judged:
    """What was found about n photos of K classes."""

    probabilities: (
        np.ndarray
    )  # float64 [n, K]: of judges that did not learn from the photo; NaN for photos that were not judged
    quality: (
        np.ndarray
    )  # float64 [n]: the probability of the label, the lowest first in the list; 1 for photos that were not judged
    wrong: np.ndarray  # bool [n]: the label is probably wrong, by confident learning
    suggested: np.ndarray  # int [n]: the most probable class
    unfamiliar: np.ndarray  # float64 [n]: standard deviations by which a photo is less familiar than the mean photo

    @property
    def strange(self):
        """bool [n]: like none of the classes."""
        return self.unfamiliar > STRANGE


def judge(views, labels, classes, balanced=False, seed=0, groups=None, rounds=ROUNDS):
    """Judge all photos.

    Args:
        views, labels, classes, balanced, seed, groups: as for `linear_head.over_folds`.
        rounds: how often; in each one after the first, photos whose label was doubted are not learned from.
    Returns: Judged. A class with a single photo or group is learned from and not judged.
    """
    labels = np.asarray(labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    trusted = np.ones(len(labels), bool)
    for _ in range(rounds):
        likely = linear_head.over_folds(views, labels, classes, FOLDS, balanced, seed, groups, trusted)
        held = likely.sum(1) > 0  # the others are not judged
        likely = (likely + votes(views[0], labels, classes, groups, trusted, seed)) / 2
        suggested = np.where(held, likely.argmax(1), labels)
        trusted = _to_learn_from(suggested == labels, labels, groups)
    wrong, quality = np.zeros(len(labels), bool), np.ones(len(labels))
    if held.any():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # a class with few photos
            wrong[held] = find_label_issues(labels[held], likely[held], filter_by='prune_by_noise_rate', n_jobs=1)
        quality[held] = get_label_quality_scores(labels[held], likely[held], method='self_confidence')
    likely[~held] = np.nan
    return Judged(
        likely, quality, wrong & (suggested != labels), suggested, _unfamiliar(views[0], labels, seed, groups)
    )


def votes(features, labels, classes, groups, trusted, seed=0):
    """Probabilities, float64 [n, classes], from the labels of the nearest photos, by the cosine of features from which the mean was
    subtracted, without the photo itself and copies of it.

    Args:
        features: float [n, d]; labels: int [n]; groups: int [n], equal for copies; trusted: bool [n], the photos that vote.
        seed: draws the photos that vote where there are more than MOST_VOTERS.
    """
    values, rng = _directions(features), np.random.default_rng(seed)
    voters = np.sort(rng.permutation(np.flatnonzero(trusted))[:MOST_VOTERS])
    found = np.full((len(labels), classes), NO_VOTE)
    for start in range(0, len(labels), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(labels)))
        alike = values[part] @ values[voters].T
        alike[groups[part][:, None] == groups[voters][None]] = -np.inf
        count = min(VOTERS, len(voters))
        nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        weights = np.exp(SHARPNESS * np.take_along_axis(alike, nearest, 1))
        for column in range(count):
            found[part, labels[voters[nearest[:, column]]]] += weights[:, column]
    return found / found.sum(1, keepdims=True)


def _directions(features):
    values = np.array(features, np.float32)
    values -= values.mean(0)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _to_learn_from(trusted, labels, groups):
    """`trusted`, and all photos of a class of which fewer than two groups would be left."""
    kept = trusted.copy()
    for label in np.unique(labels):
        own = labels == label
        if len(np.unique(groups[own & trusted])) < 2:
            kept |= own
    return kept


def _unfamiliar(features, labels, seed, groups):
    """See Judged; 0 for photos that were not judged."""
    fold = linear_head.deal(labels, groups, FOLDS, seed)
    features, found = np.asarray(features, np.float32), np.zeros((len(labels), 2))
    for number in range(FOLDS):
        kept, out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(out):
            of_others = rejection.reference(features[kept], labels[kept], seed)
            parts = [out[start : start + BLOCK] for start in range(0, len(out), BLOCK)]
            found[out] = np.concatenate([of_others.similarities(features[part]) for part in parts])
    held = fold >= 0
    if not held.any():
        return np.zeros(len(labels))
    similar = found[held]
    standard = ((similar - similar.mean(0)) / np.maximum(similar.std(0), 1e-6)).sum(1)
    scores = np.zeros(len(labels))
    scores[held] = -standard / max(standard.std(), 1e-6)
    return scores


class Neighbours:
    """The nearest photos of a class, by the cosine of features from which the mean was subtracted.

    Args:
        features: float [n, d]; labels: int [n]; groups: int [n], equal for copies of one photo, which are not their own neighbours.
    """

    def __init__(self, features, labels, groups):
        self.values = _directions(features)
        self.labels, self.groups = np.asarray(labels), np.asarray(groups)
        self._found = {}  # by class: (its photos, NearestNeighbors)

    def of(self, number, label, count=NEAREST):
        """List of the numbers of at most `count` photos of a class, the nearest first, without the photo itself."""
        if label not in self._found:
            own = np.flatnonzero(self.labels == label)
            search = NearestNeighbors(metric='cosine', algorithm='brute')
            self._found[label] = own, search.fit(self.values[own]) if len(own) else None
        own, search = self._found[label]
        if not len(own):
            return []
        wanted = min(len(own), count + 1 + int((self.groups[own] == self.groups[number]).sum()))
        nearest = own[search.kneighbors(self.values[number : number + 1], wanted, return_distance=False)[0]]
        return [int(one) for one in nearest if self.groups[one] != self.groups[number]][:count]
