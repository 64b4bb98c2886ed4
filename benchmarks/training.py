"""Training ResNet50 on the CPU with train.py against Paddle as it is imported and, where there is one, PyTorch in fp32, in turns.

    python benchmarks/training.py [--pairs 5] [--size 224] [--batch 32] [--torch PYTHON_WITH_PYTORCH]

Ours is a whole epoch of train.py, its second, with one process a core, reading JPEGs; theirs are bare steps on random numbers, each in
a process of its own whose first step is not counted. Prints a table and, last, a JSON line each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from processes import draw_images, images_per_second
from ratios import run, summary

from zodiac.base import device

HERE = os.path.dirname(os.path.abspath(__file__))
SET_BY_US = ('OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE', 'MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_')
STEPS = 3
TARGETS = {'paddle': 1.8, 'torch': 1.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    parser.add_argument('--size', type=int, default=64, help='pixels a side (default: 64)')
    parser.add_argument('--batch', type=int, default=32, help='images a batch (default: 32)')
    parser.add_argument('--torch', metavar='PYTHON', help='a Python that has PyTorch')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(steps_of_paddle(args))
        return
    args.arch, args.steps = 'resnet50', STEPS
    sizes = ['--size', str(args.size), '--batch', str(args.batch)]
    children = {'paddle': [sys.executable, __file__, '--child', *sizes]}
    if args.torch:
        children['torch'] = [args.torch, f'{HERE}/torch_step.py', '--steps', str(STEPS), *sizes]
    rates = {name: [] for name in ('ours', *children)}
    with tempfile.TemporaryDirectory(prefix='training') as folder:
        draw_images(folder, args.steps * args.batch)
        for _ in range(args.pairs):
            rates['ours'].append(images_per_second(folder, device.cores(), args))
            for name, command in children.items():
                rates[name].append(printed_number(command))
    print(f'{"images/s":<10}{"min":>8}{"median":>8}{"max":>8}')
    for name, values in rates.items():
        print(f'{name:<10}{min(values):>8.2f}{statistics.median(values):>8.2f}{max(values):>8.2f}')
    for name in children:
        ratios = [ours / theirs for ours, theirs in zip(rates['ours'], rates[name])]
        settings = {'target': TARGETS[name], 'pairs': args.pairs, 'size': args.size, 'batch': args.batch}
        print(json.dumps({'benchmark': f'training_{name}', **summary(ratios), **settings}))


def printed_number(command):
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_US}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def steps_of_paddle(args):
    """Images a second of training steps, the median, with Paddle as it is imported."""
    import paddle

    paddle.set_device('cpu')
    network = paddle.vision.models.resnet50(num_classes=12)
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, network.parameters())
    images, labels = paddle.randn([args.batch, 3, args.size, args.size]), paddle.randint(0, 12, [args.batch])
    times = []
    for _ in range(STEPS + 1):
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
