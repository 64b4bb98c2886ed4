"""The learning-rate range test: rates, smoothed losses, where it stops, what it proposes."""

import itertools
import math
import re
import types

import numpy as np
import pytest
from conftest import make_tree

import config
import train
from zodiac.base.paddle_setup import paddle
from zodiac.report import plots
from zodiac.training import lr_finder, optim
from zodiac.training.soft_labels import Loss
from zodiac.training.trainer import Trainer


class Scripted:
    """A loss whose values come from a list, but not its gradients; records the labels of its calls."""

    def __init__(self, values):
        self.values = iter(values)
        self.labels = []

    def __call__(self, output, label):
        self.labels.append(int(label[0]))
        mean = output.mean()
        return len(label) * (mean - mean.detach() + next(self.values)), paddle.full([], float(len(label)))


def toy_trainer(loss=None, seed=0, **settings):
    """A prepared `Trainer` of one linear layer, 4 numbers to 3 classes."""
    settings = config.Optim(**{'lr': 0.01, 'weight_decay': 0.0, 'schedule': 'constant', **settings})
    paddle.seed(seed)
    network = paddle.nn.Linear(4, 3)
    trainer = Trainer(network)
    optimizer = optim.optimizer(settings, optim.schedule(settings, 10, 10), network)
    trainer.prepare(optimizer, loss or Loss())
    return trainer


def toy_batches(count=1, size=24):
    """Batches of points around one centre per class."""
    rng = np.random.default_rng(0)
    labels = np.arange(size) % 3
    centres = rng.normal(0, 1, (3, 4))
    return [
        (paddle.to_tensor(centres[labels] + rng.normal(0, 0.3, (size, 4)), 'float32'), paddle.to_tensor(labels))
        for _ in range(count)
    ]


def numbered_batches(count):
    """Batches whose labels tell them apart."""
    return [(paddle.ones([2, 4]), paddle.to_tensor([number % 3, 0])) for number in range(count)]


def bias_corrected(losses):
    """By definition: the mean with weight 0.9^k on the loss k steps ago."""
    return [
        sum(0.9**k * losses[n - k] for k in range(n + 1)) / sum(0.9**k for k in range(n + 1))
        for n in range(len(losses))
    ]


# sweep


def test_the_rates_rise_geometrically_from_low_to_high():
    trainer = toy_trainer(Scripted([1.0] * 30))
    rates, losses = lr_finder.sweep(trainer, numbered_batches(3), low=1e-4, high=1e-1, steps=30)
    assert rates == pytest.approx(np.geomspace(1e-4, 1e-1, 30), rel=1e-6)
    assert len(losses) == 30


@pytest.mark.parametrize('name', ['sgd', 'momentum', 'adam', 'adamw'])
def test_each_step_uses_the_reported_rate(name):
    trainer = toy_trainer(Scripted([1.0] * 8), name=name, momentum=0.0)
    bias = trainer.network.bias
    seen = []

    def watched():
        while True:
            seen.append(bias.numpy().astype('float64'))
            yield paddle.ones([2, 4]), paddle.to_tensor([0, 0])

    rates, _ = lr_finder.sweep(trainer, watched(), low=1e-3, high=1.0, steps=8)
    seen.append(bias.numpy().astype('float64'))
    moved = np.abs(np.diff(seen, axis=0)).max(1)[:8]
    slope = 1 / 3 if name in ('sgd', 'momentum') else 1.0  # Adam normalises a constant gradient to its sign
    assert moved == pytest.approx(rates * slope, rel=1e-3)


def test_backbone_lr_keeps_its_ratio_to_lr():
    settings = config.Optim(name='sgd', lr=0.1, backbone_lr=0.01, weight_decay=0.0, schedule='constant')
    network = paddle.nn.Linear(4, 3)
    start = {name: parameter.numpy().astype('float64') for name, parameter in network.named_parameters()}
    trainer = Trainer(network)
    optimizer = optim.optimizer(settings, optim.schedule(settings, 10, 10), network, ['weight'])
    trainer.prepare(optimizer, Scripted([1.0] * 5))
    rates, _ = lr_finder.sweep(trainer, numbered_batches(1), low=1e-2, high=1.0, steps=5)
    for name, share in (('weight', 0.1), ('bias', 1.0)):
        np.testing.assert_allclose(start[name] - getattr(network, name).numpy(), share * rates.sum() / 3, rtol=1e-3)


def test_decoupled_decay_uses_the_reported_rate():
    trainer = toy_trainer(Scripted([1.0] * 4), name='sgd', decoupled_decay=True, weight_decay=0.5)
    start = trainer.network.weight.numpy().astype('float64')
    batches = [(paddle.zeros([2, 4]), paddle.to_tensor([0, 0]))]  # no gradient on the weight
    rates, _ = lr_finder.sweep(trainer, batches, low=0.01, high=0.5, steps=4)
    np.testing.assert_allclose(trainer.network.weight.numpy(), start * np.prod(1 - 0.5 * rates), rtol=1e-5)


def test_the_losses_are_the_bias_corrected_mean():
    raw = list(np.random.default_rng(1).uniform(1, 2, 40))
    _, losses = lr_finder.sweep(toy_trainer(Scripted(raw)), numbered_batches(5), steps=40)
    assert losses == pytest.approx(bias_corrected(raw), rel=1e-5)


def test_it_stops_when_the_smoothed_loss_exceeds_four_times_its_lowest():
    raw = [2.0] * 10 + [1.0] * 10 + [3.0 * 1.5**n for n in range(80)]
    rates, losses = lr_finder.sweep(toy_trainer(Scripted(raw)), numbered_batches(5))
    expected = bias_corrected(raw)
    end = next(n for n in range(100) if n and expected[n] > 4 * min(expected[:n]))
    assert 20 < end < 40
    assert len(rates) == len(losses) == end
    assert losses == pytest.approx(expected[:end], rel=1e-5)


def test_it_stops_when_training_diverges():
    trainer = toy_trainer(name='sgd')
    rates, losses = lr_finder.sweep(trainer, toy_batches(), low=1e-3, high=1e6, steps=60)
    assert 20 < len(rates) < 60
    assert losses.argmin() < len(losses) - 1


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('good', [0, 1, 7])
def test_it_stops_before_the_first_loss_that_is_not_finite(bad, good):
    loss = Scripted([1.0] * good + [bad] + [1.0] * 20)
    rates, losses = lr_finder.sweep(toy_trainer(loss), numbered_batches(2), steps=20)
    assert len(rates) == len(losses) == good
    assert np.isfinite(losses).all()
    assert len(loss.labels) == good + 1


@pytest.mark.parametrize(('batches', 'steps'), [(3, 10), (50, 5)])
def test_each_step_reads_one_batch_and_few_batches_are_repeated(batches, steps):
    loss = Scripted([1.0] * steps)
    lr_finder.sweep(toy_trainer(loss), numbered_batches(batches), steps=steps)
    assert loss.labels == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0][:steps]


def test_a_loader_without_batches_ends():
    passes = itertools.count()

    class Empty:
        def __iter__(self):
            assert next(passes) < 100, 'it goes on for ever'
            return iter(())

    rates, losses = lr_finder.sweep(toy_trainer(), Empty())
    assert len(rates) == len(losses) == 0


def test_the_proposal_lets_a_toy_network_learn():
    rates, losses = lr_finder.sweep(toy_trainer(name='sgd'), toy_batches(4), low=1e-5, high=100.0)
    proposal = lr_finder.propose(rates, losses)
    trainer = toy_trainer(name='sgd', lr=proposal)
    for _ in range(25):
        for x, y in toy_batches(4):
            trainer.train_batch([x], [y])
    seen = trainer.read()[:, 0]
    assert 1e-3 < proposal < 100
    assert np.mean(seen[-10:]) < 0.5 * seen[0]


# propose

RATES = np.geomspace(1e-6, 1.0, 100)


def falling_curve(middle, width=0.3):
    """A loss that falls from 2.5 to 1, steepest at log10 rate = `middle`, and rises 1.5 decades later."""
    place = np.log10(RATES) - middle
    return 2.5 - 1.5 / (1 + np.exp(-place / width)) + np.expm1(5 * np.maximum(place - 1.5, 0))


@pytest.mark.parametrize('middle', [-4.0, -3.0, -2.0, -1.0])
def test_the_proposal_is_where_the_loss_falls_fastest(middle):
    proposal = lr_finder.propose(RATES, falling_curve(middle))
    assert type(proposal) is float and np.log10(proposal) == pytest.approx(middle, abs=0.04)


def test_a_fall_after_the_lowest_loss_is_ignored():
    losses = falling_curve(-3.0)
    losses[90:] = [90, 80, 30, 10, 9, 8, 7, 6, 5, 4]  # steep, but after divergence
    assert np.log10(lr_finder.propose(RATES, losses)) == pytest.approx(-3.0, abs=0.04)


@pytest.mark.parametrize(
    'losses',
    [np.linspace(1, 3, 100), np.full(100, 2.0), np.array([2.0, 1.9, 1.8, 7.0, 7.5]), np.array([2.0]), np.array([])],
    ids=['rising', 'flat', 'few', 'one', 'none'],
)
def test_there_is_no_proposal_where_the_loss_never_falls(losses):
    assert lr_finder.propose(RATES[: len(losses)], losses) is None


def test_noise_in_the_first_batches_does_not_mislead_the_proposal():
    proposals = []
    for seed in range(100):
        raw = falling_curve(-2.0) + np.random.default_rng(seed).normal(0, 0.1, 100)
        losses = np.array(bias_corrected(list(raw)))
        proposals.append(lr_finder.propose(RATES, losses))
    assert min(proposals) > 1e-3 and max(proposals) < 0.1


# From train.py


class Epochs(list):
    def set_epoch(self, epoch):
        pass


def test_the_proposal_does_not_depend_on_accumulate(monkeypatch, workdir):
    curves = {}
    ((images, labels),) = toy_batches()
    loader = Epochs([(images * 5, paddle.nn.functional.one_hot(labels, 3))])
    loader.images, loader.batch_sampler = types.SimpleNamespace(labels=labels.numpy()), None
    for parts in (1, 4):
        paddle.seed(0)
        network = paddle.nn.Linear(4, 3)
        monkeypatch.setattr(train, 'build_loaders', lambda cfg: (loader, loader))
        monkeypatch.setattr(train, 'build_network', lambda *args, network=network: (network, []))
        monkeypatch.setattr(lr_finder, 'propose', lambda *curve, parts=parts: curves.setdefault(parts, curve) and 0.1)
        monkeypatch.setattr(plots, 'plot_lr_finder', lambda *args: None)
        cfg = config.load(overrides=['data.labels=[a,b,c]', f'train.accumulate={parts}', 'optim.schedule=constant'])
        train.find_lr(cfg)
    np.testing.assert_allclose(curves[1][1], curves[4][1], rtol=1e-6)


def test_find_lr_plots_the_curve_and_proposes_a_rate(call_script, tmp_path):
    labels = ['cat', 'dog']
    make_tree(tmp_path / 'photos', labels, {'': 4})
    lines = [f'photos/{label}/{label}_{n}.jpg\t{number}\n' for number, label in enumerate(labels) for n in range(4)]
    for split in ('train', 'valid'):
        (tmp_path / 'photos' / f'{split}.txt').write_text(''.join(lines))
    (tmp_path / 'small.yaml').write_text(
        'name: tiny\ndata: {root: photos, labels: [cat, dog], num_workers: 0}\nimage: {size: 32}\n'
        'model: {arch: resnet18, pretrained: false, freeze: backbone}\ntrain: {batch_size: 4}\n'
        'optim: {name: sgd, schedule: cosine, lr: 0.123}\n'
    )
    result = call_script('train.py', '--find-lr', '-c', 'small.yaml', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert 'Traceback' not in result.stderr
    proposal = re.search(r'proposed: -o optim.lr=(\S+), .*now 0.123', result.stdout)
    assert 1e-6 <= float(proposal.group(1)) <= 1
    assert 'written: output/tiny.lr_finder.png' in result.stdout
    assert [path.name for path in (tmp_path / 'output').iterdir()] == ['tiny.lr_finder.png']
    assert (tmp_path / 'output/tiny.lr_finder.png').read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'


def test_find_lr_and_plot_schedule_exclude_each_other(call_script, tmp_path):
    result = call_script('train.py', '--find-lr', '--plot-schedule', cwd=tmp_path)
    assert result.returncode == 2
    assert 'not allowed with' in result.stderr
