"""Measure a recipe on a folder of photos over several seeds: how accurate it is, and how far the splits move that.

    python benchmarks/small_data.py animals8 --out seeds.json
    python benchmarks/small_data.py flowers12/train --leave-out tigerlily windflower --seeds 5
    python benchmarks/small_data.py natural_images --study 0 -o model.arch=efficientnet_lite2

FOLDER has one folder per class. Each seed draws other splits, folds and augmented copies, and runs annotate.py, train.py and evaluate.py
with a recipe, configs/photos.yaml by default, in a scratch folder; FOLDER is not written to. All seeds share one cache of features.
Then a study measures what mirror averaging (evaluate.flip_average) and augmented copies (train.views) bring, over folds and along the
learning curve. Prints a table and, last, one JSON line.
"""

import contextlib
import json
import os
import platform
import re
import shlex
import sys
import tempfile
import time
from importlib import metadata

import numpy as np
from ratios import ROOT, run
from scipy.stats import t

import annotate
import config
import evaluate
import train
from zodiac.base import class_names, device, files
from zodiac.base.errors import UsageError

STUDIED = [(False, 0), (True, 0), (False, 1), (False, 4), (True, 1), (True, 4)]  # (evaluate.flip_average, train.views)
PACKAGES = ('paddlepaddle', 'paddlepaddle-gpu', 'scikit-learn', 'numpy', 'pillow', 'openvino')


def main():
    args = command_line()
    folder, recipe, out = (path and os.path.abspath(path) for path in (args.folder, args.config, args.out))
    name, overrides = os.path.basename(folder), config.overrides_of(args)
    with contextlib.nullcontext(args.work) if args.work else tempfile.TemporaryDirectory(prefix='small_data') as work:
        link_classes(folder, f'{work}/{name}', args.leave_out)
        os.chdir(work)
        with contextlib.redirect_stdout(sys.stderr):  # what the scripts print
            result = {**facts(name), **measure(name, recipe, overrides, args.seeds, args.study)}
        os.chdir(ROOT)  # Windows deletes no working directory
    show(result)
    if out:
        with files.atomic_write(out) as file:
            json.dump(result, file, indent=1)
            file.write('\n')
    print(json.dumps(result))


def command_line():
    parser = config.parser(__doc__)
    parser.set_defaults(config=str(ROOT / 'configs/photos.yaml'))
    parser.add_argument('folder', help='with one folder of photos per class')
    parser.add_argument('--leave-out', nargs='+', default=[], metavar='CLASS', help='classes that are not used')
    parser.add_argument('--seeds', type=int, default=5, help='2 or more (default: 5)')
    parser.add_argument('--study', type=int, metavar='SEEDS', help='seeds of the study, 0: none (default: all)')
    parser.add_argument('--work', metavar='FOLDER', help='keep runs and features here (default: a temporary folder)')
    parser.add_argument('--out', metavar='FILE', help='write the JSON there too, indented')
    args = parser.parse_args()
    if args.seeds < 2:
        raise UsageError(f'--seeds {args.seeds}: must be 2 or more, to tell how far the results vary')
    return args


def link_classes(folder, place, left_out):
    """Make the folder `place` with a link to each class in `folder`."""
    if not os.path.isdir(folder):
        raise UsageError(f'{folder}: no such folder; name one that has a folder of photos per class')
    classes = {entry.name for entry in os.scandir(folder) if entry.is_dir()}
    for label in left_out:
        if label not in classes:
            raise UsageError(f'--leave-out {label}: no such folder in {folder}')
    os.makedirs(place, exist_ok=True)
    for label in classes - set(left_out):
        with contextlib.suppress(FileExistsError):
            os.symlink(f'{folder}/{label}', f'{place}/{label}', target_is_directory=True)


def measure(name, recipe, overrides, seeds, seeds_of_study):
    """The runs of all seeds, and the study."""

    def settings(seed, *more):
        own = [f'data.root={name}', f'name={name}_{seed}', f'seed={seed}']
        return config.use(recipe, [*own, *overrides, *more])

    reports, seconds, studied = [], [], {setting: [] for setting in STUDIED}
    for seed in range(seeds):
        cfg, started = settings(seed), time.perf_counter()
        for step in (annotate.annotate, train.train, evaluate.evaluate):
            step(cfg)
        seconds.append(round(time.perf_counter() - started, 1))
        reports.append(files.read_json(f'{cfg.run_dir}/report/metrics.json'))
        print(f'seed {seed}: {seconds[-1]} s', file=sys.stderr, flush=True)
        if seed >= (seeds if seeds_of_study is None else seeds_of_study):
            continue
        _, origin, _, extractor = evaluate.predictor(class_names.resolve(cfg))
        for flip_average, views in STUDIED:
            changed = settings(seed, f'evaluate.flip_average={flip_average}', f'train.views={views}')
            studied[flip_average, views].append(evaluate.over_folds(class_names.resolve(changed), extractor, origin)[0])
    found = {'test': over_seeds([report['top1'] for report in reports], n=[report['n'] for report in reports])}
    if reports[0].get('folds'):
        found['folds'] = folds_over_seeds(reports)
    return {'seeds': seeds, **found, 'seconds': seconds, 'study': study(studied) if studied[STUDIED[0]] else []}


def study(studied):
    """One row per setting: accuracy over folds, what it brings over the first setting, learning curve."""
    plain = studied[STUDIED[0]]
    return [
        {
            'flip_average': flip_average,
            'views': views,
            'folds': folds_over_seeds(measured),
            'gain': gain([found['folds']['top1'] for found in measured], [found['folds']['top1'] for found in plain]),
            'learning_curve': [
                {
                    'per_class': number,
                    **over_seeds(top1 := curve_at(measured, place)),
                    'gain': gain(top1, curve_at(plain, place)),
                }
                for place, number in enumerate(numbers_of(measured))
            ],
        }
        for (flip_average, views), measured in studied.items()
    ]


def numbers_of(measured):
    """Photos per class at which all seeds have a point of the learning curve."""
    curves = [found['learning_curve']['points'] if found['learning_curve'] else [] for found in measured]
    return [point['per_class'] for point in min(curves, key=len)]


def curve_at(measured, place):
    return [found['learning_curve']['points'][place]['top1'] for found in measured]


def folds_over_seeds(measured):
    folds = [found['folds'] for found in measured]
    return {
        **over_seeds([found['top1'] for found in folds], n=folds[0]['n'], k=folds[0]['k']),
        'interval_95_of_each': [[round(bound, 4) for bound in found['interval_95']] for found in folds],
    }


def over_seeds(values, **more):
    """Values of all seeds with their mean, standard deviation, and the 95 % interval of the mean (Student's t): how far other splits of
    the same photos would move it."""
    values = np.asarray(values, float)
    found = {'top1': values.round(4).tolist(), 'mean': round(float(values.mean()), 4)}
    if len(values) > 1:
        sd = values.std(ddof=1)
        half = t.ppf(0.975, len(values) - 1) * sd / np.sqrt(len(values))
        found['sd'] = round(float(sd), 4)
        found['interval_95'] = [round(float(bound), 4) for bound in (values.mean() - half, values.mean() + half)]
    return {**found, **more}


def gain(values, plain):
    """Mean difference between two settings and, with several seeds, its 95 % interval over the seeds, which both share."""
    found = over_seeds(np.subtract(values, plain))
    return {key: found[key] for key in ('mean', 'interval_95') if key in found}


def facts(name):
    """What the figures depend on."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    model = re.search(r'^model name\s*:\s*(.*)', device.about_processor(), re.MULTILINE)
    return {
        'benchmark': 'small_data',
        'data': name,
        'command': shlex.join(['python', 'benchmarks/small_data.py', *sys.argv[1:]]),
        'processor': f'{model[1] if model else platform.machine()}, {device.cores()} cores',
        'versions': {'python': platform.python_version(), **versions},
    }


def show(result):
    """Print the tables."""
    for part in ('test', 'folds'):
        if part in result:
            print(row(part, result[part]))
    if result['study']:
        print(f'\n{"mirror":<8}{"copies":<8}folds: mean, 95 % interval; gain; then the learning curve')
    for setting in result['study']:
        title = f'{"yes" if setting["flip_average"] else "no":<8}{setting["views"]:<8}'
        print(row(title, setting['folds']), f'{setting["gain"]["mean"]:+.4f}', end='  ')
        print(*(f'{point["per_class"]}: {point["mean"]:.4f}' for point in setting['learning_curve']))


def row(title, found):
    low, high = found.get('interval_95', [found['mean']] * 2)
    return f'{title:<16}{found["mean"]:.4f} ({low:.4f} to {high:.4f})'


if __name__ == '__main__':
    run(main)
