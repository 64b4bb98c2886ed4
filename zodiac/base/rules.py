"""Rules for settings that depend on each other."""

import codecs
import re

from zodiac.base import schema
from zodiac.base.errors import UsageError


def check(cfg):
    """Raise UsageError, naming the setting, its value and what is allowed, if a rule is broken."""
    for key, holds, allowed in _rules(cfg):
        if not holds:
            raise UsageError(f'{key} = {schema.get(cfg, key)!r}: must be {allowed}')


def _rules(cfg):
    """Yield (key, whether its value is allowed, what is allowed)."""
    labels, image, annotate = cfg.data.labels, cfg.image, cfg.annotate
    model, train, optim = cfg.model, cfg.train, cfg.optim

    if labels != 'auto':
        yield 'data.labels', len(labels) >= 2 and len(set(labels)) == len(labels), 'two or more different names'
        yield 'data.labels', all(map(schema.names_a_folder, labels)), 'folder names without tab, newline or slash'

    for key in ('image.mean', 'image.std'):
        yield key, len(schema.get(cfg, key)) == 3, 'three numbers: red, green, blue'
    by_itself = image.resize in ('auto', 'squash')
    large_enough = by_itself or image.resize >= image.size
    yield 'image.resize', large_enough, f'auto, squash, or at least image.size ({image.size})'
    yield 'image.resize', image.fit == 'crop' or by_itself, 'auto unless image.fit is crop'

    known = annotate.encoding == 'auto' or _is_encoding(annotate.encoding)
    yield 'annotate.encoding', known, 'auto, or an encoding that Python knows, such as gbk'
    is_pattern = annotate.group is None or annotate.group and _is_pattern(annotate.group)
    yield 'annotate.group', is_pattern, 'near_duplicates or a regular expression that Python knows'
    some_left = annotate.valid_fraction + annotate.test_fraction < 1
    yield 'annotate.test_fraction', some_left, 'less than 1 - annotate.valid_fraction'

    freezes = model.freeze != 'none'
    yield 'model.unfreeze_epoch', not model.unfreeze_epoch or freezes, '0 unless model.freeze is set'
    gradual = not model.unfreeze_every or model.unfreeze_epoch
    yield 'model.unfreeze_every', gradual, '0 unless model.unfreeze_epoch is set'
    has_statistics = (
        train.batch_norm == 'learn' or model.pretrained is not False or freezes and model.unfreeze_epoch in (0, 'auto')
    )
    yield 'train.batch_norm', has_statistics, 'learn with model.pretrained=false, which has no statistics to keep'

    weighted_once = train.class_weights == 'none' or train.sampling == 'shuffle'
    yield 'train.class_weights', weighted_once, 'none with train.sampling=balanced: use only one of them'
    if train.head == 'linear':
        yield 'train.head', model.freeze == 'backbone', 'sgd unless model.freeze is backbone'
        yield 'model.unfreeze_epoch', model.unfreeze_epoch != 1, '0, auto, or 2 or more: in epoch 1 the head is solved'
        for key in ('mixup', 'cutmix', 'label_smoothing'):
            yield (
                'train.head',
                not schema.get(train, key),
                f'sgd with train.{key}: a solved head learns from plain labels',
            )
    if train.views:
        yield 'train.views', model.freeze == 'backbone', '0 unless model.freeze is backbone'
        stays = not model.unfreeze_epoch or train.head == 'linear'
        yield (
            'train.views',
            stays,
            '0 with model.unfreeze_epoch, which changes the backbone, unless train.head is linear',
        )
        mixes = train.mixup or train.cutmix
        yield 'train.views', not mixes, '0 with train.mixup or train.cutmix, which mix the pixels'

    yield 'evaluate.folds', cfg.evaluate.folds != 1, '0, or 2 or more'
    solved = not cfg.evaluate.folds or train.head == 'linear'
    yield 'evaluate.folds', solved, '0 unless train.head is linear: a head is solved for each fold'

    yield 'optim.nesterov', not optim.nesterov or optim.name == 'momentum', 'false unless optim.name is momentum'
    yield 'optim.min_lr', optim.min_lr <= optim.lr, f'at most optim.lr ({optim.lr:g})'
    warms_up_once = optim.schedule != 'one_cycle' or not optim.warmup_epochs
    yield 'optim.warmup_epochs', warms_up_once, '0 with optim.schedule=one_cycle, which has its own warmup (optim.rise)'
    unfreezes = not optim.backbone_lr or model.unfreeze_epoch
    yield 'optim.backbone_lr', unfreezes, '0 unless model.unfreeze_epoch is set'
    learns = optim.layer_decay == 1 or model.freeze != 'backbone' or model.unfreeze_epoch
    yield 'optim.layer_decay', learns, '1 with model.freeze=backbone, unless model.unfreeze_epoch is set'

    has_features = not cfg.reject.keep or cfg.export.features is not False
    yield 'export.features', has_features, 'auto or true with reject.keep, which compares photos by their features'
    has_onnx = not cfg.export.int8 or cfg.export.onnx is not False
    yield 'export.onnx', has_onnx, 'auto or true with export.int8=true, which makes it from the ONNX model'


def _is_encoding(name):
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):  # ValueError: a name with a zero byte
        return False


def _is_pattern(text):
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True
