"""The processes that share a run: started by Paddle's launcher, and what they tell each other; a single one needs nothing."""

import contextlib
import os
import shutil
import subprocess
import sys
import time

from zodiac.base import device, home, stops

IMAGES_EACH = 16  # of a batch, that a process should have: BatchNorm takes its statistics from them


def suited(device_setting, batch_size):
    """Number of processes that a training on this machine is faster with: one a core of a CPU, as long as a batch has enough
    images for each; one where there is a GPU, or where OMP_NUM_THREADS says what the user wants."""
    if os.environ.get('OMP_NUM_THREADS') or not device.is_cpu(device_setting):
        return 1
    return max(1, min(device.cores(), batch_size // IMAGES_EACH))


def launch(arguments, number, logs):
    """Run a script as several processes on this machine, through Paddle's launcher; returns its exit status.

    What the first process prints comes out on stderr; of the others, the error that has ended them. SIGINT and SIGTERM are
    handed on; the status is then 128 + the signal's number, as that of one process. Once there are any: until then, Paddle's
    launcher has nothing to stop, and would print a traceback.

    Args:
        arguments: list of str, the script and its arguments.
        logs: folder for what each process prints.
    """
    launcher = ['-m', 'paddle.distributed.launch', '--nproc_per_node', str(number), '--log_level', 'CRITICAL']
    home.ensure()  # for the launcher, too, which imports Paddle
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore:No ccache found'}
    shutil.rmtree(logs, ignore_errors=True)
    said = [os.path.join(logs, f'workerlog.{rank}') for rank in range(number)]
    shown, started = 0, []

    def ready():  # a process that the launcher is about to start it would leave behind
        if not started and os.path.isfile(said[-1]):
            started.append(time.monotonic())
        return started and time.monotonic() - started[0] > 1

    with stops.noted() as asked:
        process = start(
            [sys.executable, *launcher, '--log_dir', logs, *arguments], env=environment, stdout=subprocess.DEVNULL
        )
        for _ in while_running([process], asked, ready):
            shown += _show(_read(said[0], shown).partition('Traceback')[0])
    errors = {
        text.splitlines()[-1] for text in map(_read, said) if text and text.splitlines()[-1].startswith('error: ')
    }
    rest = _read(said[0], shown)
    # where another process has ended with an error, or first at a signal, this one only tells that it has lost the other
    shown += _show(rest.partition('Traceback')[0] if errors or asked else rest)
    if process.returncode and not asked:
        errors = errors or {
            f'error: a process has failed or was killed; see what each has printed in {logs}/, and the memory of the machine; see '
            'docs/troubleshooting.md#out-of-memory'
        }
        for error in errors - set(_read(said[0]).splitlines()):
            print(error, file=sys.stderr)
    if asked:
        return 128 + asked[0]
    return process.returncode if process.returncode in (0, 1, 2) else 1


def start(command, **options):
    """Start a command that gets SIGINT and SIGTERM from here only, also where a terminal sends them to a whole group."""
    return subprocess.Popen(command, start_new_session=True, **options)


def while_running(children, asked, ready=lambda: True):
    """Yield every tenth of a second until all the children of `start` have ended; hand on to them what comes in `asked`, the list
    of `stops.noted`, when they are `ready()` for it."""
    handed_on = 0
    while any(child.poll() is None for child in children):
        yield
        time.sleep(0.1)
        for number in asked[handed_on:] if ready() else ():
            for child in children:
                child.send_signal(number)
            handed_on += 1


def call(command):
    """Run a command; returns its exit status, or 128 + the number of the signal that has come meanwhile."""
    with stops.noted() as asked:
        child = start(command)
        for _ in while_running([child], asked):
            pass
    return 128 + asked[0] if asked else child.returncode


def _read(path, start=0):
    """The text of a file from a byte on, '' where there is none."""
    if not os.path.isfile(path):
        return ''
    with open(path, encoding='utf-8', errors='surrogateescape') as file:
        file.seek(start)
        return file.read()


def _show(text):
    """Copy text to stderr; returns its number of bytes."""
    sys.stderr.write(text)
    sys.stderr.flush()
    return len(text.encode('utf-8', 'surrogateescape'))


def launched():
    """Whether this process was started by Paddle's launcher."""
    return 'PADDLE_TRAINER_ID' in os.environ


def count():
    """Number of processes."""
    import paddle

    return paddle.distributed.get_world_size()


def add_up(tensor):
    """Set a tensor, in place, to its sum over the processes, and return it; all of them must call it. Waits for no device."""
    import paddle

    if count() > 1:
        paddle.distributed.all_reduce(tensor)
    return tensor


@contextlib.contextmanager
def meeting():
    """While Paddle connects the processes: where one has been stopped, the others wait for it in C++."""
    if count() == 1:
        yield
        return
    with stops.unhandled():
        yield


def highest(value):
    """The highest of a number over the processes; all of them must call it."""
    import paddle

    if count() == 1:
        return float(value)
    number = paddle.to_tensor([float(value)], 'float64')
    paddle.distributed.all_reduce(number, paddle.distributed.ReduceOp.MAX)
    return number.tolist()[0]


def average(tensors):
    """Set float tensors, in place, to their mean over the processes; all of them must call it."""
    import paddle

    if count() == 1 or not tensors:
        return
    with paddle.no_grad():
        flat = paddle.concat([tensor.reshape([-1]) for tensor in tensors])
        paddle.distributed.all_reduce(flat)
        flat = flat / count()
        for tensor, mean in zip(tensors, flat.split([tensor.size for tensor in tensors])):
            tensor.set_value(mean.reshape(tensor.shape))
