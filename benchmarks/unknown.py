"""Measure how well an export tells photos of something else (reject.keep), and how often its sets hold the right label.

    python benchmarks/unknown.py output/animals8 animals8 --far flowers=flowers12/train cars=natural_images/car
    python benchmarks/unknown.py output/animals8 animals8 --far cats=natural_images/cat --shrunk 30 --splits 20 --record result.json

RUN gives the features, its backbone must be frozen; FOLDER has the photos of its classes, a folder for each. Each --far NAME=FOLDER holds
photos of something else, at most --most of them. In place of a folder, a .npz file of `predict.py --features` will do.

Each split leaves out a fifth of each class at random, and fits on the others what export.py seals: the score and its threshold and the
sets, from folds of these others. In the first five splits each class in turn is then a stranger of the same kind: the score is fitted
without it, the threshold is that of all classes. --shrunk SIDE is a control for far photos of few pixels: the known photos themselves,
shrunk to SIDE x SIDE.

Prints a table and, last, one JSON line: AUROC of known against other photos and the share of the others that is taken for known, with the
standard deviation over the splits; AUROC of plain scores; for known photos the share that is kept, coverage and size of the sets.
"""

import argparse
import dataclasses
import glob
import json
import os
import platform
import shlex
import sys
from importlib import metadata

import numpy as np
from PIL import Image
from ratios import record, run
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import zodiac
from zodiac.base.errors import UsageError
from zodiac.images import decoding
from zodiac.inference import label_sets
from zodiac.training import linear_head, rejection

PLAIN = ('highest probability', 'energy', '10th nearest photo')
LEFT_OUT, FEWER = 'a left-out class', 5  # splits of it at most: each fits once for each class


def main():
    args = command_line()
    model = zodiac.load(args.run)
    paths, known = features_of(model, args.folder)
    names = [os.path.basename(os.path.dirname(path)) for path in paths]
    classes, labels = np.unique(names, return_inverse=True)
    others = dict(far_features(model, pair, args.most) for pair in args.far)
    shrunk = f'known, {args.shrunk} px'
    if args.shrunk:
        small = (shrink(path, args.shrunk) for path in paths)
        others[shrunk] = np.stack([one.features for one in model.predict(small, features=True)])
    rows, sets = {}, {method: [] for method in label_sets.METHODS}
    for split in range(args.splits):
        print(f'split {split + 1} of {args.splits}', file=sys.stderr, flush=True)
        kept, out = draw(labels, split)
        fitted = fit(known[kept], labels[kept], len(classes), split)
        probabilities = fitted['head'].probabilities(known[out])
        for method, found in sets.items():
            measured = (fitted['of_method'][method], known[out], probabilities, labels[out], list(classes))
            found.append(rejection.measure(*measured))
        of_known = scores(fitted, known[out])
        for name, values in others.items():
            add(rows, name, of_known, scores(fitted, values[out] if name == shrunk else values))
        for label in range(len(classes)) if split < FEWER else ():
            without = refit(fitted, known[kept], labels[kept], label, split)
            of_others = scores(without, known[out[labels[out] != label]])
            add(rows, LEFT_OUT, of_others, scores(without, known[labels == label]))
    result = {
        **facts(args, classes, labels, {name: len(values) for name, values in others.items()}),
        'others': {
            name: over_splits(found, min(args.splits, FEWER) if name == LEFT_OUT else args.splits)
            for name, found in rows.items()
        },
        'known': {method: known_over_splits(found) for method, found in sets.items()},
    }
    show(result)
    record(result, args.record)
    print(json.dumps(result))


def command_line():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', metavar='RUN', help='exported with export.features or reject.keep')
    parser.add_argument('folder', metavar='FOLDER', help='photos of its classes, a folder for each')
    parser.add_argument('--far', nargs='+', default=[], metavar='NAME=FOLDER', help='photos of something else')
    parser.add_argument('--most', type=int, default=500, help='photos of each of these (default: 500)')
    parser.add_argument('--shrunk', type=int, metavar='SIDE', help='also the known photos, shrunk to SIDE pixels')
    parser.add_argument('--splits', type=int, default=3, help='2 or more (default: 3)')
    parser.add_argument('--record', metavar='FILE', help='write the JSON there too, indented')
    args = parser.parse_args()
    if args.splits < 2:
        raise UsageError(f'--splits {args.splits}: must be 2 or more, to tell how far the results vary')
    for pair in args.far:
        if not os.path.exists(pair.partition('=')[2]):
            raise UsageError(f'--far {pair}: must be NAME=FOLDER, or NAME=FILE.npz, and the folder or file be there')
    return args


def features_of(model, place, most=None):
    """(paths, features float32 [n, D]) of a folder's images, those that can be read, or of a file of predict.py --features."""
    if place.endswith('.npz'):
        with np.load(place, allow_pickle=False) as found:
            paths, values = found['paths'].tolist(), found['features']
        return paths[:: step(len(paths), most)], values[:: step(len(paths), most)]
    found = sorted(path for path in glob.glob(f'{glob.escape(place)}/**/*', recursive=True) if os.path.isfile(path))
    answers = model.predict(found[:: step(len(found), most)], on_error=lambda error: None, features=True)
    return [one.path for one in answers], np.stack([one.features for one in answers])


def step(count, most):
    return max(1, -(-count // most)) if most else 1


def far_features(model, pair, most):
    name, _, place = pair.partition('=')
    return name, features_of(model, place, most)[1]


def shrink(path, side):
    with Image.open(path) as image:
        return decoding.to_rgb(image).resize((side, side), Image.Resampling.BICUBIC)


def draw(labels, seed):
    """(kept, out), int arrays: a fifth of each class is out."""
    rng, out = np.random.default_rng(seed), []
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        out.append(order[: round(0.2 * len(order))])
    out = np.sort(np.concatenate(out))
    return np.setdiff1d(np.arange(len(labels)), out), out


def fit(features, labels, classes, seed):
    """What export.py fits, with its defaults, and the head."""
    held = rejection.over_folds([features], labels, classes, seed=seed)
    reference = rejection.reference(features, labels, seed)
    found = {method: rejection.calibrate(reference, held, 0.95, 0.98, method)[0] for method in label_sets.METHODS}
    head = linear_head.solve([features], labels, classes, seed=seed, tolerance=linear_head.ROUGH)
    return {'rejection': found['lac'], 'of_method': found, 'head': head, 'nearest': nearest(features)}


def refit(fitted, features, labels, out, seed):
    """The same without a class, with the threshold and the strength of the head of all classes."""
    rest = labels != out
    values, others = features[rest], np.unique(labels[rest], return_inverse=True)[1]
    head = linear_head.solve(
        [values], others, others.max() + 1, seed=seed, strength=fitted['head'].strength, tolerance=linear_head.ROUGH
    )
    found = dataclasses.replace(fitted['rejection'], reference=rejection.reference(values, others, seed))
    return {'rejection': found, 'head': head, 'nearest': nearest(values)}


def nearest(features):
    return NearestNeighbors(n_neighbors=10).fit(normalised(features))


def normalised(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def scores(fitted, features):
    """{name: float [n]}, higher for known photos."""
    logits = features @ fitted['head'].weight + fitted['head'].bias
    return {
        'score': fitted['rejection'].score(features),
        'highest probability': fitted['head'].probabilities(features).max(1),
        'energy': logsumexp(logits, axis=1),
        '10th nearest photo': -fitted['nearest'].kneighbors(normalised(features))[0][:, -1],
    }


def add(rows, name, of_known, of_others):
    found = rows.setdefault(name, {kind: [] for kind in ('taken', 'score', *PLAIN)})
    for kind in ('score', *PLAIN):
        truth = np.repeat([1, 0], [len(of_known[kind]), len(of_others[kind])])
        found[kind].append(roc_auc_score(truth, np.concatenate([of_known[kind], of_others[kind]])))
    found['taken'].append(float((of_others['score'] >= 0).mean()))


def over_splits(found, splits):
    """Means and standard deviations over the splits; of left-out classes, in the first splits, of the mean over the classes."""
    means = {kind: np.reshape(values, (splits, -1)).mean(1) for kind, values in found.items()}
    return {
        'auroc': spread(means['score']),
        'taken_for_known': spread(means['taken']),
        'auroc_of': {kind: spread(means[kind]) for kind in PLAIN},
    }


def spread(values):
    return {'mean': round(float(np.mean(values)), 5), 'sd': round(float(np.std(values, ddof=1)), 5)}


def known_over_splits(sets):
    names = sets[0]['per_class']
    return {
        **{kind: spread([found[kind] for found in sets]) for kind in ('known', 'coverage', 'mean_size', 'one_label')},
        'n_per_split': sets[0]['n'],
        'per_class': {
            name: {
                kind: spread([found['per_class'][name][kind] for found in sets])
                for kind in ('known', 'coverage', 'mean_size')
            }
            for name in names
        },
    }


def facts(args, classes, labels, others):
    counts = np.bincount(labels)
    return {
        'benchmark': 'unknown',
        'command': shlex.join(['python', 'benchmarks/unknown.py', *map(without_folders, sys.argv[1:])]),
        'splits': args.splits,
        'photos': {name: int(count) for name, count in zip(classes.tolist(), counts)},
        'n': {**others, LEFT_OUT: round(float(counts.mean()), 1)},
        'versions': {
            'python': platform.python_version(),
            **{name: metadata.version(name) for name in ('numpy', 'scikit-learn')},
        },
    }


def without_folders(word):
    """A word of the command line without the folders of this machine."""
    name, equals, place = word.rpartition('=')
    return name + equals + (os.path.basename(place) if os.path.isabs(place) else place)


def show(result):
    names = [*result['others']]
    print(f'{"AUROC, mean of " + str(result["splits"]) + " splits":<28}' + ''.join(f'{name:>18}' for name in names))
    print(f'{"n":<28}' + ''.join(f'{result["n"][name]:>18}' for name in names))
    for kind in PLAIN:
        print(f'{kind:<28}' + ''.join(f'{result["others"][name]["auroc_of"][kind]["mean"]:>18.4f}' for name in names))
    for title, kind in (('score of the export', 'auroc'), ('taken for known', 'taken_for_known')):
        cells = (result['others'][name][kind] for name in names)
        print(f'{title:<28}' + ''.join(f'{cell["mean"]:>9.4f} +- {cell["sd"]:.4f}' for cell in cells))
    for method, known in result['known'].items():
        kept, covered = known['known'], known['coverage']
        print(
            f'{method}: known photos ({known["n_per_split"]} in each split): kept {kept["mean"]:.4f} +- {kept["sd"]:.4f}; sets hold the '
            f'label of {covered["mean"]:.4f} +- {covered["sd"]:.4f}, labels in a set {known["mean_size"]["mean"]:.3f}, one label '
            f'{known["one_label"]["mean"]:.3f}'
        )
        for name, row in known['per_class'].items():
            kept, covered, size = (row[kind]['mean'] for kind in ('known', 'coverage', 'mean_size'))
            print(f'  {name:<26}kept {kept:.4f}, coverage {covered:.4f}, labels in a set {size:.3f}')


if __name__ == '__main__':
    run(main)
