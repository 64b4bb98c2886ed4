"""Train ResNet50 with train.py, with Paddle as imported and, if there is one, with PyTorch in fp32, alternately.

    python benchmarks/training.py [--pairs 3] [--size 224] [--batch 32] [--torch PYTHON_WITH_PYTORCH]
    python benchmarks/training.py --device gpu --amp O1 --size 224 --batch 128 --steps 30       # never run: there was no GPU

Ours is the second epoch of train.py, which reads JPEGs, on a CPU with one process per core, and once more in a single process. Theirs
are bare steps on random numbers, each in its own process, whose first step is not counted. Prints a table and, last, one JSON line for
each comparison.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import ROOT, command_line, plain_environment, report, run, table

from zodiac.base import device

TARGETS = {'one process': 1.0, 'paddle': 1.8, 'torch': 1.0}


def main():
    parser = command_line(__doc__, pairs=3)
    parser.add_argument('--size', type=int, default=224, help='pixels a side (default: 224)')
    parser.add_argument('--batch', type=int, default=32, help='images per batch (default: 32)')
    parser.add_argument('--steps', type=int, default=3, help='steps that are timed (default: 3)')
    parser.add_argument('--device', default='cpu', help='cpu or gpu (default: cpu)')
    parser.add_argument('--amp', default='O0', help='train.amp of ours (default: O0)')
    parser.add_argument('--torch', metavar='PYTHON', help='a Python that has PyTorch')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(steps_of_paddle(args))
        return
    same = ['--size', args.size, '--batch', args.batch, '--steps', args.steps]
    children = {'paddle': [sys.executable, __file__, '--child', '--device', args.device, *same]}
    if args.torch:
        script = ROOT / 'benchmarks/torch_step.py'
        children['torch'] = [args.torch, script, '--device', args.device.replace('gpu', 'cuda'), *same]
    processes = {'ours': device.cores() if args.device == 'cpu' else 1}
    if processes['ours'] > 1:
        processes['one process'] = 1
    rates = {name: [] for name in (*processes, *children)}
    with tempfile.TemporaryDirectory(prefix='training') as folder:
        draw_images(folder, args.steps * args.batch)
        for _ in range(args.pairs):
            for name, number in processes.items():
                rates[name].append(images_per_second(folder, number, args))
            for name, command in children.items():
                rates[name].append(printed_number(command))
    table('images/s', rates)
    for name in [name for name in rates if name != 'ours']:
        settings = {'device': args.device, 'amp': args.amp, 'size': args.size, 'batch': args.batch}
        report('training', rates['ours'], rates[name], TARGETS[name], against=name, **settings)


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
    """The rate of the second epoch of a training with `number` processes, on the images of `draw_images`."""
    settings = ['data.root=photos', 'data.labels=[cat, dog]', f'device={args.device}', f'image.size={args.size}']
    settings += [f'name=run{number}', 'model.arch=resnet50', 'model.pretrained=false', f'train.amp={args.amp}']
    settings += [f'train.batch_size={args.batch}', 'train.epochs=2', 'optim.lr=1e-5']
    command = [sys.executable, str(ROOT / 'train.py'), '--nproc', str(number), '-o', *settings]
    environment = {key: value for key, value in os.environ.items() if key != 'OMP_NUM_THREADS'}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    with open(f'{folder}/output/run{number}/log.csv', encoding='utf-8', newline='') as file:
        return float(list(csv.DictReader(file))[-1]['images_per_second'])


def printed_number(command):
    command = list(map(str, command))
    done = subprocess.run(command, env=plain_environment(), check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def steps_of_paddle(args):
    """Images per second of training steps, the median, with Paddle as it is imported."""
    import paddle  # not from paddle_setup, which sets what is to be compared

    paddle.set_device(args.device)
    network = paddle.vision.models.resnet50(num_classes=12)
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, network.parameters())
    images, labels = paddle.randn([args.batch, 3, args.size, args.size]), paddle.randint(0, 12, [args.batch])
    times = []
    for _ in range(args.steps + 1):
        started = time.perf_counter()
        loss = paddle.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        loss.item()
        times.append(time.perf_counter() - started)
    return args.batch / statistics.median(times[1:])


if __name__ == '__main__':
    run(main)
