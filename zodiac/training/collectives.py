"""Communication between the processes of a training; with one process, each function returns at once."""

import contextlib

from zodiac.base import stops
from zodiac.base.paddle_setup import paddle


def count():
    """Number of processes."""
    return paddle.distributed.get_world_size()


def add_up(tensor):
    """Sum a tensor over the processes, in place, and return it. Every process must call it. Does not wait for the device."""
    if count() > 1:
        paddle.distributed.all_reduce(tensor)
    return tensor


def highest(value):
    """The highest of a number over the processes, a float. Every process must call it."""
    if count() == 1:
        return float(value)
    number = paddle.to_tensor([float(value)], 'float64')
    paddle.distributed.all_reduce(number, paddle.distributed.ReduceOp.MAX)
    return number.tolist()[0]


def average(tensors):
    """Set float tensors, in place, to their mean over the processes. Every process must call it."""
    if count() == 1 or not tensors:
        return
    with paddle.no_grad():
        flat = paddle.concat([tensor.reshape([-1]) for tensor in tensors])
        paddle.distributed.all_reduce(flat)
        flat = flat / count()
        for tensor, mean in zip(tensors, flat.split([tensor.size for tensor in tensors])):
            tensor.set_value(mean.reshape(tensor.shape))


@contextlib.contextmanager
def connecting():
    """Let signals end the process while Paddle connects the processes: it waits in C++, where Python's handlers do not run."""
    if count() == 1:
        yield
        return
    with stops.unhandled():
        yield
