"""Fit what inference/unknown.py and inference/label_sets.py need: training photos to compare with, and thresholds from photos that the
model did not learn from. Plain arrays; no Paddle."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf_shrinkage
from threadpoolctl import threadpool_limits

from zodiac.base.errors import UserError
from zodiac.inference import label_sets, unknown
from zodiac.training import linear_head

FOLDS = 5
PHOTOS = 2048  # training photos that are kept, over all classes; but NEAREST of each class
COMPARED = 128  # directions in which photos are compared
SHRUNK = 64  # directions in which photos of one class are alike after shrinking
SAMPLED = 8192  # photos at most from which these directions are found
PART = 1024  # photos at a time


class NoPhotos(UserError):
    """There are no photos to calibrate on."""


@dataclass(frozen=True)
class Held:
    """Photos of the trained classes that the model did not learn from."""

    similarities: np.ndarray  # float [n, 2], of a Reference that does not have them
    probabilities: np.ndarray  # float [n, classes]
    labels: np.ndarray  # int [n]
    origin: str  # where they come from: folds, or valid


def over_folds(views, labels, classes, temperature=1.0, balanced=False, seed=0, groups=None):
    """The `Held` of the training photos of a solved head: each from a head, and a Reference, that did not learn from its fold.

    Args:
        views, labels, classes, balanced, seed, groups: as for `linear_head.over_folds`.
        temperature: of the export, which divides the logits.
    Raises: NoPhotos where no class has two photos.
    """
    labels = np.asarray(labels)
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    fold = linear_head.deal(labels, groups, FOLDS, seed)
    if (fold < 0).all():
        raise NoPhotos(
            'reject.keep: no class has two training photos to calibrate with; add photos, or set reject.keep=0'
        )
    probabilities = linear_head.over_folds(views, labels, classes, FOLDS, balanced, seed, groups)
    features, similarities = np.asarray(views[0], np.float32), np.zeros((len(labels), 2), np.float32)
    for number in range(FOLDS):
        kept, out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(out):
            similarities[out] = _in_parts(reference(features[kept], labels[kept], seed).similarities, features[out])
    held = fold >= 0  # a class with a single photo is always learned from
    warmer = softmax(np.log(np.maximum(probabilities[held], 1e-300)) / temperature, axis=1)
    return Held(similarities[held], warmer, labels[held], 'folds')


def apart(of_training, features, probabilities, labels):
    """The `Held` of validation photos, for a network that learned from features itself; of_training: its Reference."""
    return Held(_in_parts(of_training.similarities, features), np.asarray(probabilities), np.asarray(labels), 'valid')


def _in_parts(compute, features):
    """What `compute` gives for features, float [n, D], PART photos at a time."""
    parts = [features[start : start + PART] for start in range(0, len(features), PART)]
    return np.concatenate(list(map(compute, parts)))


def calibrate(of_training, held, keep, coverage, method):
    """(unknown.Rejection, JSON-ready facts) for the thresholds that `Held` photos give.

    Args:
        keep: share of new photos of the trained classes that are known; coverage: share of them whose set has their label. Where there are
            too few photos for one of them, it is the highest that n photos allow, n / (n + 1).
        method: a key of label_sets.METHODS.
    Returns: the facts: keep, and level for coverage, that were reached, method, photos (their number) and calibrated_on (folds or valid).
    """
    center = held.similarities.mean(0, np.float64)
    spread = np.maximum(held.similarities.std(0, dtype=np.float64), 1e-6)
    unfamiliar = -((held.similarities - center) / spread).sum(1)
    count = len(held.labels)
    keep, coverage = (label_sets.possible(share, count) for share in (keep, coverage))
    own = label_sets.METHODS[method](held.probabilities)[np.arange(count), held.labels]
    rejection = unknown.Rejection(
        of_training, center, spread, -label_sets.limit(unfamiliar, keep), method, label_sets.limit(own, coverage)
    )
    facts = {'keep': keep, 'level': coverage, 'method': method, 'photos': count, 'calibrated_on': held.origin}
    return rejection, facts


def too_few(asked, facts):
    """str: a warning where there were too few photos for reject.keep or reject.coverage, naming the share that can be had; '' otherwise.

    Args:
        asked: a config.Reject; facts: of `calibrate`.
    """
    lines = []
    for name, reached in (('keep', 'keep'), ('coverage', 'level')):
        wanted, got = getattr(asked, name), facts[reached]
        if got < wanted:
            lines.append(
                f'reject.{name} = {wanted:g} needs {label_sets.needed(wanted)} photos that the model did not learn from; with '
                f'{facts["photos"]}, {got:.3g} is used; add photos, or set reject.{name}={np.floor(100 * got) / 100:g}'
            )
    return '; '.join(lines)


def measure(rejection, features, probabilities, labels, class_names):
    """JSON-ready figures of photos of the trained classes that were not calibrated on.

    Args:
        features: float [n, D]; probabilities: float [n, classes]; labels: int [n].
    Returns: dict: n; known, the share taken for known; coverage, the share whose set has their label; mean_size of the sets; one_label, the
        share of sets with one; per_class: {name: n, known, coverage, mean_size}, for classes that have photos.
    """
    known = _in_parts(rejection.score, features) >= 0
    sets = rejection.sets(probabilities)
    covered, sizes = sets[np.arange(len(labels)), labels], sets.sum(1)

    def of(rows):
        return {
            'n': len(rows),
            'known': float(known[rows].mean()),
            'coverage': float(covered[rows].mean()),
            'mean_size': float(sizes[rows].mean()),
        }

    rows = {name: np.flatnonzero(labels == number) for number, name in enumerate(class_names)}
    return {
        **of(np.arange(len(labels))),
        'one_label': float((sizes == 1).mean()),
        'per_class': {name: of(found) for name, found in rows.items() if len(found)},
    }


@threadpool_limits.wrap(limits=1)  # on a busy machine two threads take many times as long for matrices of this size
def reference(features, labels, seed=0):
    """The unknown.Reference of training photos.

    Args:
        features: float [n, D]; labels: int [n].
        seed: draws the photos that are kept, where there are more than PHOTOS.
    """
    values, labels = np.asarray(features, np.float32), np.unique(labels, return_inverse=True)[1]
    classes = labels.max() + 1  # that have photos
    mean = values.mean(0, np.float64).astype(np.float32)
    values = values - mean
    means = np.stack([values[labels == label].mean(0) for label in range(classes)])
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(values))[:SAMPLED])
    directions, gains = _shrinking(values[sample] - means[labels[sample]])
    basis = _directions(values[sample], COMPARED)[1]

    each = max(unknown.NEAREST, PHOTOS // classes)
    kept = [np.sort(rng.permutation(np.flatnonzero(labels == label))[:each]) for label in range(classes)]
    photos = np.zeros((classes, max(map(len, kept)), basis.shape[1]), np.float32)
    for label, chosen in enumerate(kept):
        photos[label, : len(chosen)] = values[chosen] @ basis / _norms(values[chosen])
    centers = means + ((means @ directions) * gains) @ directions.T
    return unknown.Reference(
        mean, basis, photos, np.array([len(chosen) for chosen in kept]), directions, gains, centers / _norms(centers)
    )


def drawn(labels, seed=0):
    """int [m]: the photos from which `reference` needs features, all or at most SAMPLED, the same number of each class; labels: int [n]."""
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    each = max(unknown.NEAREST, SAMPLED // len(classes))
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:each] for label in classes]))


def _norms(values):
    return np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-15)


def _directions(values, count):
    """(strengths [r], orthonormal directions [D, r]) of the largest variance, r at most `count`: singular values and vectors, from the
    eigenvectors of the smaller of the two Gram matrices."""
    values = np.asarray(values, np.float64)
    few = len(values) < values.shape[1]
    gram = values @ values.T if few else values.T @ values
    squares, vectors = eigh(gram, subset_by_index=[max(0, len(gram) - count), len(gram) - 1])
    strengths, vectors = np.sqrt(np.maximum(squares[::-1], 0)), vectors[:, ::-1]
    kept = strengths > 1e-6 * max(strengths[0], 1e-15)
    kept[0] = True
    strengths, vectors = strengths[kept], vectors[:, kept]
    if few:
        vectors = values.T @ vectors / np.maximum(strengths, 1e-15)
    return strengths, np.ascontiguousarray(vectors, np.float32)


def _shrinking(residuals):
    """(directions [D, w], gains [w]): multiply each direction by 1 + gain to give all the same variance within a class. The covariance is
    that of Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices"; beyond the first directions
    its mean."""
    count, width = residuals.shape
    shrinkage = ledoit_wolf_shrinkage(residuals, assume_centered=True) if count > 1 else 1.0
    strengths, directions = _directions(residuals, SHRUNK)
    total = np.square(residuals).sum(dtype=np.float64) / count
    common = shrinkage * total / width
    own = (1 - shrinkage) * strengths**2 / count + common
    rest = width - len(own)
    others = max(total - own.sum(), rest * common) / rest if rest else own.mean()
    gains = np.sqrt(max(others, 1e-30) / np.maximum(own, 1e-30)) - 1
    return directions, gains.astype(np.float32)
