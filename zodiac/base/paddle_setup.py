"""Import Paddle from here: `from zodiac.base.paddle_setup import paddle`.

Paddle reads the number of threads and other settings when it is imported, so this module sets them first. The import takes one to
three seconds: code that must start quickly (--help, predict.py with another engine) does not import this module at its top.
"""

import contextlib
import ctypes
import io
import os
import platform
import signal
import sys
import threading
import warnings

from zodiac.base import device, home, packages, stops
from zodiac.base.errors import UserError, meaning, one_line

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MALLOC_SETTINGS = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')


def import_paddle():
    """Import Paddle after setting what it reads only then.

    Paddle sets OMP_NUM_THREADS=1 if it is unset, which leaves all cores but one idle. Its MKL avoids AVX2 on AMD processors unless
    MKL_DEBUG_CPU_TYPE=5: ResNet50 trains about 3 times as fast with it. Raises UserError if Paddle is missing or cannot be imported.
    """
    processes = int(os.environ.get('PADDLE_LOCAL_SIZE', 1))
    if not os.environ.get('OMP_NUM_THREADS') or processes > 1:  # Paddle's launcher sets 1
        os.environ['OMP_NUM_THREADS'] = str(max(1, device.cores() // processes))
    if _is_amd_with_avx2():
        os.environ.setdefault('MKL_DEBUG_CPU_TYPE', '5')
    _keep_freed_memory()
    os.environ.setdefault('GLOG_minloglevel', '2')  # only errors
    for noise in (
        'No ccache found',
        'To copy construct from a tensor',
        'When training, we now always track',
    ):  # warnings about Paddle's own code
        warnings.filterwarnings('ignore', message=noise)
    home.ensure()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _handlers_kept():
            import paddle  # after the settings above
    except Exception as error:  # not only ImportError: incompatible packages raise others
        raise UserError(meaning(error) or f'Paddle cannot be imported ({one_line(error)})') from None
    if not hasattr(paddle, '__version__'):  # a folder without code is a namespace package
        raise UserError(
            f'{list(paddle.__path__)[0]}: Paddle is incomplete, probably because paddlepaddle or paddlepaddle-gpu was uninstalled '
            f'while both were installed; {packages.reinstall("paddlepaddle")}; see docs/troubleshooting.md#both-paddles'
        )
    for line in said.getvalue().splitlines():
        if 'OMP_NUM_THREADS' not in line:  # Paddle warns about more than one thread, which is intended
            print(line, file=sys.stderr)
    # with several processes it would print the flags that it has set itself
    paddle.distributed.parallel._print_modified_flags = lambda flags: None
    return paddle


@contextlib.contextmanager
def _handlers_kept():
    """Keep our handler of SIGTERM, which Paddle replaces when imported; the signal is blocked meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with stops.held(signal.SIGTERM):
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _is_amd_with_avx2():
    return 'AuthenticAMD' in device.about_processor() and ' avx2 ' in device.about_processor()


def _keep_freed_memory():
    """Make glibc keep freed memory for the next allocation, unless the user has configured malloc.

    By default glibc returns blocks above some megabytes, so most activations and gradients, to the kernel at once and gets them
    back page by page in the next step.
    """
    if platform.libc_ver()[0] != 'glibc' or any(name in os.environ for name in MALLOC_SETTINGS):
        return
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        libc.mallopt(option, value)


paddle = import_paddle()
