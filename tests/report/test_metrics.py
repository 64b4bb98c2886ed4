"""Metrics against cases computed by hand, and against other implementations."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest

from zodiac.report import metrics

NAMES = ['ox', 'tiger', 'rabbit']
# true class, and the probabilities of the three: right, right, wrong, right, wrong, wrong
LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.3, 0.6, 0.1],
        [0.2, 0.7, 0.1],
        [0.6, 0.3, 0.1],
        [0.1, 0.5, 0.4],
    ]
)


def test_evaluate_gives_what_was_computed_by_hand():
    scores = metrics.evaluate(LABELS, PROBABILITIES, NAMES)
    assert scores['n'] == 6
    assert scores['labels'] == NAMES
    assert scores['top1'] == 3 / 6
    assert scores['confusion_matrix'] == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    expected = {
        'ox': {'precision': 2 / 3, 'recall': 2 / 3, 'f1': 2 / 3, 'support': 3},
        'tiger': {'precision': 1 / 3, 'recall': 1 / 2, 'f1': 2 / 5, 'support': 2},
        'rabbit': {'precision': 0, 'recall': 0, 'f1': 0, 'support': 1},
    }
    assert list(scores['per_class']) == NAMES
    for name, row in expected.items():
        assert {key: scores['per_class'][name][key] for key in row} == pytest.approx(row)
    assert scores['per_class']['ox']['recall_interval_95'] == metrics.wilson(2, 3)
    assert scores['macro_precision'] == pytest.approx((2 / 3 + 1 / 3) / 3)
    assert scores['macro_recall'] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert scores['macro_f1'] == pytest.approx((2 / 3 + 2 / 5) / 3)
    logs = [math.log(p) for p in (0.8, 0.5, 0.3, 0.7, 0.3, 0.4)]
    assert scores['loss'] == pytest.approx(-sum(logs) / 6)
    assert scores['top1_interval_95'] == metrics.wilson(3, 6)


def test_evaluate_is_ready_for_json():
    scores = metrics.evaluate(LABELS, PROBABILITIES.astype(np.float32), NAMES)
    assert json.loads(json.dumps(scores)) == scores


def test_plain_lists_do_as_well():
    assert metrics.evaluate(LABELS.tolist(), PROBABILITIES.tolist(), NAMES)['top1'] == 0.5


def test_top5_of_fewer_than_five_classes_counts_every_image():
    scores = metrics.evaluate(LABELS, PROBABILITIES, NAMES)
    assert scores['top5'] == 1.0
    assert scores['top_k'] == [
        scores['top1'],
        pytest.approx((metrics.rank_of_truth(LABELS, PROBABILITIES) < 2).mean()),
        1.0,
    ]


def test_top5_counts_the_true_class_among_the_five_most_probable():
    probabilities = np.tile(np.array([7, 6, 5, 4, 3, 2, 1]) / 28, (7, 1))
    scores = metrics.evaluate(np.arange(7), probabilities, list('abcdefg'))
    assert scores['top1'] == pytest.approx(1 / 7)
    assert scores['top5'] == pytest.approx(5 / 7)


def test_a_tie_goes_to_the_smaller_class_number_as_in_argmax():
    probabilities = np.full((6, 6), 1 / 6)
    assert metrics.rank_of_truth(np.arange(6), probabilities).tolist() == [0, 1, 2, 3, 4, 5]
    scores = metrics.evaluate(np.arange(6), probabilities, list('abcdef'))
    assert scores['top1'] == pytest.approx(1 / 6)
    assert scores['top5'] == pytest.approx(5 / 6)


def test_top1_is_the_diagonal_of_the_confusion_matrix():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 200)
    probabilities = rng.integers(1, 4, (200, 4)) / 12  # with many ties
    scores = metrics.evaluate(labels, probabilities, list('abcd'))
    assert scores['top1'] == pytest.approx(np.trace(scores['confusion_matrix']) / 200)


def test_a_class_without_samples_counts_zero_and_stays_out_of_the_means():
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1, 0], [0.9, 0.1, 0], [0.1, 0.1, 0.8]])
    scores = metrics.evaluate(labels, probabilities, NAMES)
    nothing = {'precision': 0, 'recall': 0, 'f1': 0, 'recall_interval_95': None, 'roc_auc': None, 'support': 0}
    assert scores['per_class']['rabbit'] == nothing
    assert scores['macro_recall'] == pytest.approx((1 + 0) / 2)
    assert scores['macro_f1'] == pytest.approx((1 + 0) / 2)
    assert np.array(scores['confusion_matrix']).shape == (3, 3)


def test_rank_of_truth_counts_as_a_plain_loop_does():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, 300)
    probabilities = rng.integers(0, 5, (300, 7)) / 5.0  # with many ties
    expected = []
    for label, row in zip(labels, probabilities):
        order = sorted(range(7), key=lambda number, row=row: (-row[number], number))
        expected.append(order.index(label))
    assert metrics.rank_of_truth(labels, probabilities).tolist() == expected


def test_probabilities_that_are_not_numbers_are_no_hits():
    probabilities = np.full((4, 3), np.nan)
    assert metrics.rank_of_truth(np.array([1, 2, 1, 2]), probabilities).min() > 0


def test_the_loss_of_an_impossible_truth_is_64_nats():
    loss = metrics.cross_entropy(np.array([0]), np.array([[0.0, 1.0]]))
    assert loss == pytest.approx(64)


@pytest.mark.parametrize('n', [1, 2, 10, 240, 7096])
@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.95, 1])
def test_wilson_agrees_with_scipy(n, share):
    from scipy.stats import binomtest

    hits = round(n * share)
    expected = binomtest(hits, n).proportion_ci(confidence_level=0.95, method='wilson')
    assert metrics.wilson(hits, n) == pytest.approx([expected.low, expected.high], abs=1e-7)


@pytest.mark.parametrize('hits', [0, 5])
def test_wilson_stays_within_zero_and_one(hits):
    low, high = metrics.wilson(hits, 5)
    assert 0 <= low < high <= 1


def test_a_sample_is_a_function_of_its_seed():
    first, again, other = (metrics.simple_random_sample(1000, 6, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_sample_is_without_replacement_ascending_and_in_range():
    for seed in range(50):
        sample = metrics.simple_random_sample(9, 6, seed).tolist()
        assert len(sample) == 6
        assert sample == sorted(set(sample))
        assert set(sample) <= set(range(9))


def test_a_sample_of_more_than_there_are_is_all_of_them():
    assert metrics.simple_random_sample(4, 6, 0).tolist() == [0, 1, 2, 3]


def test_every_subset_is_equally_likely_over_seeds():
    from scipy.stats import chisquare

    counts = Counter(tuple(metrics.simple_random_sample(6, 2, seed).tolist()) for seed in range(3000))
    subsets = list(itertools.combinations(range(6), 2))
    assert set(counts) == set(subsets)
    assert chisquare([counts[subset] for subset in subsets]).pvalue > 1e-3


def test_weighted_means_count_each_class_by_its_images():
    scores = metrics.evaluate(LABELS, PROBABILITIES, NAMES)
    assert scores['weighted_precision'] == pytest.approx((3 * 2 / 3 + 2 * 1 / 3 + 0) / 6)
    assert scores['weighted_recall'] == pytest.approx(scores['top1'])
    assert scores['weighted_f1'] == pytest.approx((3 * 2 / 3 + 2 * 2 / 5) / 6)


def test_the_area_under_the_roc_curve_counts_the_pairs_in_the_right_order():
    for number, name in enumerate(NAMES):
        scores, positive = PROBABILITIES[:, number], number == LABELS
        pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
        area = metrics.evaluate(LABELS, PROBABILITIES, NAMES)['per_class'][name]['roc_auc']
        assert area == pytest.approx(sum(pairs) / len(pairs))


def test_the_mean_area_is_that_of_the_classes_that_have_one():
    scores = metrics.evaluate(LABELS, PROBABILITIES, NAMES)
    areas = [row['roc_auc'] for row in scores['per_class'].values()]
    assert len(set(areas)) == 3 and scores['macro_roc_auc'] == pytest.approx(sum(areas) / 3)
    scores = metrics.evaluate([0, 1, 1], np.array([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.6, 0.3]]), NAMES)
    assert [row['roc_auc'] for row in scores['per_class'].values()] == [0.5, 0.5, None] and scores[
        'macro_roc_auc'
    ] == 0.5


def test_precision_over_recall_is_that_of_every_threshold():
    curves = metrics.pr_curves(LABELS, PROBABILITIES)
    for number, (recall, precision, mean) in enumerate(curves):
        scores, positive = PROBABILITIES[:, number], number == LABELS
        points = []
        for threshold in sorted(set(scores), reverse=True):
            found = scores >= threshold
            points.append(((found & positive).sum() / positive.sum(), (found & positive).sum() / found.sum()))
        assert np.allclose(np.stack([recall, precision], 1)[1:], points[: len(recall) - 1])
        steps = np.diff([0, *(point[0] for point in points)])
        assert mean == pytest.approx(sum(steps * [point[1] for point in points]))
    assert metrics.pr_curves(np.array([0, 1]), PROBABILITIES[:2])[2] is None


def test_a_class_without_images_has_no_roc_curve():
    scores = metrics.evaluate([0, 1, 1], PROBABILITIES[:3], NAMES)
    assert scores['per_class']['rabbit']['roc_auc'] is None
    assert metrics.evaluate([0, 0], PROBABILITIES[:2], NAMES)['macro_roc_auc'] is None


@pytest.mark.parametrize(
    ('population', 'size', 'share'), [(60, 6, 0.8), (480, 50, 0.95), (10000, 200, 0.5), (30, 30, 0.7)]
)
def test_a_random_sample_gives_an_unbiased_share_and_an_interval_that_covers_the_true_one(population, size, share):
    right = np.arange(population) < share * population
    drawn = [right[metrics.simple_random_sample(population, size, seed)].sum() for seed in range(1000)]
    spread = np.std(drawn) / size / math.sqrt(1000)
    assert abs(np.mean(drawn) / size - right.mean()) <= 4 * spread
    intervals = {hits: metrics.sample_interval(hits, size, population) for hits in set(drawn)}
    covered = [intervals[hits][0] <= right.mean() <= intervals[hits][1] for hits in drawn]
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 1000)
    if 0.1 < share < 0.9 and population > 1000:  # with few, exact intervals are wider than they need be
        assert np.mean(covered) <= 0.98


def test_the_interval_of_a_sample_covers_whatever_the_true_share():
    population, size = 40, 12
    intervals = [metrics.sample_interval(hits, size, population) for hits in range(size + 1)]
    for true in range(population + 1):
        ways = [math.comb(true, hits) * math.comb(population - true, size - hits) for hits in range(size + 1)]
        covered = sum(n for n, (low, high) in zip(ways, intervals) if low <= true / population <= high)
        assert covered / math.comb(population, size) >= 0.95


def test_a_sample_of_everything_leaves_no_doubt_and_a_part_of_it_less_than_one_of_a_larger_whole():
    assert metrics.sample_interval(7, 10, 10) == [0.7, 0.7]
    low, high = metrics.sample_interval(40, 50, 60)
    wide_low, wide_high = metrics.sample_interval(40, 50, 100000)
    assert wide_low < low <= 0.8 <= high < wide_high


def test_two_models_are_compared_by_the_images_that_only_one_gets_right():
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1], bool)
    second = np.array([1, 0, 0, 0, 0, 1, 0, 1], bool)
    assert metrics.mcnemar(first, second) == {'only_first': 4, 'only_second': 1, 'p': pytest.approx(2 * (1 + 5) / 32)}
    assert metrics.mcnemar(first, first) == {'only_first': 0, 'only_second': 0, 'p': 1.0}


def test_the_interval_of_a_difference_is_that_of_the_formula():
    a, b, c, d = 30.5, 4.5, 12.5, 6.5  # half an image in each cell
    n = a + b + c + d
    difference = (c - b) / n
    half = 1.959964 * math.sqrt(((b + c) / n - difference**2) / n)
    assert metrics.paired_interval(4, 12, 52) == pytest.approx([difference - half, difference + half])


@pytest.mark.parametrize('n', [1, 59])
def test_the_interval_of_two_that_never_differ_is_no_point(n):
    low, high = metrics.paired_interval(0, 0, n)
    assert -1 <= low < 0 < high <= 1 and low == -high


def test_the_interval_of_a_difference_covers_it_in_95_of_100_cases():
    cells = np.random.default_rng(0).multinomial(60, [0.5, 0.1, 0.25, 0.15], 2000)  # both right, only one, neither
    ends = np.array([metrics.paired_interval(first, second, 60) for _, first, second, _ in cells])
    assert 0.94 <= ((ends[:, 0] <= 0.15) & (ends[:, 1] >= 0.15)).mean() <= 0.97
