"""Train a small network on drawn images through the scripts, in forked processes, and compare runs: for survive.py and interrupts.py."""

import hashlib
import os
import runpy
import sys
import traceback
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import ROOT

import dataset  # noqa: F401  imported once here, not by each of the processes
from zodiac.base import errors
from zodiac.models import weights
from zodiac.training import callbacks, checkpoint, resume, run_log  # noqa: F401

SETTINGS = [
    *('data.root=photos', 'data.labels=[cat, dog]', 'data.num_workers=0', 'image.size=32', 'device=cpu'),
    *('model.arch=cifarnet', 'model.pretrained=false', 'train.batch_size=4', 'train.epochs=6', 'train.save_steps=1'),
    *('train.ema=0.9', 'train.mixup=0.4', 'train.keep_checkpoints=3'),
    *('optim.name=adam', 'optim.lr=0.001', 'optim.schedule=constant'),
]
_output = None  # the reading end of the pipe that the newest process prints to; a file would be limited by RLIMIT_FSIZE


def draw_images():
    """40 images of two classes in photos/{train,valid,test}/."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 12), ('valid', 4), ('test', 4)):
        for label in ('cat', 'dog'):
            os.makedirs(f'photos/{split}/{label}')
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).resize((40, 40)).save(f'photos/{split}/{label}/{number}.png')


def start(script, *overrides, flags=(), before=None):
    """Run a script in a fork of this process, which has Paddle imported; returns the process id.

    Args:
        before: function to call in the fork first.
    """
    global _output
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        if _output:
            _output.close()
        _output = open(reading, encoding='utf-8', errors='replace')  # noqa: SIM115
        return process
    os.setsid()
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = [str(ROOT / script), *flags, '-o', *SETTINGS, *overrides]
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
    """Exit status of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(script, *overrides, **how):
    return wait(start(script, *overrides, **how))


def printed():
    """The output of the newest process, which has ended."""
    return _output.read()


def expect(status, expected=0):
    if status != expected:
        raise SystemExit(f'exit status {status} instead of {expected}:\n{printed()}')


def result(name):
    """What must be the same in two equal runs: weights, the log without its times, scores in VisualDL."""
    from visualdl import LogReader  # after the forks: it starts threads

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
    """What of a run differs from the uninterrupted one, '' if nothing does."""
    parts = zip(('weights', 'log.csv', 'VisualDL'), result(name), result('whole'))
    return ', '.join(part for part, ours, expected in parts if ours != expected)


def damaged(name):
    """Messages on the checkpoints of a run that are incomplete."""
    found = []
    steps = (f'output/{name}/checkpoints/{step}' for step in checkpoint.epochs(f'output/{name}'))
    for folder in filter(os.path.isdir, [f'output/{name}/best', *steps]):
        try:
            checkpoint.verify(folder)
        except errors.UserError as error:
            found.append(str(error))
    return found


def hashes():
    """{path: SHA-256} of the files in photos/ and output/."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for top in ('photos', 'output')
        for path in Path(top).rglob('*')
        if path.is_file()
    }
