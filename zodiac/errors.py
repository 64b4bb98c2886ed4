"""Errors that a user can mend, and the exit statuses of the scripts: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C
(SIGINT), 143 by SIGTERM."""

import os
import signal
import sys
import time


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

    def __init__(self, number, between_steps=False):
        super().__init__()
        self.status = 128 + number
        self.between_steps = between_steps

    def _render_traceback_(self):
        return ['interrupted']


def stop_on_signals():
    """Make SIGINT and SIGTERM end the work through `Stopped`, so that nothing is left half-written; in the main thread."""

    def stop(number, frame):
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def one_line(error):
    """What an exception of a library says, as one line of at most 200 characters for a message of ours."""
    return ' '.join(str(error).split())[:200] or type(error).__name__


def run(main):
    """Call `main()` and leave the process with the documented exit status.

    A `UserError`, an `OSError`, a lack of memory and the death of a loader's process end in one line on stderr. Any other
    exception is a fault of ours and keeps its traceback.
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
        if (
            os.environ.get('PADDLE_TRAINER_ID', '0') != '0'
        ):  # Paddle's launcher ends all processes with the first: let that be
            sys.stderr.flush()
            time.sleep(3)  # the one that speaks for all, if it has the same to say
    except KeyboardInterrupt as error:
        print('interrupted', file=sys.stderr)
        status = getattr(error, 'status', 130)
    except BrokenPipeError:  # the reader of our results (`| head`) has left: nothing more to say, and nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        print(
            f'error: {where}{error.strerror or error}; check the path, its permissions and the free space',
            file=sys.stderr,
        )
    except MemoryError:
        print('error: out of memory; lower train.batch_size or data.num_workers', file=sys.stderr)
    except (SystemError, RuntimeError) as error:
        if hasattr(signal, 'SIGCHLD'):  # where Paddle throws them, at every child that ends from now on
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not any(words in str(error) for words in ('DataLoader', 'Blocking queue is killed')):
            raise
        print(
            'error: a process that loads images was killed: most often /dev/shm is too small (data.shared_memory=false does '
            'without it) or the memory (data.num_workers=0 loads in the training process)',
            file=sys.stderr,
        )
    sys.exit(status)
