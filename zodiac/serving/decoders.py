"""A pool of threads that decode uploaded images."""

import asyncio
import concurrent.futures
import io
import threading
import time

from zodiac.images import transforms


class Decoders:
    """Decodes images in `count` threads and applies the transform of the model.

    `places` is a semaphore for the decoded images in memory, at most `decoded`; the others wait undecoded.
    """

    def __init__(self, transform, max_pixels, count, decoded):
        self._transform, self._max_pixels, self._count, self._decoded = transform, max_pixels, count, decoded
        self.places = self._threads = None
        self._started = {}  # thread -> when it started on its current image

    async def __aenter__(self):
        self.places = asyncio.Semaphore(self._decoded)  # with Python 3.9 it belongs to the loop that runs now
        self._threads = concurrent.futures.ThreadPoolExecutor(self._count, 'decode')

    async def __aexit__(self, *_):
        self._threads.shutdown(wait=False, cancel_futures=True)  # an image may take long

    async def read(self, content):
        """The transformed image; `content` is a function that returns the bytes of its file. Raises ImageError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, content)

    def trouble(self, seconds):
        """A line that says that all threads have been busy with one image for longer than `seconds`, or None."""
        now = time.monotonic()
        stuck = [start for start in list(self._started.values()) if now - start > seconds]
        return f'images take more than {seconds:g} seconds to decode' if len(stuck) >= self._count else None

    def _read(self, content):
        thread = threading.get_ident()
        self._started[thread] = time.monotonic()
        try:
            return transforms.read(self._transform, io.BytesIO(content()), max_pixels=self._max_pixels)
        finally:
            del self._started[thread]
