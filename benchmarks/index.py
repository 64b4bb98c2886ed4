"""Measure how long an index of ten million lines takes to open, and the memory of all loader processes together.

    python benchmarks/index.py [--lines 100000 1000000 10000000] [--workers 4]

Writes index files into a temporary folder, about 37 bytes per line, without images. A process opens each with ZodiacDataset,
shuffles it with Loader, and forks `workers` processes that read paths and labels from all over it, as loader processes do. Memory is
the proportional set size of all of them, minus that with an index of one line, which is Paddle's. Prints a table and, last, one JSON line
for time and one for memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ratios import ROOT, command_line, limit, run

TARGET_SECONDS, TARGET_MB = 2.0, 1000


def main():
    parser = command_line(__doc__)
    parser.add_argument('--lines', type=int, nargs='+', default=[10**5, 10**6, 10**7])
    parser.add_argument('--workers', type=int, default=4, help='processes (default: 4)')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.workers)))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix='index') as folder:
        os.chdir(folder)
        os.mkdir('signs')
        for lines in (1, *args.lines):
            write(lines)
            command = [sys.executable, __file__, '--child', '--workers', str(args.workers)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append({'images': lines, **json.loads(output.splitlines()[-1])})
        os.chdir(ROOT)
    empty = rows.pop(0)['mb']
    print(f'{"images":>10}{"open s":>8}{"shuffle s":>11}{"MB":>7}')
    for row in rows:
        row['mb'] = round(row['mb'] - empty, 1)
        print(f'{row["images"]:>10}{row["seconds"]:>8.2f}{row["shuffle_seconds"]:>11.2f}{row["mb"]:>7.0f}')
    last, about = rows[-1], {'lines': args.lines[-1], 'processes': 1 + args.workers}
    limit('index', [last['seconds']], 's', TARGET_SECONDS, what='time to open', **about)
    limit('index', [last['mb']], 'MB', TARGET_MB, what='memory', **about)


def write(lines):
    with open('signs/train.txt', 'w', encoding='utf-8') as file:
        for start in range(0, lines, 10000):
            numbers = range(start, min(lines, start + 10000))
            file.write(''.join(f'signs/train/rooster/{number:010d}.jpg\t{number % 12}\n' for number in numbers))


def measure(workers):
    """Seconds to open and to shuffle the index, and the memory of this process and its workers in MB."""
    import config  # these need Paddle, which takes memory, and the parent process does not
    from dataset import Loader, ZodiacDataset

    cfg = config.load(overrides=['data.num_workers=0'])
    start = time.perf_counter()
    dataset = ZodiacDataset('train', cfg=cfg)
    opened = time.perf_counter() - start
    loader = Loader(dataset, 256, cfg, shuffle=True)
    start = time.perf_counter()
    loader.set_epoch(0)
    shuffled = time.perf_counter() - start
    ready, done = os.pipe(), os.pipe()
    children = []
    for worker in range(workers):
        child = os.fork()
        if not child:
            for number in loader.batch_sampler.order[worker :: max(1, len(dataset) // 20000)]:
                assert dataset.paths[number].endswith('.jpg') and dataset.labels[number] < 12
            os.write(ready[1], b'x')
            os.read(done[0], 1)
            os._exit(0)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    memory = sum(proportional_set_size(process) for process in (os.getpid(), *children))
    os.write(done[1], b'x' * workers)
    for child in children:
        os.waitpid(child, 0)
    return {'seconds': round(opened, 3), 'shuffle_seconds': round(shuffled, 3), 'mb': memory / 1e6}


def proportional_set_size(process):
    """Bytes; shared memory counts in equal parts."""
    text = Path(f'/proc/{process}/smaps_rollup').read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith('Pss:')) * 1024


if __name__ == '__main__':
    run(main)
