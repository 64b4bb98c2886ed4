"""Time the way from a folder of photos to an exported classifier, and again after ten photos were added, as whole processes.

    python benchmarks/photos_to_classifier.py FOLDER_OF_CLASS_FOLDERS [--torch PYTHON] [--pairs 1]

Runs annotate.py, train.py, evaluate.py and export.py with configs/photos.yaml, or with --run run.py, which does all of this in one
process, on a copy of the folder that lacks ten photos; adds these, and runs the same again. With --torch, a Python that has what
benchmarks/torch_transfer.py needs, also compares the time until a model has a top-1 of 0.95 on the test images: ours is annotate.py and
train.py; theirs is the faster of training the head and training all. Prints a table and, last, one JSON line for each comparison.
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

SCRIPTS = [[f'{name}.py', '-c', ROOT / 'configs/photos.yaml'] for name in ('annotate', 'train', 'evaluate', 'export')]
WHOLE = [['run.py', 'photos', '--name', 'photos']]
ADDED = 10
TARGETS = {'first run': 90.0, 'ten photos added': 15.0}
TOP1 = 0.95


def main():
    parser = command_line(__doc__, pairs=1)
    parser.add_argument('folder', type=Path, help='a folder with one folder of photos per class')
    parser.add_argument('--run', action='store_true', help='run.py instead of the four scripts')
    parser.add_argument('--torch', metavar='PYTHON', help='a Python that has PyTorch')
    args = parser.parse_args()
    commands, times, accurate = WHOLE if args.run else SCRIPTS, {}, []
    for _ in range(args.pairs):
        for name, seconds in first_and_again(args.folder, commands).items():
            times.setdefault(name, []).append(seconds)
        if args.torch:
            accurate.append(until_accurate(args.folder, args.torch))
    table('seconds', {f'{name}: {script}': values for (name, script), values in times.items()})
    for name, most in TARGETS.items():
        parts = {script: times[name, script] for script, *_ in commands}
        about = {script: round(min(seconds), 1) for script, seconds in parts.items()}
        limit('photos_to_classifier', [*map(sum, zip(*parts.values()))], 's', most, run=name, **about)
    if args.torch:
        own, *theirs = zip(*accurate)
        fastest = [min(filter(None, pair)) for pair in zip(*theirs)]
        report('time_to_accuracy', fastest, own, 5.0, top1=TOP1, ours=own, frozen=theirs[0], finetune=theirs[1])


def first_and_again(folder, commands):
    """{(key of TARGETS, script): seconds}."""
    found = {}
    with tempfile.TemporaryDirectory(prefix='photos') as work:
        photos, kept = Path(work, 'photos'), Path(work, 'kept')
        held_back = copy(folder, photos, kept)
        for name in TARGETS:
            for path in held_back if name == 'ten photos added' else ():
                (kept / path).rename(photos / path)
            for command in commands:
                found[name, command[0]] = ours(command, work)
    return found


def copy(folder, photos, kept):
    """Copy the class folders of `folder` to `photos`, but ten files, spread over the classes, to `kept`; returns the paths of these."""
    classes = [item for item in sorted(folder.iterdir()) if item.is_dir()]
    found = [sorted(path for path in item.iterdir() if path.is_file()) for item in classes]
    if sum(map(len, found)) < 10 * ADDED:
        raise UserError(f'{folder}: needs at least {10 * ADDED} photos, in one folder per class')
    apart = {found[number % len(found)][number // len(found)] for number in range(ADDED)}
    for path in (path for paths in found for path in paths):
        target = (kept if path in apart else photos) / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return sorted(path.relative_to(folder) for path in apart)


def until_accurate(folder, python):
    """Seconds until a model has the top-1: ours, PyTorch's head, all of PyTorch's network; None for one that never has it."""
    with tempfile.TemporaryDirectory(prefix='photos') as work:
        copy(folder, Path(work, 'photos'), Path(work, 'photos'))
        seconds = sum(ours(command, work) for command in SCRIPTS[:2])
        ours([*SCRIPTS[2], '-o', 'evaluate.folds=0'], work)
        top1 = json.loads(Path(work, 'output/photos/report/metrics.json').read_text(encoding='utf-8'))['top1']
        if top1 < TOP1:
            raise UserError(f'{folder}: our test top-1 is {top1:.4f}, below {TOP1}: there is no time to compare')
        others = [theirs(python, mode, work) for mode in ('frozen', 'finetune')]
        if not any(others):
            raise UserError(f'{folder}: PyTorch reached no test top-1 of {TOP1}: there is no time to compare')
        return seconds, *others


def ours(command, work):
    """Seconds of one of our scripts."""
    start = time.perf_counter()
    call([sys.executable, ROOT / command[0], *command[1:]], work)
    seconds = time.perf_counter() - start
    print(f'{command[0]}: {seconds:.1f} s', file=sys.stderr, flush=True)
    return seconds


def theirs(python, mode, work):
    command = [python, ROOT / 'benchmarks/torch_transfer.py', 'photos/train.txt', 'photos/test.txt', '--mode', mode]
    found = json.loads(call([*command, '--target', str(TOP1)], work).splitlines()[-1])
    print(f'PyTorch: {found}', file=sys.stderr, flush=True)
    return found['seconds'] if found['top1'] >= TOP1 else None


def call(command, work):
    done = subprocess.run(command, cwd=work, env=plain_environment(), check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == '__main__':
    run(main)
