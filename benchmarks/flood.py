"""Clients that fill a server's memory with large bodies that never end, for benchmarks/uploads.py."""

import collections
import contextlib
import socket
import threading
import time
import urllib.parse

import httpx

MB = 1 << 20
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'


def bodies(size):
    """{kind: (Content-Type, body of not quite `size` bytes)}: images just below 1 MB in a form, other fields in a form, one image."""
    form, content = b'multipart/form-data; boundary=b', b'x' * (MB - 4096) + b'\r\n'
    count = size // MB
    return {
        'images': (form, count * (PART + content)),
        'fields': (form, count * (PART.replace(b'; filename="a.jpg"', b'') + content)),
        'one image': (b'image/jpeg', bytes(size - 4096)),
    }


def flood(address, process_id, connections, size, good, seconds):
    """Open `connections` connections of each kind of body, one kind after the other, for up to `seconds` each.

    Args:
        size: bytes of a body.
        good: function that sends a good request and returns whether its answer is right.
    Returns: dict with the growth of the server's resident memory in MB, how many good requests got a right answer and how many
    did not, and the longest time of /healthz in seconds.
    """
    stop, found = threading.Event(), collections.Counter()
    before = highest = resident(process_id)
    slowest = 0

    def watch():
        nonlocal highest
        while not stop.wait(0.02):
            highest = max(highest, resident(process_id))

    def ask():
        nonlocal slowest
        while not stop.wait(0.1):
            start = time.monotonic()
            httpx.get(f'{address}/healthz', timeout=60)
            slowest = max(slowest, time.monotonic() - start)
            found['good' if good() else 'bad'] += 1

    beside = [threading.Thread(target=target) for target in (watch, ask)]
    for thread in beside:
        thread.start()
    try:
        for kind, body in bodies(size).values():
            _send(address, kind, body, connections, seconds)
    finally:
        stop.set()
        for thread in beside:
            thread.join()
    return {
        'grown_mb': round(highest - before),
        'good': found['good'],
        'bad': found['bad'],
        'healthz_seconds': round(slowest, 2),
    }


def resident(process_id):
    """Resident memory of a process in MB (Linux)."""
    with open(f'/proc/{process_id}/status') as file:
        return int(next(line for line in file if line.startswith('VmRSS')).split()[1]) / 1024


def _send(address, kind, body, connections, seconds):
    where, end = urllib.parse.urlsplit(address), time.monotonic() + seconds
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n' % (
        kind,
        len(body) + 100,
    )

    def send():
        with (
            contextlib.suppress(OSError),
            socket.create_connection((where.hostname, where.port), timeout=seconds) as link,
        ):
            link.sendall(head)
            link.sendall(body)
            link.settimeout(max(0.1, end - time.monotonic()))
            link.recv(100)

    threads = [threading.Thread(target=send) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
