"""Two runs side by side, from what evaluate.py has written of each."""

import csv
import json
import os
import shlex

import numpy as np

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.report import metrics, pages

COLUMNS = {'path', 'label', 'prediction', 'probability', 'correct'}
SCORES = ('top1', 'top5', 'loss', 'macro_precision', 'macro_recall', 'macro_f1', 'macro_roc_auc')
SHOWN = 12  # images that only one of them gets right


def read(run):
    """What is known of a run that was evaluated.

    Args:
        run: name of a run, or its folder.
    Returns: dict: name; folder; metrics, the content of metrics.json; rows, dicts of predictions.csv.
    Raises: UserError when it was not evaluated.
    """
    folder = run.rstrip('/') if os.path.isdir(run) else f'output/{run}'
    name = os.path.basename(folder)
    try:
        with open(f'{folder}/report/metrics.json', encoding='utf-8') as file:
            scores = json.load(file)
        with open(f'{folder}/report/predictions.csv', encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        if not rows[0].keys() >= COLUMNS:
            raise ValueError(f'predictions.csv lacks {", ".join(sorted(COLUMNS - rows[0].keys()))}')
        right = [('0', '1').index(row['correct']) for row in rows]
        for row in rows:
            row['probability'] = float(row['probability'])
        if len(rows) != scores['n'] or abs(sum(right) - scores['n'] * scores['top1']) > 0.5:
            raise ValueError('metrics.json and predictions.csv do not belong together')
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        why = getattr(error, 'strerror', None) or str(error)
        raise UserError(
            f'{folder}/report: cannot be read ({why}); run python evaluate.py -c {shlex.quote(folder)}/config.yaml first'
        ) from None
    return {'name': name, 'folder': folder, 'metrics': scores, 'rows': rows}


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
                'first_probability': ours['probability'],
                'second': theirs['prediction'],
                'second_probability': theirs['probability'],
                'right': 'first' if ours['correct'] == '1' else 'second',
            }
            for ours, theirs in pairs
            if ours['correct'] != theirs['correct']
        ],
    }


def show(*runs):
    """Put two evaluated runs, see `read`, side by side in output/<first>_vs_<second>/: compare.html and compare.json; print the outcome."""
    first, second = map(read, runs)
    if first['name'] == second['name'] and not os.path.samefile(first['folder'], second['folder']):
        first['name'], second['name'] = (run['folder'].strip('./').replace('/', '_') for run in (first, second))
    result = compare(first, second)
    names = first['name'], second['name']
    surer = {'first': 'second_probability', 'second': 'first_probability'}  # that of the one that is wrong
    walls = {}
    for which, probability in surer.items():
        rows = sorted((row for row in result['differing'] if row['right'] == which), key=lambda row: -row[probability])
        walls[f'only_{which}'] = [{**row, 'picture': pages.thumbnail_of(row['path'])} for row in rows[:SHOWN]]
    scores = [(key, first['metrics'].get(key), second['metrics'].get(key)) for key in SCORES]
    folder = f'output/{names[0]}_vs_{names[1]}'
    with files.atomic_folder(folder) as unfinished:
        with files.atomic_write(f'{unfinished}/compare.json') as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
        pages.write_page(
            f'{unfinished}/compare.html',
            'compare.html',
            title=f'{names[0]} and {names[1]}',
            first=names[0],
            second=names[1],
            split=first['metrics'].get('split'),
            result=result,
            verdict=verdict(result),
            scores=scores,
            **walls,
        )
    for one in (result['first'], result['second']):
        print(f'{one["name"]}: top-1 {one["top1"]:.4f} of {result["n"]} images')
    low, high = result['difference_interval_95']
    print(
        f'difference {result["difference"]:+.4f} (95 % interval {low:+.4f} to {high:+.4f}), McNemar p {result["p"]:.3g}'
    )
    print(verdict(result))
    print(f'written: {folder}/compare.html, compare.json')


def verdict(result):
    """What a comparison says, in words."""
    first, second = result['first']['name'], result['second']['name']
    counts = f'{result["only_first"]} images only {first} gets right, {result["only_second"]} only {second}'
    if result['p'] >= 0.05:
        return f'These images do not tell the two apart: {counts}.'
    better = second if result['difference'] > 0 else first
    return (
        f'{better} is better: {counts}; equally good ones would differ so much with a probability of {result["p"]:.2g}.'
    )
