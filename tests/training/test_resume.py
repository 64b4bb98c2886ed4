"""Resuming a stopped run (--resume, train.resume) gives the same results to the bit."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, assert_message, everything_below, make_tree, picture, run_script
from small_runs import assert_equal, log_of, run_train, write_index

import train
from zodiac.base import files
from zodiac.base.errors import Stopped, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import weights
from zodiac.training import callbacks, checkpoint, optim, resume
from zodiac.training.trainer import Trainer

nn = paddle.nn
TRAIN, VALID = 26, 7  # 7 batches of training, the last of 2 images; 2 of validation
SETTINGS = ['optim.name=momentum', 'optim.weight_decay=0.001']
EVERYTHING = [
    *('train.mixup=0.4', 'train.cutmix=1', 'train.label_smoothing=0.1', 'train.ema=0.7', 'train.sampling=balanced'),
    *('train.monitor=valid_loss', 'optim.name=adam', 'optim.lr=0.01', 'optim.warmup_epochs=0.5'),
    *('model.freeze=backbone', 'model.unfreeze_epoch=2', 'model.unfreeze_every=1', 'optim.backbone_lr=0.02'),
    'optim.layer_decay=0.8',
]
GRADUAL = ['model.freeze=backbone', 'model.unfreeze_epoch=2', 'model.unfreeze_every=1', 'optim.layer_decay=0.5']
KEPT = ['model.pretrained=true', 'train.batch_norm=keep']
CASES = {
    'momentum and cosine after a warm-up': ['optim.warmup_epochs=1.3'],
    'adam and one_cycle': ['optim.name=adam', 'optim.lr=0.01', 'optim.schedule=one_cycle'],
    'adamw and restarts': ['optim.name=adamw', 'optim.schedule=cosine_restarts', 'optim.restart_epochs=0.6'],
    'nesterov, clipping and steps': [
        *('optim.nesterov=true', 'optim.schedule=step', 'optim.step_epochs=0.5', 'optim.clip_norm=0.5'),
        *('optim.decoupled_decay=true', 'optim.warmup_epochs=1'),
    ],
    'sgd at a constant rate': ['optim.name=sgd', 'optim.schedule=constant'],
    'mixup, cutmix and smoothing': ['train.mixup=0.4', 'train.cutmix=1', 'train.label_smoothing=0.1'],
    'an average': ['train.ema=0.7', 'train.monitor=valid_loss'],
    'accumulated gradients': ['train.accumulate=2'],
    'accumulated gradients with an average': ['train.accumulate=3', 'train.ema=0.7', 'optim.name=adam'],
    'balanced sampling': ['train.sampling=balanced'],
    'balanced weights': ['train.class_weights=balanced'],
    'an unfrozen backbone': ['model.freeze=backbone', 'model.unfreeze_epoch=2', 'optim.backbone_lr=0.01'],
    'stages unfrozen one after another': [*GRADUAL, 'optim.name=adamw', 'optim.lr=0.01'],
    'kept statistics': [*GRADUAL, *KEPT, 'train.ema=0.7', 'train.accumulate=2'],
    'everything': EVERYTHING,
}


class Network(nn.Layer):
    features = 4

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2D(3, 3, 1)
        convolution = nn.Conv2D(3, self.features, 3)
        self.stage = nn.Sequential(convolution, nn.BatchNorm2D(self.features), nn.ReLU(), nn.Flatten())
        self.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(36 * self.features, 3))

    def forward(self, x):
        return self.fc(self.stage(self.stem(x)))


BETWEEN = Stopped(signal.SIGINT)


class Killed(Exception):
    """Simulates SIGKILL."""


@pytest.fixture
def fit(workdir, monkeypatch):
    """Run train.py with a small network; returns the folder of the run.

    Args of the call:
        asked: press Ctrl-C in this step of the run.
        at: (step or 'valid <number>', error): raise it in the forward pass after this step, or in this validation.
    """
    rng = np.random.default_rng(0)
    write_index('train', rng.permutation(np.minimum(np.arange(TRAIN) % 4, 2)))
    write_index('valid', rng.integers(0, 3, VALID))

    def call(*overrides, resume=False, accept=False, asked=None, at=(None, None)):
        seen = {'validations': 0}

        def make():
            network = Network()
            network.register_forward_pre_hook(forward)
            return network

        def forward(layer, given):
            if not layer.training and len(given[0]) != VALID % 4:
                return
            seen['validations'] += not layer.training
            if at[0] == (clocks[-1].step if layer.training else f'valid {seen["validations"]}') and clocks:
                raise at[1]

        class Clock(callbacks.Clock):
            def __init__(self, *given):
                super().__init__(*given)
                clocks.append(self)

        clocks = call.clocks = []
        flags = ['--resume'] * resume + ['--accept-changes'] * accept
        with monkeypatch.context() as patch:
            patch.setattr(callbacks, 'Clock', Clock)
            return run_train(monkeypatch, make, [*SETTINGS, *overrides, *flags], asked)

    return call


def state_of(folder):
    return json.loads((folder / 'state.json').read_text(encoding='utf-8'))


def contents_of(folder):
    """{file name: contents} of a checkpoint."""
    return {path.name: weights.read(path) for path in sorted(folder.glob('*.pd*'))}


def assert_same_run(folder, expected):
    """The log, best/, the last weights and the checkpoints that both have are the same."""
    assert log_of(folder) == log_of(expected)
    ours, best = state_of(folder / 'best'), state_of(expected / 'best')
    for key in ('epoch', 'step', 'lr', 'train_loss', 'train_top1', 'valid_loss', 'valid_top1'):
        assert ours[key] == best[key], key
    assert_equal(contents_of(folder / 'best'), contents_of(expected / 'best'), 'best')
    for suffix in ('.pdparams', '.pdopt'):
        assert_equal(weights.read(f'{folder}{suffix}'), weights.read(f'{expected}{suffix}'), suffix)
    names = set(checkpoint.epochs(folder)) & set(checkpoint.epochs(expected))
    assert max(names) == max(checkpoint.epochs(expected))
    for name in names:
        both = [path / 'checkpoints' / name for path in (folder, expected)]
        assert_equal(contents_of(both[0]), contents_of(both[1]), name)


def stop(fit, *overrides, resume=False, **how):
    with pytest.raises(KeyboardInterrupt):
        fit(*overrides, resume=resume, **how)


# Exact results


@pytest.mark.parametrize('case', CASES)
def test_resuming_gives_the_same_run_to_the_bit(fit, case):
    expected = fit('name=whole', *CASES[case])
    for asked in (2, 7, 11):
        stop(fit, f'name=stopped {asked}', *CASES[case], asked=asked)
        folder = fit(f'name=stopped {asked}', *CASES[case], resume=True)
        assert_same_run(folder, expected)


def test_a_run_with_all_options_can_be_stopped_after_any_step(fit):
    settings = [*EVERYTHING, 'train.epochs=2', 'train.batch_size=6']
    expected = fit('name=whole', *settings)
    for asked in range(1, 11):
        stop(fit, f'name=stopped {asked}', *settings, asked=asked)
        assert fit.clocks[-1].step == asked
        assert_same_run(fit(f'name=stopped {asked}', *settings, resume=True), expected)


def test_a_run_can_be_stopped_many_times(fit):
    expected = fit('name=whole', *EVERYTHING)
    stop(fit, *EVERYTHING, asked=1)
    for asked in (2, 5, 7, 8, 13, 14, 15, 21):
        stop(fit, *EVERYTHING, resume=True, asked=asked)
        assert fit.clocks[-1].step == asked
    assert_same_run(fit(*EVERYTHING, resume=True), expected)


@pytest.mark.parametrize('workers', [(2, 2), (0, 2), (2, 0)])
def test_resuming_with_another_number_of_workers_is_exact(fit, workers):
    expected = fit('name=whole', *EVERYTHING)
    before, after = (f'data.num_workers={number}' for number in workers)
    stop(fit, *EVERYTHING, before, asked=10)
    assert_same_run(fit(*EVERYTHING, after, resume=True), expected)


@pytest.mark.parametrize('settings', [[], EVERYTHING], ids=['plain', 'everything'])
@pytest.mark.parametrize('step', [3, 9, 20])
def test_a_killed_run_resumes_from_its_newest_checkpoint(fit, settings, step):
    expected = fit('name=whole', *settings, 'train.save_steps=2')
    with pytest.raises(Killed):
        fit(*settings, 'train.save_steps=2', at=(step, Killed()))
    folder = fit(*settings, 'train.save_steps=2', resume=True)
    assert checkpoint.epochs(folder) == checkpoint.epochs(expected)
    assert_same_run(folder, expected)


@pytest.mark.parametrize('settings', [[], EVERYTHING], ids=['plain', 'everything'])
@pytest.mark.parametrize('workers', [0, 2])
def test_a_run_stopped_during_validation_validates_again(fit, settings, workers):
    expected = fit('name=whole', *settings)
    for number in (1, 3):
        name = f'name=stopped {number}'
        stop(fit, name, *settings, at=(f'valid {number}', BETWEEN))
        assert fit.clocks[-1].step == 7 * number
        assert_same_run(fit(name, *settings, f'data.num_workers={workers}', resume=True), expected)


@pytest.mark.parametrize('ema', [0, 0.5])
def test_the_best_epoch_of_the_head_stays_after_resuming_a_fine_tuning_that_harms(fit, ema):
    settings = [
        'model.freeze=backbone',
        'model.unfreeze_epoch=3',
        'optim.backbone_lr=50',
        'optim.clip_norm=0.1',
        'optim.schedule=constant',
    ]
    settings += ['train.epochs=5', 'train.monitor=valid_loss', f'train.ema={ema}', 'optim.lr=0.001', *KEPT]
    expected = fit('name=whole', *settings)
    best = state_of(expected / 'best')
    assert best['epoch'] <= 2
    for asked in (14, 17, 30):  # before the fine-tuning, and within it
        stop(fit, f'name=stopped {asked}', *settings, asked=asked)
        folder = fit(f'name=stopped {asked}', *settings, resume=True)
        assert_same_run(folder, expected)


def test_ctrl_c_during_validation_keeps_the_sums_of_the_epoch(fit):
    expected = fit('name=whole', 'train.epochs=1')
    stop(fit, 'train.epochs=1', at=('valid 1', BETWEEN))
    assert log_of(fit('train.epochs=1', resume=True)) == log_of(expected)


def test_the_optimizer_state_is_complete_when_a_resumed_run_stops_before_its_first_step(fit):
    for number, how in enumerate([{'asked': 7}, {'at': ('valid 1', BETWEEN)}]):
        stop(fit, f'name=run {number}', **how)
        with pytest.raises(KeyboardInterrupt):
            fit(f'name=run {number}', resume=True, at=('valid 1', BETWEEN))
        folder = Path(f'output/run {number}/checkpoints/step_0000007')
        assert any('velocity' in name for name in weights.read(folder / 'model.pdopt'))


@pytest.mark.parametrize(
    'settings', [[], ['train.accumulate=2', 'train.save_steps=1'], ['train.ema=0.7']], ids=' '.join
)
def test_a_run_stopped_at_once_resumes_from_its_newest_checkpoint(fit, settings):
    expected = fit('name=whole', *settings)
    for step in (8, 12):
        name = f'name=stopped {step}'
        stop(fit, name, *settings, at=(step, KeyboardInterrupt()))
        assert_same_run(fit(name, *settings, resume=True), expected)


def test_a_run_killed_before_best_was_written_writes_it_after_resuming(fit, monkeypatch):
    expected = fit('name=whole', 'train.monitor=valid_loss')
    best = state_of(expected / 'best')['epoch']
    assert best > 1
    save = checkpoint.save

    def killed(folder, contents, state):
        if folder.endswith('best') and state['epoch'] == best:
            raise Killed
        save(folder, contents, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, 'save', killed)
        with pytest.raises(Killed):
            fit('train.monitor=valid_loss')
    assert_same_run(fit('train.monitor=valid_loss', resume=True), expected)


def test_visualdl_and_log_have_each_step_once(fit):
    settings = ['train.save_steps=2']
    expected = scalars_of(fit('name=whole', *settings))
    with pytest.raises(Killed):
        fit(*settings, at=(12, Killed()))  # two steps behind the newest checkpoint
    stop(fit, *settings, resume=True, asked=16)
    with pytest.raises(Killed):
        fit(*settings, resume=True, at=(16, Killed()))
    folder = fit(*settings, resume=True)
    assert scalars_of(folder) == expected
    assert [step for step, _ in expected['train/loss']] == list(range(1, 22))


def test_visualdl_shows_all_steps_of_a_resumed_run(fit):
    from visualdl import LogReader

    stop(fit, asked=9)
    folder = fit(resume=True)
    reader = LogReader(logdir=str(folder / 'visualdl'))  # like VisualDL's page: only the last file of a folder
    (shown,) = reader.logs().items()
    points = LogReader(file_path='/'.join(shown)).get_data('scalar', 'train/loss')
    assert [point.id for point in points] == list(range(1, 22))


def scalars_of(folder):
    """{tag: [(step, value)]} in VisualDL's files."""
    from visualdl import LogReader

    found = {}
    for path in sorted((folder / 'visualdl').iterdir()):
        reader = LogReader(file_path=str(path))
        for tag in reader.get_tags().get('scalar', []):
            if not tag.endswith('per_second'):
                found.setdefault(tag, []).extend((item.id, item.value) for item in reader.get_data('scalar', tag))
    return found


def test_partial_files_of_a_killed_process_are_removed(fit):
    stop(fit, asked=9)
    for leftover in ('output/run/.log.csv.1.part', 'output/run/checkpoints/.step_0000010.1.part/model.pdparams'):
        Path(leftover).parent.mkdir(exist_ok=True)
        Path(leftover).write_bytes(b'half')
    fit(resume=True)
    assert not [path for path in everything_below('output') if path.endswith('.part')]


# Messages, finished runs


def test_messages_say_where_a_run_stopped_and_resumes(fit, capsys):
    stop(fit, asked=10)
    said = capsys.readouterr().err
    assert 'stopped in epoch 2; the weights of step 10 are in output/run/checkpoints/step_0000010' in said
    assert '--resume' in said
    fit(resume=True)
    said = capsys.readouterr().err
    assert 'resuming from output/run/checkpoints/step_0000010: epoch 2, step 10' in said
    assert 'epoch 2/3: train loss' in said and 'epoch 1/3' not in said
    assert not Path('output/run.previous').exists()


def test_the_seconds_of_a_resumed_epoch_include_both_parts(fit, monkeypatch):
    stop(fit, asked=3)
    verify = checkpoint.verify

    def later(folder):
        state = verify(folder)
        if 'sums' in state:
            assert 0 < state['sums']['seconds'] < 100
            state['sums']['seconds'] += 1000
        return state

    monkeypatch.setattr(checkpoint, 'verify', later)
    fit(resume=True)
    with open('output/run/log.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]['seconds']) > 1000 > float(rows[1]['seconds'])
    assert float(rows[0]['images_per_second']) == pytest.approx(26 / float(rows[0]['seconds']), rel=1e-3)


@pytest.mark.parametrize('resume', ['--resume', 'train.resume=auto'])
@pytest.mark.parametrize('settings', [[], EVERYTHING], ids=['plain', 'everything'])
def test_resuming_a_finished_run_changes_nothing_and_prints_the_results(fit, capsys, settings, resume):
    folder = fit(*settings)
    told, before = capsys.readouterr().out, everything_below('output')
    with_content = {suffix: weights.read(f'{folder}{suffix}') for suffix in ('.pdparams', '.pdopt')}
    if resume == '--resume':
        fit(*settings, resume=True)
    else:
        fit(*settings, resume)
    captured = capsys.readouterr()
    assert captured.out == told and 'best epoch' in told
    assert 'epoch 3/3' not in captured.err
    after = everything_below('output')
    assert set(after) == set(before)
    assert {path: text for path, text in after.items() if path.startswith('run/')} == {
        path: text for path, text in before.items() if path.startswith('run/')
    }
    assert_equal({suffix: weights.read(f'{folder}{suffix}') for suffix in with_content}, with_content)


@pytest.mark.parametrize('monitor', ['valid_top1', 'train_loss'])
def test_a_run_that_patience_has_stopped_does_not_resume(fit, capsys, monitor):
    settings = ['optim.lr=1.0e-30', 'train.epochs=9', 'train.patience=2', f'train.monitor={monitor}']
    settings += ['augment=[resize]', 'model.freeze=backbone']
    folder = fit(*settings)
    log, told = (folder / 'log.csv').read_bytes(), capsys.readouterr().out
    assert 3 <= len(log_of(folder)) < 9
    fit(*settings, resume=True)
    assert (folder / 'log.csv').read_bytes() == log
    assert capsys.readouterr().out == told


def test_patience_includes_the_epochs_before_the_stop(fit):
    settings = ['optim.lr=1.0e-30', 'train.epochs=9', 'train.patience=3', 'augment=[resize]']
    expected = fit('name=whole', *settings)
    assert len(log_of(expected)) == 4
    for asked in (10, 14, 21, 28):
        stop(fit, f'name=stopped {asked}', *settings, asked=asked)
        assert_same_run(fit(f'name=stopped {asked}', *settings, resume=True), expected)


def test_a_finished_run_can_be_resumed_for_more_epochs(fit):
    settings = ['optim.schedule=constant']
    expected = fit('name=whole', *settings, 'train.epochs=3')
    fit(*settings, 'train.epochs=2')
    assert_same_run(fit(*settings, 'train.epochs=3', resume=True), expected)


def test_a_run_without_a_checkpoint_cannot_be_resumed(fit):
    with pytest.raises(UserError, match='output/run: has no checkpoint to resume from') as caught:
        fit(resume=True)
    assert caught.value.status == 1
    assert not Path('output/run').exists()


def test_resume_auto_starts_or_resumes(fit, capsys):
    expected = fit('name=whole')
    capsys.readouterr()
    stop(fit, 'train.resume=auto', asked=9)
    assert 'resuming from' not in capsys.readouterr().err
    folder = fit('train.resume=auto')
    assert 'resuming from output/run/checkpoints/step_0000009' in capsys.readouterr().err
    assert_same_run(folder, expected)


def test_without_resume_a_new_run_starts(fit):
    stop(fit, asked=9)
    folder = fit()
    assert [row['epoch'] for row in log_of(folder)] == ['1', '2', '3']
    assert checkpoint.epochs('output/run.previous') == ['step_0000007', 'step_0000009']


# Damaged checkpoints, other settings and images


def damage(folder, how):
    path = folder / 'model.pdparams'
    content = path.read_bytes()
    if how == 'flipped':
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif how == 'truncated':
        path.write_bytes(content[:-10])
    elif how == 'weights missing':
        path.unlink()
    elif how == 'optimizer truncated':
        os.truncate(folder / 'model.pdopt', 50)
    elif how == 'state truncated':
        os.truncate(folder / 'state.json', 30)
    else:
        (folder / 'state.json').unlink()


DAMAGES = ['flipped', 'truncated', 'weights missing', 'optimizer truncated', 'state truncated', 'state missing']


@pytest.mark.parametrize('how', DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(fit, capsys, how):
    expected = fit('name=whole')
    stop(fit, 'train.save_steps=1', asked=10)
    folder = Path('output/run/checkpoints/step_0000010')
    damage(folder, how)
    capsys.readouterr()
    run = fit('train.save_steps=1', resume=True)
    said = capsys.readouterr().err
    assert str(folder) in said and 'trying the one before' in said
    assert 'resuming from output/run/checkpoints/step_0000009: epoch 2, step 9' in said
    assert_same_run(run, expected)


def test_with_only_damaged_checkpoints_nothing_is_overwritten(fit, capsys):
    stop(fit, 'train.save_steps=1', asked=10)
    for name, how in zip(checkpoint.epochs('output/run'), ('flipped', 'state missing')):
        damage(Path('output/run/checkpoints') / name, how)
    before = everything_below('output')
    with pytest.raises(UserError, match='output/run: has no checkpoint to resume from') as caught:
        fit(resume=True)
    assert caught.value.status == 1
    said = capsys.readouterr().err
    assert 'step_0000009' in said and 'step_0000010' in said
    assert everything_below('output') == before


def first_line_removed():
    lines = Path('train.txt').read_text().splitlines(keepends=True)
    Path('train.txt').write_text(''.join(lines[1:]))


def lines_reversed():
    lines = Path('train.txt').read_text().splitlines(keepends=True)
    Path('train.txt').write_text(''.join(reversed(lines)))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ('data.labels=[a,b,d]', ['data.labels', "['a', 'b', 'c']", "['a', 'b', 'd']"]),
        ('data.labels=[c,b,a]', ['data.labels', "['a', 'b', 'c']", "['c', 'b', 'a']"]),
        ('model.arch=resnet18', ['model.arch', 'resnet50', 'resnet18']),
        ('model.head=[flatten]', ['model.head', 'auto', "['flatten']"]),
        ('image.size=12 image.resize=12', ['image', "'size': 8", "'size': 12"]),
        ('seed=7', ['seed', '0', '7']),
        (first_line_removed, ['images to train on', '26', '25']),
        (lines_reversed, ['the SHA-256 of ./train.txt']),
        (lambda: write_index('valid', [0]), ['images to validate on', '7', '1']),
        (lambda: write_index('valid', [0] * VALID), ['the SHA-256 of ./valid.txt']),
        (lambda: picture(77, (99, 99)).save('valid/3.png'), ['the sizes of the images in ./valid.txt']),
        (lambda: picture(77, (99, 99)).save('train/3.png'), ['the sizes of the images in ./train.txt']),
    ],
)
def test_a_run_with_another_network_or_other_images_is_not_resumed(fit, change, words):
    stop(fit, asked=9)
    overrides = change.split() if isinstance(change, str) else change() or []
    before = everything_below('output')
    for more in ({'resume': True}, {}):
        with pytest.raises(UserError) as caught:
            fit(*overrides, 'train.resume=auto', **more)
        assert caught.value.status == 1
        for word in ['output/run/checkpoints/step_0000009', '-c output/run/config.yaml', *words]:
            assert word in str(caught.value)
        assert everything_below('output') == before


def test_other_validation_images_reset_the_best_epoch(fit, capsys):
    settings = ['optim.lr=1.0e-30', 'augment=[resize]', 'model.freeze=backbone']  # all epochs are equal
    fit(*settings, 'train.epochs=2')
    write_index('valid', [0] * VALID)
    capsys.readouterr()
    folder = fit(*settings, 'train.epochs=4', 'train.patience=2', resume=True, accept=True)
    assert 'start again with the next epoch' in capsys.readouterr().err
    assert len(log_of(folder)) == 4 and state_of(folder / 'best')['epoch'] == 3
    fit(*settings, 'train.epochs=5', 'train.patience=3', resume=True)  # the epochs before the change still do not count
    assert len(log_of(folder)) == 5 and state_of(folder / 'best')['epoch'] == 3


def test_a_checkpoint_of_an_older_version_without_validation_facts_is_resumed(fit):
    expected = fit('name=whole')
    stop(fit, asked=9)
    folder = Path('output/run/checkpoints/step_0000009')
    state = state_of(folder)
    for part in ('validation', 'sizes', 'best'):
        del state[part]
    (folder / 'state.json').write_text(json.dumps(state))
    hashes = {path.name: files.sha256(path) for path in folder.iterdir() if path.name != checkpoint.SUMS}
    (folder / checkpoint.SUMS).write_text(checkpoint._sums(hashes))
    assert_same_run(fit(resume=True), expected)


# With another train.monitor


@pytest.fixture
def scored(fit, monkeypatch):
    """Like `fit`, with these scores (valid_top1, valid_loss) of the epochs."""
    scores = [(0.5, 0.9), (0.9, 0.8), (0.5, 0.5), (0.6, 0.6), (0.4, 0.7)]
    monkeypatch.setattr(
        callbacks.Validation,
        'run',
        lambda self, trainer: [
            watcher.on_eval_end(dict(zip(('valid_top1', 'valid_loss'), scores[fit.clocks[-1].epoch])))
            for watcher in self.watchers
        ],
    )
    return fit


def test_another_monitor_updates_best_from_the_kept_weights(scored, capsys):
    folder = scored('train.epochs=4')
    assert state_of(folder / 'best')['epoch'] == 2
    wanted = contents_of(folder / 'checkpoints' / 'step_0000021')['model.pdparams']  # of the third epoch
    capsys.readouterr()
    scored('train.epochs=5', 'train.monitor=valid_loss', resume=True)
    assert 'train.monitor was valid_top1: best/ is now epoch 3' in capsys.readouterr().err
    best = checkpoint.verify(str(folder / 'best'))
    assert (best['epoch'], best['valid_loss']) == (3, 0.5) and best['identity']['data.labels'] == ['a', 'b', 'c']
    assert_equal(contents_of(folder / 'best'), {'model.pdparams': wanted})


def test_another_monitor_is_refused_when_the_weights_of_its_best_epoch_are_gone(scored, capsys):
    settings = ['train.keep_checkpoints=1']
    folder = scored('train.epochs=4', *settings)
    before = everything_below('output')
    with pytest.raises(UserError) as caught:
        scored('train.epochs=5', 'train.monitor=valid_loss', *settings, resume=True)
    for word in ('output/run/best', 'epoch 3', 'train.monitor=valid_top1', '--accept-changes', '(2, 4)'):
        assert word in str(caught.value)
    assert everything_below('output') == before
    scored('train.epochs=5', 'train.monitor=valid_loss', *settings, resume=True, accept=True)
    assert state_of(folder / 'best')['epoch'] == 4
    scored('train.epochs=5', 'train.monitor=valid_loss', *settings, resume=True)  # recorded: no longer refused
    assert state_of(folder / 'best')['epoch'] == 4


# Changes


def test_a_warm_up_longer_than_the_run_gives_a_warning(fit, capsys):
    fit('optim.warmup_epochs=3', 'train.epochs=1')
    assert (
        'warning: optim.warmup_epochs = 3 with train.epochs = 1: the learning rate never reaches optim.lr'
        in capsys.readouterr().err
    )


def test_the_message_says_why_nothing_is_left_to_train(fit, capsys):
    settings = ['optim.lr=1.0e-30', 'augment=[resize]', 'model.freeze=backbone', 'train.epochs=3']
    fit(*settings)
    for more, words in (
        (['train.epochs=9', 'train.patience=2'], 'nothing to train: no better valid_top1 than'),
        (['train.epochs=2'], 'nothing to train: 3 of train.epochs = 2 are done'),
    ):
        capsys.readouterr()
        fit(*settings, *more, resume=True)
        assert words in capsys.readouterr().err


def test_accepted_changes_restart_the_epoch(fit, capsys):
    stop(fit, asked=9)
    lines = Path('train.txt').read_text().splitlines(keepends=True)
    Path('train.txt').write_text(''.join(lines[:-2]))
    folder = fit('data.labels=[x,b,c]', resume=True, accept=True)
    said = capsys.readouterr().err
    assert "changed since: data.labels: ['a', 'b', 'c'] -> ['x', 'b', 'c']" in said
    assert [row['step'] for row in log_of(folder)] == ['7', '15', '21']  # 6 batches of 24 images in the last two epochs


def test_weights_of_another_network_are_refused_even_with_accept_changes(fit, monkeypatch):
    stop(fit, asked=9)
    Network.features, before = 8, Network.features
    try:
        with pytest.raises(UserError, match='step_0000009.*does not fit'):
            fit(resume=True, accept=True)
    finally:
        Network.features = before


@pytest.mark.parametrize(('size', 'steps'), [(3, 6), (6, 3), (13, 2), (26, 1)])
def test_a_run_resumes_with_another_batch_size_at_the_next_image(fit, capsys, size, steps):
    stop(fit, 'train.epochs=2', asked=9)  # 8 of the 26 images of the second epoch are done
    folder = fit('train.epochs=2', f'train.batch_size={size}', resume=True)
    assert f'changed since: train.batch_size: 4 -> {size}' in capsys.readouterr().err
    assert [row['step'] for row in log_of(folder)] == ['7', str(9 + steps)]
    assert fit.clocks[-1].images == 26
    rates = optim.rates(train.config.active().optim, -(-26 // size), 2)
    assert float(log_of(folder)[-1]['lr']) == pytest.approx(rates[-1], rel=1e-5)


@pytest.mark.parametrize(
    ('before', 'after', 'steps'),
    [
        ('optim.name=momentum', 'optim.name=adam', [7, 14, 21]),
        ('optim.name=sgd', 'optim.name=momentum', [7, 14, 21]),
        ('optim.schedule=constant', 'optim.schedule=cosine', [7, 14, 21]),
        ('optim.schedule=cosine', 'optim.schedule=constant', [7, 14, 21]),
        ('train.accumulate=1', 'train.accumulate=2', [7, 15, 23]),  # 18 images in 3 steps of 6, 26 in 4 of 6 and 7
    ],
)
def test_a_run_resumes_with_another_optimizer_and_says_so(fit, capsys, before, after, steps):
    stop(fit, before, asked=9)
    folder = fit(after, resume=True)
    name, _, value = after.partition('=')
    assert f'changed since: {name}: {before.partition("=")[2]} -> {value}' in capsys.readouterr().err
    assert [int(row['step']) for row in log_of(folder)] == steps
    rates = optim.rates(train.config.active().optim, steps[2] - steps[1], 3)
    assert float(log_of(folder)[-1]['lr']) == pytest.approx(rates[-1], rel=1e-5, abs=1e-12)


def test_a_checkpoint_of_another_version_is_named(fit, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(resume, 'FORMAT', 0)
        stop(fit, asked=9)
    before = everything_below('output')
    with pytest.raises(UserError, match='output/run/checkpoints/step_0000009.*version') as caught:
        fit(resume=True, accept=True)
    assert caught.value.status == 1
    assert everything_below('output') == before


def test_the_loss_scale_of_mixed_precision_is_restored(fit, monkeypatch):
    class Scaler:  # GradScaler needs a GPU
        state = {'scale': np.array([8.0], np.float32), 'incr_count': 3, 'use_dynamic_loss_scaling': True}

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.loaded = state

        def scale(self, loss):
            return loss

        def minimize(self, optimizer, loss):
            optimizer.minimize(loss)

    made, prepare = [], Trainer.prepare

    def prepare_with_scaler(self, *given):
        prepare(self, *given)
        self._scaler = Scaler()
        made.append(self._scaler)

    monkeypatch.setattr(Trainer, 'prepare', prepare_with_scaler)
    stop(fit, asked=2)
    fit(resume=True)
    assert_equal(made[1].loaded, Scaler.state)
    assert made[1].loaded['scale'].dtype == np.float32


def test_ema_can_be_switched_off_and_on(fit):
    stop(fit, 'train.ema=0.5', asked=9)
    stop(fit, resume=True, asked=12)
    folder = fit('train.ema=0.5', resume=True)
    assert [row['epoch'] for row in log_of(folder)] == ['1', '2', '3']


def test_resuming_a_finished_run_with_ema_keeps_its_weights(fit):
    folder = fit()
    last = weights.read(f'{folder}.pdparams')
    fit('train.ema=0.5', resume=True)
    assert_equal(weights.read(f'{folder}.pdparams'), last)


# The script


def test_the_script_resumes_exactly_after_sigterm(tmp_path):
    settings = [
        *('-o', 'data.root=photos', 'data.labels=[cat,dog]', 'image.size=32', 'model.arch=cifarnet', 'device=cpu'),
        *('model.pretrained=false', 'train.batch_size=2', 'train.epochs=5', 'train.save_steps=1', 'train.ema=0.8'),
        *('optim.lr=0.005', 'data.num_workers=1'),
    ]
    alone = {'OMP_NUM_THREADS': '1'}
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'train': 6, 'valid': 2, 'test': 1})
    assert_message(run_script('annotate.py', *settings, cwd=tmp_path), 0)
    missing = run_script('train.py', *settings, 'name=stopped', '--resume', cwd=tmp_path, env=alone)
    assert_message(missing, 1, 'output/stopped', 'no checkpoint')
    assert_message(run_script('train.py', *settings, 'name=whole', cwd=tmp_path, env=alone), 0)

    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'train.py'), *settings, 'name=stopped'],
        cwd=tmp_path,
        env={**os.environ, **alone},
        stderr=subprocess.PIPE,
        text=True,
    )
    reached = tmp_path / 'output/stopped/checkpoints/step_0000008'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not reached.is_dir():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert 'Traceback' not in said and '--resume' in said
    assert not (tmp_path / 'output/stopped.pdparams').exists()

    result = run_script('train.py', *settings, 'name=stopped', '--resume', cwd=tmp_path, env=alone)
    assert_message(result, 0, 'resuming from output/stopped/checkpoints/step_')
    assert_same_run(tmp_path / 'output/stopped', tmp_path / 'output/whole')
