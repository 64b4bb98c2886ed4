"""How a process ends when it is asked to: by Ctrl-C (SIGINT) with status 130, by SIGTERM with 143, at any moment.

A script leaves at once, from the handler of the signal. An exception in its place would be taken for a missing package by an
import, be lost in a destructor, or break a library halfway. What must be put right before is known to `at_stop`.
"""

import contextlib
import glob
import os
import signal
import sys
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
before_leaving = []  # what to call before the process leaves, the last one first; see `at_stop`
_leaving = None  # since when, in seconds


def leave_on_signals():
    """From now on SIGINT and SIGTERM end this process; in the main thread."""
    owner = os.getpid()

    def handle(number, frame):
        if os.getpid() != owner:  # a fork of it: what there is to put right is not its own
            os._exit(128 + number)
        leave(number)

    for number in SIGNALS:
        signal.signal(number, handle)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def ignore():
    """From now on SIGINT and SIGTERM do nothing: all is done, and Python takes itself apart, its handlers first."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(number):
    """End this process with status 128 + number, its child processes too; when called again meanwhile, at once."""
    global _leaving
    if _leaving is not None and time.monotonic() - _leaving < 1 and 'PADDLE_TRAINER_ID' in os.environ:
        return  # Paddle's launcher sends each SIGTERM three times
    try:
        if _leaving is None:
            _leaving = time.monotonic()
            for step in (_tell, _end_children, *reversed(before_leaving), _flush):
                with contextlib.suppress(Exception):
                    step()
    finally:
        os._exit(128 + number)


def _tell():
    os.write(2, b'\ninterrupted\n' if os.isatty(2) else b'interrupted\n')  # Python's own stream may be in use


def _end_children():
    """Kill the worker processes that this one has started, and remove the batches that Paddle's leave in shared memory."""
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where Paddle raises an exception
    multiprocessing = sys.modules.get('multiprocessing')  # its import takes time, and without it there is none
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
        child.join(1)
        for path in glob.glob(f'/dev/shm/paddle_{child.pid}_*'):
            os.unlink(path)


def _flush():
    sys.stdout.flush()


@contextlib.contextmanager
def at_stop(undo):
    """Call `undo()` if a signal ends the process within the block."""
    before_leaving.append(undo)
    try:
        yield
    finally:
        before_leaving.remove(undo)


@contextlib.contextmanager
def noted():
    """Let SIGINT and SIGTERM do nothing within the block but add their number to the list that this yields."""
    came = []
    with _handled_by(lambda number, frame: came.append(number)):
        yield came


@contextlib.contextmanager
def held(*numbers):
    """Let the signals (default: both) wait until the block has ended; child processes and threads begun in it never get them."""
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers or SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def unhandled():
    """Let the system end the process at SIGINT and SIGTERM within the block: C++ code that waits gives their handlers no turn."""
    with _handled_by(signal.SIG_DFL):
        yield


@contextlib.contextmanager
def _handled_by(handler):
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text):
    """Print a line to stderr from the handler of a signal, in whose midst Python's own stream may be."""
    if sys.stderr is sys.__stderr__:
        with contextlib.suppress(OSError):
            os.write(2, f'{text}\n'.encode())
    else:  # of a notebook
        print(text, file=sys.stderr)


# Child processes of multiprocessing: a terminal, a launcher or a service manager signals the whole group


def work_for_parent(*_):
    """In a worker process: leave signals to the parent, which still needs it to end its work, and end with the parent.

    Start it within `held`, so that no signal comes before this. A SIGTERM of the parent itself ends it.
    """
    import multiprocessing
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if hasattr(signal, 'sigwaitinfo'):  # which tells who has sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told, args=[parent.pid], daemon=True).start()
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _end_when_told(parent):
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)  # Paddle takes any other status for a fault, and raises it wherever the parent is
