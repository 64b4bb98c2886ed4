"""Train ResNet50 with train.py, with Paddle as imported and, if there is one, with PyTorch in fp32, alternately.

    python benchmarks/training.py [--pairs 5] [--size 224] [--batch 32] [--torch PYTHON_WITH_PYTORCH]
    python benchmarks/training.py --device gpu --amp O1 --size 224 --batch 128 --steps 30       # never run: there was no GPU

Ours is the second epoch of train.py, which reads JPEGs, on a CPU with one process per core. Theirs are bare steps on random numbers,
each in its own process, whose first step is not counted. Prints a table and, last, one JSON line for each comparison.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from processes import draw_images, images_per_second
from ratios import command_line, plain_environment, report, run, table

from zodiac.base import device

HERE = os.path.dirname(os.path.abspath(__file__))
TARGETS = {'paddle': 1.8, 'torch': 1.0}


def main():
    parser = command_line(__doc__, pairs=5)
    parser.add_argument('--size', type=int, default=64, help='pixels a side (default: 64)')
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
        children['torch'] = [args.torch, f'{HERE}/torch_step.py', '--device', args.device.replace('gpu', 'cuda'), *same]
    number = device.cores() if args.device == 'cpu' else 1
    rates = {name: [] for name in ('ours', *children)}
    with tempfile.TemporaryDirectory(prefix='training') as folder:
        draw_images(folder, args.steps * args.batch)
        for _ in range(args.pairs):
            more = [f'device={args.device}', f'train.amp={args.amp}', 'model.arch=resnet50']
            rates['ours'].append(images_per_second(folder, number, args.size, args.batch, *more))
            for name, command in children.items():
                rates[name].append(printed_number(command))
    table('images/s', rates)
    for name in children:
        settings = {'device': args.device, 'amp': args.amp, 'size': args.size, 'batch': args.batch}
        report(f'training_{name}', rates['ours'], rates[name], TARGETS[name], **settings)


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
