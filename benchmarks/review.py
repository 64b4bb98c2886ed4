"""Measure `zodiac review` on photos of which some labels were swapped, and `--new` against a random choice.

    python benchmarks/review.py animals8 flowers12/train natural_images --most 2000 --record review.json
    python benchmarks/review.py animals8 --swapped --new 0.95

FOLDER has one folder per class; it is not written to. Features are those of configs/photos.yaml (EfficientNet-Lite0, ImageNet weights).

Each share of --swapped gives so many labels (N of n) another class at random, for each seed. Measured: the share of the swapped labels
among the first 2N of the list; the share of the first N that were swapped (precision at N; photos whose own label is wrong or unclear count
against it); the accuracy over five folds, on the labels of the folders, of heads that learned from the labels of the folders, from the
swapped ones, and from those after every suggestion of the kinds label and doubt was taken.

--new ACCURACY holds a third of the photos out, starts with two labels per class and adds 16 at a time, chosen by review --new, by the
smallest margin, or at random, for ten seeds: the number of labels with which the mean accuracy on the held-out photos first reaches it.

Prints a table and, last, one JSON line.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from importlib import metadata

import numpy as np
from ratios import ROOT, record, run

import annotate
import config
import evaluate
import train
from dataset import Loader, ZodiacDataset
from zodiac.base import class_names, device
from zodiac.base.errors import UsageError
from zodiac.report import small_data
from zodiac.review import choose, findings, listing, twins
from zodiac.review.photos import Photos
from zodiac.training import features, linear_head
from zodiac.training.progress import note

START, STEP, DRAWS = 2, 16, 10  # labels per class to begin with, labels added at a time, seeds
LEARNED = 256  # labels at most


def main():
    args = command_line()
    result = {
        'benchmark': 'review',
        'command': shlex.join(['python', 'benchmarks/review.py', *sys.argv[1:]]),
        'network': 'efficientnet_lite0, ImageNet weights',
        'seeds': args.seeds,
        'sets': {},
        'versions': {
            'python': platform.python_version(),
            **{name: metadata.version(name) for name in ('cleanlab', 'numpy', 'scikit-learn')},
        },
    }
    with tempfile.TemporaryDirectory(prefix='review') as work:
        for folder in args.folders:
            name = os.path.basename(folder if os.path.basename(folder) != 'train' else os.path.dirname(folder))
            photos, prints = gather(os.path.abspath(folder), name, args.most, work, args.cache)
            found = {'n': len(photos.paths), 'classes': len(photos.names), 'swapped': [], 'new': None}
            found['unchanged'] = unchanged(photos, prints)
            for share in args.swapped:
                found['swapped'].append(swapped(photos, prints, share, args.seeds))
                show(name, found['swapped'][-1])
            if args.new:
                found['new'] = new(photos, args.new)
                show_new(name, found['new'])
            result['sets'][name] = found
    record(result, args.record)
    print(json.dumps(result))


def command_line():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('folders', nargs='+', metavar='FOLDER', help='with one folder of photos per class')
    add('--swapped', nargs='*', type=float, default=[0.05, 0.1], metavar='SHARE', help='(default: 0.05 0.1)')
    add('--seeds', type=int, default=3, help='draws of the swapped labels (default: 3)')
    add('--most', type=int, metavar='N', help='photos of each folder at most, drawn at random')
    add('--new', type=float, metavar='ACCURACY', help='also measure the choice of new photos')
    add('--cache', metavar='FOLDER', help='keep features there (default: a temporary folder)')
    add('--record', metavar='FILE', help='write the JSON there too, indented')
    args = parser.parse_args()
    for folder in args.folders:
        if not os.path.isdir(folder):
            raise UsageError(f'{folder}: no such folder; name one that has a folder of photos per class')
    return args


def gather(folder, name, most, work, cache):
    """(Photos, fingerprints) of a folder, at most `most` photos, the same share of each class."""
    root = f'{work}/{name}'
    link(folder, root, most)
    overrides = [f'name={name}', f'data.root={root}', f'output={work}/output']
    overrides += [f'data.cache={os.path.abspath(cache)}'] if cache else []
    cfg = config.load(str(ROOT / 'configs/photos.yaml'), overrides)
    stdout, sys.stdout = sys.stdout, sys.stderr
    annotate.annotate(cfg)
    sys.stdout = stdout
    cfg = class_names.resolve(cfg)
    device.choose(cfg.device)
    network, _ = train.build_network(cfg, ZodiacDataset('train', cfg=cfg))
    extractor = features.Extractor(cfg, network, Loader, note)
    paths, labels, views, groups = evaluate.all_features(cfg, extractor)
    photos = Photos(list(paths), [''] * len(paths), labels, cfg.data.labels, list(map(np.asarray, views)), groups)
    return photos, twins.fingerprints(photos.paths, root, cfg.annotate.non_rgb, device.cores())


def link(folder, root, most):
    """Make the folder `root` with links to photos."""
    rng = np.random.default_rng(0)
    classes = {
        entry.name: sorted(file.name for file in os.scandir(entry.path) if file.is_file())
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if entry.is_dir()
    }
    share = min(1, most / sum(map(len, classes.values()))) if most else 1
    for label, names in classes.items():
        os.makedirs(f'{root}/{label}')
        for number in rng.permutation(len(names))[: round(share * len(names))]:
            os.symlink(f'{folder}/{label}/{names[number]}', f'{root}/{label}/{names[number]}')


def judged(photos, prints, labels, seed):
    """(Judged, rows of the list) for some labels."""
    found = findings.judge(photos.views, labels, len(photos.names), seed=seed, groups=photos.groups)
    with_labels = Photos(photos.paths, photos.splits, labels, photos.names, photos.views, photos.groups)
    return found, listing.rows(found, with_labels, twins.pairs(prints, labels), {})


def unchanged(photos, prints):
    """How many photos of each kind there are with the labels of the folders."""
    _, rows = judged(photos, prints, photos.labels, 0)
    return {kind or 'none': sum(row['kind'] == kind for row in rows) for kind in listing.ORDER}


def swapped(photos, prints, share, seeds):
    clean, classes, each = photos.labels, len(photos.names), []
    for seed in range(seeds):
        print(f'{share:.0%}, seed {seed}', file=sys.stderr, flush=True)
        rng = np.random.default_rng([seed, 77])
        count = round(share * len(clean))
        chosen = rng.permutation(len(clean))[:count]
        labels = clean.copy()
        labels[chosen] = (clean[chosen] + rng.integers(1, classes, count)) % classes
        found, rows = judged(photos, prints, labels, seed)
        order, wrong = [row['number'] for row in rows], {*chosen.tolist()}
        picked = [row for row in rows if row['kind'] in (listing.LABEL, listing.DOUBT)]
        sure = [row['number'] for row in rows if row['kind'] == listing.LABEL]
        corrected = labels.copy()
        numbers = [row['number'] for row in picked]
        corrected[numbers] = found.suggested[numbers]
        each.append(
            {
                'found_in_2n': len(wrong.intersection(order[: 2 * count])) / count,
                'precision_at_n': len(wrong.intersection(order[:count])) / count,
                'label': len(sure),
                'label_precision': len(wrong.intersection(sure)) / max(1, len(sure)),
                'picked': len(picked),
                'picked_of_swapped': len(wrong.intersection(numbers)) / count,
                'right_after': float((corrected == clean).mean()),
                **{
                    f'accuracy_{name}': accuracy(photos, own, seed)
                    for name, own in (('clean', clean), ('swapped', labels), ('corrected', corrected))
                },
            }
        )
    return {'share': share, 'swapped': count, **{key: spread([one[key] for one in each]) for key in each[0]}}


def accuracy(photos, labels, seed):
    """Of heads that learned from `labels`, over folds, by the labels of the folders; with the 95 % interval."""
    likely = linear_head.over_folds(photos.views, labels, len(photos.names), 5, False, seed, photos.groups)
    measured = small_data.over_folds(photos.labels, likely, 5)
    return [measured['top1'], *measured['interval_95']]


def spread(values):
    """Mean, lowest and highest; of an accuracy with interval the means."""
    if isinstance(values[0], list):
        top1 = [value[0] for value in values]
        return {**spread(top1), 'interval_95': [round(float(part), 5) for part in np.mean(values, 0)[1:]]}
    return {key: round(float(of(values)), 5) for key, of in (('mean', np.mean), ('min', min), ('max', max))}


def new(photos, target):
    """{method: {labels: that reach the target, or None; curve: [[labels, mean accuracy, sd], ...]}}"""
    curves = {}
    for method in ('review --new', 'margin', 'random'):
        draws = [curve(photos, method, seed) for seed in range(DRAWS)]
        counts = [count for count, _ in draws[0]]
        table = np.array([[top1 for _, top1 in draw] for draw in draws])
        reached = [count for count, top1 in zip(counts, table.mean(0)) if top1 >= target]
        points = [
            [count, round(float(mean), 4), round(float(sd), 4)]
            for count, mean, sd in zip(counts, table.mean(0), table.std(0, ddof=1))
        ]
        curves[method] = {'labels': reached[0] if reached else None, 'curve': points}
        print(f'{method}: {curves[method]["labels"]}', file=sys.stderr, flush=True)
    return {'accuracy': target, 'draws': DRAWS, 'methods': curves}


def curve(photos, method, seed):
    """[(labels, accuracy on the held-out photos), ...]"""
    rng, classes, values = np.random.default_rng([seed, 78]), len(photos.names), photos.views[0]
    _, first = np.unique(photos.groups, return_index=True)  # one of each group
    order = rng.permutation(first)
    held, pool = order[: len(order) // 3], order[len(order) // 3 :]
    known = np.concatenate([pool[photos.labels[pool] == label][:START] for label in range(classes)])
    points = []
    while True:
        head = linear_head.solve(
            [values[known]],
            photos.labels[known],
            classes,
            seed=seed,
            strength=linear_head.USUAL,
            tolerance=linear_head.ROUGH,
        )
        right = head.probabilities(values[held]).argmax(1) == photos.labels[held]
        points.append((len(known), float(right.mean())))
        left = np.setdiff1d(pool, known)
        if len(known) >= LEARNED or not len(left):
            return points
        known = np.concatenate([known, left[next_ones(method, values[left], head, rng, seed)]])


def next_ones(method, values, head, rng, seed):
    if method == 'random':
        return rng.permutation(len(values))[:STEP]
    likely = head.probabilities(values)
    if method == 'margin':
        top = np.sort(likely, axis=1)
        return np.argsort(top[:, -1] - top[:, -2], kind='stable')[:STEP]
    return choose.rank(values, likely, STEP, seed)


def show(name, row):
    print(f'{name}, {row["share"]:.0%} swapped (N = {row["swapped"]})')
    for key, of in row.items():
        if isinstance(of, dict):
            print(f'  {key:<20}{of["mean"]:.4f} ({of["min"]:.4f} to {of["max"]:.4f}) {of.get("interval_95", "")}')


def show_new(name, found):
    for method, one in found['methods'].items():
        print(f'{name}: {one["labels"]} labels for {found["accuracy"]:.0%}, chosen by {method}')


if __name__ == '__main__':
    run(main)
