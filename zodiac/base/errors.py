"""Errors that a user can mend, and the exit statuses of the scripts: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C
(SIGINT), 143 by SIGTERM, 141 (SIGPIPE) where the reader of the results has left."""

import errno
import os
import signal
import sys
import time
import traceback

from zodiac.base import packages, stops


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
    """A signal has come, and the work has ended where its state is whole. Exit status 128 + the signal's number, as a shell gives it."""

    def __init__(self, number=signal.SIGINT):
        super().__init__()
        self.status = 128 + number

    def _render_traceback_(self):
        return ['interrupted']


def one_line(error):
    """What an exception of a library says, as one line of at most 200 characters for a message of ours."""
    return ' '.join(str(error).split())[:200] or type(error).__name__


def fault(path, error):
    """UserError for an exception that nobody has foreseen in the work on a file: its own words, and where it was raised."""
    if isinstance(error, MemoryError):
        return UserError(f'{path}: {OUT_OF_MEMORY}')
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f'{os.path.basename(place.filename)}, line {place.lineno}'
    return UserError(
        f'{path}: {type(error).__name__}: {one_line(error)} ({where}); if other programs can read the file, report this; else '
        'move the file away'
    )


KILLED_LOADER = (
    'a process that loads images was killed: most often /dev/shm is too small (data.shared_memory=false does without it) or the '
    'memory (data.num_workers=0 loads in the training process); see docs/troubleshooting.md#workers'
)
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
        ('exited is killed by signal',),
        KILLED_LOADER,
    ),
    (
        ('Blocking queue is killed', 'DataLoader process', 'DataLoader worker', 'workers exit unexpectedly'),
        'the images could not be loaded: {said}; set data.num_workers=0, and report this if it fails too; see '
        'docs/troubleshooting.md#workers',
    ),
    (
        ('BrokenProcessPool',),
        'a worker process was killed, most often because memory ran out; close other programs and try again',
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
    stops.leave_on_signals()
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
        sys.stderr.flush()
        stops.leave(getattr(error, 'status', 130) - 128)
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
    """One line for a lack of memory, a name that cannot be written, or a file that cannot be had, else None."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, UnicodeEncodeError) and error.encoding != 'utf-8':
        return f'{error.object}: the locale has no letters for this name; export PYTHONUTF8=1, or LC_ALL=C.UTF-8'
    if not isinstance(error, OSError):
        return None
    where = f'{error.filename}: ' if error.filename else ''
    if is_full(error):
        return f'{where}{error.strerror}; free some space; see docs/troubleshooting.md#disk'
    return f'{where}{error.strerror or one_line(error)}; check the path, its permissions and the free space'


def is_full(error):
    """Whether an OSError says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
