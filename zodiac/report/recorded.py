"""Read a report of a run again, and compare its numbers with those that were measured anew."""

import collections
import csv
import os

from zodiac.base import files, schema
from zodiac.base.errors import UserError

# From the predicted classes alone; other numbers depend on the last digits of probabilities, which engines compute differently.
EXACT = ('n', 'top1', 'macro_precision', 'macro_recall', 'macro_f1', 'weighted_', 'per_class', 'folds')
CLOSE = 1e-3  # the largest difference of the other numbers
SEALED = (  # keys of metrics.json that an export keeps
    *(
        'split',
        'n',
        'top1',
        'top1_interval_95',
        'top5',
        'loss',
        'macro_precision',
        'macro_recall',
        'macro_f1',
        'macro_roc_auc',
    ),
    *(
        'weighted_precision',
        'weighted_recall',
        'weighted_f1',
        'per_class',
        'calibration',
        'near_duplicates',
        'folds',
        'unknown',
    ),
)


def read(folder, weights=None):
    """The report of a run, if it is of these weights and not older than they are.

    Args:
        weights: path of the weight file; None: whatever it is of.
    Returns: (content of metrics.json, rows of predictions.csv as dicts); None without such a report. `folds` of metrics.json has in
        addition per_class, {class: [photos that were recognised, photos]}.
    """
    try:
        result = files.read_json(f'{folder}/metrics.json')
        written = os.path.getmtime(f'{folder}/metrics.json')
        if weights and (result['weights'] != weights or written < os.path.getmtime(weights)):
            return None
        if result.get('folds'):
            result['folds']['per_class'] = _found(_rows(f'{folder}/folds.csv'))
        return result, _rows(f'{folder}/predictions.csv')
    except (OSError, UserError, KeyError, TypeError, ValueError):
        return None


def _rows(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def _found(rows):
    every = collections.Counter(row['label'] for row in rows)
    found = collections.Counter(row['label'] for row in rows if row['label'] == row['prediction'])
    return {label: [found[label], number] for label, number in every.items()}


def summary(report):
    """How good the network is, in a few numbers, for the page of serve.py.

    Args:
        report: what `read` returned.
    Returns: dict: n, images; top1; interval_95; guess, the accuracy of always naming the most frequent class; folds, their number, None
        for the test split. None without a report.
    """
    try:
        result, rows = report
        folds = result.get('folds')
        labels = collections.Counter(row['label'] for row in rows)
        if folds:
            labels = {label: number for label, (_, number) in folds['per_class'].items()}
        guess = max(labels.values()) / sum(labels.values())
        return {**quoted(result), 'folds': folds['k'] if folds else None, 'guess': guess}
    except (KeyError, TypeError, ValueError):
        return None


def quoted(result):
    """n, top1 and interval_95 of `summary`, from the content of metrics.json."""
    folds = result.get('folds')
    of = folds or {**result, 'interval_95': result['top1_interval_95']}
    return {key: of[key] for key in ('n', 'top1', 'interval_95')}


def to_seal(report, photos, below, class_names):
    """What an export keeps of a report, for zodiac/inference/evidence.py.

    Args:
        report: what `read` returned; photos: those of the test split, each with path (see `below`) and label (class number).
        below: function, path of the report -> path as in `photos`.
    Returns: (metrics, predictions, why): the numbers of metrics.json that describe the test split, folds, and under `worse` the rows of
        slices that are; [(class number, probability
        of that class)] of the photos; ''. (None, None, why not) if there is no report, or it is of other photos or labels.
    """
    if report is None:
        return None, None, 'there was no report of these weights: run evaluate.py, then export.py'
    (result, rows), number = report, {name: place for place, name in enumerate(class_names)}
    try:
        measured = [(below(row['path']), number[row['label']]) for row in rows]
        if result['split'] != 'test' or measured != [(photo.path, photo.label) for photo in photos]:
            return None, None, 'the report is of other test photos or labels: run evaluate.py, then export.py'
        predictions = [(number[row['prediction']], float(row['probability'])) for row in rows]
        worse = [row for row in (result.get('slices') or {'rows': []})['rows'] if row['worse']]
        return {**{key: result[key] for key in SEALED if key in result}, 'worse': worse}, predictions, ''
    except (KeyError, TypeError, ValueError):
        return None, None, 'the report is damaged: run evaluate.py, then export.py'


def numbers(result):
    """{dotted name: number} of the content of metrics.json, or a part of it; lists by place."""
    found = {}
    for name, value in schema.flatten(result):
        for place, each in enumerate(value) if isinstance(value, list) else [('', value)]:
            if isinstance(each, (int, float)) and not isinstance(each, bool):
                found[f'{name}.{place}' if place != '' else name] = each
    return found


def differences(before, now, all_of=False):
    """Lines such as `top1: 0.9836, now 0.9672`, for each number of `before` that `now` has too and that differs.

    Args:
        before, now: contents of metrics.json, or parts of them. Numbers that follow from the predicted classes must be equal, others may
            differ by CLOSE.
        all_of: a number that `now` lacks differs too.
    """
    before, now = numbers(before), numbers(now)
    lacking = [f'{name}: {before[name]:.6g}, now missing' for name in before if all_of and name not in now]
    return lacking + [
        f'{name}: {before[name]:.6g}, now {now[name]:.6g}'
        for name in before.keys() & now.keys()
        if not abs(before[name] - now[name]) <= (1e-9 if _is_exact(name) else CLOSE)
    ]


def _is_exact(name):
    return name.startswith(EXACT) and not name.endswith('roc_auc')
