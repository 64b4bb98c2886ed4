"""Group the images of many requests into batches, which a network runs faster than single images."""

import asyncio
import concurrent.futures
import contextlib
import time

import numpy as np

from zodiac.base.errors import one_line
from zodiac.serving.logs import RateLimitedLog


class NetworkError(Exception):
    """The network failed on an image, or the server stopped before it ran."""


def sizes(most):
    """Batch sizes up to `most`: 1, 2, 4, ..."""
    return [1 << power for power in range(most.bit_length())]


class Batcher:
    """Runs `predict` on batches of up to `size` images, in order of arrival, in a thread.

    While one batch runs, the next is collected. An image that finds the network idle waits up to `delay` for others that have been
    announced. Batches have 1, 2, 4, ... images: engines keep a plan, and memory, for each size they meet.

    Args:
        predict: [N, ...] -> N answers; never called concurrently.
        size: largest number of images in a batch.
        delay: seconds.
        on_batch: called with the number of images of each successful batch.
        finite: whether an answer has no NaN; by default it is an array.
    """

    FAILED = 'the model failed on the last batch'  # a result of `trouble`

    def __init__(self, predict, size, delay, on_batch=lambda count: None, finite=lambda row: np.isfinite(row).all()):
        self._predict, self._size, self._delay, self._on_batch, self._finite = predict, size, delay, on_batch, finite
        self._task = self._waiting = self._thread = None
        self._announced = 0
        self._started, self._failed = None, False  # start of the running batch; whether the last one failed
        self._log = RateLimitedLog()

    async def __aenter__(self):
        self._waiting = asyncio.Queue()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        """Stop at once: the running batch is abandoned, and waiting callers get a NetworkError."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while not self._waiting.empty():
            _fail([self._waiting.get_nowait()[1]], 'the server stops')
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    def warm_up(self, image):
        """Run the network once for each batch size, in its thread: engines make a plan per size and thread.

        Call it before the first image arrives. Raises what the network raises.
        """
        for size in sizes(self._size):
            self._in_thread().submit(self._predict, np.stack([image] * size)).result()

    def trouble(self, seconds):
        """A line that says why the network does not answer, or None; a batch may take `seconds`."""
        if self._task is None or self._task.done():
            return 'the model is not running'
        if self._started is not None and time.monotonic() - self._started > seconds:
            return f'the model has been running one batch for more than {seconds:g} seconds'
        return self.FAILED if self._failed else None

    @contextlib.contextmanager
    def announced(self):
        """Wrap the preparation of an image that will be passed to `predict`."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1

    async def predict(self, image):
        """The answer to one image, all of it finite. Raises NetworkError."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, answer))
        return await answer

    async def _run(self):
        while True:
            group = [await self._waiting.get()]
            try:
                if self._announced and self._waiting.qsize() < self._size - 1:
                    await asyncio.sleep(self._delay)
                ready = min(self._size, 1 + self._waiting.qsize())
                group += [self._waiting.get_nowait() for _ in range(sizes(ready)[-1] - 1)]
                group = [(image, answer) for image, answer in group if not answer.done()]  # without cancelled requests
                if group:
                    await self._answer(*zip(*group))
            finally:
                _fail([answer for _, answer in group], 'the server stops')  # unanswered only when cancelled

    async def _answer(self, images, answers):
        self._started = time.monotonic()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._in_thread(), self._rows, images)
        finally:
            self._started = None
        self._failed = isinstance(rows, BaseException)
        if self._failed:
            self._log.error(f'the model failed on a batch of {len(images)}: {one_line(rows)}', rows)
            _fail(answers, 'the model failed')
            return
        for answer, row in zip(answers, rows):
            if not self._finite(row):
                self._failed = True
                self._log.error('the model returned a probability that is NaN or infinite')
                _fail([answer], 'the model returned NaN')
            elif not answer.done():
                answer.set_result(row)

    def _in_thread(self):
        self._thread = self._thread or concurrent.futures.ThreadPoolExecutor(1, 'network')
        return self._thread

    def _rows(self, images):
        """The rows of a batch, or the exception, returned because asyncio cannot propagate every type (StopIteration)."""
        try:
            rows = list(self._predict(np.stack(images)))
            if len(rows) != len(images):
                raise ValueError(f'{len(images)} images gave {len(rows)} answers')
            self._on_batch(len(images))
            return rows
        except BaseException as error:
            return error


def _fail(answers, reason):
    for answer in answers:
        if not answer.done():
            answer.set_exception(NetworkError(reason))
