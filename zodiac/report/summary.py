"""The first paragraph of the report: how good the model is, where it is weak, what to do next."""

import numpy as np

from zodiac.report import metrics, small_data

SURE = 0.9  # a mistake with this probability: perhaps the label is wrong
BEHIND = 0.02  # recall of a weak class below the accuracy
MOST = 3  # classes and confusions that are named
OFTEN = 2  # a confusion that is worth naming
WIDE = 0.06  # an interval that asks for more photos


def summarise(result, mistakes, folds=None):
    """What report.html says first.

    Args:
        result: the content of metrics.json.
        mistakes: rows of `mistakes.all_of`.
        folds: (paths, labels, probabilities) of all images over folds, or None.
    Returns: dict: over_folds, whether the figures are those of the folds, as below `small_data.FEW` images of the split; n, hits, top1,
        interval; largest, the class with the most images, and guess, the accuracy of always naming it; matrix, int [classes, classes], a
        row per true class; recall, {class: (found, images, interval)} of the classes with images; weak, names; confused,
        [(class, taken for, images)]; often, the first of them that happened more than once; sure, the number of mistakes with a
        probability of SURE or more; and wide, the width of the interval in points, None if it is narrow.
    """
    names = result['labels']
    over_folds = bool(folds) and result['n'] < small_data.FEW
    matrix = np.asarray(result['confusion_matrix'])
    top1, interval = result['top1'], result['top1_interval_95']
    if over_folds:
        matrix = np.zeros_like(matrix)
        np.add.at(matrix, (folds[1], np.asarray(folds[2]).argmax(1)), 1)
        top1, interval = result['folds']['top1'], result['folds']['interval_95']
    images, found = matrix.sum(1), np.diag(matrix)
    recall = {
        name: (int(hits), int(total), metrics.wilson_interval(int(hits), int(total)))
        for name, hits, total in zip(names, found, images)
        if total
    }
    behind = sorted((hits / total, name) for name, (hits, total, _) in recall.items() if hits / total < top1 - BEHIND)
    pairs = [(int(matrix[i, j]), i, j) for i, j in zip(*np.nonzero(matrix)) if i != j]
    confused = [(names[i], names[j], number) for number, i, j in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))]
    width = interval[1] - interval[0]
    return {
        'over_folds': over_folds,
        'n': int(images.sum()),
        'hits': int(found.sum()),
        'top1': top1,
        'interval': interval,
        'largest': names[int(images.argmax())],
        'guess': float(images.max() / images.sum()),
        'matrix': matrix.tolist(),
        'recall': recall,
        'weak': [name for _, name in behind[:MOST]],
        'confused': confused,
        'often': [pair for pair in confused if pair[2] >= OFTEN][:MOST],
        'sure': sum(row['probability'] >= SURE for row in mistakes),
        'wide': round(100 * width) if width > WIDE else None,
    }
