"""Photos of something else are told from features, and the sets hold the right label as often as promised."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import config
from zodiac.inference import label_sets, unknown
from zodiac.training import rejection


def photos(each, classes=3, width=40, seed=0):
    """(features float32 [n, width], labels) of classes with their own means, and shared directions in which they vary."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(classes, width)) * 2
    labels = np.repeat(np.arange(classes), each)
    scale = np.where(np.arange(width) < 5, 4.0, 1.0)
    return (means[labels] + rng.normal(size=(len(labels), width)) * scale + 3).astype(np.float32), labels


def strangers(count, width=40, seed=5):
    return (np.random.default_rng(seed).normal(size=(count, width)) * 2.5 - 3).astype(np.float32)


def fitted(each, classes=3, keep=0.95, coverage=0.98, method='lac'):
    features, labels = photos(each, classes)
    held = rejection.over_folds([features], labels, classes)
    return rejection.calibrate(rejection.reference(features, labels), held, keep, coverage, method)


def test_the_similarity_to_the_nearest_photos_is_that_of_scikit_learn():
    features, labels = photos(30)
    others = np.concatenate([photos(5, seed=1)[0], strangers(20)])
    of_training = rejection.reference(features, labels)
    assert of_training.basis.shape == (40, 40)
    centred, expected = features - features.mean(0), []
    for label in range(3):
        nearest = NearestNeighbors(n_neighbors=unknown.NEAREST, metric='cosine').fit(centred[labels == label])
        expected.append(1 - nearest.kneighbors(others - features.mean(0))[0].mean(1))
    np.testing.assert_allclose(of_training.similarities(others)[:, 0], np.max(expected, 0), atol=1e-5)


def test_the_similarity_to_class_means_is_the_cosine_in_features_whitened_by_scikit_learn():
    features, labels = photos(30)
    others = np.concatenate([photos(5, seed=1)[0], strangers(20)])
    means = np.stack([features[labels == label].mean(0) for label in range(3)])
    covariance, _ = ledoit_wolf(features - means[labels], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)

    def whitened(x):
        x = (x - features.mean(0)) @ vectors / np.sqrt(values)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    expected = (whitened(others) @ whitened(means).T).max(1)
    np.testing.assert_allclose(rejection.reference(features, labels).similarities(others)[:, 1], expected, atol=1e-4)


def test_photos_of_something_else_score_lower_and_few_known_ones_are_rejected():
    found, facts = fitted(60)
    known, unlike = found.score(photos(200, seed=7)[0]), found.score(strangers(300))
    assert known.dtype == np.float32
    assert roc_auc_score(np.repeat([1, 0], [600, 300]), np.concatenate([known, unlike])) > 0.99
    assert 0.92 < (known >= 0).mean() < 0.99 and (unlike >= 0).mean() < 0.02
    assert facts == {'keep': 0.95, 'level': 0.98, 'method': 'lac', 'photos': 180, 'calibrated_on': 'folds'}


def test_what_is_sealed_gives_the_same_scores_and_sets():
    found, _ = fitted(20)
    again = unknown.unpack(unknown.pack(found))
    features, probabilities = strangers(10), np.random.default_rng(0).dirichlet(np.ones(3), 10)
    assert np.array_equal(again.score(features), found.score(features))
    assert np.array_equal(again.sets(probabilities), found.sets(probabilities))


@pytest.mark.parametrize('each', [1, 2, 3, 10])
def test_few_photos_get_the_levels_that_they_allow_and_a_warning_that_names_them(each):
    """Two classes of ten photos allow 20 / 21."""
    if each == 1:
        features, labels = photos(10, 2)
        features, labels = features[:11], labels[:11]  # the second class has one photo, which is always learned from
        held = rejection.over_folds([features], labels, 2)
        found, facts = rejection.calibrate(rejection.reference(features, labels), held, 0.95, 0.98, 'lac')
        assert facts['photos'] == 10
    else:
        found, facts = fitted(each, 2)
        assert facts['photos'] == 2 * each
    count = facts['photos']
    assert facts['level'] == count / (count + 1) and facts['keep'] == min(0.95, count / (count + 1))
    asked = config.load(overrides=['reject.keep=0.95']).reject
    warning = rejection.too_few(asked, facts)
    assert f'reject.coverage = 0.98 needs 49 photos that the model did not learn from; with {count},' in warning
    assert ('reject.keep = 0.95 needs 19 photos' in warning) == (count < 19)
    assert np.isfinite(found.score(strangers(4))).all()


def test_one_photo_of_each_class_cannot_be_calibrated_over_folds():
    features, labels = photos(1)
    with pytest.raises(rejection.NoPhotos, match='reject.keep: no class has two training photos .* reject.keep=0'):
        rejection.over_folds([features], labels, 3)


def test_a_hundred_classes_keep_a_limited_number_of_photos(monkeypatch):
    monkeypatch.setattr(rejection, 'PHOTOS', 700)
    features, labels = photos(12, 100)
    of_training = rejection.reference(features, labels)
    assert of_training.photos.shape[:2] == (100, 7) and set(of_training.counts) == {7}
    scores = of_training.similarities(features)
    assert scores.shape == (1200, 2) and np.abs(scores).max() <= 1.0001


def test_classes_of_different_sizes_are_not_compared_with_padding():
    features, labels = photos(20)
    chosen = np.concatenate([np.arange(20), [20, 21], np.arange(40, 60)])
    of_training = rejection.reference(features[chosen], labels[chosen])
    assert of_training.counts.tolist() == [20, 2, 20]
    centred = features[chosen] - of_training.mean
    expected = centred[20:22] / np.linalg.norm(centred[20:22], axis=1, keepdims=True)
    alone = (expected @ expected.T).mean(1)
    assert (of_training.similarities(features[20:22])[:, 0] >= alone - 1e-5).all()


def test_validation_photos_calibrate_a_network_that_learned_its_features():
    features, labels = photos(40)
    of_training = rejection.reference(features, labels)
    more, own = photos(20, seed=3)
    held = rejection.apart(of_training, more, np.eye(3)[own] * 0.9 + 0.1 / 3, own)
    _, facts = rejection.calibrate(of_training, held, 0.95, 0.98, 'lac')
    assert (facts['photos'], facts['calibrated_on']) == (60, 'valid')


@pytest.mark.parametrize('method', label_sets.METHODS)
def test_sets_hold_the_label_of_a_new_photo_as_often_as_promised(method):
    rng = np.random.default_rng(0)

    def draw(count):
        probabilities = rng.dirichlet(np.full(6, 0.3), count)
        return probabilities, np.array([rng.choice(6, p=row) for row in probabilities])

    covered = []
    for _ in range(60):
        probabilities, labels = draw(100)
        at_most = label_sets.limit(label_sets.METHODS[method](probabilities)[np.arange(100), labels], 0.9)
        probabilities, labels = draw(200)
        found = label_sets.sets(probabilities, method, at_most)
        assert found[np.arange(200), probabilities.argmax(1)].all()
        covered.append(found[np.arange(200), labels].mean())
    assert 0.89 <= np.mean(covered) <= (0.92 if method == 'lac' else 0.96)


def test_the_levels_of_few_photos():
    assert [label_sets.needed(level) for level in (0.5, 0.9, 0.95, 0.98)] == [1, 9, 19, 49]
    assert label_sets.possible(0.98, 49) == 0.98 and label_sets.possible(0.98, 9) == 0.9
    scores = np.arange(1.0, 50)
    assert label_sets.limit(scores, 0.98) == 49 and label_sets.limit(scores, 0.5) == 25
    assert label_sets.limit(scores[:9], label_sets.possible(0.98, 9)) == 9


def test_the_figures_of_photos_that_were_not_calibrated_on():
    found, _ = fitted(60)
    features, labels = photos(50, seed=2)
    probabilities = np.full((150, 3), 0.02)
    probabilities[np.arange(150), labels] = 0.96
    figures = rejection.measure(found, features, probabilities, labels, ['a', 'b', 'c'])
    assert figures['n'] == 150 and figures['coverage'] == 1.0 and figures['mean_size'] >= 1
    assert figures['known'] == pytest.approx((found.score(features) >= 0).mean())
    assert {row['n'] for row in figures['per_class'].values()} == {50}
