"""Trainer: steps over several batches and processes, mixed precision, metrics that are read late."""

import contextlib
import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import assert_message, make_tree

from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.data.sampler import BatchSampler
from zodiac.training import callbacks, collectives, run_log
from zodiac.training.soft_labels import Loss, Mixer
from zodiac.training.trainer import Trainer


def toy(seed=0, **amp):
    paddle.seed(seed)
    network = paddle.nn.Linear(4, 3)
    trainer = Trainer(network, **amp)
    trainer.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), Loss())
    return trainer


def batch(seed, size=8):
    rng = np.random.default_rng(seed)
    return [paddle.to_tensor(rng.normal(size=(size, 4)), 'float32')], [paddle.to_tensor(rng.integers(0, 3, size))]


def test_a_step_equals_that_of_paddle_model():
    ours, theirs = toy(), paddle.Model(toy().network)
    theirs.prepare(
        paddle.optimizer.SGD(0.1, parameters=theirs.network.parameters()),
        paddle.nn.CrossEntropyLoss(),
        paddle.metric.Accuracy(),
    )
    expected = []
    for seed in range(5):
        ours.train_batch(*batch(seed))
        (loss,), (top1,) = theirs.train_batch(*batch(seed))
        expected.append([8 * float(loss), 8, 8 * top1, 8])
    assert ours.read() == pytest.approx(np.array(expected), rel=1e-5)
    assert ours.network.weight.numpy() == pytest.approx(theirs.network.weight.numpy(), abs=1e-6)


def test_read_returns_each_batch_once():
    often, rarely = toy(), toy()
    seen = []
    for seed in range(6):
        often.train_batch(*batch(seed))
        rarely.train_batch(*batch(seed))
        seen.append(often.read())
    assert np.array_equal(np.concatenate(seen), rarely.read())
    assert rarely.read().shape == (0, 4)


WEIGHTS = [0.2, 1.0, 6.0]
LABELS = {  # class weights, and the labels of 3 classes
    'none': (None, lambda images, labels: (images, labels)),
    'smoothing': (None, lambda images, labels: Mixer(3, 0.2)(images, labels, np.random.default_rng(0))),
    'class weights': (WEIGHTS, lambda images, labels: (images, labels)),
    'mixed': (None, lambda images, labels: Mixer(3, 0.1, mixup=1.0)(images, labels, np.random.default_rng(0))),
    'mixed with class weights': (
        WEIGHTS,
        lambda images, labels: Mixer(3, 0.1, mixup=1.0, cutmix=1.0)(images, labels, np.random.default_rng(1)),
    ),
}


def step_trainer(class_weights):
    """A trainer of a small network without BatchNorm and dropout, from a fixed seed."""
    paddle.seed(0)
    network = paddle.nn.Sequential(
        paddle.nn.Flatten(), paddle.nn.Linear(48, 8), paddle.nn.Tanh(), paddle.nn.Linear(8, 3)
    )
    trainer = Trainer(network)
    optimizer = paddle.optimizer.Momentum(
        0.5, 0.9, network.parameters(), weight_decay=0.01, grad_clip=paddle.nn.ClipGradByGlobalNorm(0.5)
    )
    trainer.prepare(optimizer, Loss(class_weights))
    return trainer


def weights_of(trainer):
    return [parameter.numpy() for parameter in trainer.network.parameters()]


def steps_by_autograd(class_weights, given):
    """Weights and metrics after steps on the weighted means of whole batches, by the formula."""
    trainer = step_trainer(class_weights)
    weights, read = paddle.to_tensor(class_weights or [1.0] * 3), []
    for images, labels in given:
        logits = trainer.network(images)
        shares = labels if labels.ndim == 2 else paddle.nn.functional.one_hot(labels, 3)
        losses = -(shares * paddle.nn.functional.log_softmax(logits)).sum(1)
        weight = (shares * weights).sum(1)
        ((losses * weight).sum() / weight.sum()).backward()
        trainer.optimizer.step()
        trainer.optimizer.clear_grad()
        hits = (logits.argmax(1) == shares.argmax(1)).astype('int64').sum()
        read.append([float((losses * weight).sum()), float(weight.sum()), int(hits), len(labels)])
    return weights_of(trainer), read


def steps_in_shares(monkeypatch, class_weights, given, number, accumulate):
    """The same with several processes, whose exchange of gradients is simulated, and accumulated batches."""
    trainers = [step_trainer(class_weights) for _ in range(number)]
    first, *others = trainers

    def exchange(weight):
        for parameter, *theirs in zip(*(trainer.network.parameters() for trainer in trainers)):
            parameter.grad.add_(paddle.add_n([other.grad for other in theirs])).scale_(1 / number)
        return weight + sum(other._weight for other in others)

    read = []
    for images, labels in given:
        count = len(labels)
        for rank, trainer in reversed(list(enumerate(trainers))):
            trainer._adapter._nranks, trainer._adapter.ddp_model = number, trainer.network
            shares = list(BatchSampler(count, -(-24 // accumulate), number, rank, accumulate))
            assert accumulate - 1 <= len(shares) <= accumulate  # one batch less where it would get too few images
            for part, share in enumerate(shares):
                trainer.waiting = part < len(shares) - 1 or trainer is not first
                with monkeypatch.context() as patch:
                    if number > 1:
                        patch.setattr(collectives, 'add_up', exchange)
                    share = paddle.to_tensor(share)
                    trainer.train_batch([images.index_select(share)], [labels.index_select(share)])
        read.append(sum(trainer.read().sum(0) for trainer in trainers))
        for other in others:
            other.network.set_state_dict(first.network.state_dict())
            other.network.clear_gradients()
            other._weight = 0.0
    return weights_of(first), read


@pytest.mark.parametrize('count', [24, 23])
@pytest.mark.parametrize('labels', LABELS)
def test_a_step_does_not_depend_on_how_processes_and_batches_divide_it(monkeypatch, labels, count):
    class_weights, mix = LABELS[labels]
    rng = np.random.default_rng(5)
    given = []
    for _ in range(2):
        images = paddle.to_tensor(rng.normal(size=(count, 3, 4, 4)), 'float32')
        given.append(mix(images, paddle.to_tensor(rng.choice(3, count, p=[0.7, 0.2, 0.1]))))
    expected, expected_read = steps_by_autograd(class_weights, given)
    for number in (1, 2, 3):
        for accumulate in (1, 2, 4):
            found, read = steps_in_shares(monkeypatch, class_weights, given, number, accumulate)
            for ours, theirs in zip(found, expected):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=f'{number} x {accumulate}')
            np.testing.assert_allclose(read, expected_read, rtol=1e-5, err_msg=f'{number} x {accumulate}')


def test_gradients_accumulate_until_the_update():
    trainer = toy()
    before = trainer.network.weight.numpy()
    trainer.train_batch(*batch(0), update=False)
    trainer.waiting = True
    trainer.train_batch(*batch(0))
    assert np.array_equal(trainer.network.weight.numpy(), before)
    trainer.waiting = False
    trainer.train_batch(*batch(0))
    single = toy()  # from the same seed
    single.train_batch(*batch(0))
    assert trainer.network.weight.numpy() == pytest.approx(single.network.weight.numpy(), abs=1e-6)


def test_hits_of_soft_labels_use_the_most_probable_class():
    trainer = toy()
    trainer.prepare(trainer.optimizer, lambda logits, labels: ((logits * labels).sum(), paddle.ones([])))
    images, labels = batch(0)
    shares = paddle.nn.functional.one_hot(labels[0], 3) * 0.9 + 0.1 / 3
    hits = (trainer.network(images[0]).argmax(1) == labels[0]).sum()
    trainer.train_batch(images, [shares])
    assert trainer.read()[0, 2] == int(hits)


@pytest.mark.parametrize(('dtype', 'scaled'), [('float16', True), ('bfloat16', False)])
def test_only_float16_uses_loss_scaling(monkeypatch, dtype, scaled):
    asked = []
    monkeypatch.setattr(paddle.amp, 'GradScaler', lambda init_loss_scaling: 'a scaler')
    monkeypatch.setattr(paddle.amp, 'auto_cast', lambda **how: asked.append(how) or contextlib.nullcontext())
    trainer = toy(amp='O1', amp_dtype=dtype)
    trainer.logits(batch(0)[0][0])
    assert asked == [{'enable': True, 'level': 'O1', 'dtype': dtype}]
    assert trainer._scaler == ('a scaler' if scaled else None)


def test_mixed_precision_keeps_weights_average_and_optimizer_in_float32(monkeypatch):
    class Halves(paddle.nn.Linear):
        def forward(self, x):  # like auto_cast, which needs a GPU
            return super().forward(x).astype('bfloat16')

    monkeypatch.setattr(paddle.amp, 'auto_cast', lambda **how: contextlib.nullcontext())
    paddle.seed(0)
    network = Halves(4, 3)
    trainer = Trainer(network, 'O1', 'bfloat16')
    trainer.prepare(paddle.optimizer.Adam(0.01, parameters=network.parameters()), Loss())
    ema = callbacks.Ema(SimpleNamespace(between_updates=False), 0.9999)
    ema.set_model(trainer)
    ema.on_train_begin()
    for step in range(3):
        trainer.train_batch(*batch(step))
        ema.on_train_batch_end(step)
    optimizer = [value for value in trainer.optimizer.state_dict().values() if hasattr(value, 'dtype')]
    kept = [*network.state_dict().values(), *ema.average.values(), *optimizer]
    assert {value.dtype for value in kept} == {paddle.float32}


def test_ema_updates_of_a_ten_thousandth_are_not_lost():
    """They would be lost in float16."""
    network = paddle.nn.Linear(4, 3)
    ema = callbacks.Ema(SimpleNamespace(between_updates=False), 0.9999)
    ema.set_model(SimpleNamespace(network=network))
    network.weight.set_value(paddle.ones([4, 3]))
    ema.on_train_begin()
    ema.step = 100_000
    network.weight.set_value(paddle.full([4, 3], 1.01))
    for step in range(100):
        ema.on_train_batch_end(step)
    assert ema.average['weight'].numpy() == pytest.approx(1.01 - 0.01 * 0.9999**100, abs=1e-5)


# The log


def a_log(every, losses):
    """A RunLog after an epoch with these losses of its steps, each with 2 hits of 4 images."""
    unread = []
    clock = SimpleNamespace(epoch=0, images=0, step=0, done=0, steps=len(losses), reading=False, epochs=1)
    log = run_log.RunLog(None, clock)
    log.model = SimpleNamespace(
        read=lambda: np.array([unread.pop(0) for _ in range(len(unread))]).reshape(-1, 4),
        optimizer=SimpleNamespace(get_lr=lambda: 0.5),
    )
    log.on_epoch_begin(0)
    for loss in losses:
        log.on_train_batch_begin(0)
        unread.append((4 * loss, 4, 2, 4))
        clock.step += 1
        clock.done += 1
        clock.reading = clock.done % every == 0 or clock.done == clock.steps
        log.on_train_batch_end(0)
    log.on_epoch_end(0)
    return log


@pytest.mark.parametrize('every', [2, 3, 10])
def test_metrics_read_late_give_the_same_row(every):
    losses = [1.5, 0.25, 2.0, 0.5, 1.0, 0.125, 3.0]
    rows = [a_log(each, losses).row for each in (1, every)]
    for row in rows:
        del row['seconds'], row['images_per_second']
    assert rows[0] == rows[1]
    assert rows[0]['train_loss'] == pytest.approx(np.mean(losses))
    assert rows[0]['train_top1'] == 0.5


@pytest.mark.parametrize('every', [1, 4])
def test_a_non_finite_loss_is_reported_with_its_step(every):
    with pytest.raises(UserError, match=r'the loss is nan at epoch 1, step 3 of that epoch'):
        a_log(every, [1.0, 1.0, math.nan, math.nan, 1.0])


def test_a_checkpoint_within_an_epoch_reads_pending_metrics():
    log = a_log(10, [1.0, 2.0])
    log.unread, log.model.read = [0.5], lambda: np.array([[math.inf, 4, 0, 4]])
    with pytest.raises(UserError, match='the loss is inf'):
        log.sums()


def test_the_log_restores_the_sums_of_an_earlier_version():
    log = a_log(1, [1.0])
    log.restore([], {'by_process': [[3, 4.5, 1], [2, 3.0, 2]], 'lr': 0.1, 'seconds': 2.0}, {})
    assert log.so_far == {'loss_sum': 7.5, 'weight': 5, 'hits': 3, 'images': 5, 'lr': 0.1, 'seconds': 2.0}


def test_metrics_are_read_every_n_steps_and_at_the_end_of_an_epoch():
    class Loader:
        def __len__(self):
            return 7

    clock = callbacks.Clock(Loader(), 1, every=3)
    seen = []
    for clock.done in range(1, 8):
        seen.append(clock.reading)
    assert seen == [False, False, True, False, False, True, True]


def test_read_steps_does_not_change_the_log(tmp_path, call_script):
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'train': 6, 'valid': 2, 'test': 1})
    shared = ['-o', 'data.root=photos', 'data.labels=[cat,dog]', 'image.size=32', 'model.arch=cifarnet', 'device=cpu']
    shared += ['model.pretrained=false', 'data.num_workers=0', 'train.epochs=2', 'train.batch_size=3']
    shared += ['train.label_smoothing=0.1', 'train.save_steps=3']
    assert_message(call_script('annotate.py', *shared, cwd=tmp_path), 0)
    rows = []
    for every in (1, 3, 100):
        assert_message(
            call_script('train.py', *shared, f'name=every{every}', f'train.read_steps={every}', cwd=tmp_path), 0
        )
        with open(tmp_path / f'output/every{every}/log.csv', newline='') as file:
            rows.append([list(row.values())[:7] for row in csv.DictReader(file)])
    assert rows[0] == rows[1] == rows[2]
