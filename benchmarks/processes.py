"""Training on the CPU as one process with all cores against one process a core, in turns.

    python benchmarks/processes.py [--pairs 5] [--size 64] [--batch 32] [--arch resnet50] [--steps 4]

Trains on JPEGs drawn in a temporary folder, through train.py, and reads the images a second of the second epoch from log.csv.
Prints a table and, last, one JSON line.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import run, summary

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from zodiac.base import device  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    parser.add_argument('--size', type=int, default=64, help='pixels a side (default: 64)')
    parser.add_argument('--batch', type=int, default=32, help='images a step (default: 32)')
    parser.add_argument('--arch', default='resnet50', help='network (default: resnet50)')
    parser.add_argument('--steps', type=int, default=4, help='steps an epoch (default: 4)')
    args = parser.parse_args()
    cores = device.cores()
    if cores == 1:
        sys.exit('error: this machine has one core; there is nothing to compare')
    rates = {1: [], cores: []}
    with tempfile.TemporaryDirectory(prefix='processes') as folder:
        draw_images(folder, args.steps * args.batch)
        for _ in range(args.pairs):
            for number in rates:
                rates[number].append(images_per_second(folder, number, args))
    print(f'{"processes":<10}{"min":>8}{"median":>8}{"max":>8}  images/s')
    for number, values in rates.items():
        print(f'{number:<10}{min(values):>8.2f}{statistics.median(values):>8.2f}{max(values):>8.2f}')
    ratios = [many / one for one, many in zip(rates[1], rates[cores])]
    result = {
        'benchmark': 'processes',
        **summary(ratios),
        'target': 1.0,
        'pairs': args.pairs,
        'processes': cores,
        'arch': args.arch,
        'size': args.size,
        'batch': args.batch,
    }
    print(json.dumps(result))


def draw_images(folder, count):
    """`count` JPEGs of 400 x 300 pixels in folder/photos/ and the index files."""
    rng = np.random.default_rng(0)
    os.mkdir(f'{folder}/photos')
    for number in range(count):
        pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).resize((400, 300)).save(f'{folder}/photos/{number}.jpg')
    for split, images in (('train', range(count)), ('valid', range(8))):
        lines = [f'photos/{number}.jpg\t{number % 2}\n' for number in images]
        Path(folder, 'photos', f'{split}.txt').write_text(''.join(lines), encoding='utf-8')


def images_per_second(folder, number, args):
    """The rate of the second epoch of a run with so many processes."""
    name = f'run{number}'
    settings = [
        *('data.root=photos', 'data.labels=[cat, dog]', 'device=cpu', f'image.size={args.size}', 'optim.lr=1e-5'),
        *(f'model.arch={args.arch}', 'model.pretrained=false', f'train.batch_size={args.batch}', 'train.epochs=2'),
    ]
    if args.arch in ('resnet9', 'cifarnet'):
        settings.append(f'image.resize={args.size}')
    command = [sys.executable, str(ROOT / 'train.py'), '--nproc', str(number), '-o', f'name={name}', *settings]
    environment = {key: value for key, value in os.environ.items() if key != 'OMP_NUM_THREADS'}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    with open(f'{folder}/output/{name}/log.csv', encoding='utf-8', newline='') as file:
        return float(list(csv.DictReader(file))[-1]['images_per_second'])


if __name__ == '__main__':
    run(main)
