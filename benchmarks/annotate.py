"""Time annotate.py against the notebook's loop on the same files, as whole processes: a first run, and an unchanged second one.

    python benchmarks/annotate.py FOLDER_OF_CLASS_FOLDERS [--pairs 5]
    python benchmarks/annotate.py --photos 300         # drawn: JPEGs of 1200 x 800 pixels

Prints a table and, last, one JSON line for each of the two runs. Fails if the two programs accept different files.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from photos import draw_photos
from ratios import command_line, report, run, table

HERE = os.path.dirname(os.path.abspath(__file__))
TARGETS = {'first run': 4.0, 'second run': 50.0}
NOTEBOOK = "the notebook's"
ENVIRONMENT = {**os.environ, 'PYTHONDONTWRITEBYTECODE': ''}  # modules are compiled once, as on a user's machine


def main():
    parser = command_line(__doc__, pairs=5)
    parser.add_argument('folder', nargs='?', help='a folder with one folder of images per class')
    parser.add_argument('--photos', type=int, default=300, help='without a folder: how many are drawn (default: 300)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as drawn, tempfile.TemporaryDirectory() as work:
        if not args.folder:
            for path in sorted(draw_photos(drawn, args.photos).iterdir()):
                label = Path(drawn, f'class{int(path.stem) % 4}')
                label.mkdir(exist_ok=True)
                path.rename(label / path.name)
            time.sleep(2)  # annotate.py does not trust the time of a file that has just been changed
        folder = os.path.abspath(args.folder or drawn)
        labels = sorted(item.name for item in os.scandir(folder) if item.is_dir())
        os.mkdir(f'{work}/train')
        for label in labels:
            os.symlink(f'{folder}/{label}', f'{work}/train/{label}')
        times, accepted = compare(work, labels, args.pairs)
    table('seconds', times)
    data = os.path.normpath(args.folder).replace(os.sep, '/') if args.folder else 'drawn, 1200x800'
    for name, target in TARGETS.items():
        report('annotate', times[NOTEBOOK], times[name], target, run=name, data=data, accepted=accepted)


def compare(work, labels, pairs):
    """{name: seconds of each run}, and the number of accepted files."""
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
                sys.exit(f'error: {len(differing)} files are accepted by one of the two only, such as {min(differing)}')
    return {name: values[1:] for name, values in times.items()}, len(expected)  # the first pair fills the file cache


def measure(command):
    started = time.perf_counter()
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    subprocess.run([sys.executable, *command], check=True, env=ENVIRONMENT, **quiet)
    return time.perf_counter() - started


def read(root, splits):
    """The lines of the index files: set of 'path<TAB>label'."""
    return {line for split in splits for line in Path(root, f'{split}.txt').read_text(encoding='utf-8').splitlines()}


if __name__ == '__main__':
    run(main)
