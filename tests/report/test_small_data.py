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


def curve(measured, each=30):
    """The learning curve of two classes or more of `each` photos."""
    names = 'abcd'[: len(measured[0]['recall'])] if measured else 'ab'
    return small_data.learning_curve(measured, [each] * len(names), list(names))


def test_doubling_the_photos_that_there_are_follows_the_power_law_of_the_error():
    found = curve(points(0.6, 0.8, 0.9), each=40)
    assert found['doubling'] == {'per_class': 80, 'top1': pytest.approx(0.975), 'gain': pytest.approx(0.025)}
    assert found['summary'] == (
        'With 20 images per class the accuracy is 90.0%; twice your images, 80 instead of 40 per class, would bring about +2.5 points.'
    )


def test_a_flat_or_falling_curve_promises_nothing():
    for measured in (points(0.9, 0.9, 0.9), points(0.9, 0.89, 0.88), points(1.0, 1.0)):
        assert 'would hardly change it.' in curve(measured)['summary']


def test_the_classes_that_are_behind_are_named_the_worst_first():
    found = curve(points(0.8, 0.9, recall=(0.83, 0.95, 0.7, None)), each=300)
    assert found['more_photos_for'] == ['c', 'a'] and found['summary'].endswith(' Add images of c, a first.')


def test_a_class_that_chance_explains_is_not_named():
    measured = points(0.8, 0.9, recall=(0.83, 0.95))
    assert curve(measured, each=300)['more_photos_for'] == ['a'] and not curve(measured, each=30)['more_photos_for']


def test_an_interval_is_as_wide_as_the_photos_allow_also_where_all_draws_agree():
    measured = [{'per_class': 3, 'top1': 1.0, 'interval_95': [1.0, 1.0], 'recall': [1.0, 1.0]}]
    low, high = curve(measured, each=10)['points'][0]['interval_95']
    assert 0.8 < low < 0.9 and high == 1


def test_one_point_gives_no_expectation_and_none_gives_no_curve():
    found = curve(points(0.8))
    assert found['doubling'] is None and found['summary'] == 'With 5 images per class the accuracy is 80.0%.'
    assert curve([]) is None


@pytest.mark.parametrize('shares', [(0.8,), (0.6, 0.8, 0.9), (1.0, 1.0)])
def test_the_curve_is_drawn(workdir, shares):
    small_data.plot_learning_curve('curve.png', curve(points(*shares)))
    with Image.open('curve.png') as image:
        assert image.width > 700
