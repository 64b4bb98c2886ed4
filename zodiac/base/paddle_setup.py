"""Import Paddle from here: `from zodiac.base.paddle_setup import paddle`.

It reads the number of threads and some other settings when it is imported, so they are set first. It takes one to three seconds:
what must start quickly (--help, predict.py with another engine) does not import this module.
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
    """Import Paddle after setting what it reads at that time only.

    Paddle sets OMP_NUM_THREADS=1 when it finds none, which leaves all cores but one idle. The MKL that it ships takes
    a slow path on AMD processors unless told that AVX2 is there: ResNet50 trains about 3 times as fast with it.
    Raises UserError when Paddle is not installed or cannot start.
    """
    processes = int(os.environ.get('PADDLE_LOCAL_SIZE', 1))
    if not os.environ.get('OMP_NUM_THREADS') or processes > 1:  # Paddle's launcher leaves a 1 of its own there
        os.environ['OMP_NUM_THREADS'] = str(max(1, device.cores() // processes))
    if _is_amd_with_avx2():
        os.environ.setdefault('MKL_DEBUG_CPU_TYPE', '5')
    _keep_freed_memory()
    os.environ.setdefault('GLOG_minloglevel', '2')  # errors; below that Paddle's C++ tells of its own workings
    for noise in (
        'No ccache found',
        'To copy construct from a tensor',
        'When training, we now always track',
    ):  # Paddle about itself
        warnings.filterwarnings('ignore', message=noise)
    home.ensure()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _handlers_kept():
            import paddle
    except Exception as error:  # ImportError, or what packages of other versions make of it
        raise UserError(meaning(error) or f'Paddle cannot be imported ({one_line(error)})') from None
    if not hasattr(paddle, '__version__'):  # Python takes a folder without code for a package
        raise UserError(
            f'{list(paddle.__path__)[0]}: only parts of Paddle are left, as when one of paddlepaddle and paddlepaddle-gpu was '
            f'removed beside the other; {packages.reinstall("paddlepaddle")}; see docs/troubleshooting.md#both-paddles'
        )
    for line in said.getvalue().splitlines():
        if 'OMP_NUM_THREADS' not in line:  # Paddle warns of more than one thread, which is what we want
            print(line, file=sys.stderr)
    # where several processes start, it would print those of its flags that it has set itself
    paddle.distributed.parallel._print_modified_flags = lambda flags: None
    return paddle


@contextlib.contextmanager
def _handlers_kept():
    """Keep the handler of SIGTERM, in whose place Paddle puts one of its own; the signal waits meanwhile."""
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
    """Tell glibc to keep freed memory for the next allocation, unless the user has settings of their own for it.

    As it is, glibc gives blocks above some megabytes, so most activations and gradients, back to the kernel at once and gets
    them again page by page in the next step.
    """
    if platform.libc_ver()[0] != 'glibc' or any(name in os.environ for name in MALLOC_SETTINGS):
        return
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        libc.mallopt(option, value)


paddle = import_paddle()
