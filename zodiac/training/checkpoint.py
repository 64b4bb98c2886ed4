"""Checkpoints: folders of weights, optimizer state and facts, written atomically and verified when read.

Files: model.pdparams, the weights to use; state.json, how they were made; SHA256SUMS of all files, for `sha256sum -c`; except in
best/, model.pdopt, the optimizer state; with train.ema, where the weights to use are averages, learning.pdparams, the training weights.
"""

import json
import os
import re
import shlex
import sys
import warnings

from zodiac.base import class_names, files, provenance
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, pretrained, weights, wrappers

STATE = 'state.json'
SUMS = 'SHA256SUMS'
WEIGHTS = 'model.pdparams'
OPTIMIZER = 'model.pdopt'
LEARNING = 'learning.pdparams'
PARTS = {STATE, WEIGHTS, OPTIMIZER, LEARNING}
IN_FILE = ('identity', 'epoch', 'pretrained')  # facts that are written into a weight file, too


def save(folder, contents, state):
    """Write a checkpoint folder; one of that name is replaced when the new one is complete.

    Args:
        contents: {file name: state dict of a network or an optimizer}.
        state: JSON-ready facts: epoch, step, metrics, identity, ...
    Raises: UserError naming the folder when it cannot be written.
    """
    with files.atomic_folder(folder) as temporary:
        for name, values in contents.items():
            with open(os.path.join(temporary, name), 'wb') as file:
                file.write(weights.dump(values, facts_in_file(state)) if name != OPTIMIZER else weights.dump(values))
        with open(os.path.join(temporary, STATE), 'w', encoding='utf-8') as file:
            json.dump(state, file, ensure_ascii=False, indent=1)
        with open(os.path.join(temporary, SUMS), 'w', encoding='utf-8', newline='\n') as file:
            file.write(_sums({name: files.sha256(os.path.join(temporary, name)) for name in [*contents, STATE]}))


def facts_in_file(facts):
    """The facts of a run that are written into its weight files, see `provenance`."""
    return {name: facts[name] for name in IN_FILE if name in facts}


def save_last(run_dir, values, optimizer, facts):
    """Write <run_dir>.pdparams and .pdopt, where `paddle.Model.load(run_dir)` finds them.

    Args:
        values: state dict of the network; optimizer: of the optimizer.
        facts: as for `save`.
    """
    parts = ('.pdparams', values, facts_in_file(facts)), ('.pdopt', optimizer, None)
    for suffix, state_dict, with_facts in parts:
        with files.atomic_write(run_dir + suffix, binary=True) as file:
            file.write(weights.dump(state_dict, with_facts))


def _sums(hashes):
    return ''.join(f'{digest}  {name}\n' for name, digest in sorted(hashes.items()))


def verify(folder):
    """Verify the hashes of a checkpoint and return its facts. Raises UserError naming the file that is missing or damaged."""
    try:
        with open(os.path.join(folder, SUMS), encoding='utf-8', newline='\n') as file:
            text = file.read()
        expected = dict(reversed(line.split('  ')) for line in text.splitlines())
        damaged = [SUMS] if text != _sums(expected) else []
        damaged += [name for name in os.listdir(folder) if name in PARTS and name not in expected]
        damaged += [name for name, digest in expected.items() if files.sha256(os.path.join(folder, name)) != digest]
        if damaged:
            name = os.path.join(folder, damaged[0])
            raise UserError(f'{name}: is damaged (its hash is not the one in {SUMS}); choose another checkpoint')
        with open(os.path.join(folder, STATE), encoding='utf-8') as file:
            return provenance.normal(json.load(file))
    except (OSError, ValueError) as error:
        raise UserError(f'{folder}: no complete checkpoint ({error}); choose another one, or train again') from None


def find(run_dir, which):
    """Path of a weight file, and its facts.

    Args:
        which: 'best', 'last', or a path for `locate`.
    Raises: UserError when the file is missing or damaged.
    """
    newest = epochs(run_dir)[-1:]
    path = {'best': f'{run_dir}/best', 'last': '/'.join([f'{run_dir}/checkpoints', *newest])}.get(which, which)
    if not os.path.exists(path):
        raise UserError(
            f'{path}: no weights there; run train.py first, or set evaluate.weights to best, last or a path'
        )
    return locate(path)


def locate(path):
    """Path of a weight file, and its facts as far as they are known.

    Args:
        path: a weight file, the folder of a checkpoint, or that of a run, for its best/.
    Raises: UserError where the folder is not an intact checkpoint.
    """
    if os.path.isdir(path):
        if os.path.isfile(f'{path}/inference.yaml'):
            raise UserError(f'{path}: is an exported model; name the weights that it was exported from')
        folder = f'{path}/best' if os.path.isdir(f'{path}/best') else path.rstrip('/')
        return os.path.join(folder, WEIGHTS), verify(folder)
    folder, name = os.path.split(path)
    if name in (WEIGHTS, LEARNING) and os.path.isfile(os.path.join(folder, SUMS)):
        return path, verify(folder)
    return path, provenance.read(path)


def config_of(path):
    """Path of the config.yaml of the run that a weight file belongs to; None where there is none."""
    place = os.path.splitext(path)[0]  # output/pets.pdparams belongs to output/pets
    for _ in range(4):
        if os.path.isfile(f'{place}/config.yaml'):
            return f'{place}/config.yaml'
        place = os.path.dirname(place)
    return None


def latest(run_dir, say):
    """The newest intact checkpoint of a run: (folder, facts), or (None, {}) when there is none.

    Args:
        say: called with a message for each newer one that is damaged.
    """
    for name in reversed(epochs(run_dir)):
        folder = f'{run_dir}/checkpoints/{name}'
        try:
            return folder, verify(folder)
        except UserError as error:
            say(f'{error}; trying the one before')
    return None, {}


def kept(run_dir):
    """{epoch: folder} of the weights that a run has kept: its checkpoints at the end of an epoch, and best/."""
    folders = [*(f'{run_dir}/checkpoints/{name}' for name in epochs(run_dir)), f'{run_dir}/best']
    states = {folder: files.read_json(os.path.join(folder, STATE)) or {} for folder in folders}
    return {state['epoch']: folder for folder, state in states.items() if 'epoch' in state and not state.get('images')}


def restore(folder, network, optimizer):
    """Restore the training weights and the state of the optimizer, without its learning-rate schedule.

    Args:
        optimizer: None to restore the weights only.
    Returns: the averaged weights {name: Tensor}, or None where the checkpoint has none.
    """
    averaged = os.path.isfile(os.path.join(folder, LEARNING))
    pretrained.load_all(network, os.path.join(folder, LEARNING if averaged else WEIGHTS))
    if optimizer is not None:
        _restore_optimizer(os.path.join(folder, OPTIMIZER), network, optimizer)
    return _tensors(os.path.join(folder, WEIGHTS)) if averaged else None


def copy_weights(folder, to, facts):
    """Write a checkpoint `to` with the weights to use of another one, and these facts. Raises UserError where that one is damaged."""
    verify(folder)
    save(to, {WEIGHTS: _tensors(os.path.join(folder, WEIGHTS))}, facts)


def _tensors(path):
    return {name: paddle.to_tensor(value) for name, value in weights.read(path).items()}


def _restore_optimizer(path, network, optimizer):
    state = weights.read(path)
    state.pop('LR_Scheduler', None)
    if not isinstance(optimizer._learning_rate, float):
        state['LR_Scheduler'] = optimizer._learning_rate.state_dict()  # Paddle requires it
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='There are some unused values')  # of any warm-up
        optimizer.set_state_dict(state)
    # Paddle would use the state at the next step, and require it for each parameter that learns: it has none for those that have
    # been unfrozen since. And Paddle 2 would not save it before that step.
    known = [p for p in network.parameters() if any(name.startswith(f'{p.name}_') for name in state)]
    optimizer.helper = optimizer.helper or paddle.base.layer_helper.LayerHelper(type(optimizer).__name__)
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), known)
    optimizer._accumulators_holder = {}


def load_network(run_dir, which, identity, flip_average=False):
    """The network of a run with the weights `which`, see `find`.

    Args:
        identity: the settings that the weights must have been trained with, see `Config.identity`.
        flip_average: wrap it so that it averages over an image and its mirror image.
    Returns: (Layer in eval mode, {'weights': path, 'epoch': ..., 'pretrained': ...}).
    Raises: UserError when the weights are missing or damaged, or were trained with other settings.
    """
    path, facts = find(run_dir, which)
    _require_identity(path, facts, identity)
    network = builder.build(
        identity['model.arch'], len(identity['data.labels']), identity['image']['size'], identity['model.head']
    )
    pretrained.load_all(network, path)
    if flip_average:
        network = wrappers.FlipAverage(network)
    network.eval()
    return network, {'weights': path, 'epoch': facts.get('epoch'), 'pretrained': facts.get('pretrained')}


def _require_identity(path, facts, identity):
    """Raise UserError where weights were trained with other settings; warn where their classes are unknown."""
    labels = identity['data.labels']
    if not provenance.labels(facts):
        print(
            f'warning: {path}: does not record its classes; assuming data.labels, in this order: {", ".join(labels)}',
            file=sys.stderr,
        )
        return
    for setting, ours in identity.items():
        trained = facts['identity'].get(setting, ours)
        if trained == ours:
            continue
        changed = f' ({class_names.difference(trained, ours)})' if setting == 'data.labels' else ''
        of_run = config_of(path)
        raise UserError(
            f'{path}: was trained with {setting} = {trained}, now it is {ours}{changed}; train again, or use the configuration of that run'
            f'{f": -c {shlex.quote(of_run)}" if of_run else ""}; see docs/troubleshooting.md#class-count'
        )


def epochs(run_dir):
    """Names of the checkpoints of a run, oldest first."""
    folder = f'{run_dir}/checkpoints'
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if re.fullmatch(r'step_\d+', name))


def prune(run_dir, keep):
    """Remove all but the newest `keep` checkpoints of a run."""
    for name in epochs(run_dir)[:-keep]:
        files.remove_folder(f'{run_dir}/checkpoints/{name}')
