"""Which photos to label first."""

import numpy as np
import pytest

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')

from zodiac.review import choose


def likely(*firsts):
    return np.array([[first, 1 - first] for first in firsts])


def test_the_most_uncertain_photo_comes_first_and_each_photo_once():
    features = np.random.default_rng(0).normal(size=(6, 3))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    order = choose.rank(features, likely(0.99, 0.9, 0.52, 0.99, 0.99, 0.99), 6)
    assert order[0] == 2 and sorted(order) == list(range(6))


def test_photos_that_are_the_same_are_not_all_chosen():
    features = np.repeat(np.eye(4), 10, axis=0)
    order = choose.rank(features, np.full((40, 2), 0.5), 4)
    assert len({number // 10 for number in order.tolist()}) == 4


def test_more_photos_than_there_are_and_certain_photos_do_not_fail():
    assert sorted(choose.rank(np.ones((3, 2)), likely(1, 1, 1), 10)) == [0, 1, 2]
    assert len(choose.rank(np.ones((0, 2)), np.ones((0, 2)), 10)) == 0


def test_the_choice_is_the_same_each_time():
    rng = np.random.default_rng(0)
    features, probabilities = rng.normal(size=(50, 4)), rng.dirichlet([1, 1, 1], 50)
    assert np.array_equal(*(choose.rank(features, probabilities, 20, seed=3) for _ in range(2)))
