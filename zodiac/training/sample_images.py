"""Some images of a dataset, spread evenly over its index, as they are augmented in the first epoch."""

import numpy as np


def inputs(dataset, count):
    """float32 [count, 3, size, size]: what the network gets."""
    dataset.epoch = 0
    return np.stack([dataset[index][0] for index in dataset.spread(count)])


def pictures(dataset, count):
    """uint8 [count, size, size, 3]: the same images before normalisation."""
    dataset.epoch = 0
    return np.stack([dataset.sample(index)[0] for index in dataset.spread(count)])
