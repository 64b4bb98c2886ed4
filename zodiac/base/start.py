"""The first thing that a script does, before its other imports, which take long."""

import atexit
import os
import signal
import sys

from zodiac.base import stops


def prepare(requirements='requirements-base.txt', modules=''):
    """Prepare a script for Ctrl-C while it imports, closed standard streams, file names in an ASCII locale, and missing packages.

    Args:
        requirements: the requirements file that lists the packages that the script needs.
        modules: what it imports from packages, now or later, separated by spaces. Where one is missing the script ends here, with
            one line and status 1, and not after hours of work.
    """
    stops.leave_on_signals()
    sys.excepthook = _show
    atexit.register(stops.ignore)  # the first to be registered is the last to be called
    _open_closed_streams()
    _read_names_as_utf8()
    if hasattr(signal, 'pthread_sigmask'):
        # Until `errors.run`: threads of libraries that start now never get SIGTERM, for which Paddle has a handler of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    from zodiac.base import packages  # takes longer to import than all of the above

    packages.require(requirements, modules.split())


def _show(kind, error, trace):
    """One line for a UserError of an import, such as that of Paddle; `errors.run` has it for those of the work itself."""
    if getattr(error, 'status', 0) == 1:
        print(f'error: {error}', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _open_closed_streams():
    """Put /dev/null in the place of a standard stream that is closed (`>&-`): the next file to be opened would get its number,
    and what is printed."""
    for number, (name, mode) in enumerate((('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w'))):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding='utf-8')  # noqa: SIM115  # for as long as the process lives
            if stream.fileno() != number:
                os.dup2(stream.fileno(), number)
            os.set_inheritable(number, True)
            setattr(sys, name, stream)
            setattr(sys, f'__{name}__', stream)


def _read_names_as_utf8():
    """Start again in Python's UTF-8 mode where the locale has no letters but ASCII (LC_ALL=C): else no file whose name has others is
    found. What is printed stays ASCII, with the others escaped."""
    if sys.getfilesystemencoding() != 'ascii' or os.environ.get('PYTHONUTF8') == '1' or not sys.executable:
        return
    os.environ.update(PYTHONUTF8='1', PYTHONIOENCODING='ascii:backslashreplace')
    os.execv(sys.executable, [sys.executable, *getattr(sys, 'orig_argv', ['', *sys.argv])[1:]])
