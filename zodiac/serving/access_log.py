"""What the server writes on stderr: its errors, and one line of JSON for each request. Never what a client has sent, but for the
start of the path.

    {"time": "2026-11-29T16:10:00.123Z", "client": "10.0.0.7", "method": "POST", "path": "/predict", "status": 200, "seconds": 0.012,
     "received": 48211, "sent": 312}

`client` is the address of the connection, or the one that a proxy of --proxy names; `received` and `sent` are bytes of the bodies.
A request that is no HTTP has neither method nor path.
"""

import contextlib
import json
import logging
import os
import queue
import time
from datetime import datetime, timezone
from logging.handlers import QueueHandler, QueueListener

LOG = logging.getLogger('zodiac.access')
LONGEST = 200  # characters of the path
WAITING = 10_000  # lines; beyond them new ones are left out


def watch(app):
    """An ASGI application that answers as `app` and logs each request once it is answered."""

    async def watched(scope, receive, send):
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
            write(scope['client'], scope['method'], scope['path'], status, seconds, received, sent)

    return watched


def write(client, method, path, status, seconds=0.0, received=0, sent=0):
    """Log one request, unless `to_stderr` leaves them out; `client` is (host, port) or None, `status` None where there was no answer."""
    if not LOG.isEnabledFor(logging.INFO):
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
    LOG.info(json.dumps(line))


class _Waiting(QueueHandler):
    """Puts records into a queue, and leaves them out while it is full."""

    def handleError(self, record):
        pass


class _Stderr(logging.Handler):
    """Writes records to stderr, with no lock that the end of the process would wait for."""

    def createLock(self):
        self.lock = None

    def emit(self, record):
        with contextlib.suppress(OSError):  # closed
            os.write(2, f'{self.format(record)}\n'.encode(errors='backslashreplace'))


@contextlib.contextmanager
def to_stderr(requests):
    """While the block runs, all that is logged goes to stderr from a thread of its own: where nobody reads stderr any more, the server
    answers all the same. `requests`: whether a line for each request is logged, too."""
    LOG.setLevel(logging.INFO if requests else logging.WARNING)
    waiting = queue.Queue(WAITING)
    listener = QueueListener(waiting, _Stderr())
    handler = _Waiting(waiting)
    logging.getLogger().addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        end = time.monotonic() + 1
        while waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        if waiting.unfinished_tasks:  # nobody reads it, and whatever writes there now would wait forever
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
