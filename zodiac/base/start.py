"""The first step of every script, before its slow imports."""

import atexit
import os
import signal
import sys

from zodiac.base import stops


def prepare(requirements='requirements-base.txt', modules=''):
    """Prepare a script for Ctrl-C during imports, closed standard streams, an ASCII locale, and missing or broken packages.

    Args:
        requirements: the requirements file that lists the packages of the script.
        modules: top-level modules that the script imports sooner or later, separated by spaces. If one is missing, the script ends
            now with a one-line message and status 1, not after hours of work.
    """
    stops.leave_on_signals()
    atexit.register(stops.ignore)  # registered first, so called last
    _open_closed_streams()
    _read_names_as_utf8()
    if hasattr(signal, 'pthread_sigmask'):
        # Blocked until `errors.run`, so that threads started by imports never receive SIGTERM, for which Paddle has its own handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    from zodiac.base import calls, packages  # slow, so after the steps above

    if calls.INSTALLED and sys.path[0] == calls.FOLDER:
        del sys.path[0]  # added for Paddle's launcher; `import config` must not find ours there
    packages.require(requirements, modules.split())

    def show(kind, error, trace):
        """Show an import error of a package, or the UserError of a failed import of Paddle, in one line."""
        message = str(error) if getattr(error, 'status', 0) == 1 else packages.diagnose(error, requirements)
        if message:
            print(f'error: {calls.as_called(message)}', file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = show


def _open_closed_streams():
    """Open /dev/null for standard streams that are closed (`>&-`), so that printed text cannot end up in another file."""
    for number, (name, mode) in enumerate((('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w'))):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding='utf-8')  # noqa: SIM115  # open as long as the process runs
            if stream.fileno() != number:
                os.dup2(stream.fileno(), number)
            os.set_inheritable(number, True)
            setattr(sys, name, stream)
            setattr(sys, f'__{name}__', stream)


def _read_names_as_utf8():
    """Restart in Python's UTF-8 mode if the locale is ASCII (LC_ALL=C), where files with other characters in their names cannot be
    opened. Output stays ASCII, with other characters escaped."""
    if sys.getfilesystemencoding() != 'ascii' or os.environ.get('PYTHONUTF8') == '1' or not sys.executable:
        return
    os.environ.update(PYTHONUTF8='1', PYTHONIOENCODING='ascii:backslashreplace')
    os.execv(sys.executable, [sys.executable, *getattr(sys, 'orig_argv', ['', *sys.argv])[1:]])
