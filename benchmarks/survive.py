"""Stop and damage runs in many ways: killed processes, full disks, damaged files. Nothing may be lost.

    python benchmarks/survive.py                                # all of it, about three quarters of an hour on two cores
    python benchmarks/survive.py --kills 10 --only kills        # a part

Trains a small network on drawn images in a temporary folder. `kills` ends the training with SIGKILL at random moments, again and
again, and resumes it; `terms` and `ints` send SIGTERM and SIGINT to the whole process group, including a loader process; `calls`
kills it at each write, fsync and rename of a checkpoint; `full` limits the size of files, as on a full disk; `flips` and `cuts`
damage the newest checkpoint. The final weights must equal those of an uninterrupted run, bit for bit.
`doors` starts every script in a terminal and presses Ctrl-C there, or sends SIGTERM, at a random moment. The script must end with
130 or 143, without a traceback, and leave no process, no unfinished file and no damaged checkpoint.
Prints a table and, last, one JSON line; exit status 1 if anything was lost.
"""

import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from ratios import command_line
from training_runs import SETTINGS, damaged, differs, draw_images, expect, hashes, printed, run, start, wait

from zodiac.base import files
from zodiac.models import weights
from zodiac.training import checkpoint

PARTS = {'kills': 200, 'terms': 20, 'ints': 20, 'calls': 0, 'full': 20, 'flips': 500, 'cuts': 100, 'doors': 20}


def main():
    parser = command_line(__doc__)
    for name in sorted({*PARTS} - {'calls'}):
        parser.add_argument(f'--{name}', type=int, default=PARTS[name], metavar='N', help=f'(default: {PARTS[name]})')
    parser.add_argument('--only', choices=list(PARTS), action='append', help='leave the other parts out')
    parser.add_argument('--epochs', type=int, default=6, help='length of each training (default: 6)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    SETTINGS.append(f'train.epochs={args.epochs}')
    rng = random.Random(args.seed)
    rows = {}
    with tempfile.TemporaryDirectory(prefix='survive') as folder:
        os.chdir(folder)
        draw_images()
        expect(run('annotate.py'))
        expect(run('train.py', 'name=whole'))
        for part in args.only or PARTS:
            for name, tried, lost in PART[part](rng, getattr(args, part, 0)):
                rows[name] = {'tried': tried, 'survived': tried - len(lost), 'lost': len(lost)}
                print(f'{name:<44}{tried:>8}{tried - len(lost):>10}{len(lost):>6}', flush=True)
                for reason in lost[:5]:
                    print(f'    {reason}')
    lost = sum(row['lost'] for row in rows.values())
    print(json.dumps({'benchmark': 'survive', 'ratio': float(not lost), 'target': 1.0, 'lost': lost, 'parts': rows}))
    return int(lost > 0)


# The parts: each yields (name, number of trials, what went wrong in each that was lost)


def kills(rng, count, number=signal.SIGKILL, send=os.kill, *more):
    """Stop trainings at random moments with a signal and resume them."""
    lost, tried, runs = [], 0, 0
    while tried < count:
        name = f'{number.name}_{runs}'
        runs += 1
        within = 0
        while True:
            process = start('train.py', f'name={name}', 'train.resume=auto', *more)
            if tried < count:
                time.sleep(rng.uniform(0, 2.5))
                send(process, number)
            status = wait(process)
            if status not in (-number, 128 + number):
                break
            tried += 1
            within += 1
            lost += damaged(name)
        if status:
            lost.append(f'{name}: exit status {status}: {printed()[-300:]}')
        elif reason := differs(name):
            lost += [f'{name}: {reason} differ from an uninterrupted run'] * within
        shutil.rmtree(f'output/{name}', ignore_errors=True)
    yield f'{number.name} at a random moment of a training', tried, lost


def stops(rng, count, number):
    """Signal the loader process too, as a terminal or a service manager does."""
    yield from kills(rng, count, number, os.killpg, 'data.num_workers=1')


def doors(rng, count):
    import interrupts  # it imports all that demo.py needs, which takes a second

    yield from interrupts.doors(rng, count)


def calls(rng, count):
    """Kill a training at each write, fsync, rename and exchange of what it saves at the end of an epoch."""
    lost, number = [], 0
    expect(run('train.py', 'name=call', 'train.epochs=1'))
    shutil.rmtree('kept', ignore_errors=True)
    os.rename('output/call', 'kept')
    while True:
        number += 1
        shutil.copytree('kept', 'output/call')
        left = [number]

        def kill_at_last(function, left=left):
            def counted(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return counted

        def inject(kill_at_last=kill_at_last):
            os.fsync, os.replace = kill_at_last(os.fsync), kill_at_last(os.replace)
            files._exchange, weights.dump = kill_at_last(files._exchange), kill_at_last(weights.dump)
            checkpoint.prune = lambda *_: os._exit(0)  # all is saved then

        ended = run('train.py', 'name=call', 'train.save_steps=0', flags=['--resume'], before=inject) == 0
        lost += damaged('call')
        expect(run('train.py', 'name=call', flags=['--resume']))
        reason = differs('call')
        lost += [f'killed at call {number}: {reason} differ'] if reason else []
        shutil.rmtree('output/call')
        if ended:
            break
    yield 'SIGKILL at each write, fsync and rename', number - 1, lost


def full(rng, count):
    """Limit the size of files, as RLIMIT_FSIZE does; older files must not change."""
    for script in ('train.py', 'evaluate.py', 'export.py'):
        expect(run(script, 'name=before'))
    for title, script, pattern, more in (
        ('index files', 'annotate.py', 'photos/*.txt', []),
        ('checkpoints and logs', 'train.py', 'output/before/checkpoints/*/*', ['train.epochs=9', 'train.resume=auto']),
        ('report', 'evaluate.py', 'output/before/report/*', []),
        ('static model', 'export.py', 'output/before/infer/*', []),
    ):
        largest = max(path.stat().st_size for path in Path().glob(pattern))
        shutil.rmtree('kept', ignore_errors=True)
        shutil.copytree('output', 'kept/output')
        shutil.copytree('photos', 'kept/photos')
        lost = []
        for trial in range(count):
            limit = round(largest * trial / count)
            reasons = on_full_disk(script, limit, *more)
            lost += [f'{title}, limit {limit} bytes: {reasons}'] if reasons else []
            for place in ('output', 'photos'):
                shutil.rmtree(place)
                shutil.copytree(f'kept/{place}', place)
        yield f'disk full: {title}', count, lost


def on_full_disk(script, limit, *more):
    """What is wrong after a script was run with files of `limit` bytes at most: list of str."""

    def bound():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    before, started = hashes(), time.monotonic()
    status = run(script, 'name=before', *more, before=bound)
    seconds, after, output = time.monotonic() - started, hashes(), printed()
    changed = [path for path, digest in before.items() if after.get(path) != digest]
    reasons = [f'{path} changed' for path in changed if 'log.csv' not in path and 'visualdl' not in path]
    reasons += [f'exit status {status}: {output[-300:]}'] if status != 1 or 'Traceback' in output else []
    reasons += [f'names no file: {output[-300:]}'] if not re.search('error: [^ ]+/[^ ]+', output) else []
    reasons += [f'took {seconds:.0f} s'] if seconds > 30 else []
    return reasons + damaged('before')


def damage(rng, count, how):
    """Damage a file of the newest checkpoint: it must be noticed, and the one before used."""
    *_, before, newest = checkpoint.epochs('output/whole')
    folder = Path(f'output/whole/checkpoints/{newest}')
    lost = []
    for trial in range(count):
        path = rng.choice(sorted(folder.iterdir()))
        content = path.read_bytes()
        place = rng.randrange(len(content))
        if how == 'bit flip':
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        else:
            path.write_bytes(content[:place])
        messages = []
        found, _ = checkpoint.latest('output/whole', messages.append)
        if not found or not found.endswith(before) or len(messages) != 1:
            lost.append(f'{how} {trial} in {path.name} at byte {place}: not noticed')
        path.write_bytes(content)
    yield f'{how} in a checkpoint', count, lost


PART = {
    'kills': kills,
    'terms': lambda rng, count: stops(rng, count, signal.SIGTERM),
    'ints': lambda rng, count: stops(rng, count, signal.SIGINT),
    'doors': doors,
    'calls': calls,
    'full': full,
    'flips': lambda rng, count: damage(rng, count, 'bit flip'),
    'cuts': lambda rng, count: damage(rng, count, 'truncation'),
}

if __name__ == '__main__':
    sys.exit(main())
