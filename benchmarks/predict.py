"""Time predict.py on a folder of photos against the notebook's code and against ONNX Runtime, as whole processes, alternately.

    python benchmarks/predict.py WORK_FOLDER [--count 400] [--photos FOLDER] [--pairs 3]

WORK_FOLDER keeps drawn photos (JPEG, 1200 x 800) and the ResNet50 of benchmarks/exports.py. Ours is predict.py without options, and
with its int8 model. Prints a table and, last, one JSON line for each comparison.
"""

import subprocess
import sys
import time
from pathlib import Path

import exports
from photos import draw_photos
from ratios import ROOT, command_line, plain_environment, report, run, table

HERE = ROOT / 'benchmarks'
TARGETS = {  # (ours, theirs): how many times as fast ours should be, and what the processor needs for it
    ('default', 'notebook'): (8.0, 'bf16'),
    ('default', 'onnxruntime'): (3.0, 'bf16'),
    ('int8', 'notebook'): (15.0, 'vnni'),
    ('int8', 'onnxruntime'): (5.0, 'vnni'),
}


def main():
    parser = command_line(__doc__, pairs=3)
    parser.add_argument('work', type=Path, help='folder for the photos and the models')
    parser.add_argument('--count', type=int, default=400, help='photos to draw (default: 400)')
    parser.add_argument('--photos', type=Path, help='a folder of photos instead of drawn ones')
    args = parser.parse_args()
    photos = args.photos or draw_photos(args.work / f'photos{args.count}', args.count)
    infer, int8 = exports.make(args.work)
    commands = {
        'notebook': [HERE / 'notebook_predict.py', args.work / 'resnet50', photos, len(exports.LABELS)],
        'onnxruntime': [HERE / 'onnx_predict.py', infer, photos],
        'default': [ROOT / 'predict.py', infer, photos],
        'int8': [ROOT / 'predict.py', int8[0], photos, *int8[1:]],
    }
    times = {name: [] for name in commands}
    labels = {}
    for name in ('default', 'int8'):
        measure(commands[name])  # the first start on a machine may choose engine and precision, and keeps the choice
    for _ in range(args.pairs):
        for name, command in commands.items():
            seconds, labels[name] = measure(command)
            times[name].append(seconds)
    count = len(list(photos.iterdir()))
    table(f'seconds for {count} photos', times)
    for (ours, theirs), (target, needs) in TARGETS.items():
        same = sum(map(str.__eq__, labels[ours], labels[theirs])) / count
        more = {'ours': ours, 'against': theirs, 'photos': count, 'same_top1': round(same, 4)}
        report('predict', times[theirs], times[ours], target, needs=needs, **more)


def measure(command):
    """Seconds of a process, and the class that it prints for each photo."""
    command = [sys.executable, *map(str, command)]
    start = time.perf_counter()
    done = subprocess.run(command, env=plain_environment(), check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return seconds, [line.split('\t')[1].replace('class', '') for line in done.stdout.splitlines()]


if __name__ == '__main__':
    run(main)
