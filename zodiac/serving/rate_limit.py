"""Rate-limited logging."""

import logging
import time


class RateLimitedLog:
    """Logs the first error with its traceback; later ones as one line each, at most one every `seconds`."""

    def __init__(self, seconds=10):
        self._seconds, self._next, self._suppressed = seconds, None, 0

    def error(self, text, error=None):
        """Log one line of text, unless one was logged just now; the first time with the traceback of `error`."""
        now = time.monotonic()
        if self._next is not None and now < self._next:
            self._suppressed += 1
            return
        more = f' (and {self._suppressed} more before it)' if self._suppressed else ''
        logging.getLogger('zodiac').error('error: %s%s', text, more, exc_info=error if self._next is None else None)
        self._next, self._suppressed = now + self._seconds, 0
