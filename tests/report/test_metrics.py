"""Metrics against values computed by hand and by other implementations."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from zodiac.report import metrics

NAMES = ['ox', 'tiger', 'rabbit']
# right, right, wrong, right, wrong, wrong
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


def test_metrics_match_those_computed_by_hand():
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
    assert scores['per_class']['ox']['recall_interval_95'] == metrics.wilson_interval(2, 3)
    assert scores['macro_precision'] == pytest.approx((2 / 3 + 1 / 3) / 3)
    assert scores['macro_recall'] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert scores['macro_f1'] == pytest.approx((2 / 3 + 2 / 5) / 3)
    assert scores['weighted_precision'] == pytest.approx((3 * 2 / 3 + 2 * 1 / 3 + 0) / 6)
    assert scores['weighted_recall'] == pytest.approx(scores['top1'])
    assert scores['weighted_f1'] == pytest.approx((3 * 2 / 3 + 2 * 2 / 5) / 6)
    logs = [math.log(p) for p in (0.8, 0.5, 0.3, 0.7, 0.3, 0.4)]
    assert scores['loss'] == pytest.approx(-sum(logs) / 6)
    assert scores['top1_interval_95'] == metrics.wilson_interval(3, 6)


def test_lists_are_accepted_and_the_result_can_be_written_as_json():
    scores = metrics.evaluate(LABELS.tolist(), PROBABILITIES.tolist(), NAMES)
    assert json.loads(json.dumps(scores)) == scores


def test_top5_of_fewer_than_five_classes_is_one():
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


def test_a_tie_goes_to_the_lower_class_number_as_in_argmax():
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


def test_a_class_without_samples_has_zeros_and_does_not_count_in_the_means():
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1, 0], [0.9, 0.1, 0], [0.1, 0.1, 0.8]])
    scores = metrics.evaluate(labels, probabilities, NAMES)
    nothing = {'precision': 0, 'recall': 0, 'f1': 0, 'recall_interval_95': None, 'roc_auc': None, 'support': 0}
    assert scores['per_class']['rabbit'] == nothing
    assert scores['macro_recall'] == pytest.approx((1 + 0) / 2)
    assert scores['macro_f1'] == pytest.approx((1 + 0) / 2)
    assert np.array(scores['confusion_matrix']).shape == (3, 3)


def test_rank_of_truth_agrees_with_a_plain_loop():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, 300)
    probabilities = rng.integers(0, 5, (300, 7)) / 5.0  # with many ties
    expected = []
    for label, row in zip(labels, probabilities):
        order = sorted(range(7), key=lambda number, row=row: (-row[number], number))
        expected.append(order.index(label))
    assert metrics.rank_of_truth(labels, probabilities).tolist() == expected


def test_nan_is_never_a_hit():
    probabilities = np.full((4, 3), np.nan)
    assert metrics.rank_of_truth(np.array([1, 2, 1, 2]), probabilities).min() > 0


def test_the_loss_of_probability_zero_is_64_nats():
    loss = metrics.cross_entropy(np.array([0]), np.array([[0.0, 1.0]]))
    assert loss == pytest.approx(64)


@pytest.mark.parametrize(('hits', 'n'), [(0, 5), (1, 2), (228, 240), (5, 5)])
def test_the_wilson_interval_is_that_of_the_formula(hits, n):
    z, share = 1.959964, hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = metrics.wilson_interval(hits, n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-7)
    assert 0 <= low < high <= 1


def test_a_sample_is_ascending_without_replacement_and_depends_on_the_seed_only():
    samples = [metrics.simple_random_sample(9, 6, seed).tolist() for seed in range(50)]
    for seed, sample in enumerate(samples):
        assert len(sample) == 6 and sample == sorted(set(sample)) and set(sample) <= set(range(9))
        assert sample == metrics.simple_random_sample(9, 6, seed).tolist()
    assert len(set(map(tuple, samples))) > 1
    assert metrics.simple_random_sample(4, 6, 0).tolist() == [0, 1, 2, 3]


def test_every_subset_is_equally_likely():
    counts = Counter(tuple(metrics.simple_random_sample(6, 2, seed).tolist()) for seed in range(3000))
    subsets = list(itertools.combinations(range(6), 2))
    assert set(counts) == set(subsets)
    assert chisquare([counts[subset] for subset in subsets]).pvalue > 1e-3


def test_roc_auc_is_the_share_of_correctly_ordered_pairs():
    for number, name in enumerate(NAMES):
        scores, positive = PROBABILITIES[:, number], number == LABELS
        pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
        area = metrics.evaluate(LABELS, PROBABILITIES, NAMES)['per_class'][name]['roc_auc']
        assert area == pytest.approx(sum(pairs) / len(pairs))


def test_macro_roc_auc_is_the_mean_over_the_classes_that_have_one():
    scores = metrics.evaluate(LABELS, PROBABILITIES, NAMES)
    areas = [row['roc_auc'] for row in scores['per_class'].values()]
    assert len(set(areas)) == 3 and scores['macro_roc_auc'] == pytest.approx(sum(areas) / 3)
    scores = metrics.evaluate([0, 1, 1], np.array([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.6, 0.3]]), NAMES)
    assert [row['roc_auc'] for row in scores['per_class'].values()] == [0.5, 0.5, None]
    assert scores['macro_roc_auc'] == 0.5
    assert metrics.evaluate([0, 0], PROBABILITIES[:2], NAMES)['macro_roc_auc'] is None


def test_pr_curves_have_a_point_per_threshold():
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


@pytest.mark.parametrize(
    ('population', 'size', 'share'), [(60, 6, 0.8), (480, 50, 0.95), (10000, 200, 0.5), (30, 30, 0.7)]
)
def test_a_random_sample_is_unbiased_and_its_interval_covers_the_true_share(population, size, share):
    right = np.arange(population) < share * population
    drawn = [right[metrics.simple_random_sample(population, size, seed)].sum() for seed in range(1000)]
    spread = np.std(drawn) / size / math.sqrt(1000)
    assert abs(np.mean(drawn) / size - right.mean()) <= 4 * spread
    intervals = {hits: metrics.sample_interval(hits, size, population) for hits in set(drawn)}
    covered = [intervals[hits][0] <= right.mean() <= intervals[hits][1] for hits in drawn]
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 1000)
    if 0.1 < share < 0.9 and population > 1000:  # exact intervals of small samples are wide
        assert np.mean(covered) <= 0.98


def test_the_interval_of_a_sample_covers_every_true_share():
    population, size = 40, 12
    intervals = [metrics.sample_interval(hits, size, population) for hits in range(size + 1)]
    for true in range(population + 1):
        ways = [math.comb(true, hits) * math.comb(population - true, size - hits) for hits in range(size + 1)]
        covered = sum(n for n, (low, high) in zip(ways, intervals) if low <= true / population <= high)
        assert covered / math.comb(population, size) >= 0.95


def test_the_interval_of_a_sample_narrows_with_its_share_of_the_population():
    assert metrics.sample_interval(7, 10, 10) == [0.7, 0.7]
    low, high = metrics.sample_interval(40, 50, 60)
    wide_low, wide_high = metrics.sample_interval(40, 50, 100000)
    assert wide_low < low <= 0.8 <= high < wide_high


def test_the_random_sample_is_listed_with_its_accuracy():
    paths = [f'{i}.jpg' for i in range(6)]
    found = metrics.random_sample(paths, LABELS, PROBABILITIES, NAMES, 3, 1)
    assert [row['id'] for row in found['sample']] == metrics.simple_random_sample(6, 3, 1).tolist()
    for row in found['sample']:
        i = row['id']
        assert (row['path'], row['label'], row['probability']) == (paths[i], NAMES[LABELS[i]], PROBABILITIES[i].max())
    hits = sum(row['label'] == row['prediction'] for row in found['sample'])
    assert (found['sample_top1'], found['sample_interval_95']) == (hits / 3, metrics.sample_interval(hits, 3, 6))


def test_mcnemar_counts_the_images_that_only_one_gets_right():
    first = np.array([1, 1, 1, 1, 1, 0, 0, 1], bool)
    second = np.array([1, 0, 0, 0, 0, 1, 0, 1], bool)
    assert metrics.mcnemar(first, second) == {'only_first': 4, 'only_second': 1, 'p': pytest.approx(2 * (1 + 5) / 32)}
    assert metrics.mcnemar(first, first) == {'only_first': 0, 'only_second': 0, 'p': 1.0}


def test_the_paired_interval_is_that_of_the_formula():
    a, b, c, d = 30.5, 4.5, 12.5, 6.5  # half an image in each cell
    n = a + b + c + d
    difference = (c - b) / n
    half = 1.959964 * math.sqrt(((b + c) / n - difference**2) / n)
    assert metrics.paired_interval(4, 12, 52) == pytest.approx([difference - half, difference + half])


@pytest.mark.parametrize('n', [1, 59])
def test_the_paired_interval_has_a_width_even_if_two_never_differ(n):
    low, high = metrics.paired_interval(0, 0, n)
    assert -1 <= low < 0 < high <= 1 and low == -high


def test_the_paired_interval_covers_the_difference_in_95_percent_of_cases():
    cells = np.random.default_rng(0).multinomial(60, [0.5, 0.1, 0.25, 0.15], 2000)  # both right, only one, neither
    ends = np.array([metrics.paired_interval(first, second, 60) for _, first, second, _ in cells])
    assert 0.94 <= ((ends[:, 0] <= 0.15) & (ends[:, 1] >= 0.15)).mean() <= 0.97
