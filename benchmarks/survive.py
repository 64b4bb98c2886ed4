"""How runs survive what stops them: killed processes, full disks, damaged files. Anything lost is a failure.

    python benchmarks/survive.py                                # all of it, about a quarter of an hour on two cores
    python benchmarks/survive.py --kills 10 --only kills        # a part

A small network is trained on drawn images in a temporary folder, through the scripts themselves. `kills` ends the training
with SIGKILL at random moments, again and again, and goes on; `terms` does so with SIGTERM; `calls` kills it at each single
write, fsync and rename of a checkpoint; `full` lets every file grow to a limit only, as on a full disk; `flips` and `cuts`
damage the newest checkpoint. What must come out is to the bit what a run that nothing has stopped gives.
Prints a table and, last, one JSON line; exit status 1 when anything was lost.
"""

import argparse
import hashlib
import json
import os
import random
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from zodiac import device  # noqa: E402

paddle = device.import_paddle()

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import config  # noqa: E402
import dataset  # noqa: E402, F401  imported once here, not by each of the processes
from zodiac import callbacks, checkpoint, errors, files, resume, run_log, weights  # noqa: E402, F401

SETTINGS = [
    *('data.root=photos', 'data.labels=[cat, dog]', 'data.num_workers=0', 'image.size=32', 'device=cpu'),
    *('model.arch=cifarnet', 'model.pretrained=false', 'train.batch_size=4', 'train.epochs=6', 'train.save_steps=1'),
    *(
        'train.ema=0.9',
        'train.mixup=0.4',
        'optim.name=adam',
        'optim.lr=0.001',
        'optim.schedule=constant',
        'train.keep_checkpoints=3',
    ),
]
PARTS = {'kills': 200, 'terms': 20, 'calls': 0, 'full': 20, 'flips': 500, 'cuts': 100}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('kills', 'terms', 'full', 'flips', 'cuts'):
        parser.add_argument(f'--{name}', type=int, default=PARTS[name], metavar='N', help=f'(default: {PARTS[name]})')
    parser.add_argument('--only', choices=list(PARTS), action='append', help='leave the other parts out')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    parts = args.only or list(PARTS)
    rng = random.Random(args.seed)
    rows = {}
    with tempfile.TemporaryDirectory(prefix='survive') as folder:
        os.chdir(folder)
        draw_images()
        expect(run('annotate.py'), 0)
        expect(run('train.py', 'name=whole'), 0)
        for part in parts:
            for name, tried, lost in PART[part](rng, getattr(args, part, 0)):
                rows[name] = {'tried': tried, 'survived': tried - len(lost), 'lost': len(lost)}
                print(f'{name:<44}{tried:>8}{tried - len(lost):>10}{len(lost):>6}', flush=True)
                for reason in lost[:5]:
                    print(f'    {reason}')
    lost = sum(row['lost'] for row in rows.values())
    print(json.dumps({'benchmark': 'survive', 'ratio': float(not lost), 'target': 1.0, 'lost': lost, 'parts': rows}))
    return int(lost > 0)


def draw_images():
    """40 pictures of two classes in photos/{train,valid,test}/."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 12), ('valid', 4), ('test', 4)):
        for label in ('cat', 'dog'):
            os.makedirs(f'photos/{split}/{label}')
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).resize((40, 40)).save(f'photos/{split}/{label}/{number}.png')


# Processes: forked from this one, which has Paddle imported


last_words = [None]  # the reading end of a pipe, what the newest process prints


def start(script, *overrides, flags=(), before=None):
    """Run a script of the project in a process of its own. Returns the process id."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        if last_words[0]:
            last_words[0].close()
        last_words[0] = open(reading, encoding='utf-8', errors='replace')  # noqa: SIM115
        return process
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = [str(ROOT / script), *flags, '-o', *SETTINGS, *overrides]
    config._active = None
    status = 1
    try:
        if before:
            before()
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(process):
    """Exit status of a process, or minus the signal that has ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(script, *overrides, **how):
    return wait(start(script, *overrides, **how))


def said():
    """All that the newest process, which has ended, has printed."""
    return last_words[0].read()


def expect(status, expected):
    if status != expected:
        raise SystemExit(f'exit status {status} instead of {expected}:\n{said()}')


# What a run has given


def result(name):
    """All that must be the same: the weights, the log but for its times, the scores in VisualDL."""
    from visualdl import LogReader

    arrays = {
        f'{suffix}/{key}': np.asarray(value).tobytes()
        for suffix in ('.pdparams', '.pdopt', '/best/model.pdparams')
        for key, value in weights.read(f'output/{name}{suffix}').items()
        if not isinstance(value, dict)
    }
    rows = [line.split(',')[:7] for line in Path(f'output/{name}/log.csv').read_text().splitlines()]
    scalars = {}
    for path in sorted(Path(f'output/{name}/visualdl').iterdir()):
        reader = LogReader(file_path=str(path))
        for tag in reader.get_tags().get('scalar', []):
            if not tag.endswith('per_second'):
                scalars.setdefault(tag, []).extend((item.id, item.value) for item in reader.get_data('scalar', tag))
    return arrays, rows, scalars


def differs(name):
    """'' where a run has given what the one that nothing has stopped gave, else what differs."""
    parts = zip(('weights', 'log.csv', 'VisualDL'), result(name), result('whole'))
    return ', '.join(part for part, ours, expected in parts if ours != expected)


def lost_files(name):
    """Names of the parts of a run that are there but not whole."""
    lost = []
    folders = [
        f'output/{name}/best',
        *(f'output/{name}/checkpoints/{step}' for step in checkpoint.epochs(f'output/{name}')),
    ]
    for folder in folders:
        if os.path.isdir(folder):
            try:
                checkpoint.verify(folder)
            except errors.UserError as error:
                lost.append(str(error))
    return lost


# The parts: each yields (name, number of trials, reasons of those that were lost)


def kills(rng, count, number=signal.SIGKILL):
    lost, tried, runs = [], 0, 0
    while tried < count:
        name = f'{number.name}_{runs}'
        runs += 1
        within = 0
        while True:
            process = start('train.py', f'name={name}', 'train.resume=auto')
            ended = None
            if tried < count:
                time.sleep(rng.uniform(0, 2.5))
                os.kill(process, number)
                ended = wait(process)
                stopped = ended in (-number, 128 + number)
                tried += stopped
                within += stopped
                lost += lost_files(name)
            else:
                ended = wait(process)
            if ended == 0:
                break
            if ended not in (-number, 128 + number):
                lost.append(f'{name}: exit status {ended}: {said()[-300:]}')
                break
        reason = differs(name) if ended == 0 else ''
        lost += [f'{name}: other {reason} than a run that nothing has stopped'] * within if reason else []
        shutil.rmtree(f'output/{name}', ignore_errors=True)
    yield f'{number.name} at a random moment of a training', tried, lost


def terms(rng, count):
    yield from kills(rng, count, signal.SIGTERM)


def calls(rng, count):
    """Kill a training at each single write, fsync, rename and exchange of what it keeps at the end of an epoch."""
    lost, number = [], 0
    expect(run('train.py', 'name=call', 'train.epochs=1'), 0)
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
            checkpoint.prune = lambda *_: os._exit(0)  # all that is kept is written

        ended = run('train.py', 'name=call', 'train.save_steps=0', flags=['--resume'], before=inject) == 0
        lost += lost_files('call')
        expect(run('train.py', 'name=call', flags=['--resume']), 0)
        reason = differs('call')
        lost += [f'killed at call {number}: other {reason}'] if reason else []
        shutil.rmtree('output/call')
        if ended:
            break
    yield 'SIGKILL at each write, fsync and rename', number - 1, lost


def full(rng, count):
    """Let files grow to a limit only, as RLIMIT_FSIZE does; what was there before must be untouched."""
    expect(run('train.py', 'name=before'), 0)
    expect(run('evaluate.py', 'name=before'), 0)
    expect(run('export.py', 'name=before'), 0)
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

            def bound(limit=limit):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

            before = hashes()
            started = time.monotonic()
            status = run(script, 'name=before', *more, before=bound)
            took = time.monotonic() - started
            after = hashes()
            changed = [path for path, digest in before.items() if after.get(path) != digest]
            reason = [f'{path} changed' for path in changed if 'log.csv' not in path and 'visualdl' not in path]
            words = said()
            reason += [f'exit status {status}: {words[-300:]}'] if status != 1 or 'Traceback' in words else []
            reason += [f'names no file: {words[-300:]}'] if not re.search('error: [^ ]+/[^ ]+', words) else []
            reason += [f'took {took:.0f} s'] if took > 30 else []
            reason += lost_files('before')
            lost += [f'{title}, limit {limit} bytes: {reason}'] if reason else []
            for place in ('output', 'photos'):
                shutil.rmtree(place)
                shutil.copytree(f'kept/{place}', place)
        yield f'disk full: {title}', count, lost


def hashes():
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for top in ('photos', 'output')
        for path in Path(top).rglob('*')
        if path.is_file()
    }


def damage(rng, count, how):
    """Damage a file of the newest checkpoint: it must be noticed, and the one before taken."""
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
    'terms': terms,
    'calls': calls,
    'full': full,
    'flips': lambda rng, count: damage(rng, count, 'bit flip'),
    'cuts': lambda rng, count: damage(rng, count, 'truncation'),
}

if __name__ == '__main__':
    sys.exit(main())
