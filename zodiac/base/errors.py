"""Errors that users can fix, and the exit statuses of the scripts: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C (SIGINT),
143 by SIGTERM, 141 if the reader of stdout has closed it (SIGPIPE)."""

import errno
import os
import signal
import sys
import time
import traceback

from zodiac.base import calls, packages, stops


class UserError(Exception):
    """The work failed; the message names the reason and the next step. Exit status 1."""

    status = 1

    def _render_traceback_(self):
        """What a notebook shows instead of a traceback."""
        return [f'error: {calls.as_called(str(self))}']


class UsageError(UserError):
    """A wrong setting or a wrong command line. Exit status 2."""

    status = 2


class Stopped(KeyboardInterrupt):
    """Work was stopped by a signal, with its state saved. Exit status 128 + the number of the signal, as in a shell."""

    def __init__(self, number=signal.SIGINT):
        super().__init__()
        self.status = 128 + number

    def _render_traceback_(self):
        return ['interrupted']


def one_line(error):
    """The message of an exception as one line of at most 200 characters."""
    return ' '.join(str(error).split())[:200] or type(error).__name__


def fault(path, error):
    """UserError for an unexpected exception while working on a file: its message, and where it was raised."""
    if isinstance(error, MemoryError):
        return UserError(f'{path}: {OUT_OF_MEMORY}')
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f'{os.path.basename(place.filename)}, line {place.lineno}'
    return UserError(
        f'{path}: {type(error).__name__}: {one_line(error)} ({where}); if other programs can read the file, report this; '
        'otherwise move the file away'
    )


KILLED_LOADER = (
    'a process that loads images was killed, usually because /dev/shm is too small (set data.shared_memory=false) or memory ran out '
    '(set data.num_workers=0 to load images in the training process); see docs/troubleshooting.md#workers'
)
OUT_OF_MEMORY = 'out of memory; lower train.batch_size, data.num_workers, or --batch-size; see docs/troubleshooting.md#out-of-memory'
KNOWN_ERRORS = (  # (parts of a library's message, any of them; our message, which may contain that of the library)
    (
        ('no kernel image is available', 'Mismatched GPU Architecture', 'Unsupported GPU architecture'),
        'this Paddle does not support the GPU of this machine; install the wheel for a newer CUDA (its index is in requirements.txt), '
        'or set device=cpu; see docs/troubleshooting.md#gpu-arch',
    ),
    (
        ('Out of memory error on GPU', 'CUDA out of memory'),
        'the GPU is out of memory; lower train.batch_size or image.size, and check with nvidia-smi what else uses it; see '
        'docs/troubleshooting.md#out-of-memory',
    ),
    (('Fail to alloc memory', 'bad_alloc', 'Failed to allocate memory'), OUT_OF_MEMORY),
    (('exited is killed by signal',), KILLED_LOADER),
    (
        ('Blocking queue is killed', 'DataLoader process', 'DataLoader worker', 'workers exit unexpectedly'),
        'the images could not be loaded: {error}; set data.num_workers=0, and report this if that fails too; see '
        'docs/troubleshooting.md#workers',
    ),
    (
        ('BrokenProcessPool',),
        'a worker process was killed, usually because memory ran out; close other programs and try again',
    ),
)


def meaning(error):
    """A message for a known exception of a library or its import, with the next step; None for an unknown one."""
    message = f'{type(error).__name__}: {error}'
    found = (text for words, text in KNOWN_ERRORS if any(word in message for word in words))
    known = next((text.format(error=one_line(error)) for text in found), '')
    fix = packages.fix_versions(message, packages.pip())
    return packages.absent(error) or known or (fix and f'{one_line(error)}; {fix}') or packages.broken(error) or None


def run(main):
    """Call `main()` and end the process with the documented exit status.

    A UserError, OSError, MemoryError or one of KNOWN_ERRORS is shown as one line on stderr. Any other exception is a bug
    and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')  # so that names can be printed without UTF-8
    stops.leave_on_signals()
    status = 1
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f'error: {calls.as_called(str(error))}', file=sys.stderr)
        status = error.status
        # Paddle's launcher ends all processes as soon as one fails: give rank 0, whose message is shown, time to fail first
        if os.environ.get('PADDLE_TRAINER_ID', '0') != '0':
            sys.stderr.flush()
            time.sleep(3)
    except KeyboardInterrupt as error:
        sys.stderr.flush()
        stops.leave(getattr(error, 'status', 130) - 128)
    except BrokenPipeError:  # the reader of stdout (`| head`) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # as in a shell after SIGPIPE
    except Exception as error:
        # Paddle's handler would raise the error of a loader again, whenever a child process ends
        if hasattr(signal, 'SIGCHLD'):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message = meaning(error) or _system_error(error)
        if not message:
            raise
        print(f'error: {calls.as_called(message)}', file=sys.stderr)
    sys.exit(status)


def _system_error(error):
    """A message for lack of memory, an OSError or a name that cannot be printed; None for other exceptions."""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, UnicodeEncodeError) and error.encoding != 'utf-8':
        return f'{error.object}: the locale cannot represent this name; export PYTHONUTF8=1 or LC_ALL=C.UTF-8'
    if not isinstance(error, OSError):
        return None
    where = f'{error.filename}: ' if error.filename else ''
    if is_full(error):
        return f'{where}{error.strerror}; free some space; see docs/troubleshooting.md#disk'
    return f'{where}{error.strerror or one_line(error)}; check the path, its permissions and the free disk space'


def is_full(error):
    """Whether an OSError means that the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
