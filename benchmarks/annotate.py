"""annotate.py against the notebook's loop on the same files, in turns, as whole processes: a first run, and one again, unchanged.

    python benchmarks/annotate.py FOLDER_OF_CLASS_FOLDERS [--pairs 5]
    python benchmarks/annotate.py --photos 300         # drawn: 1200 x 800 pixels, JPEG of quality 90, 1.6 bits a pixel

Prints a table and, last, a JSON line for each of the two runs. Fails when the two programs do not accept the same files.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from ratios import run, summary

HERE = os.path.dirname(os.path.abspath(__file__))
TARGETS = {'first run': 4.0, 'second run': 50.0}
NOTEBOOK = "the notebook's"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', nargs='?', help='a folder with one folder of images a class')
    parser.add_argument('--photos', type=int, default=300, help='without a folder: how many are drawn (default: 300)')
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as drawn, tempfile.TemporaryDirectory() as work:
        if not args.folder:
            draw(drawn, args.photos)
            time.sleep(2)  # annotate.py does not trust the time of a file that was changed just now
        folder = os.path.abspath(args.folder or drawn)
        labels = sorted(item.name for item in os.scandir(folder) if item.is_dir())
        os.mkdir(f'{work}/train')
        for label in labels:
            os.symlink(f'{folder}/{label}', f'{work}/train/{label}')
        times, accepted = compare(work, labels, args.pairs)
    print(f'{"":<15}{"min s":>8}{"median s":>10}{"max s":>8}')
    for name, values in times.items():
        print(f'{name:<15}{min(values):>8.3f}{statistics.median(values):>10.3f}{max(values):>8.3f}')
    data = os.path.normpath(args.folder).replace(os.sep, '/') if args.folder else 'drawn, 1200x800'
    for name, target in TARGETS.items():
        ratios = [theirs / ours for theirs, ours in zip(times[NOTEBOOK], times[name])]
        told = {'benchmark': 'annotate', 'run': name, 'data': data, 'accepted': accepted}
        print(json.dumps({**told, **summary(ratios), 'pairs': args.pairs, 'target': target}))


def compare(work, labels, pairs):
    """Seconds of each run, {name: one a pair}, and the number of accepted files."""
    ours = [f'{HERE}/../annotate.py', '-o', f'data.root={work}', f'data.labels={json.dumps(labels)}']
    times = {name: [] for name in (NOTEBOOK, *TARGETS)}
    for _ in range(pairs + 1):
        times[NOTEBOOK].append(measure([f'{HERE}/notebook_annotate.py', work, ','.join(labels)]))
        expected = read(work, ['train'])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f'{work}/.inspected')
        for name in TARGETS:
            times[name].append(measure(ours))
            differing = read(work, ['train', 'valid', 'test']) ^ expected
            if differing:
                sys.exit(f'error: {len(differing)} files are accepted by one of the two only, first {min(differing)}')
    return {name: values[1:] for name, values in times.items()}, len(expected)  # the first pair warms the file cache


def measure(command):
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def read(root, splits):
    """The accepted (path, label) lines."""
    lines = set()
    for split in splits:
        with open(f'{root}/{split}.txt', encoding='utf-8') as file:
            lines.update(file.read().splitlines())
    return lines


def draw(folder, count):
    """Smooth random colours with some noise, so much that a file is as large as the photos of that size in animals8 are: 200 kB."""
    import numpy as np
    from PIL import Image

    flip, mirror = Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT
    for label in range(4):
        os.mkdir(f'{folder}/class{label}')
    for number in range(0, count, 4):
        rng = np.random.default_rng(number)
        colours = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
        smooth = np.asarray(colours.resize((1200, 800), Image.Resampling.BICUBIC))
        photo = Image.fromarray((smooth + rng.normal(0, 3.5, (800, 1200, 1))).clip(0, 255).astype(np.uint8))
        turned = (photo, photo.transpose(flip), photo.transpose(mirror), photo.transpose(flip).transpose(mirror))
        for label, image in enumerate(turned[: count - number]):
            image.save(f'{folder}/class{label}/{number}.jpg', quality=90)


if __name__ == '__main__':
    run(main)
