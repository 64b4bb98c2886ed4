"""Train on the CPU with one process for all cores and with one process per core, alternately.

    python benchmarks/processes.py [--pairs 5] [--size 64] [--batch 32] [--arch resnet50] [--steps 4]

Trains on drawn JPEGs through train.py, and reads the images per second of the second epoch from log.csv. Prints a table and, last,
one JSON line.
"""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import ROOT, command_line, report, run, table

from zodiac.base import device


def main():
    parser = command_line(__doc__, pairs=5)
    parser.add_argument('--size', type=int, default=64, help='pixels a side (default: 64)')
    parser.add_argument('--batch', type=int, default=32, help='images per step (default: 32)')
    parser.add_argument('--arch', default='resnet50', help='network (default: resnet50)')
    parser.add_argument('--steps', type=int, default=4, help='steps per epoch (default: 4)')
    args = parser.parse_args()
    cores = device.cores()
    if cores == 1:
        sys.exit('error: this machine has one core; there is nothing to compare')
    rates = {1: [], cores: []}
    with tempfile.TemporaryDirectory(prefix='processes') as folder:
        draw_images(folder, args.steps * args.batch)
        for _ in range(args.pairs):
            for number in rates:
                rates[number].append(
                    images_per_second(folder, number, args.size, args.batch, f'model.arch={args.arch}')
                )
    table('images/s by processes', rates)
    settings = {'processes': cores, 'arch': args.arch, 'size': args.size, 'batch': args.batch}
    report('processes', rates[cores], rates[1], 1.0, **settings)


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


def images_per_second(folder, number, size, batch, *more):
    """The rate of the second epoch of a training with `number` processes, on the images of `draw_images`; more: settings."""
    settings = ['data.root=photos', 'data.labels=[cat, dog]', 'device=cpu', f'image.size={size}', 'optim.lr=1e-5']
    settings += [f'name=run{number}', 'model.pretrained=false', f'train.batch_size={batch}', 'train.epochs=2', *more]
    if settings[-1] in ('model.arch=resnet9', 'model.arch=cifarnet'):
        settings.append(f'image.resize={size}')
    command = [sys.executable, str(ROOT / 'train.py'), '--nproc', str(number), '-o', *settings]
    environment = {key: value for key, value in os.environ.items() if key != 'OMP_NUM_THREADS'}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    with open(f'{folder}/output/run{number}/log.csv', encoding='utf-8', newline='') as file:
        return float(list(csv.DictReader(file))[-1]['images_per_second'])


if __name__ == '__main__':
    run(main)
