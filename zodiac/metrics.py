"""Numbers from (labels, probabilities): accuracy with its interval, loss, per-class scores, a random sample."""

import numpy as np


def evaluate(labels, probabilities, class_names):
    """Scores of a classifier on a split.

    Args:
        labels: int [n], true class numbers.
        probabilities: float [n, classes], rows sum to 1.
    Returns: JSON-ready dict. top5 counts the true class among the five most probable (fewer classes: all of them);
        precision, recall and F1 of a class without any sample or prediction are 0 (scikit-learn, zero_division=0), and
        the macro means run over the classes that have samples; confusion_matrix[i][j] counts class i taken for class j.
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
    return {
        'n': len(labels),
        'top1': float((ranks == 0).mean()),
        'top1_interval_95': wilson(int((ranks == 0).sum()), len(labels)),
        'top5': float((ranks < 5).mean()),
        'loss': cross_entropy(labels, probabilities),
        'macro_precision': float(precision[present].mean()),
        'macro_recall': float(recall[present].mean()),
        'macro_f1': float(f1[present].mean()),
        'per_class': {
            name: {
                'precision': float(precision[i]),
                'recall': float(recall[i]),
                'f1': float(f1[i]),
                'support': int(support[i]),
            }
            for i, name in enumerate(class_names)
        },
        'labels': list(class_names),
        'confusion_matrix': confusion_matrix(labels, predictions, labels=numbers).tolist(),
    }


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


def wilson(hits, n, z=1.959964):
    """[low, high] of the Wilson score interval of a share (Wilson 1927); z is the normal quantile, here of 95 %."""
    share, z2 = hits / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return [float(max(0.0, centre - half)), float(min(1.0, centre + half))]


def simple_random_sample(n, size, seed):
    """int array, ascending: `size` of the numbers 0 to n-1, each subset equally likely; all of them if n is smaller."""
    return np.sort(np.random.default_rng(seed).choice(n, min(size, n), replace=False))


def lower_is_better(name):
    """Whether less is better in a column of log.csv: in a loss, not in an accuracy."""
    return name.endswith('loss')
