"""Folds and the learning curve in the report."""

import numpy as np
import pytest
from PIL import Image

from zodiac.report import small_data


def points(*shares, recall=(0.9, 0.9)):
    return [
        {'per_class': 5 * 2**number, 'top1': share, 'interval_95': [share - 0.02, share + 0.02], 'recall': list(recall)}
        for number, share in enumerate(shares)
    ]


def test_folds_pool_the_predictions_of_all_images():
    probabilities = np.eye(2)[[0, 0, 1, 1]]
    found = small_data.over_folds(np.array([0, 0, 1, 0]), probabilities, 2)
    low, high = found.pop('interval_95')
    assert found == {'top1': 0.75, 'n': 4, 'k': 2}
    assert 0 < low < 0.75 < high < 1


def test_doubling_follows_the_power_law_of_the_error():
    found = small_data.learning_curve(points(0.6, 0.8, 0.9), ['a', 'b'])
    assert found['doubling'] == {'per_class': 40, 'top1': pytest.approx(0.95)}
    assert (
        found['summary']
        == 'With 20 photos per class the accuracy is 90.0 %; twice as many would bring about +5.0 points.'
    )


def test_a_flat_or_falling_curve_promises_nothing():
    for curve in (points(0.9, 0.9, 0.9), points(0.9, 0.89, 0.88), points(1.0, 1.0)):
        assert 'twice as many would hardly change it.' in small_data.learning_curve(curve, ['a', 'b'])['summary']


def test_the_classes_that_are_behind_are_named_the_worst_first():
    found = small_data.learning_curve(points(0.8, 0.9, recall=(0.85, 0.95, 0.7, None)), ['a', 'b', 'c', 'd'])
    assert found['more_photos_for'] == ['c', 'a'] and found['summary'].endswith(' Add photos of c, a first.')


def test_one_point_gives_no_expectation_and_none_gives_no_curve():
    found = small_data.learning_curve(points(0.8), ['a', 'b'])
    assert found['doubling'] is None and found['summary'] == 'With 5 photos per class the accuracy is 80.0 %.'
    assert small_data.learning_curve([], ['a', 'b']) is None


@pytest.mark.parametrize('shares', [(0.8,), (0.6, 0.8, 0.9), (1.0, 1.0)])
def test_the_curve_is_drawn(workdir, shares):
    small_data.plot_learning_curve('curve.png', small_data.learning_curve(points(*shares), ['a', 'b']))
    with Image.open('curve.png') as image:
        assert image.width > 700
