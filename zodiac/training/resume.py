"""Resume a stopped run: what its checkpoints record, what must not have changed, and restoring the training state."""

import dataclasses
import hashlib
import os
import platform
import shlex

import numpy as np
import PIL

from zodiac.base import device, files, schema
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.training import checkpoint, optim

FORMAT = 1  # of the facts in a checkpoint
SIZED = 10_000  # images of an index, evenly spread, whose file sizes are compared


def facts(cfg, train_set, valid_set):
    """What each checkpoint records about its run, as JSON-ready values.

    A run is resumed only with the same `identity`, `data`, `validation` and `sizes`; `config` holds all settings.
    """
    index, valid_index = (f'{cfg.data.root}/{images.mode}.txt' for images in (train_set, valid_set))
    return {
        'format': FORMAT,
        'name': cfg.name,
        'identity': cfg.identity,
        'data': {
            'seed': cfg.seed,
            'images to train on': len(train_set),
            f'the SHA-256 of {index}': files.sha256(index),
        },
        'validation': {
            'images to validate on': len(valid_set),
            f'the SHA-256 of {valid_index}': files.sha256(valid_index),
            f'the sizes of the images in {valid_index}': _sizes(valid_set),
        },
        'sizes': {f'the sizes of the images in {index}': _sizes(train_set)},
        'pretrained': cfg.model.pretrained,
        'config': dataclasses.asdict(cfg),
        'versions': {
            'python': platform.python_version(),
            **{module.__name__: module.__version__ for module in (paddle, np, PIL)},
        },
    }


def _sizes(images):
    """A hash of the sizes of the files."""
    paths = [images.paths[number] for number in images.spread(SIZED)]
    sizes = [os.path.getsize(path) if os.path.isfile(path) else None for path in paths]
    return hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]


def find(run_dir, origin, required, accept_changes, say):
    """The newest intact checkpoint of a run: (folder, its facts), or (None, {}) when there is none.

    Args:
        origin: `facts` of the run now.
        required: raise UserError when there is none.
        accept_changes: do not raise UserError for another network, other classes or images.
        say: called with messages for the user.
    """
    folder, state = checkpoint.latest(run_dir, say)
    if folder:
        _refuse_changes(folder, state, origin, run_dir, accept_changes)
    elif required:
        raise UserError(
            f'{run_dir}: has no checkpoint to resume from; leave --resume out to start a run; see docs/troubleshooting.md#resume'
        )
    return folder, state


def _refuse_changes(folder, state, origin, run_dir, accept):
    if state.get('format') != FORMAT:
        raise UserError(f'{folder}: was written by another version of this project; resume the run with that version')
    before, now = {}, {}
    for part in ('identity', 'data', 'validation', 'sizes'):
        now.update(origin[part])
        before.update(state.get(part, origin[part]))  # older checkpoints do not have the last two
    for setting, ours in now.items():
        if before.get(setting) != ours and not accept:
            raise UserError(
                f'{folder}: was trained with {setting} = {before.get(setting)}, now it is {ours}; restore the former (the settings are in '
                f'-c {shlex.quote(f"{run_dir}/config.yaml")}), accept the change with --accept-changes, or start a run under another '
                'name; see docs/troubleshooting.md#resume'
            )


def restore(cfg, found, origin, trainer, clock, log, best, ema, accept_changes, say):
    """Restore the training state from the checkpoint `found`, see `find`; tell the user what has changed since.

    After a change of the images that the user has accepted, the epoch starts again from its beginning.
    Raises UserError when the weights are those of another network.
    """
    folder, state = found
    if log.run_dir:
        for place in (cfg.run_dir, f'{cfg.run_dir}/checkpoints'):
            files.clear_leftovers(place)
    _restore_best(cfg.run_dir, state, origin, best, say, accept_changes)
    same_optimizer = state['config']['optim']['name'] == cfg.optim.name
    averaged = checkpoint.restore(folder, trainer.network, trainer.optimizer if same_optimizer else None)
    if ema and averaged:
        ema.restore(averaged, state['ema_step'])
    trainer.restore_loss_scale(state.get('loss_scale'))
    same_images = state['data'] == origin['data']
    clock.start_from(state['epoch'], state['images'] if same_images else 0, state['step'])
    rate = optim.schedule(cfg.optim, clock.steps, cfg.train.epochs)
    if not isinstance(rate, float):
        for _ in range(clock.epoch * clock.steps + clock.done):
            rate.step()
        trainer.optimizer.set_lr_scheduler(rate)
    log.restore(state['rows'], state.get('sums'), state['written'])
    for change in _changed_settings(state, origin):
        say(f'changed since: {change}')
    say(f'resuming from {folder}: epoch {clock.epoch + 1}, step {clock.step}')


def _changed_settings(state, origin):
    """List of 'key: before -> now' of the settings that differ."""
    before, now = (dict(schema.flatten(one['config'])) for one in (state, origin))
    return [f'{key}: {before.get(key)} -> {value}' for key, value in now.items() if before.get(key) != value]


def _restore_best(run_dir, state, origin, best, say, accept):
    """Restore the best epoch so far; where train.monitor has changed, find it again and update best/.

    Args:
        accept: where the weights of the best epoch are gone, choose among the others instead of raising UserError.
    """
    rows = [row for row in state['rows'] if row['epoch']]  # runs of earlier versions may have an epoch 0
    before, now = state['config']['train']['monitor'], best.monitor
    if now.startswith('valid') and state.get('validation', origin['validation']) != origin['validation']:
        say('the validation images have changed: best/ and train.patience start again with the next epoch')
        return
    if before == now and 'best' in state:
        best.restore(state['best'])
        return
    for row in rows:
        best.consider(row)
    if before == now or not rows:
        return
    there = checkpoint.kept(run_dir)
    equal = [row for row in rows if row['epoch'] in there and row[now] == best.row[now]]
    if not equal and not accept:
        epochs = ', '.join(str(row['epoch']) for row in rows if row['epoch'] in there)
        raise UserError(
            f'{run_dir}/best: train.monitor was {before}, and the weights of epoch {best.row["epoch"]}, the best by {now}, were not kept; '
            f'resume with train.monitor={before}, or with --accept-changes to choose among the epochs that were kept ({epochs})'
        )
    best.restore(None)
    for row in equal or rows:
        if row['epoch'] in there:
            best.consider(row)
    if best.row is None:
        return
    of_kept = '' if equal else ' of those that were kept'
    say(f'train.monitor was {before}: best/ is now epoch {best.row["epoch"]}, the best by {now}{of_kept}')
    source = there[best.row['epoch']]
    if source != f'{run_dir}/best' and device.rank() == 0:
        checkpoint.copy_weights(source, f'{run_dir}/best', {**origin, **best.row})
