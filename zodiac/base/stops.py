"""Stop a process cleanly at any time: Ctrl-C (SIGINT) ends it with status 130, SIGTERM with 143.

The signal handler ends the process itself. An exception, such as KeyboardInterrupt, could be mistaken for a missing package during
an import, be ignored in a destructor, or leave a library in a broken state. Cleanup is registered with `at_stop`.
"""

import contextlib
import glob
import os
import signal
import sys
import threading
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
before_leaving = []  # functions to call before the process ends, last one first; see `at_stop`
_leaving = None  # time at which the process began to end, in seconds


def leave_on_signals():
    """Install the handlers of SIGINT and SIGTERM that end this process; in the main thread only."""
    owner = os.getpid()

    def handle(number, frame):
        if os.getpid() != owner:  # a forked child: cleanup is the job of its parent
            os._exit(128 + number)
        leave(number)

    for number in SIGNALS:
        signal.signal(number, handle)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def ignore():
    """Ignore SIGINT and SIGTERM: the work is done, and the interpreter is shutting down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(number):
    """End this process and its children with status 128 + number; a second call meanwhile skips the cleanup."""
    global _leaving
    if _leaving is not None and time.monotonic() - _leaving < 1 and 'PADDLE_TRAINER_ID' in os.environ:
        return  # Paddle's launcher sends each SIGTERM three times
    try:
        if _leaving is None:
            _leaving = time.monotonic()
            for step in (_print_interrupted, _end_children, *reversed(before_leaving), _flush):
                with contextlib.suppress(Exception):
                    step()
    finally:
        os._exit(128 + number)


def _print_interrupted():
    os.write(2, b'\ninterrupted\n' if os.isatty(2) else b'interrupted\n')  # sys.stderr may be in use


def _end_children():
    """Kill worker processes, and remove the batches that Paddle's workers leave in shared memory."""
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Paddle's handler raises an exception
    multiprocessing = sys.modules.get('multiprocessing')  # without it there are no children
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
        child.join(1)
        for path in glob.glob(f'/dev/shm/paddle_{child.pid}_*'):
            os.unlink(path)


def _flush():
    sys.stdout.flush()


@contextlib.contextmanager
def at_stop(undo):
    """Call `undo()` if a signal ends the process during the block."""
    before_leaving.append(undo)
    try:
        yield
    finally:
        before_leaving.remove(undo)


@contextlib.contextmanager
def noted():
    """Yield a list to which SIGINT and SIGTERM only append their numbers during the block."""
    came = []
    with _handled_by(lambda number, frame: came.append(number)):
        yield came


@contextlib.contextmanager
def held(*numbers):
    """Block signals (default: both) until the end of the block; processes and threads started in it keep them blocked."""
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
    """Use the default action of SIGINT and SIGTERM in the block, for C++ code that waits: Python handlers cannot run meanwhile."""
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
    """Print a line to stderr from a signal handler, which may have interrupted another print."""
    if sys.stderr is sys.__stderr__:
        with contextlib.suppress(OSError):
            os.write(2, f'{text}\n'.encode())
    else:  # in a notebook
        print(text, file=sys.stderr)


# Child processes of multiprocessing: terminals, launchers and service managers send signals to the whole process group


def work_for_parent(*_):
    """Initialize a worker process: it ignores signals, as the parent still needs it to finish its work, and ends with the parent.

    Start workers within `held`, so that no signal arrives before this call. A SIGTERM sent by the parent itself ends the worker.
    """
    import multiprocessing  # slow, and only workers need it

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if hasattr(signal, 'sigwaitinfo'):  # reports the sender
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_on_sigterm_of, args=[parent.pid], daemon=True).start()
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def _end_on_sigterm_of(parent):
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)  # Paddle raises an exception in the parent for any other status
