"""What the machine offers: cores, threads, shared memory, and the device to run on."""

import collections
import contextlib
import itertools
import os
import re
import shutil
import tempfile

from zodiac.base import packages
from zodiac.base.errors import UsageError, UserError, fault


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


def about_processor():
    """What Linux tells of the first processor; '' elsewhere."""
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            return file.read(8192)
    except OSError:
        return ''


def has_bf16():
    """Whether the processor multiplies bfloat16 numbers: where it does not, that precision would only be slower."""
    return any(f' {flag}' in about_processor() for flag in ('avx512_bf16', 'amx_bf16'))


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
