"""A pool of threads that decode what clients have uploaded."""

import asyncio
import concurrent.futures
import threading
import time


class Decoders:
    """Runs functions that decode one image in `count` threads.

    `alone` is a lock for work that needs much memory.
    """

    def __init__(self, count):
        self._count, self._threads, self.alone = count, None, None
        self._started = {}  # thread -> when it started on its current image

    async def __aenter__(self):
        self.alone = asyncio.Lock()  # with Python 3.9 it belongs to the loop that runs now
        self._threads = concurrent.futures.ThreadPoolExecutor(self._count, 'decode')

    async def __aexit__(self, *_):
        self._threads.shutdown(wait=False, cancel_futures=True)  # an image may take long

    async def run(self, decode):
        """What the function `decode` returns in one of the threads. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, decode)

    def trouble(self, seconds):
        """A line that says that all threads have been busy with one image for longer than `seconds`, or None."""
        now = time.monotonic()
        stuck = [start for start in list(self._started.values()) if now - start > seconds]
        return f'images take more than {seconds:g} seconds to decode' if len(stuck) >= self._count else None

    def _run(self, decode):
        thread = threading.get_ident()
        self._started[thread] = time.monotonic()
        try:
            return decode()
        finally:
            del self._started[thread]
