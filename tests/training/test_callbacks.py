"""Callbacks in training runs of small networks: accumulation, validation, EMA, best epoch, clock, signals, freezing."""

import contextlib
import gc
import json
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import clock_of
from small_runs import SETTINGS, log_of, run_train, write_index

import train
from dataset import Loader, ZodiacDataset
from zodiac.base.errors import Stopped
from zodiac.base.paddle_setup import paddle
from zodiac.models import freezing, prediction, weights
from zodiac.training import callbacks, optim, run_log
from zodiac.training.trainer import Trainer

nn, functional = paddle.nn, paddle.nn.functional

PLAIN = [
    *('augment=[resize]', 'train.batch_size=8', 'optim.name=sgd', 'optim.schedule=step', 'optim.step_epochs=1000'),
    *('optim.lr=0.1', 'optim.weight_decay=0'),
]
TRAIN, VALID = 24, 7


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def with_batch_norm():
    return nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def with_dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def state_of(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def assert_same(state, other, tolerance=0.0):
    assert list(state) == list(other)
    for name in state:
        np.testing.assert_allclose(state[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)


def differ(state, other):
    return any(not np.array_equal(state[name], other[name]) for name in state)


@pytest.fixture
def fit(workdir, monkeypatch):
    """Run train.py with the network of `make()`.

    Returns: `start`, the initial state of the network; `steps`, its state after each optimizer step; `validated`, its state in each
    validation; `rows` of log.csv; `network`; `folder`.
    """
    rng = np.random.default_rng(0)
    write_index('train', rng.permutation(np.arange(TRAIN) % 3))
    write_index('valid', rng.integers(0, 3, VALID))

    def call(make, *overrides, on_validation=None):
        run = call.last = SimpleNamespace(steps=[], validated=[], rows=[])

        def watched_network():
            run.network = make()
            run.start = state_of(run.network)
            run.network.register_forward_post_hook(on_forward)
            return run.network

        def on_forward(layer, given, output):
            if not layer.training and len(given[0]) == VALID:
                run.validated.append(state_of(layer))
                if on_validation:
                    on_validation(len(run.validated))

        def watched_optimizer(*args, **kwargs):
            optimizer = made(*args, **kwargs)
            step = optimizer.minimize

            def minimize(*args, **kwargs):
                result = step(*args, **kwargs)
                run.steps.append(state_of(run.network))
                return result

            optimizer.minimize = minimize
            return optimizer

        made = optim.optimizer
        with monkeypatch.context() as patch:
            patch.setattr(optim, 'optimizer', watched_optimizer)
            run.folder = run_train(monkeypatch, watched_network, [*PLAIN, *overrides])
        run.rows = log_of(run.folder)
        return run

    return call


def checkpoints(folder):
    """[(facts, {file name: content})] of the checkpoints of a run, oldest first."""
    found = []
    for path in sorted((Path(folder) / 'checkpoints').iterdir()):
        contents = {file.name: weights.read(file) for file in sorted(path.glob('*.pdparams'))}
        found.append((json.loads((path / 'state.json').read_text(encoding='utf-8')), contents))
    return found


def averages(start, steps, decay):
    """The average after each step, by its formula."""
    average, result = {name: value.astype(float) for name, value in start.items()}, []
    for number, state in enumerate(steps, 1):
        d = min(decay, (1 + number) / (10 + number))
        average = {name: d * average[name] + (1 - d) * state[name] for name in state}
        result.append(average)
    return result


def training_batches(epoch, *overrides):
    cfg = train.config.load(overrides=[*SETTINGS, *PLAIN, *overrides])
    loader = Loader(ZodiacDataset('train', cfg=cfg), cfg.train.batch_size, cfg, shuffle=True)
    loader.set_epoch(epoch)
    return list(loader)


def gradient(make, state, images, labels):
    """{parameter: gradient} of the mean cross-entropy at the weights `state`."""
    network = make()
    network.set_state_dict(state)
    network.train()
    functional.cross_entropy(network(images), labels).backward()
    return {name: parameter.grad.numpy() for name, parameter in network.named_parameters()}


# Accumulated gradients


def test_accumulated_batches_step_like_one_large_batch(fit):
    for extra in ([], ['optim.name=momentum', 'train.label_smoothing=0.1', 'optim.clip_norm=0.5']):
        whole = fit(plain, 'train.batch_size=12', *extra)
        parts = fit(plain, 'train.batch_size=6', 'train.accumulate=2', *extra)
        assert len(whole.steps) == len(parts.steps) == 6
        assert_same(parts.start, whole.start)
        for state, expected in zip(parts.steps, whole.steps):
            assert_same(state, expected, 1e-5)
        for row, expected in zip(parts.rows, whole.rows):
            for column in ('train_loss', 'train_top1', 'valid_loss', 'valid_top1'):
                assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-4)
        assert [row['step'] for row in parts.rows] == ['4', '8', '12']


@pytest.mark.parametrize(('size', 'parts'), [(8, 2), (5, 3), (4, 4)])
def test_a_step_with_fewer_images_is_the_mean_over_them(fit, size, parts):
    """24 images: two steps of 12, not of 16 and 8."""
    settings = ['train.epochs=2', 'train.class_weights=balanced', 'train.label_smoothing=0.1']
    whole = fit(plain, f'train.batch_size={size * parts}', *settings)
    added = fit(plain, f'train.batch_size={size}', f'train.accumulate={parts}', *settings)
    assert len(whole.steps) == len(added.steps) == 4
    for state, expected in zip(added.steps, whole.steps):
        assert_same(state, expected, 1e-5)
    for row, expected in zip(added.rows, whole.rows):
        for column in ('train_loss', 'train_top1'):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-4)


@pytest.mark.parametrize(('size', 'parts'), [(1, 12), (4, 3)])
def test_kept_batch_norm_statistics_make_a_step_independent_of_its_batches(fit, size, parts):
    settings = ['train.batch_norm=keep', 'model.pretrained=true', 'train.epochs=2']
    whole = fit(two_stages, 'train.batch_size=12', *settings)
    added = fit(two_stages, f'train.batch_size={size}', f'train.accumulate={parts}', *settings)
    assert len(whole.steps) == len(added.steps) == 4
    assert differ(whole.start, whole.steps[-1])
    for state, expected in zip(added.steps, whole.steps):
        assert_same(state, expected, 1e-5)


# Validation


def test_validation_loss_is_plain_cross_entropy_with_any_training_loss(fit):
    soft = ['train.label_smoothing=0.3', 'train.mixup=0.5', 'train.class_weights=balanced', 'train.accumulate=3']
    run = fit(plain, *soft)
    loader = Loader(ZodiacDataset('valid'), 8, train.config.active())
    ((images, labels),) = loader
    for state, row in zip(run.validated, run.rows):
        network = plain()
        network.set_state_dict(state)
        logits = network(images)
        assert float(row['valid_loss']) == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)
        assert float(row['valid_top1']) == pytest.approx((logits.argmax(1) == labels).numpy().mean(), rel=1e-5)


def test_validation_and_prediction_do_not_sync_with_the_device_per_batch(monkeypatch):
    reads = []
    numpy = paddle.Tensor.numpy
    monkeypatch.setattr(
        paddle.Tensor, 'numpy', lambda tensor, *how: reads.append(tensor) or numpy(tensor)
    )  # float() and the rest use it
    assert float(paddle.ones([])) == 1 and len(reads) == 1
    network = nn.Linear(4, 3)
    trainer = Trainer(network)
    images = paddle.arange(20 * 4, dtype='float32').reshape([20, 4]) / 80
    labels = paddle.arange(20) % 3
    for size in (20, 1):
        batches = [(images[start : start + size], labels[start : start + size]) for start in range(0, 20, size)]
        seen = []
        reads.clear()
        callbacks.Validation(
            batches,
            [
                SimpleNamespace(
                    on_eval_begin=lambda: None, on_eval_batch_end=lambda number: None, on_eval_end=seen.append
                )
            ],
        ).run(trainer)
        assert len(reads) == 1
        reads.clear()
        probabilities = prediction.predict(network, batches, 20)
        assert len(reads) == -(-20 // size // prediction.READ_BATCHES)
        assert probabilities == pytest.approx(numpy(functional.softmax(network(images))), abs=1e-6)
        own = probabilities[range(20), numpy(labels)]
        assert seen == [
            {
                'valid_loss': pytest.approx(-np.log(own).mean()),
                'valid_top1': (probabilities.argmax(1) == numpy(labels)).mean(),
            }
        ]


def test_training_loss_includes_class_weights_and_label_smoothing(fit):
    Path('train.txt').write_text(''.join(f'train/{n}.png\t{int(n > 8) + int(n > 20)}\n' for n in range(TRAIN)))
    settings = ['train.batch_size=24', 'train.epochs=1']
    run = fit(plain, *settings, 'train.label_smoothing=0.1', 'train.class_weights=balanced')
    ((images, labels),) = training_batches(0, *settings)
    network = plain()
    network.set_state_dict(run.start)
    shares = np.eye(3)[labels.numpy()] * 0.9 + 0.1 / 3
    weight = shares @ (24 / (3 * np.bincount(labels.numpy())))
    losses = -(shares * functional.log_softmax(network(images)).numpy()).sum(1)
    assert float(run.rows[0]['train_loss']) == pytest.approx((losses * weight).sum() / weight.sum(), rel=1e-4)


# Exponential moving average


def test_ema_follows_its_formula_and_is_what_is_validated(fit):
    run = fit(with_batch_norm, 'train.ema=0.3', 'train.accumulate=2', 'train.epochs=4')
    assert len(run.steps) == 8
    expected = averages(run.start, run.steps, 0.3)
    assert len(run.validated) == 4
    for seen, average in zip(run.validated, expected[1::2]):
        assert_same(seen, average, 1e-5)
    assert_same(state_of(run.network), run.steps[-1])
    assert differ(run.validated[-1], run.steps[-1])


@pytest.mark.parametrize('parts', [1, 2, 3, 5])
def test_ema_is_updated_once_per_optimizer_step(fit, parts):
    run = fit(plain, 'train.ema=0.99', f'train.accumulate={parts}')
    assert len(run.steps) == 3 * -(-3 // parts)
    assert_same(run.validated[-1], averages(run.start, run.steps, 0.99)[-1], 1e-5)


def test_ema_does_not_change_the_training_weights(fit):
    with_average = fit(with_batch_norm, 'train.ema=0.9')
    without = fit(with_batch_norm)
    assert len(without.steps) == 9
    for state, expected in zip(with_average.steps, without.steps):
        assert_same(state, expected)


def test_checkpoints_hold_the_average_and_the_training_weights(fit):
    run = fit(with_batch_norm, 'train.ema=0.5', 'train.keep_checkpoints=9')
    expected = averages(run.start, run.steps, 0.5)[2::3]
    kept = checkpoints(run.folder)
    assert [(facts['epoch'], facts['step']) for facts, _ in kept] == [(1, 3), (2, 6), (3, 9)]
    for (_, contents), average, learning in zip(kept, expected, run.steps[2::3]):
        assert set(contents) == {'model.pdparams', 'learning.pdparams'}
        assert_same(contents['model.pdparams'], average, 1e-5)
        assert_same(contents['learning.pdparams'], learning)
    best = json.loads((run.folder / 'best' / 'state.json').read_text())
    assert not list((run.folder / 'best').glob('*.pdopt'))
    assert_same(weights.read(run.folder / 'best' / 'model.pdparams'), expected[best['epoch'] - 1], 1e-5)
    assert_same(weights.read('output/run.pdparams'), expected[-1], 1e-5)


def test_without_ema_checkpoints_hold_one_set_of_weights(fit):
    run = fit(plain, 'train.epochs=1')
    ((facts, contents),) = checkpoints(run.folder)
    assert set(contents) == {'model.pdparams'}
    assert_same(contents['model.pdparams'], run.steps[-1])
    assert_same(weights.read('output/run.pdparams'), run.steps[-1])


def test_an_optimizer_without_state_is_saved_without_a_warning(fit):
    fit(plain, 'optim.name=sgd', 'optim.schedule=constant', 'train.epochs=1')


def test_a_checkpoint_within_an_epoch_holds_the_average_after_its_step(fit):
    run = fit(plain, 'train.ema=0.5', 'train.save_steps=2', 'train.keep_checkpoints=9', 'train.epochs=1')
    average = averages(run.start, run.steps, 0.5)[1]
    facts, contents = checkpoints(run.folder)[0]
    assert facts['step'] == 2
    assert_same(contents['learning.pdparams'], run.steps[1])
    assert_same(contents['model.pdparams'], average, 1e-5)


@pytest.mark.parametrize('ema', [0, 0.5])
def test_a_validation_that_is_interrupted_saves_the_training_weights(fit, capsys, ema):
    def stop(count):
        if count == 2:
            raise Stopped(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(with_batch_norm, f'train.ema={ema}', on_validation=stop)
    facts, contents = checkpoints('output/run')[-1]
    assert (facts['epoch'], facts['step']) == (1, 6)
    steps = fit.last.steps
    assert len(steps) == 6
    assert_same(contents['learning.pdparams' if ema else 'model.pdparams'], steps[-1])
    if ema:
        assert_same(contents['model.pdparams'], averages(fit.last.start, steps, ema)[-1], 1e-5)
    assert 'stopped in epoch 2; the weights of step 6 are in ' in capsys.readouterr().err


# The best epoch


def judged(monitor, values, patience=0, waits_for=1):
    """The epochs that were the best so far, the best epoch, and the epoch after which the run stops or None."""
    log = SimpleNamespace(rows=[], run_dir='run')
    best = run_log.Best(log, monitor, patience, waits_for)
    trainer = SimpleNamespace(stop_training=False)
    best.set_model(trainer)
    improved = []
    for epoch, value in enumerate(values, 1):
        row = {'epoch': epoch, 'valid_loss': 0.0, 'valid_top1': 0.0, 'train_loss': 0.0, 'train_top1': 0.0}
        log.rows.append({**row, monitor: value})
        best.on_eval_end()
        if best.improved:
            improved.append(epoch)
        if trainer.stop_training:
            return improved, best.row['epoch'], epoch
    return improved, best.row['epoch'], None


@pytest.mark.parametrize(
    ('monitor', 'improved'),
    [('valid_loss', [1, 3]), ('train_loss', [1, 3]), ('valid_top1', [1, 2, 5]), ('train_top1', [1, 2, 5])],
)
def test_best_is_the_lowest_loss_or_highest_accuracy_and_the_first_of_equals(monitor, improved):
    assert judged(monitor, [0.5, 0.7, 0.2, 0.7, 0.8, 0.2, 0.8]) == (improved, improved[-1], None)


def test_patience_counts_the_epochs_since_the_best_one(capsys):
    losses = [0.5, 0.4, 0.6, 0.3, 0.3, 0.4, 0.9, 0.1]
    assert judged('valid_loss', losses, patience=1) == ([1, 2], 2, 3)
    assert judged('valid_loss', losses, patience=2) == ([1, 2, 4], 4, 6)
    assert judged('valid_loss', losses, patience=3) == ([1, 2, 4], 4, 7)
    assert capsys.readouterr().err.splitlines()[-1] == (
        'stopping: no better valid_loss than 0.3000 (epoch 4) for 3 epochs (train.patience = 3)'
    )
    assert judged('valid_loss', losses, patience=4) == ([1, 2, 4, 8], 8, None)
    assert judged('valid_top1', losses, patience=4) == ([1, 3, 7], 7, None)
    assert capsys.readouterr().err == ''


def test_patience_counts_from_the_epoch_in_which_all_stages_learn():
    losses = [0.5, 0.4, 0.6, 0.7, 0.8, 0.9, 0.9, 0.1]
    assert judged('valid_loss', losses, patience=2, waits_for=1) == ([1, 2], 2, 4)
    assert judged('valid_loss', losses, patience=2, waits_for=3) == ([1, 2], 2, 4)
    assert judged('valid_loss', losses, patience=2, waits_for=5) == ([1, 2], 2, 6)
    assert judged('valid_loss', losses, patience=2, waits_for=7) == ([1, 2, 8], 8, None)


def test_any_number_is_better_than_nan():
    assert judged('valid_loss', [float('nan'), 0.5, 0.4])[1] == 3


def test_without_improvement_the_run_stops_and_the_first_epoch_is_best(fit, capsys):
    run = fit(plain, 'optim.lr=1.0e-30', 'train.epochs=9', 'train.patience=2')
    assert [row['epoch'] for row in run.rows] == ['1', '2', '3']
    assert len(run.steps) == 9
    assert json.loads((run.folder / 'best' / 'state.json').read_text())['epoch'] == 1
    captured = capsys.readouterr()
    assert captured.err.count('stopping: no better valid_top1 than') == 1
    assert '(epoch 1) for 2 epochs' in captured.err
    assert 'best epoch 1: validation top-1' in captured.out


@pytest.mark.parametrize('monitor', ['valid_loss', 'valid_top1', 'train_loss', 'train_top1'])
def test_best_holds_the_weights_of_the_best_epoch_of_the_log(fit, capsys, monitor):
    run = fit(plain, f'train.monitor={monitor}', 'optim.lr=2', 'train.epochs=6')
    values = [float(row[monitor]) for row in run.rows]
    expected = values.index(min(values) if monitor.endswith('loss') else max(values))
    best = json.loads((run.folder / 'best' / 'state.json').read_text())
    assert best['epoch'] == expected + 1
    assert best[monitor] == pytest.approx(values[expected], rel=1e-4)
    assert_same(weights.read(run.folder / 'best' / 'model.pdparams'), run.validated[expected])
    said = capsys.readouterr().out
    assert f'best epoch {expected + 1}' in said
    assert (f'(by {monitor} ' in said) == (monitor != 'valid_top1')


# The clock


def test_dropout_is_a_function_of_seed_epoch_and_batch():
    def drawn(seed, epoch, batch):
        clock = clock_of(seed)
        clock.start_from(epoch, 2 * batch, 4 * epoch + batch)
        clock.on_epoch_begin(0)
        clock.on_train_batch_begin(0)
        return paddle.rand([8]).numpy().tolist()

    places = [(seed, epoch, batch) for seed in (0, 1) for epoch in (0, 1) for batch in (0, 1)]
    draws = [drawn(*place) for place in places]
    assert len(set(map(tuple, draws))) == 8
    assert [drawn(*place) for place in reversed(places)] == draws[::-1]


def test_dropout_is_the_same_after_resuming_within_an_epoch():
    def walk(clock, steps):
        draws = []
        for step in range(steps):
            clock.on_train_batch_begin(step)
            draws.append(paddle.rand([8]).numpy().tolist())
            clock.on_train_batch_end(step)
        return draws

    whole = clock_of()
    whole.on_epoch_begin(0)
    walk(whole, 4)
    whole.on_epoch_begin(1)
    expected = walk(whole, 4)
    later = clock_of()
    later.start_from(1, 6, 7)
    later.on_epoch_begin(0)
    assert walk(later, 1) == expected[3:]


def test_the_clock_counts_epochs_images_and_steps():
    clock = clock_of(steps=2)
    assert (clock.epoch, clock.done, clock.step, clock.steps, clock.epochs) == (0, 0, 0, 2, 3)
    seen = []
    for epoch in range(2):
        clock.on_epoch_begin(epoch)
        seen.append(clock.loader.set_to)
        for step in range(2):
            clock.on_train_batch_begin(step)
            clock.on_train_batch_end(step)
            seen.append((clock.epoch, clock.images, clock.done, clock.step))
    assert seen == [(0, 0), (0, 2, 1, 1), (0, 4, 2, 2), (1, 0), (1, 2, 1, 3), (1, 4, 2, 4)]


@pytest.mark.parametrize(
    ('epochs', 'step', 'done'), [(0, 0, 0), (0, 3, 3), (0, 4, 4), (1, 4, 0), (1, 5, 1), (1, 8, 4), (2, 8, 0)]
)
def test_the_clock_of_a_resumed_run_skips_the_batches_already_done(epochs, step, done):
    clock = clock_of()
    clock.start_from(epochs, 2 * done, step)
    assert (clock.epoch, clock.done, clock.step) == (epochs, done, step)
    clock.on_epoch_begin(0)
    assert clock.loader.set_to == (epochs, 2 * done)
    for number in range(4 - done):
        clock.on_train_batch_begin(number)
        clock.on_train_batch_end(number)
    clock.on_epoch_begin(1)
    assert clock.loader.set_to == (epochs + 1, 0)
    assert (clock.epoch, clock.done, clock.step) == (epochs + 1, 0, 4 * (epochs + 1))


@pytest.mark.parametrize(('parts', 'between'), [(1, []), (2, [1, 3, 5]), (3, [1, 2, 4, 5]), (9, [1, 2, 3, 4, 5])])
def test_gradients_accumulate_until_the_step_and_each_epoch_ends_with_a_step(parts, between):
    clock = clock_of(steps=6, parts=parts)  # 12 images in batches of 2
    clock.on_epoch_begin(0)
    waiting = []
    for step in range(6):
        clock.on_train_batch_begin(step)
        announced = clock.model.waiting
        clock.on_train_batch_end(step)
        assert announced == clock.between_updates
        if clock.between_updates:
            waiting.append(step + 1)
    assert waiting == between


@pytest.fixture
def came():
    """The signals that reach the handlers from before the training."""
    came = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, frame: came.append(number))
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_second_signal_during_training_is_handled_as_before_training(came):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped), callbacks.Interrupts(clock_of()) as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert (interrupts.asked, came) == (signal.SIGINT, [])
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
        raise Stopped(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert came == [signal.SIGTERM]


@pytest.mark.parametrize('error', [None, SystemError('of Paddle')])
def test_a_signal_after_the_last_step_is_not_lost(came, error):
    with contextlib.suppress(SystemError), callbacks.Interrupts(clock_of()):
        signal.raise_signal(signal.SIGINT)
        if error:
            raise error
    assert came == [signal.SIGINT]


def test_without_a_signal_none_is_raised_after_training(came):
    with callbacks.Interrupts(clock_of()):
        pass
    assert came == []


@pytest.mark.parametrize(('parts', 'last'), [(1, 1), (2, 2), (3, 3), (9, 6)])
def test_ctrl_c_waits_for_the_optimizer_step(parts, last):
    clock = clock_of(steps=6, parts=parts)
    interrupts = callbacks.Interrupts(clock)
    interrupts.asked = signal.SIGINT
    clock.on_epoch_begin(0)
    with pytest.raises(KeyboardInterrupt):
        for step in range(6):
            clock.on_train_batch_end(step)
            interrupts.on_train_batch_end(step)
    assert clock.step == last


def test_training_with_dropout_is_reproducible_to_the_bit(fit):
    runs = []
    for name in ('first', 'second'):
        runs.append(fit(with_dropout, f'name={name}'))
        paddle.rand([17])
    first, second = runs
    for column in ('train_loss', 'train_top1', 'valid_loss', 'valid_top1'):
        assert [row[column] for row in first.rows] == [row[column] for row in second.rows]
    assert len(first.steps) == 9
    for state, expected in zip(second.steps, first.steps):
        assert_same(state, expected)
    assert_same(weights.read('output/first.pdparams'), weights.read('output/second.pdparams'))


# Unfreezing


def two_stages():
    class Network(nn.Layer):
        def __init__(self):
            super().__init__()
            self.stage = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU(), nn.Flatten())
            self.fc = nn.Linear(144, 3)

        def forward(self, x):
            return self.fc(self.stage(x))

    return Network()


@pytest.mark.parametrize('unfreeze', [0, 1, 2])
def test_frozen_parameters_do_not_change_before_unfreeze_epoch(fit, unfreeze):
    run = fit(two_stages, 'model.freeze=backbone', f'model.unfreeze_epoch={unfreeze}', 'train.epochs=2')
    still = 6 if unfreeze == 0 else 3 * (unfreeze - 1)
    for number, state in enumerate(run.steps, 1):
        moved = {name.split('.')[0] for name in state if not np.array_equal(state[name], run.start[name])}
        assert moved == ({'fc'} if number <= still else {'fc', 'stage'})


HEAD_FIRST = ['model.freeze=backbone', 'model.unfreeze_epoch=3', 'train.epochs=6', 'train.monitor=valid_loss']


@pytest.mark.parametrize('ema', [0, 0.5])
@pytest.mark.parametrize('batch_norm', ['learn', 'keep'])
def test_best_keeps_the_head_on_the_frozen_backbone_when_fine_tuning_makes_it_worse(fit, ema, batch_norm):
    settings = [f'train.ema={ema}', f'train.batch_norm={batch_norm}', 'model.pretrained=true']
    run = fit(
        two_stages,
        *HEAD_FIRST,
        *settings,
        'optim.lr=0.001',
        'optim.backbone_lr=50',
        'optim.clip_norm=1',
        'train.epochs=4',
    )
    losses = [float(row['valid_loss']) for row in run.rows]
    expected = losses.index(min(losses))
    assert expected < 2 and max(losses[2:]) > min(losses) + 0.01
    best = weights.read(run.folder / 'best' / 'model.pdparams')
    assert_same(best, run.validated[expected])
    for name in best:
        assert np.array_equal(best[name], run.start[name]) == name.startswith('stage.'), name


@pytest.mark.parametrize('ema', [0, 0.5])
def test_best_is_of_the_fine_tuning_when_that_improves(fit, ema):
    settings = [f'train.ema={ema}', 'train.batch_norm=keep', 'model.pretrained=true']
    run = fit(two_stages, *HEAD_FIRST, *settings, 'optim.lr=0.0001', 'optim.backbone_lr=0.002')
    losses = [float(row['valid_loss']) for row in run.rows]
    expected = losses.index(min(losses))
    assert expected >= 2
    best = weights.read(run.folder / 'best' / 'model.pdparams')
    assert_same(best, run.validated[expected])
    assert not np.array_equal(best['stage.0.weight'], run.start['stage.0.weight'])
    assert np.array_equal(best['stage.1._mean'], run.start['stage.1._mean'])


def test_patience_does_not_end_a_run_before_all_stages_learn(fit):
    settings = ['model.freeze=backbone', 'model.unfreeze_epoch=4', 'train.epochs=9', 'train.patience=1']
    run = fit(two_stages, *settings, 'optim.lr=1.0e-30')
    assert [row['epoch'] for row in run.rows] == ['1', '2', '3', '4']


def test_single_images_can_be_learned_from_with_kept_statistics(fit):
    run = fit(two_stages, 'train.batch_size=1', 'train.batch_norm=keep', 'model.pretrained=true', 'optim.lr=0.001')
    assert len(run.steps) == 3 * TRAIN
    still = {name for name, value in run.start.items() if np.array_equal(value, run.steps[-1][name])}
    assert still == {'stage.1._mean', 'stage.1._variance'}


def test_unfreezing_keeps_the_replaced_data_parallel_alive(monkeypatch):
    class Exchange:
        def __init__(self, network):
            self.network = network

    network = two_stages()
    old = Exchange(network)
    alive = weakref.ref(old)
    trainer = Trainer(network)
    trainer._adapter = SimpleNamespace(_nranks=2, ddp_model=old)
    del old
    monkeypatch.setattr(paddle, 'DataParallel', Exchange)
    watcher = callbacks.Unfreeze(clock_of(), {1: freezing.freeze(network, 'backbone')})
    watcher.set_model(trainer)
    watcher.on_epoch_begin(0)
    gc.collect()
    assert trainer._adapter.ddp_model is not alive()
    assert alive() is not None


def test_the_curves_of_visualdl_have_no_cliff_where_an_epoch_begins():
    """Each step is drawn with its own loss and accuracy; log.csv has those of the epoch."""
    log, drawn = run_log.RunLog(None, SimpleNamespace(step=0, epoch=0, done=0, images=0)), []
    log.writer = SimpleNamespace(add_scalar=lambda name, value, step: drawn.append((name, value)))
    right = [2, 4, 6, 8]  # of 8, in two epochs of two steps
    for step, hits in enumerate(right):
        if step % 2 == 0:
            log.on_epoch_begin(step // 2)
        log.clock.step, log.unread = step + 1, [0.1]
        log.model = SimpleNamespace(read=lambda hits=hits: np.array([[8.0, 8.0, hits, 8.0]]))
        log.read()
    assert [value for name, value in drawn if name == 'train/top1'] == [0.25, 0.5, 0.75, 1.0]
    assert log.top1 == 14 / 16, 'of the epoch so far, for the progress bar'
