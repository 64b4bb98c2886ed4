"""Checkpoints: folders of weights, optimizer state and facts, written whole or not at all, verified when read.

A checkpoint holds model.pdparams, the weights to use; state.json, what made them; SHA256SUMS of all its files, which
`sha256sum -c` reads; and, but for best/, model.pdopt, the state of the optimizer. Where the weights to use are averaged ones
(train.ema), learning.pdparams has those that training goes on from.
"""

import json
import os
import re
import warnings

from zodiac import files, model, weights
from zodiac.errors import UserError

STATE = 'state.json'
SUMS = 'SHA256SUMS'
WEIGHTS = 'model.pdparams'
OPTIMIZER = 'model.pdopt'
LEARNING = 'learning.pdparams'
PARTS = {STATE, WEIGHTS, OPTIMIZER, LEARNING}


def save(folder, contents, state):
    """Write a checkpoint folder, replacing an older one of that name only when the new one is whole.

    Args:
        contents: {file name: state dict of a network or an optimizer}.
        state: JSON-ready facts: epoch, step, metrics, identity, ...
    Raises: UserError naming the folder when it cannot be written.
    """
    with files.atomic_folder(folder) as temporary:
        for name, values in contents.items():
            with open(os.path.join(temporary, name), 'wb') as file:
                file.write(weights.dump(values))
        with open(os.path.join(temporary, STATE), 'w', encoding='utf-8') as file:
            json.dump(state, file, ensure_ascii=False, indent=1)
        with open(os.path.join(temporary, SUMS), 'w', encoding='utf-8', newline='\n') as file:
            file.write(_sums({name: files.sha256(os.path.join(temporary, name)) for name in [*contents, STATE]}))


def _sums(hashes):
    return ''.join(f'{digest}  {name}\n' for name, digest in sorted(hashes.items()))


def verify(folder):
    """The facts of a checkpoint whose files are as they were written. Raises UserError naming what is missing or damaged."""
    try:
        with open(os.path.join(folder, SUMS), encoding='utf-8', newline='\n') as file:
            text = file.read()
        expected = dict(reversed(line.split('  ')) for line in text.splitlines())
        damaged = [SUMS] if text != _sums(expected) else []
        damaged += [name for name in os.listdir(folder) if name in PARTS and name not in expected]
        damaged += [name for name, digest in expected.items() if files.sha256(os.path.join(folder, name)) != digest]
        if damaged:
            name = os.path.join(folder, damaged[0])
            raise UserError(f'{name}: is damaged (it is not what {SUMS} says); choose another checkpoint')
        with open(os.path.join(folder, STATE), encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f'{folder}: no complete checkpoint ({error}); choose another one, or train again') from None


def find(run_dir, which):
    """Path of a weight file and its facts ({} for a bare .pdparams).

    Args:
        which: 'best', 'last', a checkpoint folder or a .pdparams file.
    Raises: UserError when there is none, or it is damaged.
    """
    if which == 'best':
        folder = f'{run_dir}/best'
    elif which == 'last':
        names = epochs(run_dir)
        folder = f'{run_dir}/checkpoints/{names[-1]}' if names else f'{run_dir}/checkpoints'
    elif os.path.isfile(which):
        return which, {}
    else:
        folder = which
    if not os.path.isdir(folder):
        raise UserError(
            f'{folder}: no checkpoint there; run train.py first, or set evaluate.weights to best, last or a path'
        )
    return os.path.join(folder, WEIGHTS), verify(folder)


def latest(run_dir, say):
    """The newest checkpoint of a run that is whole: (folder, facts), or (None, {}) when there is none.

    Args:
        say: called with a message for each newer one that is damaged.
    """
    for name in reversed(epochs(run_dir)):
        folder = f'{run_dir}/checkpoints/{name}'
        try:
            return folder, verify(folder)
        except UserError as error:
            say(f'{error}; the one before is tried')
    return None, {}


def restore(folder, network, optimizer):
    """Put the weights that training goes on from, and the state of the optimizer but for its schedule, back in place.

    Args:
        optimizer: None leaves its state out.
    Returns: the averaged weights {name: Tensor}, or None where the checkpoint has none.
    """
    import paddle

    averaged = os.path.isfile(os.path.join(folder, LEARNING))
    model.load_all(network, os.path.join(folder, LEARNING if averaged else WEIGHTS))
    if optimizer is not None:
        _restore_optimizer(os.path.join(folder, OPTIMIZER), network, optimizer)
    if not averaged:
        return None
    return {name: paddle.to_tensor(value) for name, value in weights.read(os.path.join(folder, WEIGHTS)).items()}


def _restore_optimizer(path, network, optimizer):
    import paddle
    from paddle.base.layer_helper import LayerHelper

    state = weights.read(path)
    state.pop('LR_Scheduler', None)
    if not isinstance(optimizer._learning_rate, float):
        state['LR_Scheduler'] = optimizer._learning_rate.state_dict()  # Paddle asks for it
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='There are some unused values')  # Paddle's own, of every warm-up
        optimizer.set_state_dict(state)
    # Paddle hands the state out at the next step, and then wants it for each parameter that learns: not for those that are
    # let loose only now; and Paddle 2 saves none of it until then.
    known = [p for p in network.parameters() if any(name.startswith(f'{p.name}_') for name in state)]
    optimizer.helper = optimizer.helper or LayerHelper(type(optimizer).__name__)
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), known)
    optimizer._accumulators_holder = {}


def load_network(run_dir, which, identity, flip_average=False):
    """The network of a run with the weights that `which` names, see `find`.

    Args:
        flip_average: wrap it so that it averages over an image and its mirror image.
        identity: the settings that the weights must have been trained with, as `Config.identity` gives them.
    Returns: (Layer in eval mode, {'weights': path, 'epoch': ..., 'pretrained': ...}).
    Raises: UserError when the weights are missing or damaged, or were trained with other settings.
    """
    from zodiac import networks

    path, facts = find(run_dir, which)
    for setting, ours in identity.items():
        trained = facts.get('identity', {}).get(setting, ours)
        if trained != ours:
            raise UserError(
                f'{os.path.dirname(path)}: was trained with {setting} = {trained}, now it is {ours}; '
                f'use the configuration of that run: -c {run_dir}/config.yaml; see docs/troubleshooting.md#class-count'
            )
    network = model.build(
        identity['model.arch'], len(identity['data.labels']), identity['image']['size'], identity['model.head']
    )
    model.load_all(network, path)
    if flip_average:
        network = networks.FlipAverage(network)
    network.eval()
    return network, {'weights': path, 'epoch': facts.get('epoch'), 'pretrained': facts.get('pretrained')}


def epochs(run_dir):
    """Names of the checkpoints of a run, oldest first."""
    folder = f'{run_dir}/checkpoints'
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if re.fullmatch(r'step_\d+', name))


def prune(run_dir, keep):
    """Remove all but the newest `keep` checkpoints of a run."""
    for name in epochs(run_dir)[:-keep]:
        files.remove_folder(f'{run_dir}/checkpoints/{name}')
