"""Put images of many requests together into batches: a network runs several images in less time than one by one."""

import asyncio
import concurrent.futures
import contextlib
import time

import numpy as np

from zodiac.base.errors import one_line
from zodiac.serving.rate_limit import Seldom


class NetworkError(Exception):
    """The network failed on an image, or was stopped before it came to it."""


def sizes(most):
    """The sizes of batches up to `most`: 1, 2, 4, ..."""
    return [1 << power for power in range(most.bit_length())]


class Batcher:
    """Runs `predict` on groups of up to `size` images, in a thread of its own, in the order in which they come.

    While one batch runs, the next gathers; an image that comes to an idle network waits for others, if any are announced, at most
    `delay`. Batches are of 1, 2, 4, ... images: engines keep a plan, and memory, for each size that they meet.

    Args:
        predict: [N, ...] -> [N, classes]; never called twice at a time.
        size: most images of a batch.
        delay: seconds.
        on_batch: called with the number of images of each batch that was answered.
    """

    FAILED = 'the model failed on the last batch'  # of `trouble`

    def __init__(self, predict, size, delay, on_batch=lambda count: None):
        self._predict, self._size, self._delay, self._on_batch = predict, size, delay, on_batch
        self._task = self._waiting = self._thread = None
        self._announced = 0
        self._started, self._failed = None, False  # when the batch that runs began; whether the last one failed
        self._log = Seldom()

    async def __aenter__(self):
        self._waiting = asyncio.Queue()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        """Stop at once: a batch that runs is left to itself, and whoever waits gets a NetworkError."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while not self._waiting.empty():
            _fail([self._waiting.get_nowait()[1]], 'the server stops')
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    def warm_up(self, image):
        """Run the network once for each size of a batch, in its thread: engines make a plan for each, a thread.

        Raises what the network raises. To be called before the first image comes.
        """
        for size in sizes(self._size):
            self._in_thread().submit(self._predict, np.stack([image] * size)).result()

    def trouble(self, seconds):
        """Why the network does not answer, a line, or None; a batch may take `seconds`."""
        if self._task is None or self._task.done():
            return 'the model is not running'
        if self._started is not None and time.monotonic() - self._started > seconds:
            return f'the model has been at a batch for more than {seconds:g} seconds'
        return self.FAILED if self._failed else None

    @contextlib.contextmanager
    def announced(self):
        """While an image is made ready, which will come."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1

    async def predict(self, image):
        """The probabilities of one image, float [classes], all finite. Raises NetworkError."""
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
                group = [
                    (image, answer) for image, answer in group if not answer.done()
                ]  # some have given up meanwhile
                if group:
                    await self._answer(*zip(*group))
            finally:
                _fail([answer for _, answer in group], 'the server stops')  # none is left, but at the end

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
            if not np.isfinite(row).all():
                self._failed = True
                self._log.error('the model gave a probability that is no number')
                _fail([answer], 'the model gave no number')
            elif not answer.done():
                answer.set_result(row)

    def _in_thread(self):
        self._thread = self._thread or concurrent.futures.ThreadPoolExecutor(1, 'network')
        return self._thread

    def _rows(self, images):
        """The rows of a batch, or whatever was raised: as a result, for asyncio cannot pass every exception on."""
        try:
            rows = np.asarray(self._predict(np.stack(images)))
            if rows.shape[:1] != (len(images),):
                raise ValueError(f'{len(images)} images gave an array of shape {rows.shape}')
            self._on_batch(len(images))
            return rows
        except BaseException as error:
            return error


def _fail(answers, reason):
    for answer in answers:
        if not answer.done():
            answer.set_exception(NetworkError(reason))
