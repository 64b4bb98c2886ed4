"""Clients that send a byte now and then, or do not read the answer, for benchmarks/uploads.py."""

import contextlib
import socket
import threading
import time
import urllib.parse

POST = b'POST /predict HTTP/1.1\r\nHost: x\r\n'
LARGE = b'GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n'  # 1.4 MB
KINDS = [  # what is sent at once, and whether the answer is read
    (POST + b'X: ', True),
    (POST + b'Content-Type: image/jpeg\r\nContent-Length: 10000\r\n\r\n', True),
    (8 * LARGE, False),
]
EVERY = 0.2  # seconds between two bytes


@contextlib.contextmanager
def at_work(address, count, patience):
    """Run `count` slow clients during the block; yields a list that holds the seconds of each of their connections at the end.

    Each waits until it is disconnected, also after the block, but at most `patience` seconds.
    """
    stop, held = threading.Event(), []
    threads = [
        threading.Thread(target=_dawdle, args=[address, *KINDS[number % len(KINDS)], patience, stop, held], daemon=True)
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield held
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _dawdle(address, start, reads, patience, stop, held):
    while True:
        begin = time.monotonic()
        with contextlib.suppress(OSError):  # closed; a client that does not read notices when it sends
            _draw_out(address, start, reads, begin + patience)
        held.append(time.monotonic() - begin)
        if stop.wait(EVERY):
            return


def _draw_out(address, start, reads, end):
    where = urllib.parse.urlsplit(address)
    with socket.socket() as link:
        if not reads:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.settimeout(max(EVERY, end - time.monotonic()))
        link.connect((where.hostname, where.port))
        link.sendall(start)
        link.settimeout(EVERY)
        while time.monotonic() < end and not (reads and _has_ended(link)):
            if not reads:
                time.sleep(EVERY)
            link.send(b'y')


def _has_ended(link):
    try:
        return not link.recv(4096)
    except socket.timeout:  # not TimeoutError before Python 3.10
        return False
