"""Time transfer learning on a CPU with train.views, which computes the features of the frozen backbone once, against running it in
every step, alternately: as train.py does, or with --plain as paddle.Model.fit does (benchmarks/plain_transfer.py).

    python benchmarks/transfer.py data/flowers --pretrained output/natural_images.pdparams --size 50 --views 1 2 4 --turns 3
    python benchmarks/transfer.py data/flowers --pretrained output/natural_images.pdparams --size 112 --epochs-timed 2 --turns 1 --plain

DATA is an annotated folder with the classes of --config. Each run is a whole train.py, in a new folder without a cache, so computing
the features counts; turn N has the seed N. With --epochs-timed the runs without features stop after that many epochs, and their
time is extrapolated. Prints a table and, last, one JSON line for each number of views.
"""

import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time

from ratios import ROOT, command_line, report, run


def main():
    parser = command_line(__doc__)
    parser.add_argument(
        'data', help='folder with train.txt and valid.txt, the paths in these relative to the working directory'
    )
    parser.add_argument('--config', default=str(ROOT / 'configs/flowers.yaml'), help='default: configs/flowers.yaml')
    parser.add_argument('--pretrained', required=True, help='weights of the backbone, a .pdparams file')
    parser.add_argument('--size', type=int, default=112, help='pixels a side (default: 112)')
    parser.add_argument('--head', default='auto', help='model.head (default: auto)')
    parser.add_argument('--lr', type=float, default=0.001, help='optim.lr (default: 0.001)')
    parser.add_argument('--views', type=int, nargs='+', default=[1, 2, 4], help='views to try (default: 1 2 4)')
    parser.add_argument('--epochs', type=int, default=20, help='default: 20')
    parser.add_argument(
        '--epochs-timed', type=int, metavar='N', help='of the runs without features, 2 or more (default: all)'
    )
    parser.add_argument('--plain', action='store_true', help='against plain paddle.Model.fit')
    parser.add_argument('--turns', type=int, default=3, help='runs of each (default: 3)')
    args = parser.parse_args()
    settings = [
        *(
            'device=cpu',
            f'data.root={args.data}',
            f'image.size={args.size}',
            f'model.head={args.head}',
            f'optim.lr={args.lr}',
        ),
        *(f'model.pretrained={os.path.abspath(args.pretrained)}', 'model.freeze=backbone', 'train.patience=0'),
        *('image.mean=[0,0,0]', 'image.std=[1,1,1]'),
    ]
    runs = {views: [] for views in (0, *args.views)}
    for turn in range(args.turns):
        for views, results in runs.items():
            timed = args.epochs if views else args.epochs_timed or args.epochs
            run = [*settings, 'name=run', f'seed={turn}', f'train.views={views}', f'train.epochs={timed}']
            command = ['train.py', '-c', args.config, '-o', *run]
            if args.plain and not views:
                options = [args.data, os.path.abspath(args.pretrained), args.size, timed, args.lr]
                command = ['benchmarks/plain_transfer.py', *map(str, options)]
            results.append(train(args, command, timed))
            print(f'turn {turn}, views {views}: {results[-1][0]:.1f} s, {results[-1][1:]}', file=sys.stderr, flush=True)
    print(f'{"views":<8}{"seconds":>10}{"best top-1":>12}{"last top-1":>12}  medians')
    for views, results in runs.items():
        print(f'{views:<8}' + '{:>10.1f}{:>12.4f}{:>12.4f}'.format(*map(statistics.median, zip(*results))))
    for views in args.views:
        more = {
            'views': views,
            'size': args.size,
            'epochs': args.epochs,
            'head': args.head,
            'against': 'plain fit' if args.plain else 'train.py without views',
            'valid_top1': [round(ours[2], 4) for ours in runs[views]],
        }
        if args.epochs_timed:
            more['note'] = f'theirs extrapolated from {args.epochs_timed} epochs'
        else:
            more['theirs_valid_top1'] = [round(theirs[2], 4) for theirs in runs[0]]
        theirs, ours = ([round(result[0], 1) for result in runs[number]] for number in (0, views))
        report('transfer', theirs, ours, 20.0, seconds=ours, theirs=theirs, **more)


def train(args, command, epochs):
    """(seconds of all epochs, best and last validation top-1) of a training of `epochs`, extrapolated if these are not all."""
    with tempfile.TemporaryDirectory(prefix='transfer') as folder:
        os.symlink(os.path.abspath(args.data.split('/')[0]), f'{folder}/{args.data.split("/")[0]}')
        command = [sys.executable, str(ROOT / command[0]), *command[1:]]
        ends, printed, started = [], [], time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                printed.append(line)
                if line.startswith('epoch '):
                    ends.append(time.perf_counter())
        seconds = time.perf_counter() - started
        if process.returncode:
            sys.exit(''.join(printed[-5:]))
        with open(f'{folder}/output/run/log.csv', encoding='utf-8', newline='') as file:
            scores = [float(row['valid_top1']) for row in csv.DictReader(file)]
    if epochs < args.epochs:
        seconds += (args.epochs - epochs) * (ends[-1] - ends[0]) / (len(ends) - 1)
    return seconds, max(scores), scores[-1]


if __name__ == '__main__':
    run(main)
