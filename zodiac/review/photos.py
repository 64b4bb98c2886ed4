"""The photos of a run with their labels and features."""

from dataclasses import dataclass
from typing import List

import numpy as np


@dataclass(frozen=True)
class Photos:
    """n labelled photos."""

    paths: List[str]  # as in the index
    splits: List[str]
    labels: np.ndarray  # int [n]
    names: List[str]  # of the classes
    views: list  # of float32 [n, d], see `linear_head.solve`
    groups: np.ndarray  # int [n], equal for photos that stay in one fold
