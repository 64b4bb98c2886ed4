"""Start child processes: several that share a training, through Paddle's launcher, or other scripts. Does not import Paddle."""

import os
import shutil
import subprocess
import sys
import time

from zodiac.base import device, home, stops

IMAGES_EACH = 16  # images of a batch that each process should have, for BatchNorm's statistics


def suited(device_setting, batch_size, train_index=None, valid_index=None):
    """Number of processes for a training on this machine.

    On a CPU one per core, as long as each gets IMAGES_EACH images of a batch, two training images (for BatchNorm) and one validation
    image. One on a GPU, where OMP_NUM_THREADS is set, and where an index file is missing.

    Args:
        train_index, valid_index: paths of the index files; None for any number of images.
    """
    if os.environ.get('OMP_NUM_THREADS') or not device.is_cpu(device_setting):
        return 1
    number = min(device.cores(), batch_size // IMAGES_EACH)
    if number > 1 and train_index:
        number = min(number, _lines(train_index) // 2, _lines(valid_index))
    return max(1, number)


def _lines(path):
    """Number of lines of a file that are not empty; 0 where there is no such file."""
    try:
        with open(path, 'rb') as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return 0


def launched():
    """Whether this process was started by Paddle's launcher."""
    return 'PADDLE_TRAINER_ID' in os.environ


def launch(arguments, number, logs):
    """Run a script as several processes on this machine, through Paddle's launcher; returns its exit status.

    The output of the first process goes to stderr; of the others, only the error that ended them. SIGINT and SIGTERM are passed
    on, and the status is then 128 + the signal's number. They are held back until all processes have started: before that, Paddle's
    launcher would end with a traceback.

    Args:
        arguments: list of str, the script and its arguments.
        logs: folder for the output of each process.
    """
    launcher = ['-m', 'paddle.distributed.launch', '--nproc_per_node', str(number), '--log_level', 'CRITICAL']
    home.ensure()  # for the launcher, too, which imports Paddle
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore:No ccache found'}
    shutil.rmtree(logs, ignore_errors=True)
    outputs = [os.path.join(logs, f'workerlog.{rank}') for rank in range(number)]
    shown, started = 0, []

    def ready():  # the launcher would leave behind a process that it is about to start
        if not started and os.path.isfile(outputs[-1]):
            started.append(time.monotonic())
        return started and time.monotonic() - started[0] > 1

    with stops.noted() as asked:
        process = start(
            [sys.executable, *launcher, '--log_dir', logs, *arguments], env=environment, stdout=subprocess.DEVNULL
        )
        for _ in while_running([process], asked, ready):
            shown += _show(_read(outputs[0], shown).partition('Traceback')[0])
    errors = {
        text.splitlines()[-1] for text in map(_read, outputs) if text and text.splitlines()[-1].startswith('error: ')
    }
    rest = _read(outputs[0], shown)
    # where another process failed, or was the first to stop, the traceback of this one only reports the lost connection
    shown += _show(rest.partition('Traceback')[0] if errors or asked else rest)
    if process.returncode and not asked:
        errors = errors or {
            f'error: a process failed or was killed; look at its output in {logs}/ and at the free memory; see '
            'docs/troubleshooting.md#out-of-memory'
        }
        for error in errors - set(_read(outputs[0]).splitlines()):
            print(error, file=sys.stderr)
    if asked:
        return 128 + asked[0]
    return process.returncode if process.returncode in (0, 1, 2) else 1


def start(command, **options):
    """Start a command in a session of its own: a terminal's Ctrl-C does not reach it, see `while_running`."""
    return subprocess.Popen(command, start_new_session=True, **options)


def while_running(children, asked, ready=lambda: True):
    """Yield ten times per second until all children of `start` have ended, and pass signals on to them.

    Args:
        asked: the signals so far, the list that `stops.noted` yields.
        ready: called before a signal is passed on; it waits until this returns true.
    """
    passed_on = 0
    while any(child.poll() is None for child in children):
        yield
        time.sleep(0.1)
        for number in asked[passed_on:] if ready() else ():
            for child in children:
                child.send_signal(number)
            passed_on += 1


def call(command):
    """Run a command; returns its exit status, or 128 + the number of a signal that came meanwhile."""
    with stops.noted() as asked:
        child = start(command)
        for _ in while_running([child], asked):
            pass
    return 128 + asked[0] if asked else child.returncode


def _read(path, start=0):
    """The text of a file from a byte on; '' where there is no such file."""
    if not os.path.isfile(path):
        return ''
    with open(path, encoding='utf-8', errors='surrogateescape') as file:
        file.seek(start)
        return file.read()


def _show(text):
    """Copy text to stderr; returns its number of bytes."""
    sys.stderr.write(text)
    sys.stderr.flush()
    return len(text.encode('utf-8', 'surrogateescape'))
