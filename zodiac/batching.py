"""Put images of many requests together into batches: a network runs several images in less time than one by one."""

import asyncio
import concurrent.futures
import contextlib

import numpy as np


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
        on_batch: called with the number of images of each batch.
    """

    def __init__(self, predict, size, delay, on_batch=lambda count: None):
        self._predict, self._size, self._delay, self._on_batch = predict, size, delay, on_batch
        self._task = self._waiting = self._thread = None
        self._announced = 0

    async def __aenter__(self):
        self._waiting = asyncio.Queue()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'network')
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        self._thread.shutdown()

    async def warm_up(self, image):
        """Run the network once for each size of a batch, in its thread: engines make a plan for each, a thread."""
        for size in sizes(self._size):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, np.stack([image] * size))

    def running(self):
        return self._task is not None and not self._task.done()

    @contextlib.contextmanager
    def announced(self):
        """While an image is made ready, which will come."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1

    async def predict(self, image):
        """The probabilities of one image, [classes]. Raises what the network raised on the batch."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, answer))
        return await answer

    async def _run(self):
        while True:
            group = [await self._waiting.get()]
            if self._announced and self._waiting.qsize() < self._size - 1:
                await asyncio.sleep(self._delay)
            ready = min(self._size, 1 + self._waiting.qsize())
            group += [self._waiting.get_nowait() for _ in range(sizes(ready)[-1] - 1)]
            group = [(image, answer) for image, answer in group if not answer.done()]  # some have given up meanwhile
            if group:
                await self._answer(group)

    async def _answer(self, group):
        batch = np.stack([image for image, _ in group])
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, batch)
        except Exception as error:  # an engine may raise anything; whoever waits must hear of it
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        self._on_batch(len(group))
        for (_, answer), row in zip(group, rows):
            if not answer.done():
                answer.set_result(row)
