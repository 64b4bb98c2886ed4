"""Training steps that leave their numbers on the device: read late, they are the same."""

import contextlib
import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import assert_message, make_tree

from zodiac import callbacks, device
from zodiac.errors import UserError

paddle = device.import_paddle()

from zodiac import run_log  # noqa: E402
from zodiac.trainer import Trainer  # noqa: E402


def toy(seed=0, **amp):
    paddle.seed(seed)
    network = paddle.nn.Linear(4, 3)
    trainer = Trainer(network, **amp)
    trainer.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
    return trainer


def batch(seed, size=8):
    rng = np.random.default_rng(seed)
    return [paddle.to_tensor(rng.normal(size=(size, 4)), 'float32')], [paddle.to_tensor(rng.integers(0, 3, size))]


def test_a_step_is_that_of_a_paddle_model():
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
        expected.append([float(loss), 8 * top1])
    assert np.array_equal(ours.read(), expected)
    assert np.array_equal(ours.network.weight.numpy(), theirs.network.weight.numpy())


def test_what_is_read_is_gone_and_nothing_is_lost():
    often, rarely = toy(), toy()
    seen = []
    for seed in range(6):
        often.train_batch(*batch(seed))
        rarely.train_batch(*batch(seed))
        seen.append(often.read())
    assert np.array_equal(np.concatenate(seen), rarely.read())
    assert rarely.read().shape == (0, 2)


def test_gradients_add_up_until_an_update():
    trainer = toy()
    before = trainer.network.weight.numpy()
    trainer.train_batch(*batch(0), update=False)
    assert np.array_equal(trainer.network.weight.numpy(), before)
    trainer.train_batch(*batch(0))
    single = toy()  # from the same seed
    single.train_batch(*batch(0))
    moved, expected = (one.network.weight.numpy() - before for one in (trainer, single))
    assert np.allclose(moved, 2 * expected, atol=1e-6)


def test_labels_as_shares_of_the_classes_count_hits_by_the_largest():
    trainer = toy()
    trainer._loss = lambda logits, labels: (logits * labels).sum()
    images, labels = batch(0)
    shares = paddle.nn.functional.one_hot(labels[0], 3) * 0.9 + 0.1 / 3
    hits = (trainer.network(images[0]).argmax(1) == labels[0]).sum()
    trainer.train_batch(images, [shares])
    assert trainer.read()[0, 1] == int(hits)


@pytest.mark.parametrize(('dtype', 'scaled'), [('float16', True), ('bfloat16', False)])
@pytest.mark.parametrize('level', ['O1', 'O2'])
def test_mixed_precision_asks_paddle_for_its_kind_and_scales_the_loss_of_float16_only(
    monkeypatch, level, dtype, scaled
):
    asked = []

    def decorate(models, optimizers, **how):
        asked.append(how)
        return models, optimizers

    monkeypatch.setattr(paddle.amp, 'decorate', decorate)
    monkeypatch.setattr(paddle.amp, 'GradScaler', lambda: 'a scaler')
    monkeypatch.setattr(paddle.amp, 'auto_cast', lambda **how: asked.append(how) or contextlib.nullcontext())
    trainer = toy(amp=level, amp_dtype=dtype)
    trainer.auto_cast()
    cast = {'enable': True, 'level': level, 'dtype': dtype}
    assert asked == [*([{'level': 'O2', 'dtype': dtype}] if level == 'O2' else []), cast]
    assert trainer._scaler == ('a scaler' if scaled else None)


# In the log


def a_log(every, losses):
    """A RunLog over an epoch whose steps have come to these losses, 2 hits of 4 images each."""
    unread = []
    clock = SimpleNamespace(
        epoch=0, images=0, step=0, done=0, share=4, steps=len(losses), reading=False, epochs=1, batch=4
    )
    log = run_log.RunLog(None, clock)
    log.model = SimpleNamespace(
        read=lambda: np.array([unread.pop(0) for _ in range(len(unread))]).reshape(-1, 2),
        _optimizer=SimpleNamespace(get_lr=lambda: 0.5),
    )
    log.on_epoch_begin(0)
    for loss in losses:
        log.on_train_batch_begin(0)
        unread.append((loss, 2))
        clock.step += 1
        clock.done += 1
        clock.reading = clock.done % every == 0 or clock.done == clock.steps
        log.on_train_batch_end(0)
    log.on_epoch_end(0)
    return log


@pytest.mark.parametrize('every', [2, 3, 10])
def test_numbers_read_late_make_the_same_row(every):
    losses = [1.5, 0.25, 2.0, 0.5, 1.0, 0.125, 3.0]
    rows = [a_log(each, losses).row for each in (1, every)]
    for row in rows:
        del row['seconds'], row['images_per_second']
    assert rows[0] == rows[1]
    assert rows[0]['train_loss'] == pytest.approx(np.mean(losses))
    assert rows[0]['train_top1'] == 0.5


@pytest.mark.parametrize('every', [1, 4])
def test_a_loss_that_is_not_finite_is_told_with_its_own_step(every):
    with pytest.raises(UserError, match=r'the loss is nan at epoch 1, step 3 of that epoch'):
        a_log(every, [1.0, 1.0, math.nan, math.nan, 1.0])


def test_a_checkpoint_within_an_epoch_asks_for_what_is_unread():
    log = a_log(10, [1.0, 2.0])
    log.unread, log.model.read = [(4, 0.5)], lambda: np.array([[math.inf, 0]])
    with pytest.raises(UserError, match='the loss is inf'):
        log.sums()


def test_the_clock_reads_every_so_many_steps_and_at_the_last_of_an_epoch():
    class Loader:
        def __len__(self):
            return 7

    clock = callbacks.Clock(Loader(), 1, every=3)
    seen = []
    for clock.done in range(1, 8):
        seen.append(clock.reading)
    assert seen == [False, False, True, False, False, True, True]


def test_a_run_that_reads_rarely_gives_the_same_log_and_weights(tmp_path, call_script):
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'train': 6, 'valid': 2, 'test': 1})
    shared = ['-o', 'data.root=photos', 'data.labels=[cat,dog]', 'image.size=32', 'model.arch=resnet18', 'device=cpu']
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


def test_the_tuning_of_kernels_is_for_a_gpu(tmp_path, call_script):
    make_tree(tmp_path / 'signs', ['cat', 'dog'], {'train': 2, 'valid': 2, 'test': 1})
    result = call_script('train.py', '-o', 'device=cpu', 'train.autotune=true', cwd=tmp_path)
    assert_message(result, 1, 'train.autotune = true', 'set train.autotune=false')
