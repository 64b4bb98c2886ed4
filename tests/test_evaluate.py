"""The parts of evaluate.py that need no network."""

import numpy as np
import pytest

import config
import evaluate
from zodiac.base.errors import UserError
from zodiac.report import metrics

LOG = """epoch,step,lr,train_loss,train_top1,valid_loss,valid_top1,seconds,images_per_second
0,0,0.01,,,1.1,0.3,,
1,5,0.01,1.0,0.5,0.9,0.6,2.0,9.0
2,10,0.005,0.8,0.7,0.7,0.8,2.0,9.0
"""
RNG = np.random.default_rng(0)


@pytest.fixture
def run(workdir):
    """(configuration, folder) of a run."""
    cfg = config.Config(name='run')
    folder = workdir / 'output' / 'run'
    folder.mkdir(parents=True)
    (folder / 'log.csv').write_text(LOG, encoding='utf-8')
    return cfg, folder


def test_a_network_that_gives_no_numbers_is_refused_by_name():
    probabilities = np.full((5, 3), 1 / 3)
    evaluate.require_numbers(probabilities, 'best')
    probabilities[2, 1] = np.nan
    with pytest.raises(UserError, match=r'best: gives no numbers \(NaN\) for 1 of 5 images.*optim.lr'):
        evaluate.require_numbers(probabilities, 'best')


def test_a_log_that_is_whole_is_read(run):
    assert [row['step'] for row in evaluate.read_log(str(run[1] / 'log.csv'))] == ['0', '5', '10']
    assert evaluate.read_log('nowhere.csv') == []


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
def test_a_damaged_log_costs_the_curves_alone(run, capsys, damage):
    (run[1] / 'log.csv').write_text(damage(LOG), encoding='utf-8')
    assert evaluate.read_log(str(run[1] / 'log.csv')) == []
    assert 'log.csv: is damaged' in capsys.readouterr().err


def test_the_learning_rate_is_that_of_every_step_by_the_settings_of_the_run(run, capsys):
    cfg, folder = run
    rows = evaluate.read_log(str(folder / 'log.csv'))
    assert len(evaluate.learning_rates(rows, cfg)) == 10
    (folder / 'config.yaml').write_text('augment: {scale: 3}\n', encoding='utf-8')  # of another version
    assert len(evaluate.learning_rates(rows, cfg)) == 0
    assert 'output/run/config.yaml' in capsys.readouterr().err


class Images:
    """A split, as far as `calibrate` asks."""

    def __init__(self, labels):
        self.labels = labels


def drawn(n, warmth):
    """Labels, and probabilities that are too sure of them where `warmth` is above 1."""
    from scipy.special import softmax

    logits = 2 * RNG.normal(size=(n, 4))
    labels = np.array([RNG.choice(4, p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(warmth * logits, axis=1)


def test_calibration_is_told_before_and_after_the_temperature():
    valid_labels, valid_probabilities = drawn(2000, 2.5)
    labels, probabilities = drawn(2000, 2.5)
    found = evaluate.calibrate(labels, probabilities, Images(valid_labels), lambda images: valid_probabilities)
    assert found['temperature'] == pytest.approx(2.5, rel=0.1)
    assert found['ece_with_temperature'] < found['ece'] / 3
    assert found['loss_with_temperature'] < metrics.cross_entropy(labels, probabilities)


def test_no_temperature_is_told_where_the_validation_images_do_not_tell_one():
    labels, probabilities = drawn(50, 1)
    sure = np.eye(4)[labels] * 0.8 + 0.05
    for valid in (None, Images(labels)):
        found = evaluate.calibrate(labels, probabilities, valid, lambda images: sure)
        assert found['temperature'] is None and 'ece_with_temperature' not in found
