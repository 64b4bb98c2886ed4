"""The ranking of wrong labels, on drawn features."""

import numpy as np
import pytest

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')

from zodiac.review import findings

CLASSES, EACH, WIDTH = 4, 30, 16


def clusters(seed=0):
    """(float32 [n, d], int [n]): a cloud for each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), EACH)
    centers = 3 * rng.normal(size=(CLASSES, WIDTH))
    return (centers[labels] + rng.normal(size=(len(labels), WIDTH))).astype(np.float32), labels


def swapped(labels, count, seed=0):
    """(labels, numbers of those that were swapped)"""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[:count]
    changed = labels.copy()
    changed[chosen] = (labels[chosen] + rng.integers(1, CLASSES, count)) % CLASSES
    return changed, chosen


@pytest.fixture(scope='module')
def judged():
    features, labels = clusters()
    changed, chosen = swapped(labels, 12)
    return findings.judge([features], changed, CLASSES), labels, changed, chosen


def test_swapped_labels_come_first_with_the_right_suggestion(judged):
    found, labels, _, chosen = judged
    assert set(np.argsort(found.quality)[: len(chosen)]) == set(chosen)
    assert set(np.flatnonzero(found.wrong)) == set(chosen)
    assert (found.suggested[chosen] == labels[chosen]).all()


def test_clean_labels_are_left_alone():
    features, labels = clusters()
    found = findings.judge([features], labels, CLASSES)
    assert not found.wrong.any() and found.quality.min() > 0.5


def test_the_result_is_the_same_each_time(judged):
    found, _, changed, _ = judged
    again = findings.judge([clusters()[0]], changed, CLASSES)
    assert np.array_equal(found.quality, again.quality) and np.array_equal(found.wrong, again.wrong)


def test_a_photo_like_no_class_is_strange():
    features, labels = clusters()
    features[5] = 40 * np.random.default_rng(1).normal(size=WIDTH)
    found = findings.judge([features], labels, CLASSES)
    assert found.strange[5] and found.unfamiliar.argmax() == 5 and found.strange.sum() < 8


def test_a_class_with_one_photo_is_not_judged():
    features, labels = clusters()
    kept = np.r_[0:91]
    found = findings.judge([features[kept]], labels[kept], CLASSES)
    assert np.isnan(found.probabilities[90]).all() and found.quality[90] == 1 and not found.wrong[90]
    assert found.suggested[90] == 3 and not found.wrong.any()


def test_copies_of_a_photo_do_not_vouch_for_its_label():
    features, labels = clusters()
    features[1], labels[1], labels[0] = features[0], 2, 2
    groups = np.arange(len(labels))
    groups[1] = 0
    assert set(np.flatnonzero(findings.judge([features], labels, CLASSES, groups=groups).wrong)) == {0, 1}


def test_the_heads_of_the_second_round_do_not_learn_from_photos_that_were_picked(judged):
    _, _, changed, _ = judged
    features = clusters()[0]
    once, twice = (findings.judge([features], changed, CLASSES, rounds=rounds) for rounds in (1, 2))
    right = clusters()[1]
    own = [found.probabilities[np.arange(len(right)), right].mean() for found in (once, twice)]
    assert own[1] > own[0]


def test_no_class_loses_all_its_photos_to_suspicion():
    trusted = findings._to_learn_from(np.array([False, False, True, True]), np.array([0, 0, 1, 1]), np.arange(4))
    assert trusted.all()


def test_neighbours_are_the_nearest_photos_of_a_class_without_copies():
    features = np.array([[1, 0], [0.99, 0.1], [0.9, 0.3], [-1, 0.2], [-1, 0.1], [1, 0]], np.float32)
    near = findings.Neighbours(features, np.array([0, 0, 0, 1, 1, 0]), np.array([0, 1, 2, 3, 4, 0]))
    assert near.of(0, 0) == [1, 2] and near.of(0, 0, 1) == [1]
    assert set(near.of(0, 1)) == {3, 4} and near.of(0, 2) == []
