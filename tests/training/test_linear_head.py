"""A solved linear head: scikit-learn's own solution, honest folds, few images, many classes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from zodiac.base.errors import UserError
from zodiac.training import linear_head


def drawn(classes, each, features=40, apart=1.0, seed=0):
    """Features of classes around random centres, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = apart * rng.normal(size=(classes, features))
    return (centres[labels] + rng.normal(size=(len(labels), features))).astype(np.float32) * 3 + 5, labels


@pytest.mark.parametrize('classes', [2, 4])
@pytest.mark.parametrize('features', [5, 300], ids=['more images than features', 'more features than images'])
@pytest.mark.parametrize('balanced', [False, True])
def test_the_solution_is_that_of_scikit_learn_folded_into_the_raw_features(classes, features, balanced):
    values, labels = drawn(classes, 15, features, 0.3)
    values, labels = values[4:], labels[4:]  # classes of different sizes
    head = linear_head.solve([values], labels, classes, balanced, strength=0.1)
    weights = 'balanced' if balanced else None
    scaled = (values - values.mean(0)) / (values - values.mean(0)).std()
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000, class_weight=weights).fit(
        scaled.astype(np.float64), labels
    )
    assert np.allclose(head.probabilities(values), theirs.predict_proba(scaled), atol=1e-3)


def test_views_are_learned_from_and_share_the_weight_of_their_image():
    values, labels = drawn(3, 8)
    once, thrice = (linear_head.solve([values] * views, labels, 3, strength=0.1) for views in (1, 3))
    assert np.allclose(once.probabilities(values), thrice.probabilities(values), atol=1e-3)
    other = linear_head.solve([values, values + 1], labels, 3, strength=0.1)
    assert not np.allclose(once.probabilities(values), other.probabilities(values), atol=1e-3)


def test_the_strength_follows_the_noise():
    clean, labels = drawn(3, 20, apart=3.0)
    noise = np.random.default_rng(0).normal(size=clean.shape)
    assert linear_head.solve([clean], labels, 3).strength > linear_head.solve([noise], labels, 3).strength


def test_the_same_seed_gives_the_same_head():
    values, labels = drawn(3, 12)
    one, other = (linear_head.solve([values], labels, 3, seed=3) for _ in range(2))
    assert np.array_equal(one.weight, other.weight) and one.strength == other.strength


@pytest.mark.parametrize(('counts', 'folds'), [([10, 10], 5), ([10, 3], 3), ([10, 1], 5), ([2, 1], 2), ([1, 1], 0)])
def test_small_classes_get_fewer_folds_and_single_images_are_always_learned_from(counts, folds):
    values, labels = drawn(2, 10, apart=3.0)
    kept = np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)])
    head = linear_head.solve([values[kept]], labels[kept], 2)
    assert head.folds == folds
    assert (head.probabilities(values[kept]).argmax(1) == labels[kept]).all()


def test_a_constant_feature_does_no_harm():
    values, labels = drawn(3, 10)
    values[:, 3] = 7
    assert np.isfinite(linear_head.solve([values], labels, 3).weight).all()


def test_a_hundred_classes():
    values, labels = drawn(100, 6, 64, apart=3.0)
    out = linear_head.solve([values], labels, 100, strength=0.1).probabilities(values)
    assert out.shape == (600, 100) and (out.argmax(1) == labels).mean() > 0.95


# Folds


def test_folds_hold_each_class_evenly_and_keep_groups_together():
    labels = np.repeat([0, 1, 2], [10, 7, 5])
    groups = np.arange(22)
    groups[1] = groups[0]
    fold = linear_head.deal(labels, groups, 5, seed=0)
    assert fold[0] == fold[1]
    for label in range(3):
        sizes = np.bincount(fold[(labels == label) & (groups != 0)], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert not np.array_equal(fold, linear_head.deal(labels, groups, 5, seed=1))


@pytest.mark.parametrize('number', [0, 13])
def test_the_prediction_of_an_image_does_not_depend_on_its_own_label_where_folds_stay(number, monkeypatch):
    values, labels = drawn(2, 12, apart=0.5)
    fold = linear_head.deal(labels, np.arange(24), 4, seed=0)
    before = linear_head.over_folds([values], labels, 2, 4)
    flipped = labels.copy()
    flipped[number] = 1 - labels[number]
    deal = linear_head.deal
    monkeypatch.setattr(linear_head, 'deal', lambda of, *how: fold if len(of) == 24 else deal(of, *how))
    after = linear_head.over_folds([values], flipped, 2, 4)
    assert np.array_equal(before[fold == fold[number]], after[fold == fold[number]])
    assert not np.array_equal(before[fold != fold[number]], after[fold != fold[number]])


def test_a_model_that_leaves_two_folds_out_chooses_the_strength_for_both(monkeypatch):
    values, labels = drawn(2, 20, apart=0.5)
    fitted, fit = [], linear_head._fit
    monkeypatch.setattr(linear_head, '_fit', lambda *args, **how: fitted.append(args[3]) or fit(*args, **how))
    linear_head.over_folds([values], labels, 2, 5)
    assert max(fitted.count(strength) for strength in fitted) <= 10 + 5  # pairs of folds, and the heads themselves


def test_random_labels_are_predicted_no_better_than_by_guessing():
    values, labels = drawn(2, 100, 50, apart=0.0)
    right = (linear_head.over_folds([values], labels, 2, 5).argmax(1) == labels).mean()
    assert 0.35 < right < 0.65


def test_a_copy_in_another_fold_would_give_the_label_away():
    values, labels = drawn(2, 20, 200, apart=0.0)
    values, labels = np.concatenate([values, values]), np.concatenate([labels, labels])
    leaking, honest = (
        (linear_head.over_folds([values], labels, 2, 5, groups=groups).argmax(1) == labels).mean()
        for groups in (None, np.tile(np.arange(40), 2))
    )
    assert leaking > 0.8 > honest


def test_two_classes_of_ten_images_over_folds():
    values, labels = drawn(2, 10, 300, apart=2.0)
    assert (linear_head.over_folds([values], labels, 2, 5).argmax(1) == labels).mean() == 1


def test_too_few_photos_for_the_folds_are_refused_by_class_and_copies_do_not_count():
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 4, 4])
    linear_head.require_folds(labels, np.arange(6), 3, ['cat', 'dog'])
    with pytest.raises(UserError, match=r'evaluate.folds = 3: .*too few of dog \(2\).*evaluate.folds to 2'):
        linear_head.require_folds(labels, groups, 3, ['cat', 'dog'])


# The learning curve


def test_more_images_are_better_and_every_class_has_a_recall():
    values, labels = drawn(3, 40, 60, apart=0.25)
    points = linear_head.learning_curve([values], labels, 3)
    assert [point['per_class'] for point in points] == [3, 5, 10, 20]
    assert points[-1]['top1'] > points[0]['top1'] + 0.05
    for point in points:
        low, high = point['interval_95']
        assert 0 <= low <= point['top1'] <= high <= 1 and len(point['recall']) == 3


def test_the_curve_of_random_labels_stays_at_guessing_also_where_each_picture_is_there_twice():
    values, labels = drawn(2, 80, 50, apart=0.0)
    values, labels, groups = np.concatenate([values] * 2), np.concatenate([labels] * 2), np.tile(np.arange(160), 2)
    assert all(0.3 < point['top1'] < 0.7 for point in linear_head.learning_curve([values], labels, 2, groups=groups))


@pytest.mark.parametrize('each', [1, 2, 4])
def test_very_few_images_have_no_curve(each):
    values, labels = drawn(2, each)
    assert linear_head.learning_curve([values], labels, 2) == []


def test_a_single_image_of_one_class_does_no_harm_to_the_curve():
    values, labels = drawn(3, 12)
    kept = np.r_[0:25]
    points = linear_head.learning_curve([values[kept]], labels[kept], 3)
    assert points and points[-1]['recall'][2] is None
