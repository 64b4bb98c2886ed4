"""How runs survive what stops them: killed processes, full disks, damaged files. Anything lost is a failure.

    python benchmarks/survive.py                                # all of it, about three quarters of an hour on two cores
    python benchmarks/survive.py --kills 10 --only kills        # a part

A small network is trained on drawn images in a temporary folder, through the scripts themselves. `kills` ends the training
with SIGKILL at random moments, again and again, and goes on; `terms` and `ints` do so with SIGTERM and SIGINT to the whole
process group, a loader process among them; `calls` kills it at each single write, fsync and rename of a checkpoint; `full`
lets every file grow to a limit only, as on a full disk; `flips` and `cuts` damage the newest checkpoint. What must come out is
to the bit what a run that nothing has stopped gives.
`doors` starts every script in a terminal and presses Ctrl-C there, or sends SIGTERM, at a random moment. The script must end with
130 or 143, without a traceback, and leave no process, no unfinished file and no damaged checkpoint.
Prints a table and, last, one JSON line; exit status 1 when anything was lost.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pty
import random
import re
import resource
import runpy
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import config  # noqa: E402
import dataset  # noqa: E402, F401  imported once here, not by each of the processes
import demo  # noqa: E402
from zodiac.base import errors, files  # noqa: E402
from zodiac.inference import export_folder  # noqa: E402
from zodiac.models import weights  # noqa: E402
from zodiac.training import callbacks, checkpoint, resume, run_log  # noqa: E402, F401

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
PARTS = {'kills': 200, 'terms': 20, 'ints': 20, 'calls': 0, 'full': 20, 'flips': 500, 'cuts': 100, 'doors': 20}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in sorted({*PARTS} - {'calls'}):
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
    os.setsid()
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


def kills(rng, count, number=signal.SIGKILL, send=os.kill, *more):
    lost, tried, runs = [], 0, 0
    while tried < count:
        name = f'{number.name}_{runs}'
        runs += 1
        within = 0
        while True:
            process = start('train.py', f'name={name}', 'train.resume=auto', *more)
            ended = None
            if tried < count:
                time.sleep(rng.uniform(0, 2.5))
                send(process, number)
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


def stops(rng, count, number):
    """Signal the loader process too, as a terminal or a service manager does."""
    yield from kills(rng, count, number, os.killpg, 'data.num_workers=1')


DOORS = {  # a title: the command line, where `...` stands for -o and the settings of all; the run `made` is there already
    'annotate': ['annotate.py', ..., 'annotate.workers=2'],
    'train': ['train.py', '--nproc', '1', ..., 'name=door', 'train.epochs=99', 'data.num_workers=1'],
    'train, 2 processes': ['train.py', '--nproc', '2', ..., 'name=door', 'train.epochs=99', 'data.num_workers=1'],
    'evaluate': ['evaluate.py', ..., 'name=made', 'data.num_workers=1'],
    'export': ['export.py', ..., 'name=made'],
    'predict': ['predict.py', 'output/made/infer', 'photos', '--csv', 'door.csv'],
    'serve': ['serve.py', 'output/made/infer', '--port', '0'],
    'sweep': ['sweep.py', '-s', 'seed=[0, 1]', ..., 'name=door', 'train.epochs=2'],
    'demo': ['demo.py', ..., 'name=door', 'data.root=drawn', f'data.labels={[*demo.DRAWINGS]}', 'train.epochs=1'],
    'doctor': ['doctor.py', ...],
}
LONGEST = 30  # seconds of a script in which it is stopped


def doors(rng, count):
    """Stop each script `count` times, as a user does."""
    for script in ('train.py', 'evaluate.py', 'export.py'):
        expect(run(script, 'name=made'), 0)
    for title, parts in DOORS.items():
        command = [word for part in parts for word in (['-o', *SETTINGS] if part is ... else [part])]
        lost, seconds = [], LONGEST + press(command, signal.SIGINT, LONGEST)[1]
        for _ in range(count):
            number, delay = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.uniform(0, min(seconds, LONGEST))
            ended, after, words = press(command, number, delay)
            reasons = lost_files('door') + lost_files('made') + unfinished()
            if ended != 128 + number and (ended or after > 1):  # it may have been at its end
                reasons.append(f'exit status {ended}')
            if 'Traceback' in words or words.count('interrupted') > (ended != 0):
                reasons.append('many words')
            if not os.path.isfile('output/made/report/report.html') or not export_folder.is_export('output/made/infer'):
                reasons.append('report or export is gone')
            lost += [f'{number.name} after {delay:.2f} s: {reasons}: {words[-300:]!r}'] if reasons else []
            for path in Path('output').glob('door*'):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield f'Ctrl-C or SIGTERM at a random moment: {title}', count, lost


def press(command, number, delay):
    """Run a script in a terminal of its own; so many seconds after it has begun to handle signals press Ctrl-C there, or send SIGTERM.

    Returns: exit status; seconds from the signal to its end, below 0 where it had ended; what it has printed.
    """
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, str(ROOT / command[0]), *command[1:]])
    while not handles_signals(process):
        time.sleep(0.001)
    words, sent, moment = b'', False, time.monotonic() + delay
    while True:
        ready = select.select([terminal], [], [], 60 if sent else max(0, moment - time.monotonic()))[0]
        try:
            words += os.read(terminal, 1 << 16) if ready else b''
        except OSError:  # it has been closed by all
            break
        if not sent and time.monotonic() >= moment:
            sent = True
            os.write(terminal, b'\3') if number == signal.SIGINT else os.kill(process, number)
    ended = wait(process)
    os.close(terminal)
    return ended, time.monotonic() - moment, words.decode(errors='replace')


def handles_signals(process):
    """Whether it has put a handler of its own in the place of that of SIGTERM, or has ended."""
    text = Path(f'/proc/{process}/status').read_text()
    caught = re.search('SigCgt:\\s*(.*)', text)
    return 'State:\tZ' in text or bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def unfinished():
    """What must not be left: files and folders under other names, and processes, which have a second to end."""
    found = [str(path) for path in Path().rglob('.*') if path.suffix in ('.part', '.old')]
    deadline = time.monotonic() + 1
    while (left := processes_here()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return [*found, *(f'process {process}' for process in left)]


def processes_here():
    """Other processes whose working directory is this one."""
    found = []
    for process in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            if os.readlink(f'/proc/{process}/cwd') == os.getcwd() and int(process) != os.getpid():
                found.append(int(process))
    return found


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
