"""Predictions of a network for all images of a loader."""

import numpy as np
from tqdm import tqdm

from zodiac.base.paddle_setup import paddle

READ_BATCHES = 10  # the device works ahead by up to so many batches


def predict(network, loader, total):
    """Probabilities of a network in eval mode. Returns: float32 [total, classes], in the loader's order."""
    outputs, unread = [], []
    with paddle.no_grad(), tqdm(total=total, desc='evaluating', unit='image', leave=False, disable=None) as bar:
        for images, _ in loader:
            unread.append(paddle.nn.functional.softmax(network(images)))
            bar.update(len(images))
            if len(unread) == READ_BATCHES:
                outputs.append(paddle.concat(unread).numpy())
                unread = []
    return np.concatenate([*outputs, *(output.numpy() for output in unread)])
