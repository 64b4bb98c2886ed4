"""What the machine offers: cores, threads, shared memory, and the device to run on."""

import collections
import contextlib
import ctypes
import io
import itertools
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings

from zodiac.base import home, packages, stops
from zodiac.base.errors import UsageError, UserError, fault, meaning, one_line

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MALLOC_SETTINGS = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')


def cores():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def in_threads(work, items, ahead):
    """Yield work(item) of each item, in order, done in threads, up to `ahead` items ahead: Pillow decodes without Python's lock.

    Items are paths, which the UserError for an exception that `work` does not foresee begins with.
    """
    import concurrent.futures

    def guarded(item):
        try:
            return work(item)
        except UserError:
            raise
        except Exception as error:
            raise fault(item, error) from error

    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(cores() + 1) as pool:  # one may wait for the disk
        waiting = collections.deque(pool.submit(guarded, item) for item in itertools.islice(items, ahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(guarded, item) for item in itertools.islice(items, 1))
        finally:
            for future in waiting:
                future.cancel()


def rank():
    """Number of this process among those that paddle.distributed.launch has started; 0 for a single one."""
    return int(os.environ.get('PADDLE_TRAINER_ID', 0))


def import_paddle():
    """Import Paddle with the thread counts that it reads only then. Call it before any `import paddle`.

    Paddle sets OMP_NUM_THREADS=1 when it finds none, which leaves all cores but one idle. The MKL that it ships takes
    a slow path on AMD processors unless told that AVX2 is there: ResNet50 trains about 3 times as fast with it.
    Raises UserError when Paddle is not installed or cannot start.
    """
    processes = int(os.environ.get('PADDLE_LOCAL_SIZE', 1))
    if not os.environ.get('OMP_NUM_THREADS') or processes > 1:  # Paddle's launcher leaves a 1 of its own there
        os.environ['OMP_NUM_THREADS'] = str(max(1, cores() // processes))
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
def quiet():
    """Keep what libraries of C++ print on stderr in the block, or the decorated function, from the terminal; where it fails, it is
    shown. Of the whole process: not for what runs beside other work."""
    try:
        terminal = os.dup(2)
    except OSError:  # closed
        yield
        return
    failed = True
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if failed:
                said.seek(0)
                os.write(2, said.read())


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
    return 'AuthenticAMD' in _about_processor() and ' avx2 ' in _about_processor()


def _about_processor():
    """What Linux tells of the first processor; '' elsewhere."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            return file.read(8192)
    except OSError:
        return ''


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


def has_bf16():
    """Whether the processor multiplies bfloat16 numbers: where it does not, that precision would only be slower."""
    return any(f' {flag}' in _about_processor() for flag in ('avx512_bf16', 'amx_bf16'))


def checked(setting):
    """A device as a command line names it: 'auto', 'cpu', 'gpu' or 'gpu:N'. Raises UsageError; also a type of argparse."""
    if not re.fullmatch('auto|cpu|gpu(:[0-9]{1,4})?', setting, re.ASCII):
        raise UsageError(f'--device {setting}: there is no such device; use auto, cpu, gpu or gpu:N, as in gpu:0')
    return setting


def choose(device):
    """Make `device` ('auto', 'cpu', 'gpu', 'gpu:0', ...) Paddle's device and return its name, such as 'gpu:0'.

    Raises UsageError when the machine has no such device.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if device == 'auto':
        device = 'gpu' if gpus else 'cpu'
    kind, _, number = device.partition(':')
    if kind == 'gpu' and number and not re.fullmatch('[0-9]{1,4}', number):
        raise UsageError(f'device = {device}: is the number of no GPU; set device=gpu:0, device=auto or device=cpu')
    if kind == 'gpu' and int(number or 0) >= gpus:
        if paddle.device.is_compiled_with_cuda():
            why = f'Paddle sees {gpus} GPU(s)'
        elif all(map(packages.installed_version, packages.BUILDS)):
            why = (
                f'paddlepaddle lies over paddlepaddle-gpu: {packages.reinstall("paddlepaddle-gpu")}; '
                'see docs/troubleshooting.md#both-paddles'
            )
        else:
            why = 'this Paddle is built for the CPU: install paddlepaddle-gpu in its place'
        raise UsageError(f'device = {device}: there is no such GPU here ({why}); set device=auto or device=cpu')
    try:
        place = paddle.device.set_device(device) and paddle.device.get_device()
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f'device = {device}: Paddle cannot use it ({str(error).strip().splitlines()[-1]}); set device=auto or device=cpu'
        ) from None
    if place == 'cpu':
        os.environ.setdefault('PADDLE_DISTRI_BACKEND', 'gloo')  # how processes talk, should there be several
    return place


def is_cpu(setting):
    """Whether `choose` will take the CPU, told without Paddle: there is no driver of a GPU."""
    return setting == 'cpu' or setting == 'auto' and not shutil.which('nvidia-smi')


def loader_workers(setting, on_gpu):
    """Number of processes that decode images for this one: the setting, or up to 8 to feed a GPU, or 1 where training on
    the CPU leaves a core for it."""
    if setting != 'auto':
        return setting
    share = max(1, cores() // int(os.environ.get('PADDLE_LOCAL_SIZE', 1)))
    return min(share, 8) if on_gpu else min(share - 1, 1)


def shared_memory_fits(setting, needed_bytes):
    """Whether batches may go through /dev/shm: the setting, or whether it has twice `needed_bytes` free."""
    if setting != 'auto':
        return setting
    return os.path.isdir('/dev/shm') and shutil.disk_usage('/dev/shm').free > 2 * needed_bytes
