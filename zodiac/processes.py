"""The processes that share a run: started by Paddle's launcher, and what they tell each other; a single one needs nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time


def launch(number, arguments, logs):
    """Run a script as several processes on this machine, through Paddle's launcher; returns its exit status.

    What the first process prints comes out on stderr; of the others, the error that has ended them. SIGINT and SIGTERM are
    handed on; the status is then 128 + the signal's number, as that of one process.

    Args:
        arguments: list of str, the script and its arguments.
        logs: folder for what each process prints.
    """
    launcher = ['-m', 'paddle.distributed.launch', '--nproc_per_node', str(number), '--log_level', 'CRITICAL']
    environment = {**os.environ, 'PYTHONWARNINGS': 'ignore:No ccache found'}
    asked = []

    def hand_on(signal_number, frame):
        asked.append(signal_number)
        process.send_signal(signal_number)

    shutil.rmtree(logs, ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, *launcher, '--log_dir', logs, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C reaches it from here only
    )
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, hand_on)
    shown = 0
    while True:
        ended = process.poll() is not None
        shown += _show(os.path.join(logs, 'workerlog.0'), shown)
        if ended:
            break
        time.sleep(0.1)
    if process.returncode and not asked:
        said = [_tail(os.path.join(logs, f'workerlog.{rank}')) for rank in range(number)]
        for line in dict.fromkeys(said[1:]):
            if line.startswith('error: ') and line != said[0]:
                print(line, file=sys.stderr)
    return 128 + asked[0] if asked else abs(process.returncode)


def _show(path, start):
    """Copy a file from byte `start` on to stderr; returns the number of bytes."""
    if not os.path.isfile(path):
        return 0
    with open(path, 'rb') as file:
        file.seek(start)
        new = file.read()
    sys.stderr.write(new.decode('utf-8', 'replace'))
    sys.stderr.flush()
    return len(new)


def _tail(path):
    if not os.path.isfile(path):
        return ''
    with open(path, encoding='utf-8', errors='replace') as file:
        return (file.read().splitlines() or [''])[-1]


def launched():
    """Whether this process was started by Paddle's launcher."""
    return 'PADDLE_TRAINER_ID' in os.environ


def count():
    """Number of processes."""
    import paddle

    return paddle.distributed.get_world_size()


def total(values):
    """The sums of some numbers over the processes, as a list of float; all of them must call it."""
    return _reduced(values, 'SUM')


def highest(value):
    """The highest of a number over the processes; all of them must call it."""
    return _reduced([value], 'MAX')[0]


def _reduced(values, how):
    import paddle

    if count() == 1:
        return [float(value) for value in values]
    numbers = paddle.to_tensor([float(value) for value in values], 'float64')
    paddle.distributed.all_reduce(numbers, getattr(paddle.distributed.ReduceOp, how))
    return numbers.tolist()


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
