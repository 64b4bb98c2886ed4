"""Time the way from a folder of photos to an exported classifier, and again after ten photos were added, as whole processes.

    python benchmarks/photos_to_classifier.py FOLDER_OF_CLASS_FOLDERS [--torch PYTHON] [--pairs 1]

Runs annotate.py, train.py, evaluate.py and export.py with configs/photos.yaml on a copy of the folder that lacks ten photos, adds these
and runs the four again. With --torch, a Python that has what benchmarks/torch_transfer.py needs, also compares the time until a model
has a top-1 of 0.95 on the test images: ours is annotate.py and train.py; theirs is the faster of training the head and training all.
Prints a table and, last, one JSON line for each comparison.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ratios import ROOT, command_line, limit, plain_environment, report, run, table

from zodiac.base.errors import UserError

SCRIPTS = ('annotate', 'train', 'evaluate', 'export')
ADDED = 10
TARGETS = {'first run': 90.0, 'ten photos added': 15.0}
TOP1 = 0.95


def main():
    parser = command_line(__doc__, pairs=1)
    parser.add_argument('folder', type=Path, help='a folder with one folder of photos per class')
    parser.add_argument('--torch', metavar='PYTHON', help='a Python that has PyTorch')
    args = parser.parse_args()
    stages, theirs, top1 = {}, {'frozen': [], 'finetune': []}, []
    for _ in range(args.pairs):
        with tempfile.TemporaryDirectory(prefix='photos') as work:
            kept = hold_back(args.folder, Path(work, 'photos'), Path(work, 'kept'))
            for name in TARGETS:
                for path in kept if name == 'ten photos added' else ():
                    (Path(work, 'kept') / path).rename(Path(work, 'photos') / path)
                for script in SCRIPTS:
                    stages.setdefault(f'{name}: {script}.py', []).append(ours(script, work))
                if name == 'first run':
                    top1.append(json.loads(Path(work, 'output/photos/report/metrics.json').read_text())['top1'])
                    for mode, seconds in theirs.items() if args.torch else ():
                        seconds.append(until_accurate(args.torch, mode, work))
    table('seconds', {**stages, **{f'PyTorch, {mode}': times for mode, times in theirs.items() if any(times)}})
    for name, most in TARGETS.items():
        parts = {script: stages[f'{name}: {script}.py'] for script in SCRIPTS}
        about = {script: round(min(seconds), 1) for script, seconds in parts.items()}
        limit('photos_to_classifier', [*map(sum, zip(*parts.values()))], 's', most, run=name, **about)
    if args.torch:
        if min(top1) < TOP1:
            raise UserError(
                f'{args.folder}: our test top-1 is {min(top1):.4f}, below {TOP1}; there is no time to compare'
            )
        own = [*map(sum, zip(*(stages[f'first run: {script}.py'] for script in ('annotate', 'train'))))]
        fastest = [min(filter(None, pair)) for pair in zip(*theirs.values())]
        report('time_to_accuracy', fastest, own, 5.0, top1=TOP1, ours_top1=top1, ours=own, **theirs)


def hold_back(folder, photos, kept):
    """Copy the class folders of `folder` to `photos`, but ten files, spread over the classes, to `kept`; returns the paths of these."""
    classes = [
        sorted(path for path in item.iterdir() if path.is_file()) for item in sorted(folder.iterdir()) if item.is_dir()
    ]
    if sum(map(len, classes)) < 10 * ADDED:
        raise UserError(f'{folder}: needs at least {10 * ADDED} photos in one folder per class')
    apart = {path for number in range(ADDED) for path in classes[number % len(classes)][number::1000][:1]}
    for path in (path for files in classes for path in files):
        target = (kept if path in apart else photos) / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return sorted(path.relative_to(folder) for path in apart)


def ours(script, work):
    """Seconds of one of our scripts."""
    start = time.perf_counter()
    call([sys.executable, ROOT / f'{script}.py', '-c', ROOT / 'configs/photos.yaml'], work)
    seconds = time.perf_counter() - start
    print(f'{script}.py: {seconds:.1f} s', file=sys.stderr, flush=True)
    return seconds


def until_accurate(python, mode, work):
    """Seconds of training until the top-1 is reached; None if it never is."""
    command = [python, ROOT / 'benchmarks/torch_transfer.py', 'photos/train.txt', 'photos/test.txt']
    found = json.loads(call([*command, '--mode', mode, '--target', str(TOP1)], work).splitlines()[-1])
    print(f'PyTorch, {found}', file=sys.stderr, flush=True)
    return found['seconds'] if found['top1'] >= TOP1 else None


def call(command, work):
    done = subprocess.run(command, cwd=work, env=plain_environment(), check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == '__main__':
    run(main)
