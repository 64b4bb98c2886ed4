"""Whether a photo is like those that a model was trained on, from its features. Plain NumPy; fitted by zodiac/training/rejection.py.

The score is the sum of two similarities. Both are cosines of features from which the mean of the training photos was subtracted, and both
are standardised by what they are for photos of the trained classes that the fit did not see:

- to the NEAREST training photos of one class, the class with the highest mean (k nearest neighbours: Sun et al. 2022, "Out-of-distribution
  detection with deep nearest neighbors", arXiv:2204.06507; there the k-th of all photos). Best for photos of something else altogether.
- to the mean of a class, after the directions in which photos of one class differ have been shrunk (a Mahalanobis distance with shared
  covariance: Lee et al. 2018, arXiv:1807.03888; cosine in place of distance). Best for other classes of the same kind.
"""

import dataclasses
import io
from dataclasses import dataclass

import numpy as np

from zodiac.inference import label_sets

NEAREST = 5  # training photos of a class


@dataclass(frozen=True)
class Reference:
    """Training photos, as the score needs them: D features, K classes, at most M photos of each, r and w directions."""

    mean: np.ndarray  # float32 [D]: of their features
    basis: np.ndarray  # [D, r]: orthonormal; the directions in which photos are compared
    photos: (
        np.ndarray
    )  # [K, M, r]: photos in these directions, centred, divided by their norm; zeros behind the last one of a class
    counts: np.ndarray  # int [K]: photos of each class, 1 or more
    directions: np.ndarray  # [D, w]: orthonormal; in which photos of one class differ most
    gains: np.ndarray  # [w]: by how much these are shrunk, minus 1
    centers: np.ndarray  # [K, D]: class means, shrunk and divided by their norm

    def similarities(self, features):
        """float32 [N, 2] from -1 to 1: to the nearest photos of a class, and to the mean of a class; features: float [N, D]."""
        centred = np.asarray(features, np.float32) - self.mean
        square = np.square(centred).sum(1)
        norm = np.sqrt(np.maximum(square, 1e-30))[:, None]
        alike = (centred @ self.basis / norm) @ self.photos.reshape(-1, self.basis.shape[1]).T
        alike = alike.reshape(len(centred), *self.photos.shape[:2])
        alike[:, np.arange(self.photos.shape[1]) >= self.counts[:, None]] = -np.inf
        kept = min(NEAREST, self.photos.shape[1])
        nearest = np.partition(alike, -kept, axis=2)[:, :, -kept:]
        used = np.minimum(self.counts, kept)
        near = (np.where(np.isfinite(nearest), nearest, 0).sum(2) / used).max(1)

        along = centred @ self.directions
        shrunk = np.sqrt(np.maximum(square + (np.square(along) * self.gains * (2 + self.gains)).sum(1), 1e-30))
        to_means = centred @ self.centers.T + (along * self.gains) @ (self.centers @ self.directions).T
        return np.stack([near, to_means.max(1) / shrunk], 1)


@dataclass(frozen=True)
class Rejection:
    """What an export says of a photo besides probabilities: how familiar it is, and the set of labels."""

    reference: Reference
    center: np.ndarray  # float [2]: mean of the two similarities over photos of the trained classes
    spread: np.ndarray  # float [2]: their standard deviations
    threshold: float  # of the sum of both, standardised
    method: str  # a key of label_sets.METHODS
    at_most: float  # of the score of a label in the set

    def score(self, features):
        """float32 [N]: standard deviations above the threshold; a photo is known from 0 on. features: float [N, D]."""
        standard = (self.reference.similarities(features) - self.center) / self.spread
        return (standard.sum(1) - self.threshold).astype(np.float32)

    def sets(self, probabilities):
        """bool [N, K], see `label_sets.sets`; probabilities: float [N, K]."""
        return label_sets.sets(probabilities, self.method, self.at_most)


def file_name(manifest):
    """Name of the file in the exported folder."""
    return f'{manifest["name"]}.unknown.npz'


def pack(rejection):
    """The content of the file: the fields of a `Rejection` and of its `Reference`, by name."""
    fields = {item.name: getattr(rejection, item.name) for item in dataclasses.fields(rejection)}
    file = io.BytesIO()
    np.savez(file, **vars(fields.pop('reference')), **fields)
    return file.getvalue()


def unpack(content):
    """The `Rejection` in the content of the file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        reference = Reference(**{item.name: found[item.name] for item in dataclasses.fields(Reference)})
        threshold, method, at_most = (found[name].item() for name in ('threshold', 'method', 'at_most'))
        return Rejection(reference, found['center'], found['spread'], threshold, method, at_most)
