"""Training steps of ResNet50 on the CPU with this project's settings of threads and memory against Paddle as it is imported, in turns.

    python benchmarks/train_step.py [--pairs 5] [--size 64] [--batch 16]

Prints a table and, last, one JSON line. Each run is a process of its own; its first step is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from ratios import summary

HERE = os.path.dirname(os.path.abspath(__file__))
SET_BY_US = ('OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE', 'MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_')
STEPS = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    parser.add_argument('--size', type=int, default=64, help='pixels a side (default: 64)')
    parser.add_argument('--batch', type=int, default=16, help='images a step (default: 16)')
    parser.add_argument('--child', choices=['paddle', 'ours'], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(images_per_second(args))
        return
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_US}
    rates = {'paddle': [], 'ours': []}
    for _ in range(args.pairs):
        for name in rates:
            command = [sys.executable, __file__, '--child', name, '--size', str(args.size), '--batch', str(args.batch)]
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            rates[name].append(float(output.split()[-1]))
    print(f'{"images/s":<10}{"min":>8}{"median":>8}{"max":>8}')
    for name, values in rates.items():
        print(f'{name:<10}{min(values):>8.2f}{statistics.median(values):>8.2f}{max(values):>8.2f}')
    ratios = [ours / theirs for ours, theirs in zip(rates['ours'], rates['paddle'])]
    result = {
        'benchmark': 'train_step',
        **summary(ratios),
        'pairs': args.pairs,
        'size': args.size,
        'batch': args.batch,
        'target': 1.0,
    }
    print(json.dumps(result))


def images_per_second(args):
    """Median rate of training steps on random images."""
    import time

    if args.child == 'ours':
        sys.path.insert(0, os.path.dirname(HERE))
        from zodiac import device

        paddle = device.import_paddle()
    else:
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
    main()
