"""Calibration against values computed by hand and data of known calibration."""

import json

import numpy as np
import pytest
from scipy import special

from zodiac.report import calibration, metrics

RNG = np.random.default_rng(0)


def softmax(logits):
    return special.softmax(logits, axis=1)


def drawn(probabilities, seed=0):
    """int [n]: labels drawn with these probabilities, which are therefore calibrated."""
    rng = np.random.default_rng(seed)
    return (probabilities.cumsum(1) > rng.random((len(probabilities), 1))).argmax(1)


def test_scores_match_those_computed_by_hand():
    labels = [0, 1, 1, 0]
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    scores = calibration.evaluate(labels, probabilities)
    assert [(row['n'], row['confidence'], row['accuracy']) for row in scores['bins']] == [
        (1, pytest.approx(0.6), 1.0),
        (1, pytest.approx(0.7), 1.0),
        (2, pytest.approx(0.9), 0.5),
    ]
    assert scores['ece'] == pytest.approx((0.4 + 0.3 + 2 * 0.4) / 4)
    assert scores['brier'] == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.16 + 2 * 0.09) / 4)
    assert json.loads(json.dumps(scores)) == scores


def test_a_bin_includes_its_upper_end_only():
    rows = calibration.reliability([0, 0, 0], np.array([[1.0, 0.0], [0.5, 0.5], [0.75, 0.25]]), count=4)
    assert [(row['low'], row['high'], row['n']) for row in rows] == [(0.25, 0.5, 1), (0.5, 0.75, 1), (0.75, 1.0, 1)]


def test_every_image_is_in_one_bin():
    probabilities = softmax(RNG.normal(size=(1000, 5)) * 4)
    rows = calibration.reliability(drawn(probabilities), probabilities)
    assert sum(row['n'] for row in rows) == 1000
    assert all(row['low'] < row['confidence'] <= row['high'] for row in rows)


def test_only_uncalibrated_probabilities_have_an_error():
    logits = RNG.normal(size=(40000, 5)) * 2
    labels = drawn(softmax(logits))
    assert calibration.evaluate(labels, softmax(logits))['ece'] < 0.01
    assert calibration.evaluate(labels, softmax(3 * logits))['ece'] > 0.1


@pytest.mark.parametrize('temperature', [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    logits = RNG.normal(size=(40000, 5)) * 2
    found = calibration.fit_temperature(drawn(softmax(logits)), softmax(logits * temperature))
    assert found == pytest.approx(temperature, rel=0.03)


def test_a_temperature_divides_the_logits_and_keeps_the_order():
    logits = RNG.normal(size=(50, 6)) * 3
    warmer = calibration.with_temperature(softmax(logits), 1.7)
    assert np.allclose(warmer, softmax(logits / 1.7))
    assert (warmer.argsort(1) == logits.argsort(1)).all()
    assert np.allclose(calibration.with_temperature(softmax(logits), 1.0), softmax(logits))


def test_the_fitted_temperature_has_the_lowest_loss():
    logits = RNG.normal(size=(300, 4))
    probabilities, labels = softmax(3 * logits), drawn(softmax(logits))
    found = calibration.fit_temperature(labels, probabilities)
    least = metrics.cross_entropy(labels, calibration.with_temperature(probabilities, found))
    for other in np.geomspace(0.05, 20, 200):
        assert metrics.cross_entropy(labels, calibration.with_temperature(probabilities, other)) >= least - 1e-6


def test_scores_are_given_with_and_without_a_temperature():
    logits = RNG.normal(size=(2000, 4)) * 2
    labels, probabilities = drawn(softmax(logits)), softmax(2.5 * logits)
    found = calibration.evaluate(labels, probabilities, 2.5)
    assert found['ece'] == calibration.evaluate(labels, probabilities)['ece']
    assert found['ece_with_temperature'] == pytest.approx(calibration.evaluate(labels, softmax(logits))['ece'])
    assert found['loss_with_temperature'] == pytest.approx(metrics.cross_entropy(labels, softmax(logits)))
    assert found['ece_with_temperature'] < found['ece'] / 3
    assert 'ece_with_temperature' not in calibration.evaluate(labels, probabilities)


@pytest.mark.parametrize('probabilities', [np.eye(3), np.array([[1.0, 0.0, 0.0]] * 3)])
@pytest.mark.parametrize('temperature', [calibration.LOWEST, calibration.HIGHEST])
def test_probabilities_of_zero_and_one_stay_finite(probabilities, temperature):
    assert np.isfinite(calibration.with_temperature(probabilities, temperature)).all()


@pytest.mark.parametrize('right', [True, False])
def test_no_temperature_is_fitted_if_all_images_are_right_or_all_wrong(right):
    probabilities = softmax(RNG.normal(size=(24, 4)) * 3)
    labels = probabilities.argmax(1) if right else (probabilities.argmax(1) + 1) % 4
    assert calibration.fit_temperature(labels, probabilities) is None
