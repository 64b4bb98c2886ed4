"""Errors that a user can mend, and the exit statuses of the scripts: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C
(SIGINT), 143 by SIGTERM, 141 (SIGPIPE) where the reader of the results has left."""

import contextlib
import errno
import os
import signal
import sys
import threading
import time

from zodiac import packages


class UserError(Exception):
    """The work failed for a reason that the message names, with the next step. Exit status 1."""

    status = 1

    def _render_traceback_(self):
        """What a notebook shows of it."""
        return [f'error: {self}']


class UsageError(UserError):
    """A wrong setting or a wrong command line. Exit status 2."""

    status = 2


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal. Exit status 128 + its number, as a shell gives it.

    Args:
        between_steps: whether a training stops where its state is whole.
    """

    def __init__(self, number=signal.SIGINT, between_steps=False):
        super().__init__()
        # Paddle makes exceptions anew, of their type and a text
        self.status = 128 + (number if isinstance(number, int) else signal.SIGINT)
        self.between_steps = between_steps

    def _render_traceback_(self):
        return ['interrupted']


def stop_on_signals():
    """Make SIGINT and SIGTERM end the work through `Stopped`, so that nothing is left half-written; in the main thread."""

    def stop(number, frame):
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


@contextlib.contextmanager
def signals_wait():
    """Let SIGINT and SIGTERM wait until the block has ended, for code that does not bear an exception in its midst."""
    if threading.current_thread() is not threading.main_thread():  # only that one is interrupted
        yield
        return
    came = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def one_line(error):
    """What an exception of a library says, as one line of at most 200 characters for a message of ours."""
    return ' '.join(str(error).split())[:200] or type(error).__name__


OUT_OF_MEMORY = 'out of memory; lower train.batch_size, data.num_workers, or --batch-size; see docs/troubleshooting.md#out-of-memory'
TROUBLES = (  # (words of a library's message, any of them; what they come to, with {said} for the message)
    (
        ('no kernel image is available', 'Mismatched GPU Architecture', 'Unsupported GPU architecture'),
        'this Paddle has no kernels for the GPU of this machine; install the wheel for a newer CUDA (requirements.txt names the '
        'index), or set device=cpu; see docs/troubleshooting.md#gpu-arch',
    ),
    (
        ('Out of memory error on GPU', 'CUDA out of memory'),
        'the memory of the GPU is full; lower train.batch_size or image.size, and see in nvidia-smi what else is using it; see '
        'docs/troubleshooting.md#out-of-memory',
    ),
    (
        ('Fail to alloc memory', 'bad_alloc', 'Failed to allocate memory'),
        OUT_OF_MEMORY,
    ),
    (
        ('Blocking queue is killed', 'DataLoader process', 'DataLoader worker', 'workers exit unexpectedly'),
        'a process that loads images was killed: most often /dev/shm is too small (data.shared_memory=false does without it) or '
        'the memory (data.num_workers=0 loads in the training process); see docs/troubleshooting.md#workers',
    ),
    (
        ('Descriptors cannot', "Couldn't build proto file", 'google.protobuf'),
        '{said}: the installed protobuf does not go with another package; {pip} install -U "protobuf>=3.20.2" visualdl onnx, or make a new '
        'environment; see docs/troubleshooting.md#protobuf',
    ),
    (
        ("module 'numpy' has no attribute", 'compiled using NumPy 1.x', 'numpy.dtype size changed'),
        '{said}: a package here was made for another numpy; {pip} install "numpy<2", or a newer version of that package; see '
        'docs/troubleshooting.md#numpy-2',
    ),
)


def meaning(error):
    """What an exception of a library, or of its import, comes to for a user, with the next step; None where that is not known."""
    said = f'{type(error).__name__}: {error}'
    found = (text for words, text in TROUBLES if any(word in said for word in words))
    known = next((text.format(said=one_line(error), pip=packages.pip()) for text in found), '')
    return packages.absent(error) or known or packages.broken(error) or None


def run(main):
    """Call `main()` and leave the process with the documented exit status.

    A `UserError`, an `OSError`, a lack of memory and one of TROUBLES end in one line on stderr. Any other exception is a fault
    of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')  # a terminal without UTF-8 still shows every name
    stop_on_signals()
    status = 1
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        status = error.status
        # Paddle's launcher ends all processes with the first: let that be the one that speaks for all, if it has the same to say
        if os.environ.get('PADDLE_TRAINER_ID', '0') != '0':
            sys.stderr.flush()
            time.sleep(3)
    except KeyboardInterrupt as error:
        print('interrupted', file=sys.stderr)
        status = getattr(error, 'status', 130)
    except BrokenPipeError:  # the reader of our results (`| head`) has left: nothing more to say, and nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # what a shell gives for a process that SIGPIPE has ended
    except Exception as error:
        # where Paddle throws its message of a loader again, at every child that ends from now on
        if hasattr(signal, 'SIGCHLD'):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        said = meaning(error) or _of_the_machine(error)
        if not said:
            raise
        print(f'error: {said}', file=sys.stderr)
    sys.exit(status)


def _of_the_machine(error):
    """One line for a lack of memory or a file that cannot be had, else None."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if not isinstance(error, OSError):
        return None
    where = f'{error.filename}: ' if error.filename else ''
    if is_full(error):
        return f'{where}{error.strerror}; free some space; see docs/troubleshooting.md#disk'
    return f'{where}{error.strerror or one_line(error)}; check the path, its permissions and the free space'


def is_full(error):
    """Whether an OSError says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
