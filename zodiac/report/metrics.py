"""Classification metrics from labels and probabilities, their confidence intervals, and the comparison of two classifiers."""

import numpy as np
from scipy.stats import binomtest, hypergeom, norm
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)


def evaluate(labels, probabilities, class_names):
    """All metrics of a classifier on a split.

    Args:
        labels: int [n], true class numbers.
        probabilities: float [n, classes], rows sum to 1.
    Returns: JSON-ready dict.
        top5 is the accuracy among the five most probable classes (1 with five classes or fewer); top_k[k - 1] the same for k up to 10.
        Precision, recall and F1 of a class without samples or predictions are 0 (scikit-learn's zero_division=0).
        macro_* are means over the classes with samples, weighted_* weight each class by its samples.
        roc_auc is one-vs-rest, None if either side has no samples; recall_interval_95 is Wilson's, None without samples.
        confusion_matrix[i][j] counts the samples of class i predicted as class j.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    numbers = np.arange(len(class_names))
    ranks = rank_of_truth(labels, probabilities)
    predictions = probabilities.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=numbers, zero_division=0
    )
    present = support > 0
    matrix = confusion_matrix(labels, predictions, labels=numbers)
    areas = [roc_auc(labels == i, probabilities[:, i]) for i in numbers]
    known = [area for area in areas if area is not None]
    return {
        'n': len(labels),
        'top1': float((ranks == 0).mean()),
        'top1_interval_95': wilson_interval(int((ranks == 0).sum()), len(labels)),
        'top5': float((ranks < 5).mean()),
        'top_k': [float((ranks < k).mean()) for k in numbers[:10] + 1],
        'loss': cross_entropy(labels, probabilities),
        'macro_precision': float(precision[present].mean()),
        'macro_recall': float(recall[present].mean()),
        'macro_f1': float(f1[present].mean()),
        'macro_roc_auc': float(np.mean(known)) if known else None,
        'weighted_precision': float(np.average(precision, weights=support)),
        'weighted_recall': float(np.average(recall, weights=support)),
        'weighted_f1': float(np.average(f1, weights=support)),
        'per_class': {
            name: {
                'precision': float(precision[i]),
                'recall': float(recall[i]),
                'recall_interval_95': wilson_interval(int(matrix[i, i]), int(support[i])) if present[i] else None,
                'f1': float(f1[i]),
                'roc_auc': areas[i],
                'support': int(support[i]),
            }
            for i, name in enumerate(class_names)
        },
        'labels': list(class_names),
        'confusion_matrix': matrix.tolist(),
    }


def roc_auc(positive, scores):
    """Area under the ROC curve, None if all samples are positive or none is, or if a score is not finite.

    Args:
        positive: bool [n].
        scores: float [n].
    """
    if positive.all() or not positive.any() or not np.isfinite(scores).all():
        return None
    return float(roc_auc_score(positive, scores))


def pr_curves(labels, probabilities):
    """One-vs-rest precision-recall curve of each class.

    Args:
        labels: int [n].
        probabilities: float [n, classes].
    Returns: list with (recall, precision, average precision) per class: two float arrays, ascending in recall, and scikit-learn's
        average precision (no interpolation); None for a class without samples.
    """
    curves = []
    for number in range(np.shape(probabilities)[1]):
        positive, scores = np.asarray(labels) == number, probabilities[:, number]
        if not positive.any():
            curves.append(None)
            continue
        precision, recall, _ = precision_recall_curve(positive, scores)
        curves.append((recall[::-1], precision[::-1], float(average_precision_score(positive, scores))))
    return curves


def rank_of_truth(labels, probabilities):
    """int [n]: number of classes ranked before the true one. Ties rank by class number, as in argmax; NaN is never a hit."""
    true = probabilities[np.arange(len(labels)), labels][:, None]
    before = ~(probabilities <= true) | (
        (probabilities == true) & (np.arange(probabilities.shape[1]) < labels[:, None])
    )
    return before.sum(1)


def cross_entropy(labels, probabilities):
    """Mean of -log p(true class) in nats; at most 64 per sample, the limit of Paddle's softmax with cross-entropy."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, np.exp(-64.0))).mean())


def random_sample(paths, labels, probabilities, class_names, size, seed):
    """The notebook's table: predictions for a seeded simple random sample of the split.

    Returns: JSON-ready dict: sample, a list of dicts (id, path, label, prediction, probability); sample_top1, its accuracy;
        sample_interval_95, see `sample_interval`.
    """
    predictions = probabilities.argmax(1)
    sample = [
        {
            'id': int(i),
            'path': paths[i],
            'label': class_names[labels[i]],
            'prediction': class_names[predictions[i]],
            'probability': float(probabilities[i].max()),
        }
        for i in simple_random_sample(len(paths), size, seed)
    ]
    hits = sum(row['label'] == row['prediction'] for row in sample)
    return {
        'sample': sample,
        'sample_top1': hits / len(sample),
        'sample_interval_95': sample_interval(hits, len(sample), len(paths)),
    }


def simple_random_sample(n, size, seed):
    """int array, ascending: `size` numbers from 0 to n - 1 without replacement; all of them if n is smaller."""
    return np.sort(np.random.default_rng(seed).choice(n, min(size, n), replace=False))


def wilson_interval(hits, n):
    """[low, high]: 95 % Wilson score interval of a proportion."""
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method='wilson')
    return [float(interval.low), float(interval.high)]


def sample_interval(hits, n, population, confidence=0.95):
    """[low, high] of a proportion in a finite population, from a simple random sample without replacement.

    The exact interval: all proportions that a hypergeometric test does not reject, with half of 1 - confidence on each side
    (Thompson 2012, "Sampling", section 5.3). Coverage is at least `confidence`; a sample of the whole population gives a point.

    Args:
        hits: positives among the n samples.
        population: number of items that the sample was drawn from, n or more.
    """
    side = (1 - confidence) / 2
    least, most = hits, population - (n - hits)  # positives in the population
    low = _first(least, most, lambda number: hypergeom.sf(hits - 1, population, number, n) > side)
    high = _first(low, most + 1, lambda number: number > most or hypergeom.cdf(hits, population, number, n) <= side) - 1
    return [low / population, high / population]


def _first(low, high, holds):
    """Binary search: the first number from low to high for which the monotone condition `holds`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def mcnemar(right, other_right):
    """Exact McNemar test of two classifiers on the same images.

    Args:
        right, other_right: bool [n], whether each classifier is right.
    Returns: dict: only_first and only_second, the images that only one gets right; p, two-sided.
    """
    right, other_right = np.asarray(right, bool), np.asarray(other_right, bool)
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return {'only_first': only_first, 'only_second': only_second, 'p': p}


def paired_interval(only_first, only_second, n):
    """[low, high]: 95 % interval of the difference of two paired proportions, the second minus the first.

    Wald's interval after adding half an image to each of the four cells, so that it has a width even when the two never differ
    (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions").

    Args:
        only_first, only_second: of the n images, those that only one classifier gets right.
    """
    total, differing, more = n + 2, only_first + only_second + 1, only_second - only_first
    half = norm.ppf(0.975) * np.sqrt(differing - more * more / total)
    return [float(max(-1.0, (more - half) / total)), float(min(1.0, (more + half) / total))]
