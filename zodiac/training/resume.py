"""Going on with a stopped run: what a checkpoint says of it, what must not have changed, and everything back in its place."""

import dataclasses
import hashlib
import os
import platform
import shlex

from zodiac.base import device, files, schema
from zodiac.base.errors import UserError
from zodiac.training import checkpoint, optim

FORMAT = 1  # of the facts in a checkpoint
SIZED = 10_000  # images of an index, spread over it, whose sizes tell whether they are still the same


def facts(cfg, train_set, valid_set):
    """What each checkpoint says of its origin, as JSON-ready values.

    `identity`, `data`, `validation` and `sizes` are what a run must keep to go on; `config` holds every setting.
    """
    import numpy
    import paddle
    import PIL

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
            **{module.__name__: module.__version__ for module in (paddle, numpy, PIL)},
        },
    }


def _sizes(images):
    """A hash of the sizes of the files."""
    paths = [images.paths[number] for number in images.spread(SIZED)]
    sizes = [os.path.getsize(path) if os.path.isfile(path) else None for path in paths]
    return hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]


def refuse_changes(folder, state, origin, run_dir, accept=False):
    """Raise UserError where a checkpoint is of other classes, another network, other images or another order of them, unless
    the user accepts that; or of another version.

    Args:
        state: facts of the checkpoint, see `checkpoint.verify`.
        origin: `facts` of the run that wants to go on.
    """
    if state.get('format') != FORMAT:
        raise UserError(f'{folder}: was written by another version of this project, which can go on from it')
    before, now = {}, {}
    for part in ('identity', 'data', 'validation', 'sizes'):
        now.update(origin[part])
        before.update(state.get(part, origin[part]))  # older checkpoints do not have the last two
    for setting, ours in now.items():
        if before.get(setting) != ours and not accept:
            raise UserError(
                f'{folder}: was trained with {setting} = {before.get(setting)}, now it is {ours}; put that back (the settings are in '
                f'-c {shlex.quote(f"{run_dir}/config.yaml")}), go on with --accept-changes, or start a run under another name; see '
                'docs/troubleshooting.md#resume'
            )


def changed_settings(state, origin):
    """List of 'key: before -> now' of the settings that differ."""
    before, now = (dict(schema.flatten(one['config'])) for one in (state, origin))
    return [f'{key}: {before.get(key)} -> {value}' for key, value in now.items() if before.get(key) != value]


def go_on(cfg, folder, state, origin, trainer, clock, log, ema=None):
    """Put network, optimizer, schedule, log and average back as they were at a checkpoint; for the best epoch see `restore_best`.

    Where the images are others (a change that the user has accepted), the epoch that was stopped begins again.
    Raises UserError when the weights are those of another network.
    """
    import numpy as np

    same_optimizer = state['config']['optim']['name'] == cfg.optim.name
    averaged = checkpoint.restore(folder, trainer.network, trainer._optimizer if same_optimizer else None)
    if ema and averaged:
        ema.average, ema.step = averaged, state['ema_step']
    if state.get('loss_scale') and trainer._scaler:
        scale = np.array([state['loss_scale']['scale']], np.float32)
        trainer._scaler.load_state_dict({**state['loss_scale'], 'scale': scale})
    same_images = state['data'] == origin['data']
    clock.start_from(state['epoch'], state['images'] if same_images else 0, state['step'])
    rate = optim.schedule(cfg.optim, clock.steps, cfg.train.epochs)
    if not isinstance(rate, float):
        for _ in range(clock.epoch * clock.steps + clock.done):
            rate.step()
        trainer._optimizer.set_lr_scheduler(rate)
    log.go_on(state['rows'], state.get('sums'), state['written'])


def restore_best(run_dir, state, origin, best, say, accept=False):
    """Take up the comparison of the epochs, and let best/ hold the best of them where train.monitor is another now.

    Args:
        state: facts of the checkpoint that the run goes on from; origin: `facts` of the run now.
        accept: compare only the epochs whose weights are kept, rather than raise UserError, where those of the best are not.
    """
    rows = [row for row in state['rows'] if row['epoch']]
    before, now = state['config']['train']['monitor'], best.monitor
    if now.startswith('valid') and state.get('validation', origin['validation']) != origin['validation']:
        say('the images to validate on are others: best/ and train.patience begin anew with the next epoch')
        return
    if before == now and 'best' in state:
        best.row = state['best']
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
            f'{run_dir}/best: train.monitor was {before}, and the weights of epoch {best.row["epoch"]}, the best by {now}, are not kept; '
            f'go on with train.monitor={before}, or with --accept-changes to compare only the epochs that are ({epochs})'
        )
    best.row = None
    for row in equal or rows:
        if row['epoch'] in there:
            best.consider(row)
    if best.row is None:
        return
    of_kept = '' if equal else ' of those that are kept'
    say(f'train.monitor was {before}: best/ holds epoch {best.row["epoch"]} now, the best by {now}{of_kept}')
    source = there[best.row['epoch']]
    if source != f'{run_dir}/best' and device.rank() == 0:
        checkpoint.copy_weights(source, f'{run_dir}/best', {**origin, **best.row})
