"""Numbers from (labels, probabilities): accuracy with its interval, loss, per-class scores, a random sample, two models compared."""

import numpy as np

NORMAL_95 = 1.959964  # quantile of the normal distribution for a two-sided interval of 95 %


def evaluate(labels, probabilities, class_names):
    """Scores of a classifier on a split.

    Args:
        labels: int [n], true class numbers.
        probabilities: float [n, classes], rows sum to 1.
    Returns: JSON-ready dict. top5 counts the true class among the five most probable (fewer classes: all of them), top_k[k - 1]
        among the k most probable, for k up to 10;
        precision, recall and F1 of a class without any sample or prediction are 0 (scikit-learn, zero_division=0), and
        the macro means run over the classes that have samples, the weighted ones count each by its samples; roc_auc is that of
        the class against the rest, None where one of the two has no sample; recall_interval_95 is Wilson's, None without a sample;
        confusion_matrix[i][j] counts class i taken for class j.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

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
        'top1_interval_95': wilson(int((ranks == 0).sum()), len(labels)),
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
                'recall_interval_95': wilson(int(matrix[i, i]), int(support[i])) if present[i] else None,
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
    """Area under the ROC curve: the probability that a positive sample has a higher score than a negative one, ties counted half
    (Hanley and McNeil 1982); None without positive or without negative samples.

    Args:
        positive: bool [n].
        scores: float [n].
    """
    from sklearn.metrics import roc_auc_score

    if positive.all() or not positive.any() or not np.isfinite(scores).all():
        return None
    return float(roc_auc_score(positive, scores))


def pr_curves(labels, probabilities):
    """Precision over recall of each class against the rest.

    Args:
        labels: int [n].
        probabilities: float [n, classes].
    Returns: of each class (recall, precision, average precision): two float arrays from recall 0 on, and the mean of the precisions
        weighted by the steps of recall (scikit-learn's, without interpolation); None where the class has no sample.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

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
    """int [n]: how many classes come before the true one; a tie counts as the smaller class number first, as in
    argmax. Not a number comes last: it is never a hit."""
    true = probabilities[np.arange(len(labels)), labels][:, None]
    before = ~(probabilities <= true) | (
        (probabilities == true) & (np.arange(probabilities.shape[1]) < labels[:, None])
    )
    return before.sum(1)


def cross_entropy(labels, probabilities):
    """Mean of -log p(true class), in nats; at most 64 an image, where Paddle's own softmax and cross-entropy stop too."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, np.exp(-64.0))).mean())


def wilson(hits, n, z=NORMAL_95):
    """[low, high] of the Wilson score interval of a share (Wilson 1927); z is the normal quantile, here of 95 %."""
    share, z2 = hits / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [float(centre - half) if hits else 0.0, float(centre + half) if hits < n else 1.0]


def simple_random_sample(n, size, seed):
    """int array, ascending: `size` of the numbers 0 to n-1, each subset equally likely; all of them if n is smaller."""
    return np.sort(np.random.default_rng(seed).choice(n, min(size, n), replace=False))


def sample_interval(hits, n, population, confidence=0.95):
    """[low, high] of a share in a finite population, from a simple random sample without replacement.

    The exact interval: the shares that the hypergeometric distribution does not reject, each side at half of 1 - confidence
    (Thompson 2012, "Sampling", section 5.3). It covers the true share at least with this confidence, whatever the sizes, and is a
    point when all of the population was drawn.

    Args:
        hits: of the n that were drawn.
        population: number of those that could have been drawn, n or more.
    """
    from scipy.stats import hypergeom

    side = (1 - confidence) / 2
    least, most = hits, population - (n - hits)  # hits in the population
    low = _first(least, most, lambda number: hypergeom.sf(hits - 1, population, number, n) > side)
    high = _first(low, most + 1, lambda number: number > most or hypergeom.cdf(hits, population, number, n) <= side) - 1
    return [low / population, high / population]


def _first(low, high, holds):
    """The first number from low to high for which `holds`, which from there on holds for all."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def mcnemar(right, other_right):
    """Compare two classifiers on the same images by those that only one of them gets right (McNemar 1947).

    Args:
        right, other_right: bool [n].
    Returns: dict: only_first, only_second, and p, the exact two-sided probability of a split at least as uneven if both were
        equally good.
    """
    from scipy.stats import binomtest

    right, other_right = np.asarray(right, bool), np.asarray(other_right, bool)
    only_first, only_second = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return {'only_first': only_first, 'only_second': only_second, 'p': p}


def paired_interval(only_first, only_second, n, z=NORMAL_95):
    """[low, high] of the difference of two paired shares, the second minus the first.

    Wald's interval after adding half an image to each of the four cells, which is honest for few images too: where the two never
    differ it is no point (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions").

    Args:
        only_first, only_second: of the n images, those that only one gets right.
    """
    total, differing, more = n + 2, only_first + only_second + 1, only_second - only_first
    half = z * np.sqrt(differing - more * more / total)
    return [float(max(-1.0, (more - half) / total)), float(min(1.0, (more + half) / total))]
