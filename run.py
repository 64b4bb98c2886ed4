"""From photos to a tested and exported model: annotate, train, evaluate and export, one after another.

    python run.py photos                                   # photos/<class>/*, photos/{train,valid,test}/<class>/*, photos.zip or photos.csv
    python run.py photos --name pets -o evaluate.folds=0   # output/pets/{report,infer}, without the folds
    python run.py photos -c configs/flowers.yaml           # the settings of another recipe

The settings are those of configs/photos.yaml, and the ImageNet weights those that are installed (requirements-weights.txt). Run it again
after a stop, or when photos have changed: it does what is missing. What the scripts print goes to output/<name>.log.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare(
        'requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn threadpoolctl matplotlib jinja2 tqdm visualdl'
    )

import argparse
import collections
import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import sys
import time

import config
from zodiac.base import calls, class_names, device, errors, files, locks, networks, runs, schema
from zodiac.base.errors import UserError


def parse():
    """The parsed command line."""
    parser = config.parser(__doc__, takes='photos')
    parser.add_argument('--name', help='name of the run (default: that of the folder)')
    args = parser.parse_args()
    if not (args.photos or args.config):
        parser.error(calls.as_called('name the folder of the photos, an archive or a list: python run.py photos'))
    if args.name:
        args.override.append([f'name={schema.as_yaml(args.name)}'])
    return args


if __name__ == '__main__':
    args = parse()  # --help and wrong usage end here, before Paddle is imported

import annotate
import evaluate
import export
import train
from dataset import ZodiacDataset
from zodiac.base import formatting
from zodiac.data import groups, summary
from zodiac.data.folders import SPLITS
from zodiac.models import imagenet
from zodiac.training import checkpoint, progress, resume

STAGES = ('annotate', 'train', 'evaluate', 'export')
STATE = 'run.json'  # in the run's folder: hashes of what each finished stage was done with, and of its result
WITHOUT = {  # settings that do not change the result of a stage
    'train': ('annotate', 'evaluate', 'export', 'reject'),
    'evaluate': ('annotate', 'export'),
    'export': ('annotate',),
}
START, PASS, STEP = 15, 0.06, 0.2  # estimate: seconds; core-seconds per image of 224 px and 3.4 million parameters


def main():
    pipeline(with_weights(args))


def run(photos, settings=()):
    """All stages on photos, from Python.

    Args:
        photos: folder, archive or list.
        settings: dict of settings, by dotted name or by section.
    Returns: the folder of the run. Raises UserError.
    """
    override = [f'{key}={schema.as_yaml(value)}' for key, value in schema.flatten(dict(settings))]
    cfg = with_weights(argparse.Namespace(photos=photos, config=None, override=[override]))
    pipeline(cfg)
    return cfg.run_dir


def with_weights(args):
    """The `Config` of a parsed command line. Raises UserError, with what to install, if there are no ImageNet weights."""
    cfg = config.from_arguments(args)
    chosen = args.config or any(text.startswith('model.') for text in config.overrides_of(args))
    if cfg.model.pretrained is True and not chosen and not imagenet.is_here(cfg.model.arch):
        other = next((arch for arch in networks.NETWORKS if imagenet.is_here(arch)), None)
        if other:
            print(
                f'model.arch = {other}: its ImageNet weights are here, those of {cfg.model.arch} are not',
                file=sys.stderr,
            )
            args.override.append([f'model.arch={other}'])
            cfg = config.from_arguments(args)
    if cfg.model.pretrained is True:
        imagenet.find(cfg.model.arch)
    return cfg


def pipeline(cfg):
    """Do what is missing, with the settings of a `config.Config`, and print the result. Raises UserError."""
    os.makedirs(cfg.output, exist_ok=True)
    written = {'mode': 'a', 'buffering': 1, 'encoding': 'utf-8', 'errors': 'backslashreplace'}
    with locks.held(f'{cfg.run_dir}.run', 'worked on'), open(f'{cfg.run_dir}.log', **written) as log:
        with stage('annotate', log):
            annotate.annotate(cfg)
        cfg = class_names.resolve(cfg)
        print(photos_of(cfg), file=sys.stderr)
        if cfg.evaluate.folds and cfg.train.head == 'linear':
            evaluate.require_folds(cfg)
        for name, product, work in (
            ('train', 'best/state.json', lambda: train.train(cfg, must_resume=can_resume(cfg))),
            ('evaluate', f'{evaluate.report_of(cfg)}/metrics.json', lambda: evaluate.evaluate(cfg)),
            ('export', 'infer/inference.yaml', lambda: export.export(cfg)),
        ):
            product = f'{cfg.run_dir}/{product}'
            key, done = key_of(name, cfg), files.read_json(f'{cfg.run_dir}/{STATE}') or {}
            if os.path.isfile(product) and done.get(name) == [key, files.sha256(product)]:
                print(f'{title(name)}: done before, nothing has changed', file=sys.stderr)
                continue
            if name == 'train':
                print(f'estimate for the whole: {duration(estimate(cfg))}', file=sys.stderr)
            with stage(name, log):
                work()
            done = files.read_json(f'{cfg.run_dir}/{STATE}') or {}  # a new training has a new folder
            with files.atomic_write(f'{cfg.run_dir}/{STATE}') as file:
                json.dump({**done, name: [key, files.sha256(product)]}, file, indent=1)
    show(cfg)


def title(name):
    return f'{STAGES.index(name) + 1}/{len(STAGES)} {name}'


@contextlib.contextmanager
def stage(name, log):
    """Print one line about a stage; what it prints itself goes to the file `log`, its warnings to stderr too."""
    started, stderr = time.monotonic(), sys.stderr
    print(f'{title(name)} ... ', end='', file=stderr, flush=True)
    log.write(f'== {name}, {time.strftime("%Y-%m-%d %H:%M:%S")}\n')
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(progress.Quiet(log, stderr)):
            yield
        print(duration(time.monotonic() - started), file=stderr)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        print('stopped; the same command goes on from here' if stopped else 'failed', file=stderr)
        raise


def key_of(name, cfg):
    """A hash of what the result of a stage depends on: settings, photos, index files, groups, weights."""
    used = dataclasses.asdict(cfg)
    evaluation, source = used['evaluate'], cfg.model.pretrained
    for section in WITHOUT[name]:
        del used[section]
    if name == 'train':
        used['flip_average'] = evaluation['flip_average']  # a solved head learns from mirror images too
        read = [checkpoint.locate(source)[0]] if isinstance(source, str) and os.path.exists(source) else []
    else:
        read = [f'{cfg.run_dir}/best/{checkpoint.SUMS}']
    splits = ('train', 'valid') if name == 'train' else SPLITS  # an export names its test photos
    content = (files.read_json(class_names.source(cfg)) or {}).get('content') or {}
    read += [f'{cfg.data.root}/{split}.txt' for split in splits]
    if name != 'export':
        read.append(f'{cfg.data.root}/{groups.NAME}')  # images that stay in one fold
    hashes = [files.sha256(path) if os.path.isfile(path) else None for path in read]
    return hashlib.sha256(json.dumps([used, [content.get(split) for split in splits], hashes]).encode()).hexdigest()


def can_resume(cfg):
    """Whether the run was stopped in training, with these settings and photos."""
    if os.path.isfile(f'{cfg.run_dir}/{STATE}') or not checkpoint.epochs(cfg.run_dir):
        return False
    origin = resume.facts(cfg, *(ZodiacDataset(split, augment=False, cfg=cfg) for split in ('train', 'valid')))
    try:
        same = not config.differences(config.load(f'{cfg.run_dir}/{runs.CONFIG}'), cfg)
        return same and bool(resume.find(cfg.run_dir, origin, False, False, progress.note)[0])
    except UserError as error:
        progress.note(f'{error}: a new run')
        return False


def photos_of(cfg):
    """The number of photos, in words."""
    found = files.read_json(class_names.source(cfg))
    left_out, corrected = len(found['rejected']), summary.corrections_in_words(found)
    more = f', {left_out} left out' if left_out else ''
    more += f'; corrections: {corrected}' if corrected else ''
    return f'{formatting.count(found["accepted"], "photo")} of {len(cfg.data.labels)} classes{more}'


def estimate(cfg):
    """Seconds that all stages take, roughly: measured with EfficientNet-Lite0 on two cores, and scaled by size and parameters."""
    images = files.read_json(class_names.source(cfg))['accepted']
    network = networks.NETWORKS[cfg.model.arch]
    scale = (cfg.image.size / 224) ** 2 * network.parameters / 3.4e6 / device.cores()
    passes = cfg.train.views + 2 if cfg.train.on_features else 2
    steps = 0 if cfg.train.on_features else cfg.train.epochs
    return START + images * scale * (PASS * passes + STEP * steps)


def duration(seconds):
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} minutes'


def show(cfg, images='photos'):
    """Print the accuracy, the worst confusions, where the report is, and the commands for the model.

    Args:
        images: what they are called.
    """
    report = f'{cfg.run_dir}/{evaluate.report_of(cfg)}'
    measured = files.read_json(f'{report}/metrics.json')
    over_folds = measured.get('folds')
    top1, interval, number = (
        [over_folds[key] for key in ('top1', 'interval_95', 'n')]
        if over_folds
        else [measured[key] for key in ('top1', 'top1_interval_95', 'n')]
    )
    with open(f'{report}/{"folds" if over_folds else "predictions"}.csv', encoding='utf-8', newline='') as file:
        rows = [(row['label'], row['prediction']) for row in csv.DictReader(file)]
    of_class = collections.Counter(label for label, _ in rows)
    largest, most = of_class.most_common(1)[0]
    low, high = map(formatting.percent, interval)
    where = (
        f'{number} {images} over {over_folds["k"]} folds' if over_folds else f'{number} {measured["split"]} {images}'
    )
    print(f'accuracy: {formatting.percent(top1)} (95% interval {low} to {high}; {where})')
    print(f'guessing: {formatting.percent(most / number)}, by always saying {largest}')
    wrong = collections.Counter(row for row in rows if row[0] != row[1]).most_common(3)
    for (label, taken), count in wrong:
        print(f'confused: {label} taken for {taken}: {count} of {of_class[label]}')
    if not wrong:
        print('confused: none')
    photo = next(iter(ZodiacDataset('test', augment=False, cfg=cfg).paths))
    run = runs.shortest(cfg.run_dir)
    print(f'report:   {report}/report.html')
    print(f'predict:  {calls.command("predict", run, photo)}')
    print(f'serve:    {calls.command("serve", run)}')


if __name__ == '__main__':
    errors.run(main)
