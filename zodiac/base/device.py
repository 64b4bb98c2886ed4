"""Resources of the machine: cores, threads, shared memory, and the device to run on."""

import collections
import contextlib
import itertools
import os
import re
import shutil
import tempfile
import threading

from zodiac.base import packages
from zodiac.base.errors import UsageError, UserError, fault

NAMES = 'auto|cpu|gpu(:[0-9]{1,4})?'  # a regular expression, and the same in words
NAMES_IN_WORDS = 'auto, cpu, gpu or gpu:N (such as gpu:0)'


def cores():
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def in_threads(work, items, ahead):
    """Yield work(item) for each item, in order, computed in threads up to `ahead` items in advance (Pillow decodes without the GIL).

    Items are paths. Raises UserError, which names the path, for any exception of `work`.
    """
    import concurrent.futures  # slows down --help, which imports this module

    def guarded(item):
        try:
            return work(item)
        except UserError:
            raise
        except Exception as error:
            raise fault(item, error) from error

    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(cores() + 1) as pool:  # one more, as some wait for the disk
        waiting = collections.deque(pool.submit(guarded, item) for item in itertools.islice(items, ahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(guarded, item) for item in itertools.islice(items, 1))
        finally:
            for future in waiting:
                future.cancel()


def rank():
    """Rank of this process among those started by paddle.distributed.launch; 0 for a single process."""
    return int(os.environ.get('PADDLE_TRAINER_ID', 0))


@contextlib.contextmanager
def quiet():
    """Hide what C++ libraries print to stderr in the block, or the decorated function; show it if that raises an exception.

    It redirects stderr of the whole process, so it hides nothing in a thread beside the main one, where other work may be printing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        terminal = os.dup(2)
    except OSError:  # closed
        yield
        return
    failed = True
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if failed:
                printed.seek(0)
                os.write(2, printed.read())


def about_processor():
    """/proc/cpuinfo of the first processor; '' on systems other than Linux."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            return file.read(8192)
    except OSError:
        return ''


def has_bf16():
    """Whether the processor has bfloat16 arithmetic, without which that precision is only slower."""
    return any(f' {flag}' in about_processor() for flag in ('avx512_bf16', 'amx_bf16'))


def checked(name, option='--device'):
    """`name` if it is one of NAMES; also a type for argparse. Raises UsageError, which begins with `option`."""
    if not re.fullmatch(NAMES, name):
        raise UsageError(f'{option} {name}: must be {NAMES_IN_WORDS}')
    return name


def choose(device):
    """Make `device`, one of NAMES, Paddle's device and return its name, such as 'gpu:0'.

    Raises UsageError if the name is wrong or the machine has no such device.
    """
    import paddle  # set up by the caller, see paddle_setup; predict.py imports this module and starts without it

    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if device == 'auto':
        device = 'gpu' if gpus else 'cpu'
    kind, _, number = checked(device, 'device =').partition(':')
    if kind == 'gpu' and int(number or 0) >= gpus:
        if paddle.device.is_compiled_with_cuda():
            why = f'number of GPUs that Paddle finds: {gpus}'
        elif all(map(packages.installed_version, packages.BUILDS)):
            why = (
                f'paddlepaddle is installed over paddlepaddle-gpu: {packages.reinstall("paddlepaddle-gpu")}; '
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
        os.environ.setdefault('PADDLE_DISTRI_BACKEND', 'gloo')  # for several processes
    return place


def is_cpu(setting):
    """Whether `choose` will use the CPU, found without Paddle: no GPU driver is installed."""
    return setting == 'cpu' or setting == 'auto' and not shutil.which('nvidia-smi')


def loader_workers(setting, on_gpu):
    """Number of worker processes that load images for this process, for data.num_workers.

    auto: up to 8 to feed a GPU; on the CPU one, if a core is left for it.
    """
    if setting != 'auto':
        return setting
    share = max(1, cores() // int(os.environ.get('PADDLE_LOCAL_SIZE', 1)))
    return min(share, 8) if on_gpu else min(share - 1, 1)


def shared_memory_fits(setting, needed_bytes):
    """Whether workers pass batches through /dev/shm, for data.shared_memory; auto: if it has twice `needed_bytes` free."""
    if setting != 'auto':
        return setting
    return os.path.isdir('/dev/shm') and shutil.disk_usage('/dev/shm').free > 2 * needed_bytes
