"""The parts of evaluate.py that need no network."""

from types import SimpleNamespace

import numpy as np
import pytest

import config
import evaluate
from zodiac.base.errors import UserError
from zodiac.report import training_log
from zodiac.training import optim

OVERRIDES = ['name=run', 'data.root=.', 'data.labels=[cat,dog]']
RATES = ['optim.lr=0.02', 'train.epochs=4', 'optim.warmup_epochs=1']


def test_weights_that_output_nan_are_refused_by_name():
    probabilities = np.full((5, 3), 1 / 3)
    evaluate.require_finite(probabilities, 'best')
    probabilities[2, 1] = np.nan
    with pytest.raises(UserError, match=r'best: outputs NaN for 1 of 5 images.*optim.lr'):
        evaluate.require_finite(probabilities, 'best')


@pytest.mark.parametrize('epochs', [0, 2, 4])
def test_learning_rates_come_from_the_settings_of_the_run(workdir, epochs):
    cfg = config.load(overrides=OVERRIDES)
    trained = config.load(overrides=[*OVERRIDES, *RATES])
    (workdir / cfg.run_dir).mkdir(parents=True)
    (workdir / cfg.run_dir / 'config.yaml').write_text(trained.to_yaml())
    log = [{'epoch': epoch, 'step': 5 * epoch} for epoch in range(epochs + 1)]
    expected = list(optim.rates(trained.optim, 5, 4))[: 5 * epochs]
    assert list(evaluate.learning_rates(log, cfg)) == pytest.approx(expected)


def test_without_readable_settings_of_the_run_there_are_no_learning_rates(workdir, capsys):
    cfg = config.load(overrides=OVERRIDES)
    log = [{'epoch': 2, 'step': 10}]
    assert len(evaluate.learning_rates(log, cfg)) == 10  # those of `cfg`
    (workdir / cfg.run_dir).mkdir(parents=True)
    (workdir / cfg.run_dir / 'config.yaml').write_text('augment: {scale: 3}\n')
    assert len(evaluate.learning_rates(log, cfg)) == 0
    assert 'output/run/config.yaml' in capsys.readouterr().err
    assert evaluate.learning_rates([], cfg) == []


@pytest.mark.parametrize(
    ('valid', 'expected'),
    [
        ('c.png\t0\n', {'train': [1, 2], 'valid': [1, 0], 'test': [0, 2]}),
        ('d.png\t1\ne.png\t1\n', {'train': [1, 2], 'test': [0, 2]}),  # the test images: not counted twice
        (None, {'train': [1, 2], 'test': [0, 2]}),
    ],
)
def test_images_are_counted_per_split_and_class(workdir, valid, expected):
    indexes = {'train': 'a.png\t0\nb.png\t1\nc.png\t1\n', 'valid': valid, 'test': 'd.png\t1\ne.png\t1\n'}
    for split, text in indexes.items():
        if text is not None:
            (workdir / f'{split}.txt').write_text(text)
    counts = evaluate.class_counts(config.load(overrides=OVERRIDES))
    assert {split: numbers.tolist() for split, numbers in counts.items()} == expected


@pytest.mark.parametrize('valid', ['a.png', 'b.png', None])
def test_the_temperature_is_fitted_on_validation_images_that_are_not_evaluated(workdir, valid):
    labels = np.arange(40) % 2
    if valid:
        (workdir / 'valid.txt').write_text(''.join(f'{i}{valid}\t{label}\n' for i, label in enumerate(labels)))
    dataset = SimpleNamespace(paths=['1a.png'])
    confident = np.where(np.arange(40) < 30, 0.999, 0.001)  # 3 of 4 are right
    probabilities = np.stack([np.where(labels == number, confident, 1 - confident) for number in (0, 1)], 1)
    found = evaluate.temperature(dataset, lambda images: probabilities, config.load(overrides=OVERRIDES))
    assert (found or 0) > 1 if valid == 'b.png' else found is None


LOG = """epoch,step,lr,train_loss,train_top1,valid_loss,valid_top1,seconds,images_per_second
0,0,0.01,,,1.1,0.3,,
1,5,0.01,1.0,0.5,0.9,0.6,2.0,9.0
2,10,0.005,0.8,0.7,0.7,0.8,2.0,9.0
"""


def test_a_log_is_read_as_numbers(workdir):
    (workdir / 'log.csv').write_text(LOG)
    first, *_, last = training_log.read('log.csv')
    assert (first['epoch'], first['train_loss'], first['valid_loss']) == (0, None, 1.1)
    assert (last['step'], last['lr']) == (10, 0.005)
    assert training_log.read('nowhere.csv') == []


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: text[:-25],
        lambda text: text.replace('10,0.005', 'ten,0.005'),
        lambda text: text.replace('0.8,0.7,0.7', '0.8,?,0.7'),
        lambda text: text.replace('valid_loss', 'loss'),
        lambda text: text.replace('\n1,5', '\n,5'),
    ],
    ids=['cut', 'step', 'number', 'column', 'epoch'],
)
def test_a_damaged_log_only_costs_the_curves(workdir, capsys, damage):
    (workdir / 'log.csv').write_text(damage(LOG))
    assert training_log.read('log.csv') == []
    assert 'log.csv: is damaged' in capsys.readouterr().err
