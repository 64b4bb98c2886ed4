"""A log that what happens with every request cannot flood."""

import logging
import time


class Seldom:
    """Logs the first error with its traceback, later ones as a line each, at most one in `seconds`."""

    def __init__(self, seconds=10):
        self._seconds, self._next, self._left_out = seconds, None, 0

    def error(self, text, error=None):
        """Log `text`, a line, unless one was logged just now; with the traceback of `error` the first time."""
        now = time.monotonic()
        if self._next is not None and now < self._next:
            self._left_out += 1
            return
        more = f' (and {self._left_out} times more before)' if self._left_out else ''
        logging.getLogger('zodiac').error('error: %s%s', text, more, exc_info=error if self._next is None else None)
        self._next, self._left_out = now + self._seconds, 0
