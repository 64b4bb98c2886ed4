"""Going on with a stopped run: what a checkpoint says of it, what must not have changed, and everything back in its place."""

import dataclasses
import platform
import shlex

from zodiac import checkpoint, files, optim, schema
from zodiac.errors import UserError

FORMAT = 1  # of the facts in a checkpoint


def facts(cfg, train_set):
    """What each checkpoint says of its origin, as JSON-ready values.

    `identity` and `data` are what a run must keep to go on; `config` holds every setting.
    """
    import numpy
    import paddle
    import PIL

    index = f'{cfg.data.root}/{train_set.mode}.txt'
    return {
        'format': FORMAT,
        'name': cfg.name,
        'identity': cfg.identity,
        'data': {
            'seed': cfg.seed,
            'images to train on': len(train_set),
            f'the SHA-256 of {index}': files.sha256(index),
        },
        'pretrained': cfg.model.pretrained,
        'config': dataclasses.asdict(cfg),
        'versions': {
            'python': platform.python_version(),
            **{module.__name__: module.__version__ for module in (paddle, numpy, PIL)},
        },
    }


def refuse_changes(folder, state, origin, run_dir, accept=False):
    """Raise UserError where a checkpoint is of other classes, another network, other images or another order of them, unless
    the user accepts that; or of another version.

    Args:
        state: facts of the checkpoint, see `checkpoint.verify`.
        origin: `facts` of the run that wants to go on.
    """
    if state.get('format') != FORMAT:
        raise UserError(f'{folder}: was written by another version of this project, which can go on from it')
    before, now = ({**one['identity'], **one['data']} for one in (state, origin))
    for setting, ours in now.items():
        if before.get(setting) != ours and not accept:
            raise UserError(
                f'{folder}: was trained with {setting} = {before.get(setting)}, now it is {ours}; go on with '
                f'-c {shlex.quote(run_dir)}/config.yaml, with --accept-changes, or start a run under another name; see '
                'docs/troubleshooting.md#resume'
            )


def changed_settings(state, origin):
    """List of 'key: before -> now' of the settings that differ."""
    before, now = (dict(schema.flatten(one['config'])) for one in (state, origin))
    return [f'{key}: {before.get(key)} -> {value}' for key, value in now.items() if before.get(key) != value]


def go_on(cfg, folder, state, origin, trainer, clock, log, best, ema=None):
    """Put network, optimizer, schedule, log, best epoch and average back as they were at a checkpoint.

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
    for row in log.rows:
        if row['epoch']:
            best.consider(row)
