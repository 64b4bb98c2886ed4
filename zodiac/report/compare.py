"""Compare two evaluated runs on the same images, from what evaluate.py wrote of each."""

import csv
import json
import os

import numpy as np

from zodiac.base import calls, files, formatting
from zodiac.base.errors import UserError
from zodiac.pages import render
from zodiac.report import gallery, metrics

COLUMNS = {'path', 'label', 'prediction', 'probability', 'correct'}
SCORES = ('top1', 'top5', 'loss', 'macro_precision', 'macro_recall', 'macro_f1', 'macro_roc_auc')
SHOWN = 60  # images that only one of them gets right
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'compare.html')


def read(folder):
    """The results of an evaluated run.

    Args:
        folder: of the run.
    Returns: dict: name; folder; metrics, the content of metrics.json; rows, dicts of predictions.csv.
    Raises: UserError if the run was not evaluated, or its report is damaged.
    """
    folder = folder.rstrip('/')
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
            raise ValueError('metrics.json and predictions.csv are not of the same evaluation')
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        why = getattr(error, 'strerror', None) or str(error)
        raise UserError(
            f'{folder}/report: cannot be read ({why}); run {calls.command("evaluate", "-c", f"{folder}/config.yaml")} first'
        ) from None
    return {'name': os.path.basename(folder), 'folder': folder, 'metrics': scores, 'rows': rows}


def read_two(*folders):
    """Two runs as `read` gives them; two folders of the same name are named by their paths."""
    first, second = map(read, folders)
    if first['name'] == second['name'] and not os.path.samefile(first['folder'], second['folder']):
        first['name'], second['name'] = (run['folder'].strip('./').replace('/', '_') for run in (first, second))
    return first, second


def compare(first, second):
    """The difference of two runs, see `read`, on the same images.

    Returns: JSON-ready dict: n; first and second, name and top1 of each; difference, top1 of the second minus that of the first, and
        its 95 % interval, see `metrics.paired_interval`; only_first, only_second, p: see `metrics.mcnemar`;
        differing, a dict per image that only one gets right.
    Raises: UserError if the images or their labels differ.
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
    n, test = len(pairs), metrics.mcnemar(right, other_right)
    return {
        'n': n,
        'first': {'name': first['name'], 'top1': float(right.mean())},
        'second': {'name': second['name'], 'top1': float(other_right.mean())},
        'difference': float(other_right.mean() - right.mean()),
        'difference_interval_95': metrics.paired_interval(test['only_first'], test['only_second'], n),
        **test,
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


def write(folder, first, second, language=None):
    """Write compare.html and compare.json of two runs, see `read`, to `folder`, and print the result; `language`: see `render.render`."""
    result = compare(first, second)
    wrong_one = {'first': 'second_probability', 'second': 'first_probability'}
    walls = {}
    for which, probability in wrong_one.items():
        rows = sorted((row for row in result['differing'] if row['right'] == which), key=lambda row: -row[probability])
        walls[f'only_{which}'] = [{**row, 'picture': gallery.thumbnail_of(row['path'])} for row in rows[:SHOWN]]
    page = render.render(
        PAGE,
        language,
        first=first['name'],
        second=second['name'],
        result=result,
        winner=winner(result),
        p=formatting.p_value(result['p']),
        scores=[(key, first['metrics'].get(key), second['metrics'].get(key)) for key in SCORES],
        **walls,
    )
    with files.atomic_folder(folder) as unfinished:
        with files.atomic_write(f'{unfinished}/compare.json') as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
        with files.atomic_write(f'{unfinished}/compare.html') as file:
            file.write(page)
    show(result)
    print(f'written: {folder}/compare.html, compare.json')


def winner(result):
    """The name of the better one of two runs; None if the difference may be chance."""
    if result['p'] >= 0.05:
        return None
    return result['second' if result['difference'] > 0 else 'first']['name']


def show(result):
    """Print the result of a comparison."""
    rows = [['', 'accuracy', 'images']]
    rows += [
        [run['name'], formatting.percent(run['top1']), f'{result["n"]:,}']
        for run in (result['first'], result['second'])
    ]
    for line in formatting.table(rows, formatting.columns()):
        print(line)
    low, high = map(formatting.points, result['difference_interval_95'])
    print(f'difference {formatting.points(result["difference"])} points (95% interval {low} to {high})')
    print(verdict(result))


def verdict(result):
    """The result of a comparison in words: the meaning, then the figures behind it."""
    first, second = result['first']['name'], result['second']['name']
    better = winner(result)
    answer = (
        f'{better} is better: so large a difference would rarely be chance'
        if better
        else 'These images do not show which one is better: the difference may be chance'
    )
    only_first, p = formatting.count(result['only_first'], 'image'), formatting.p_value(result['p'])
    return f"{answer}. Only {first} is right on {only_first}, only {second} on {result['only_second']:,} (McNemar's test, {p})."
