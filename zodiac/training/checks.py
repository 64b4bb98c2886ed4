"""Checks before a training starts, for faults that would show late or not at all. `cfg` is the configuration of the run."""

from zodiac.base import schema
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import freezing
from zodiac.training import collectives


def check_device(settings, place):
    """Raise UserError where a setting of `train` needs a GPU and `place`, Paddle's device, is the CPU."""
    if place != 'cpu':
        return
    if settings.amp != 'O0':
        raise UserError(f'train.amp = {settings.amp}: mixed precision needs a GPU; set train.amp=O0')
    if settings.sync_batch_norm:
        raise UserError('train.sync_batch_norm = true: needs GPUs; set train.sync_batch_norm=false')


def check_images(cfg, train_set, valid_set):
    """Raise UserError where a class has no training image, or a process would get no image."""
    missing = [label for number, label in enumerate(cfg.data.labels) if number not in train_set.labels]
    if missing:
        raise UserError(
            f'class {", ".join(missing)} has no images in {cfg.data.root}/train.txt; add some and run annotate.py, or remove the class '
            'from data.labels; see docs/troubleshooting.md#class-order'
        )
    number = collectives.count()
    if number > min(cfg.train.batch_size, len(train_set), len(valid_set)):
        raise UsageError(
            f'--nproc {number}: each process needs an image of each batch (train.batch_size = {cfg.train.batch_size}) and of each split '
            f'(training images: {len(train_set)}, validation images: {len(valid_set)}); lower --nproc'
        )


def check_batch_norm(cfg, network, loader):
    """Raise UsageError where BatchNorm would compute its statistics from single images."""
    keeps = cfg.train.batch_norm == 'keep'
    norms = freezing.batch_norms(network, frozen=bool(cfg.model.unfreeze_epoch) and not keeps)
    number = 1 if all(isinstance(layer, paddle.nn.SyncBatchNorm) for layer in norms) else collectives.count()
    if not norms or loader.batch_sampler.smallest() >= 2 * number:
        return
    images = len(loader.images)
    remedies = ['add images' if images < 2 * number else f'set train.batch_size to {2 * number} or more']
    remedies += ['start fewer processes (--nproc 1)'] * (number > 1)
    if cfg.model.pretrained:
        remedies.append('set train.batch_norm=keep, which keeps those of the pretrained weights')
    elif cfg.model.freeze == 'none':
        remedies.append('set model.freeze=backbone, which keeps its statistics')
    raise UsageError(
        f'train.batch_size = {cfg.train.batch_size}: BatchNorm needs at least 2 images per process in each batch to compute a mean '
        f'and a variance (training images: {images}, processes: {collectives.count()}); {", or ".join(remedies)}'
    )


def unreached(cfg, unfreezing=()):
    """List of warnings: settings that take effect only after the last epoch.

    Args:
        unfreezing: the epochs in which parts of the network begin to learn.
    """
    rate, epochs, late = cfg.optim, cfg.train.epochs, {}
    if rate.warmup_epochs >= epochs:
        late['optim.warmup_epochs'] = f'the learning rate never reaches optim.lr = {rate.lr:g}'
    elif rate.schedule == 'step' and rate.warmup_epochs + rate.step_epochs >= epochs:
        late['optim.step_epochs'] = 'the learning rate never falls'
    if cfg.model.unfreeze_epoch != 'auto' and cfg.model.unfreeze_epoch > epochs:
        late['model.unfreeze_epoch'] = 'the frozen part never learns'
    elif any(epoch > epochs for epoch in unfreezing):
        late['model.unfreeze_every'] = 'the first stages never learn'
    return [
        f'{key} = {schema.get(cfg, key):g} with train.epochs = {epochs}: {effect}; lower it, or raise train.epochs'
        for key, effect in late.items()
    ]
