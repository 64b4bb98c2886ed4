"""A linear head on the features of a frozen backbone: solved, measured over folds, and its learning curve.

Multinomial logistic regression with an L2 penalty, from scikit-learn, on features of one scale. Its strength, scikit-learn's C, is the
one with the lowest loss in a stratified cross-validation. Plain arrays; no Paddle.
"""

import copy
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr
from scipy.special import softmax
from scipy.stats import t
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from zodiac.base.errors import UserError

USUAL = 0.1  # C where there are too few images to choose it, and the first one that is tried
OTHERS = (
    (1e-2, 1e-3),
    (1.0, 10.0, 100.0),
)  # tried next, in each direction as long as they are better; a small C keeps the weights small
FOLDS = 5  # at most, to choose C
CHOOSE = 1500  # images at most to choose C, drawn at random: a prior does not depend on their number
TOLERANCE = 1e-6  # of the gradient, for the head that is kept, in float64
ROUGH = 1e-4  # the same where only predictions count, as in scikit-learn, in float32
WIDE = 1 << 26  # values; a larger matrix stays in float32 always
FEWER = 2  # times as many features as samples, from which a basis of the samples is worth its computation
PER_CLASS = (3, 5, *(10 * 2**doubling for doubling in range(14)))  # images, at which the learning curve is measured
DRAWS = 8  # of the learning curve
FEW_DRAWS = 3  # of its points with more than `CHOOSE` images
HELD_OUT = 0.3  # share of the images of each class that a draw is measured on
IGNORED = -2  # fold of an image that is not looked at
SMALL = 1 << 24  # values; on a smaller matrix several threads wait for each other most of the time


@dataclass(frozen=True)
class Head:
    """A solved head: logits = features @ weight + bias."""

    weight: np.ndarray  # float64 [d, classes]
    bias: np.ndarray  # float64 [classes]
    strength: float  # C
    folds: int  # in which it was chosen; 0: it is `USUAL`

    def probabilities(self, features):
        """float64 [n, classes] of features [n, d]."""
        return softmax(features @ self.weight + self.bias, axis=1)


def solve(views, labels, classes, balanced=False, seed=0, groups=None, strength=None, tolerance=TOLERANCE):
    """The head that fits features best.

    Args:
        views: list of float [n, d]: the features of the images as they are evaluated, then of changed copies of the same images, which
            are learned from too.
        labels: int [n], each class at least once; classes: their number, 2 or more.
        balanced: weight classes inversely to their size.
        seed: of the folds.
        groups: int [n], equal for pictures that must stay together; None: each is its own.
        strength: C; None: chosen by cross-validation, with fewer folds where a class has fewer than `FOLDS` pictures.
        tolerance: of the largest component of the gradient.
    Returns: Head.
    """
    labels, folds = np.asarray(labels), 0
    with _threads(views):
        space = _Space(views, labels, classes, balanced)
        if strength is None:
            strength, folds = _choose(space, labels, np.arange(len(labels)) if groups is None else groups, seed)
        values, *rest = space.samples(np.arange(len(labels)))
        if tolerance < ROUGH and values.size < WIDE:
            values = values.astype(np.float64)
        model = _fit(values, *rest, strength, tolerance)
    return Head(*space.unfolded(*_weights(model, classes)), strength, folds)


def _threads(views):
    return threadpool_limits(1 if sum(np.size(view) for view in views) < SMALL else None)


class _Space:
    """The samples in coordinates in which the penalised problem is the same, but small.

    Features are centred and divided by one number, their standard deviation over all. One number for each feature would raise features
    that hardly vary, which costs accuracy where there are few images (EfficientNet-Lite0, 3 images of each class: flowers 0.81 against
    0.89, animals 0.82 against 0.87; over folds of all images: 0.980 against 0.992, and 0.980 against 0.979). Where there are far
    fewer samples than features, they get an orthonormal basis of their span, in which the best weights lie (representer theorem; Hastie
    and Tibshirani 2004, "Efficient quadratic regularization for expression arrays").
    """

    def __init__(self, views, labels, classes, balanced):
        values = np.concatenate([np.asarray(view, np.float32) for view in views])
        self.mean, self.basis = values.mean(0, np.float64), None
        values -= self.mean.astype(np.float32)
        self.scale = float(np.sqrt(np.square(values).mean(dtype=np.float64))) or 1.0
        values /= np.float32(self.scale)
        if FEWER * len(values) <= values.shape[1]:
            self.basis, triangle = qr(values.T, mode='economic', overwrite_a=True, check_finite=False)
            values = np.ascontiguousarray(triangle.T)
        self.views = values.reshape(len(views), len(labels), -1)
        self.labels, self.classes = labels, classes
        counts = np.bincount(labels, minlength=classes)
        self.importance = (
            len(labels) / (np.count_nonzero(counts) * counts[labels]) if balanced else np.ones(len(labels))
        )

    def samples(self, images):
        """(coordinates, labels, weights) of all views of some images; the views of an image share its weight."""
        count = len(self.views)
        weights = self.importance[images] / count
        return (
            self.views[:, images].reshape(count * len(images), -1),
            np.tile(self.labels[images], count),
            np.tile(weights, count),
        )

    def unfolded(self, weight, bias):
        """Weight and bias for the features themselves."""
        weight = (weight if self.basis is None else self.basis @ weight) / self.scale
        return weight, bias - self.mean @ weight


def _choose(space, labels, groups, seed):
    """(C, number of folds): the C with the lowest loss on images that were left out."""
    counts = _groups_of_classes(labels, groups)
    folds = min([FOLDS, *counts[counts > 1]])
    fold = deal(labels, groups, folds, seed)
    left_out = _LeftOut(space, fold, seed)
    usable = [number for number in range(folds) if left_out.usable({number})]
    if not usable:
        return USUAL, 0
    return _search(lambda strength: sum(left_out.loss(out, {out}, strength) for out in usable)), len(usable)


def _search(loss):
    """The C with the lowest loss(C); from `USUAL` on, its neighbours are tried as long as they are better."""
    best, lowest = USUAL, loss(USUAL)
    for strengths in OTHERS:
        for strength in strengths:
            found = loss(strength)
            if found >= lowest:
                break
            best, lowest = strength, found
        if best != USUAL:
            break
    return best


class _LeftOut:
    """Losses of models that did not learn from some folds; each model is found once."""

    def __init__(self, space, fold, seed):
        fold = fold.copy()
        fold[np.random.default_rng(seed).permutation(len(fold))[CHOOSE:]] = IGNORED
        self.space, self.fold, self.models, self.newest = space, fold, {}, {}

    def usable(self, folds):
        """Whether each of these folds has images, and the others two classes."""
        return set(self.fold) >= folds and len(np.unique(self.space.labels[self._others(folds)])) > 1

    def loss(self, out, folds, strength):
        """The summed loss on the fold `out` of a model that learned from all but `folds`."""
        key = tuple(sorted(folds))
        if (key, strength) not in self.models:
            model = _fit(*self.space.samples(self._others(folds)), strength, start=self.newest.get(key))
            self.models[key, strength] = self.newest[key] = model
        images = np.flatnonzero(self.fold == out)
        weight, bias = _weights(self.models[key, strength], self.space.classes)
        likely = softmax(self.space.views[0, images] @ weight + bias, axis=1)
        likely = likely[np.arange(len(images)), self.space.labels[images]]
        return (-np.log(np.maximum(likely, 1e-12)) * self.space.importance[images]).sum()

    def _others(self, folds):
        return np.flatnonzero(~np.isin(self.fold, [IGNORED, *folds]))


def _fit(values, labels, weights, strength, tolerance=ROUGH, start=None):
    """The model of one C, found from that of another, `start`."""
    model = copy.copy(start) or LogisticRegression(warm_start=True, max_iter=1000)
    model.set_params(C=strength, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # 1000 steps are close enough
        return model.fit(values, labels, weights)


def _weights(model, classes):
    """float64 [d, classes] and [classes] of a model, which may not know all classes."""
    coefficients, intercept = model.coef_, model.intercept_
    if len(coefficients) == 1:  # of two classes scikit-learn gives the difference
        coefficients, intercept = (
            np.stack([-coefficients[0], coefficients[0]]) / 2,
            np.append(-intercept, intercept) / 2,
        )
    weight, bias = np.zeros((coefficients.shape[1], classes)), np.full(classes, -64.0)
    weight[:, model.classes_], bias[model.classes_] = coefficients.T, intercept
    return weight, bias


def deal(labels, groups, folds, seed):
    """The fold of each image, int [n]: each class is spread evenly, and a group stays together; -1, always learned from, for a class
    with a single group. Large groups are dealt by scikit-learn's StratifiedGroupKFold."""
    if _are_large(groups):
        return _deal_large(np.asarray(labels), groups, folds, seed)
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    of_group, fold, dealt = np.asarray(labels)[first], np.full(len(first), -1), 0
    rng = np.random.default_rng(seed)
    for label in np.unique(of_group):
        members = rng.permutation(np.flatnonzero(of_group == label))
        if len(members) > 1:
            fold[members] = (dealt + np.arange(len(members))) % folds
            dealt += len(members)
    return fold[group]


def _are_large(groups):
    """Whether groups hold more than copies of a few pictures: more than a tenth of the images beside the first of each group."""
    return len(groups) > 1.1 * len(np.unique(groups))


def _deal_large(labels, groups, folds, seed):
    fold, few = np.full(len(labels), -1), np.flatnonzero(_groups_of_classes(labels, groups) < 2)
    if np.isin(labels, few).all():
        return fold
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # a class with fewer images than folds
        for number, (_, out) in enumerate(splitter.split(labels, labels, groups)):
            fold[out] = number
    fold[np.isin(groups, groups[np.isin(labels, few)])] = -1
    return fold


def _groups_of_classes(labels, groups, classes=0):
    """The number of groups with images of each class."""
    return np.bincount(np.unique(np.stack([groups, labels]), axis=1)[1], minlength=classes)


def require_folds(labels, groups, folds, class_names):
    """Raise UserError where a class has fewer different pictures than there are folds."""
    counts = _groups_of_classes(labels, groups, len(class_names))
    if counts.min() < folds:
        few = ', '.join(f'{name} ({count})' for name, count in zip(class_names, counts) if count < folds)
        raise UserError(
            f'evaluate.folds = {folds}: each class needs as many different photos or groups; too few of {few}; add photos, or set '
            f'evaluate.folds to {counts.min() if counts.min() > 1 else 0}'
        )


def over_folds(views, labels, classes, folds, balanced=False, seed=0, groups=None, trusted=None):
    """Probabilities of each image, float64 [n, classes], from a head that did not learn from it nor from one of its group; zeros for the
    images of a class with a single group, which every head learns from.

    Args:
        trusted: bool [n], the images to learn from; None: all.
    """
    labels = np.asarray(labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    fold = deal(labels, groups, folds, seed)
    trusted = np.ones(len(labels), bool) if trusted is None else trusted
    strengths = _choose_for_folds(views, labels, classes, balanced, np.where(trusted, fold, IGNORED), seed)
    probabilities = np.zeros((len(labels), classes))
    for number in range(folds):
        kept, out = (fold != number) & trusted, fold == number
        chosen = [view[kept] for view in views]
        head = solve(chosen, labels[kept], classes, balanced, seed, groups[kept], strengths.get(number), ROUGH)
        probabilities[out] = head.probabilities(views[0][out])
    return probabilities


def _choose_for_folds(views, labels, classes, balanced, fold, seed):
    """{fold: C}, chosen without that fold: each other one in turn is left out too. Such a model serves both folds that it did not learn
    from, so there are half as many to find. Empty for fewer than four folds, where little would be left to learn from."""
    numbers = range(fold.max() + 1)
    if len(numbers) < 4:
        return {}
    with _threads(views):
        left_out = _LeftOut(_Space(views, labels, classes, balanced), fold, seed)
        others = {number: [n for n in numbers if n != number and left_out.usable({n, number})] for number in numbers}

        def choose(number):
            return _search(lambda strength: sum(left_out.loss(n, {n, number}, strength) for n in others[number]))

        return {number: choose(number) for number in numbers if others[number]}


def learning_curve(views, labels, classes, balanced=False, seed=0, groups=None):
    """Accuracy on images that were left out, for heads that learned from so many images of each class.

    Each draw leaves out HELD_OUT of each class at random, and learns from the first 3, 5, 10, ... of the others; a class that has fewer
    gives all it has. C is chosen once for each number. The largest number is one that at least half of the classes have.

    Returns: list of dicts: per_class, top1, interval_95, recall (of each class; None where none was left out). Empty for classes of fewer
        than 5 images. The draws share images, so they vary less than other images of the same kind would: the interval, Student's t over
        the draws, is widened for that (Nadeau and Bengio 2003, "Inference for the generalization error"). It is too wide rather than
        too narrow for the smallest numbers, at which the draws learn from different images.
    """
    labels = np.asarray(labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    shuffled = [_shuffled(labels, groups, np.random.default_rng([seed, draw])) for draw in range(DRAWS)]
    usual = np.median([(1 - HELD_OUT) * count for count in np.bincount(labels, minlength=classes)])
    points = []
    for number in [number for number in PER_CLASS if number <= usual]:
        right, strength = [], None
        for kept, out in shuffled[: DRAWS if number * classes <= CHOOSE else FEW_DRAWS]:
            kept = np.concatenate([images[:number] for images in kept])
            chosen = [view[kept] for view in views]
            head = solve(chosen, labels[kept], classes, balanced, seed, groups[kept], strength, ROUGH)
            strength = head.strength
            guesses = head.probabilities(views[0][out]).argmax(1)
            hits = np.bincount(labels[out[guesses == labels[out]]], minlength=classes)
            right.append((hits, np.bincount(labels[out], minlength=classes)))
        hits, totals = np.sum(right, 0)
        top1 = np.array([of_draw.sum() / all_of_draw.sum() for of_draw, all_of_draw in right])
        shared = HELD_OUT / (1 - HELD_OUT)
        spread = t.ppf(0.975, len(top1) - 1) * top1.std(ddof=1) * np.sqrt(1 / len(top1) + shared)
        mean = float(top1.mean())
        points.append(
            {
                'per_class': number,
                'top1': mean,
                'interval_95': [max(0.0, float(mean - spread)), min(1.0, float(mean + spread))],
                'recall': [float(hit / total) if total else None for hit, total in zip(hits, totals)],
            }
        )
    return points


def _shuffled(labels, groups, rng):
    """(list of int arrays, the images of each class to learn from; int array, the images that are left out), in random order."""
    if _are_large(groups):
        fold = _deal_large(labels, groups, round(1 / HELD_OUT), int(rng.integers(2**31)))
        all_out = [label for label in np.unique(labels) if (fold[labels == label] == 0).all()]
        fold[np.isin(groups, groups[np.isin(labels, all_out)])] = -1
        kept = [rng.permutation(np.flatnonzero((labels == label) & (fold != 0))) for label in np.unique(labels)]
        return kept, rng.permutation(np.flatnonzero(fold == 0))
    kept, out = [], []
    seen = set()
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        order = [number for number in order.tolist() if not (groups[number] in seen or seen.add(groups[number]))]
        held = min(max(1, round(HELD_OUT * len(order))), len(order) - 1) if order else 0
        out += order[:held]
        kept.append(order[held:])
    return kept, np.array(out)
