"""Solve the head of a network (train.head=linear), so that the run continues as any other: an epoch of steps that change nothing.

That epoch measures the head, and writes log.csv, VisualDL, best/ and the checkpoints.
"""

import dataclasses
import time

import numpy as np

from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle
from zodiac.training import features, linear_head

nn = paddle.nn


def steps(cfg):
    """The `Config` of the epoch that measures a solved head: no step changes it."""
    train = dataclasses.replace(
        cfg.train, epochs=1, accumulate=1, sampling='shuffle', ema=0.0, patience=0, save_steps=0, save_minutes=0.0
    )
    optim = dataclasses.replace(
        cfg.optim,
        name='sgd',
        lr=0.0,
        min_lr=0.0,
        schedule='constant',
        warmup_epochs=0.0,
        weight_decay=0.0,
        nesterov=False,
    )
    return dataclasses.replace(cfg, train=train, optim=optim)


def layer_of(rest):
    """The linear layer of a head, see `features.Backbone.rest`. Raises UsageError where the head has other layers that learn."""
    layers = [layer for layer in rest.sublayers() if not isinstance(layer, (nn.Sequential, nn.Dropout, nn.Identity))]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        names = ', '.join(type(layer).__name__ for layer in layers)
        raise UsageError(
            f'train.head = linear: the head must be one linear layer, and model.head has {names}; end it with one linear: classes, or set '
            'model.head=auto or train.head=sgd'
        )
    if layers[0].bias is None:
        raise UsageError(
            'train.head = linear: the last layer of this network has no bias, which a solved head needs; set train.head=sgd, or another '
            'model.arch'
        )
    return layers[0]


def solve(cfg, layer, views, images, say):
    """Set weight and bias of `layer` to the solution, and say how it was found.

    Args:
        views: list of float32 [n, d], see `linear_head.solve`.
        images: the training images, with their labels.
        say: called with a message for the user.
    """
    started = time.monotonic()
    balanced, same = cfg.train.class_weights == 'balanced', features.groups(images.paths)
    head = linear_head.solve(views, images.labels, len(cfg.data.labels), balanced, cfg.seed, same)
    layer.weight.set_value(head.weight.astype(np.float32))
    layer.bias.set_value(head.bias.astype(np.float32))
    chosen = (
        f'chosen in {head.folds} folds' if head.folds else 'the usual one: no class has two images to choose it with'
    )
    say(
        f'head solved in {time.monotonic() - started:.1f} s: logistic regression, C = {head.strength:g} ({chosen}), images {len(images)}, '
        f'views {len(views)}'
    )
