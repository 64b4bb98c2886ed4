"""Solve the head of a network (train.head=linear), so that the run continues as any other: an epoch of steps that change nothing.

That epoch measures the head, and writes log.csv, VisualDL, best/ and the checkpoints. With model.unfreeze_epoch the run is then resumed
from it, and all layers learn.
"""

import dataclasses
import time

import numpy as np

from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle
from zodiac.data import groups
from zodiac.training import features, linear_head, rejection

nn = paddle.nn


MANY = 2000  # training images from which fine-tuning on a GPU may be better


def parts(cfg, images, place, say):
    """The settings of a run with a solved head: a list of one `Config`, or of two where all layers learn later.

    Args:
        images: number of training images.
        place: Paddle's device.
        say: called with a message for the user.
    """
    epoch = cfg.model.unfreeze_epoch
    if epoch == 'auto':
        epoch = 2 if images >= MANY and place != 'cpu' else 0
        if images >= MANY and not epoch:
            say('the network stays frozen without a GPU; fine-tuning may be better: model.unfreeze_epoch=2')
    if not epoch:
        return [_solved(cfg)]
    model = dataclasses.replace(cfg.model, unfreeze_epoch=epoch)
    train = dataclasses.replace(cfg.train, head='sgd', views=0)
    return [_solved(cfg), dataclasses.replace(cfg, model=model, train=train)]


def _solved(cfg):
    """The `Config` of the epoch that measures a solved head: no step changes it."""
    model = dataclasses.replace(cfg.model, unfreeze_epoch=0, unfreeze_every=0)
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
    return dataclasses.replace(cfg, model=model, train=train, optim=optim)


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


def views(cfg, extractor, images, augmented, keys):
    """What a head is solved on, a list of float32 [n, d]: images as they are evaluated, then `train.views` augmented copies of each.

    Args:
        extractor: a `features.Extractor`.
        images: without augmentation, with their features; augmented: the same images with augmentation.
        keys: `features.content_keys` of their paths.
    """
    found = averaged(cfg, extractor, images, keys, images.features)
    return [*found, *(extractor.features(augmented, keys, cfg.train.views) if cfg.train.views else ())]


def averaged(cfg, extractor, images, keys, found=None):
    """list of one float [n, d]: the features of images without augmentation; with evaluate.flip_average the mean over the image and its
    mirror image.

    Args:
        found: those of the images themselves, if they have been computed; extractor, keys: as in `views`.
    """
    found = extractor.features(images, keys) if found is None else found
    if cfg.evaluate.flip_average:
        found = features.averaged([*found, *extractor.features(images, keys, mirror=True)])
    return found


def reject(cfg, extractor, images, augmented, temperature=1.0):
    """`rejection.calibrate` for a solved head, from its training photos over folds.

    Args:
        extractor: a `features.Extractor`; images: the training images, without augmentation; augmented: the same with it.
        temperature: of the export.
    """
    keys = extractor.keys(images.paths)
    images.use_features(extractor.features(images, keys))
    found = list(map(np.asarray, views(cfg, extractor, images, augmented, keys)))
    same = together(keys, images.paths, cfg.data.root)
    held = rejection.over_folds(
        found, images.labels, len(cfg.data.labels), temperature, cfg.train.class_weights == 'balanced', cfg.seed, same
    )
    asked = cfg.reject
    return rejection.calibrate(
        rejection.reference(found[0], images.labels, cfg.seed), held, asked.keep, asked.coverage, asked.sets
    )


def solve(cfg, layer, found, images, keys, say):
    """Set weight and bias of `layer` to the solution, and say how it was found.

    Args:
        found: see `views`.
        images: the training images, with their labels; keys: `features.content_keys` of their paths.
        say: called with a message for the user.
    """
    started = time.monotonic()
    balanced, same = cfg.train.class_weights == 'balanced', together(keys, images.paths, cfg.data.root)
    head = linear_head.solve(found, images.labels, len(cfg.data.labels), balanced, cfg.seed, same)
    layer.weight.set_value(head.weight.astype(np.float32))
    layer.bias.set_value(head.bias.astype(np.float32))
    chosen = (
        f'chosen in {head.folds} folds' if head.folds else 'the usual one: no class has two images to choose it with'
    )
    say(
        f'head solved in {time.monotonic() - started:.1f} s: logistic regression, C = {head.strength:g} ({chosen}), images {len(images)}, '
        f'views {len(found)}'
    )


def together(keys, paths, root):
    """int [n]: equal for images that must stay in one fold: files of equal content, and groups, see `groups`.

    Args:
        keys: `features.content_keys` of the paths; root: data.root.
    """
    return np.array(groups.together(features.groups(keys).tolist(), paths, root))
