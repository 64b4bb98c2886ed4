"""Rate-limited logging of errors, and the access log: one line of JSON per request (docs/deployment.md#monitor).

Of what clients send it contains only the method and the start of the path, never a file name or image data. `client` is the address
of the connection, or the one given by a trusted proxy (--proxy); `received` and `sent` are bytes of the bodies. A request that is not
HTTP has neither method nor path.
"""

import contextlib
import json
import logging
import os
import queue
import time
from datetime import datetime, timezone
from logging.handlers import QueueHandler, QueueListener

ACCESS = logging.getLogger('zodiac.access')
LONGEST = 200  # logged characters of the path
QUEUE_SIZE = 10_000  # lines waiting to be written; beyond it new ones are dropped


def logged(app):
    """`app`, an ASGI application, with each request logged once it is answered."""

    async def wrapped(scope, receive, send):
        if scope['type'] != 'http':
            await app(scope, receive, send)
            return
        start, status, received, sent = time.perf_counter(), None, 0, 0

        async def count_received():
            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            return message

        async def count_sent(message):
            nonlocal status, sent
            status = message.get('status', status)
            sent += len(message.get('body', b''))
            await send(message)

        try:
            await app(scope, count_received, count_sent)
        finally:
            seconds = time.perf_counter() - start
            log_request(scope['client'], scope['method'], scope['path'], status, seconds, received, sent)

    return wrapped


def log_request(client, method, path, status, seconds=0.0, received=0, sent=0):
    """Log one request, if `to_stderr` is asked to; `client` is (host, port) or None, `status` None without an answer."""
    if not ACCESS.isEnabledFor(logging.INFO):
        return
    line = {
        'time': datetime.now(timezone.utc).isoformat(timespec='milliseconds').replace('+00:00', 'Z'),
        'client': client[0][:LONGEST] if client else None,
        'method': method and method[:LONGEST],
        'path': path and path[:LONGEST],
        'status': status,
        'seconds': round(seconds, 4),
        'received': received,
        'sent': sent,
    }
    ACCESS.info(json.dumps(line))


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


class _DroppingHandler(QueueHandler):
    """Puts records into a queue, or drops them while it is full."""

    def handleError(self, record):
        pass


class _Stderr(logging.Handler):
    """Writes records to stderr without a lock, for which the end of the process would wait."""

    def createLock(self):
        self.lock = None

    def emit(self, record):
        with contextlib.suppress(OSError):  # closed
            os.write(2, f'{self.format(record)}\n'.encode(errors='backslashreplace'))


@contextlib.contextmanager
def to_stderr(requests):
    """In the block, a thread writes the log to stderr, so that a full pipe does not block the server. `requests`: whether to log each
    request too."""
    ACCESS.setLevel(logging.INFO if requests else logging.WARNING)
    waiting = queue.Queue(QUEUE_SIZE)
    listener = QueueListener(waiting, _Stderr())
    handler = _DroppingHandler(waiting)
    logging.getLogger().addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        end = time.monotonic() + 1
        while waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        if waiting.unfinished_tasks:  # nobody reads stderr: writing to it would block the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
