"""annotate.py against the notebook's loop on the same files, in turns, as whole processes.

    python benchmarks/annotate.py FOLDER_OF_CLASS_FOLDERS [--pairs 5]

Prints a table and, last, one JSON line. Fails when the two do not accept the same files.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from ratios import summary

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = 3.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='a folder with one folder of images a class')
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    args = parser.parse_args()
    labels = sorted(item.name for item in os.scandir(args.folder) if item.is_dir())
    with tempfile.TemporaryDirectory() as work:
        os.mkdir(f'{work}/train')
        for label in labels:
            os.symlink(os.path.abspath(f'{args.folder}/{label}'), f'{work}/train/{label}')
        baseline = [f'{HERE}/notebook_annotate.py', work, ','.join(labels)]
        ours = [f'{HERE}/../annotate.py', '-o', f'data.root={work}', f'data.labels={json.dumps(labels)}']
        times = {'notebook': [], 'ours': []}
        for pair in range(args.pairs + 1):
            for name, command in (('notebook', baseline), ('ours', ours)):
                times[name].append(measure(command))
                accepted = read(work, ['train'] if name == 'notebook' else ['train', 'valid', 'test'])
                if name == 'notebook':
                    expected = accepted
            if accepted != expected:
                sys.exit(
                    f'error: {len(accepted ^ expected)} files are accepted by one of the two only, first {min(accepted ^ expected)}'
                )
            if pair == 0:  # the first pair warms the file cache
                times = {'notebook': [], 'ours': []}
    ratios = [theirs / mine for theirs, mine in zip(times['notebook'], times['ours'])]
    print(f'{"":<10}{"min s":>8}{"median s":>10}{"max s":>8}')
    for name, values in times.items():
        print(f'{name:<10}{min(values):>8.2f}{statistics.median(values):>10.2f}{max(values):>8.2f}')
    print(
        json.dumps(
            {
                'benchmark': 'annotate',
                'data': os.path.normpath(args.folder).replace(os.sep, '/'),
                'accepted': len(expected),
                **summary(ratios),
                'pairs': args.pairs,
                'target': TARGET,
            }
        )
    )


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


if __name__ == '__main__':
    main()
