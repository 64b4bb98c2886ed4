"""Two runs side by side, from what evaluate.py has written of each."""

import csv
import json
import os

import numpy as np

from zodiac import metrics
from zodiac.errors import UserError


def read(run):
    """What is known of a run that was evaluated.

    Args:
        run: name of a run, or its folder.
    Returns: dict: name; metrics, the content of metrics.json; rows, dicts of predictions.csv.
    Raises: UserError when it was not evaluated.
    """
    folder = run.rstrip('/') if os.path.isdir(run) else f'output/{run}'
    name = os.path.basename(folder)
    try:
        with open(f'{folder}/report/metrics.json', encoding='utf-8') as file:
            scores = json.load(file)
        with open(f'{folder}/report/predictions.csv', encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        if len(rows) != scores['n'] or not {'path', 'label', 'prediction', 'correct'} <= rows[0].keys():
            raise ValueError('its parts do not belong together')
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        why = getattr(error, 'strerror', None) or str(error)
        raise UserError(
            f'{folder}/report: cannot be read ({why}); run python evaluate.py -c {folder}/config.yaml first'
        ) from None
    return {'name': name, 'metrics': scores, 'rows': rows}


def compare(first, second):
    """The difference of two runs on the same images.

    Returns: JSON-ready dict: n; first and second, name and top1 of each; difference, top1 of the second minus that of the first, and
        its 95 % interval, see `metrics.paired_interval`; only_first, only_second, p: see `metrics.mcnemar`;
        differing, a dict an image that only one gets right.
    Raises: UserError when the images or their labels are not the same.
    """
    keys = [[(row['path'], row['label']) for row in run['rows']] for run in (first, second)]
    if sorted(keys[0]) != sorted(keys[1]):
        shared = len(set(keys[0]) & set(keys[1]))
        raise UserError(
            f'{first["name"]} and {second["name"]} were measured on different images ({len(keys[0])} and {len(keys[1])}, {shared} of them '
            'with the same label in both); evaluate both on the same split'
        )
    others = {row['path']: row for row in second['rows']}
    pairs = [(row, others[row['path']]) for row in first['rows']]
    right, other_right = (np.array([pair[i]['correct'] == '1' for pair in pairs]) for i in (0, 1))
    n, tested = len(pairs), metrics.mcnemar(right, other_right)
    return {
        'n': n,
        'first': {'name': first['name'], 'top1': float(right.mean())},
        'second': {'name': second['name'], 'top1': float(other_right.mean())},
        'difference': float(other_right.mean() - right.mean()),
        'difference_interval_95': metrics.paired_interval(tested['only_first'], tested['only_second'], n),
        **tested,
        'differing': [
            {
                'path': ours['path'],
                'label': ours['label'],
                'first': ours['prediction'],
                'first_probability': float(ours['probability']),
                'second': theirs['prediction'],
                'second_probability': float(theirs['probability']),
                'right': 'first' if ours['correct'] == '1' else 'second',
            }
            for ours, theirs in pairs
            if ours['correct'] != theirs['correct']
        ],
    }
