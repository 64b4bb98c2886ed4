"""Measure the throughput of serve.py against what decoding and the network can do together without HTTP, alternately.

    python benchmarks/serve.py output/demo/infer [--clients 16] [--seconds 5] [--pairs 3] [--photos FOLDER]
    python benchmarks/serve.py output/demo/infer --minutes 10      # does its memory grow?

Each client sends a photo over its own connection as soon as it has the answer to the last one; the photos are drawn, 1200 x 800.
`together` decodes the same files in as many threads as serve.py does, beside the network in batches of the same size, in one process;
`decoding` and `network` do only that; `single` is serve.py with one image at a time. Prints a table and, last, one JSON line for each
comparison.
"""

import collections
import concurrent.futures
import io
import itertools
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
from flood import resident
from photos import draw_photos
from ratios import command_line, limit, plain_environment, report, run, table
from served import serving

import serve
from zodiac.base import device
from zodiac.images import transforms
from zodiac.inference import exported_model

SINGLE = ['--batch-size', '1', '--max-delay', '0']
BATCH = serve.make_parser().get_default('batch_size')
PHOTOS = 64


def main():
    parser = command_line(__doc__, pairs=3)
    parser.add_argument('infer_dir', help='folder that export.py wrote')
    parser.add_argument('--clients', type=int, default=16, help='(default: 16)')
    parser.add_argument('--seconds', type=float, default=5, help='length of a run (default: 5)')
    parser.add_argument('--photos', type=Path, help='a folder of JPEGs instead of drawn ones')
    parser.add_argument('--minutes', type=float, help='only watch the memory of serve.py for so long')
    parser.add_argument(
        '--part', choices=['decoding', 'network', 'together'], help='only measure this, in this process'
    )
    args, options = parser.parse_known_args()  # the others are those of serve.py
    with tempfile.TemporaryDirectory() as drawn:
        folder = args.photos or draw_photos(drawn, PHOTOS)
        photos = [path.read_bytes() for path in sorted(folder.iterdir())[:PHOTOS]]
        if args.part:
            print(part(args, options, photos))
        elif args.minutes:
            watch(args, options, photos)
        else:
            compare(args, options, photos, folder)


def compare(args, options, photos, folder):
    rates, times = collections.defaultdict(list), []
    with (
        serving(args.infer_dir, *options) as (ours, _, _),
        serving(args.infer_dir, *options, *SINGLE) as (single, _, _),
    ):
        for turn in range(args.pairs + 1):
            for name, address in (('served', ours), ('single', single)):
                found = load(address, args.clients, args.seconds if turn else 1, photos)
                if turn:  # the first is for warming up
                    rates[name].append(len(found) / args.seconds)
                    times += found if name == 'served' else []
            for name in ('together', 'decoding', 'network') if turn else ():
                command = [sys.executable, __file__, args.infer_dir, *options, '--part', name, '--photos', folder]
                command += ['--seconds', args.seconds, '--clients', args.clients]
                done = subprocess.run(
                    [*map(str, command)], env=plain_environment(), check=True, capture_output=True, text=True
                )
                rates[name].append(float(done.stdout.split()[-1]))
    table('images/s', rates)
    middle, last = np.percentile(np.array(times) * 1000, [50, 99])
    about = {'clients': args.clients, 'p50_ms': round(middle, 1), 'p99_ms': round(last, 1)}
    about.update({name: round(float(np.median(values)), 1) for name, values in rates.items()})
    for theirs, target in (('together', 0.9), ('single', 1.0)):
        report('serve', rates['served'], rates[theirs], target, against=theirs, **about)


def part(args, options, photos):
    """Images per second of decoding, of the network, or of both in one process."""
    asked = serve.make_parser().parse_args([args.infer_dir, *options])
    names = ('device', 'engine', 'precision')
    model = exported_model.load(args.infer_dir, *(getattr(asked, name) for name in names if hasattr(asked, name)))

    def decode(content):
        return transforms.read(model.transform, io.BytesIO(content))

    images = [decode(content) for content in photos[:BATCH]]
    for _ in range(2):
        model.predict(np.stack(images))  # warm up
    if args.part == 'network':
        return rate(itertools.repeat(images), model.predict, args.seconds)
    with concurrent.futures.ThreadPoolExecutor(device.cores()) as pool:
        batches = in_batches(pool, decode, itertools.cycle(photos), args.clients)
        return rate(batches, model.predict if args.part == 'together' else len, args.seconds)


def in_batches(pool, decode, contents, ahead):
    """Yield lists of BATCH decoded images; `ahead` images, as many as there are clients, are being decoded or wait."""
    waiting = collections.deque(pool.submit(decode, content) for content in itertools.islice(contents, ahead))
    while True:
        batch = []
        while len(batch) < BATCH:
            batch.append(waiting.popleft().result())
            waiting.append(pool.submit(decode, next(contents)))
        yield batch


def rate(batches, work, seconds):
    """Images per second that `work` does of lists of images."""
    count, start = 0, time.perf_counter()
    for batch in batches:
        work(np.stack(batch))
        count += len(batch)
        if time.perf_counter() - start > seconds:
            return count / (time.perf_counter() - start)


def load(address, clients, seconds, photos):
    """Seconds of each request that `clients` clients send within `seconds`: list of float.

    The clients share the cores with the server, so they are sockets without an HTTP library.
    """
    where = urllib.parse.urlsplit(address)
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n'
    requests = [head % len(photo) + photo for photo in photos]
    times, end = [], time.perf_counter() + seconds

    def work(number):
        with socket.create_connection((where.hostname, where.port), timeout=60) as link:
            for turn in itertools.count(number):
                start = time.perf_counter()
                if start > end:
                    return
                link.sendall(requests[turn % len(requests)])
                status = answer(link)
                if status != 200:
                    raise ValueError(f'{address} answered {status}')
                times.append(time.perf_counter() - start)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return times


def answer(link):
    """Status of the answer that arrives, which is read to its end."""
    received = b''
    while b'\r\n\r\n' not in received:
        received += link.recv(65536) or _closed()
    head, _, body = received.partition(b'\r\n\r\n')
    fields = dict(line.lower().split(b': ', 1) for line in head.split(b'\r\n')[1:])
    left = int(fields[b'content-length']) - len(body)
    while left > 0:
        left -= len(link.recv(65536) or _closed())
    return int(head.split()[1])


def _closed():
    raise ConnectionError('the server closed the connection')


def watch(args, options, photos):
    """Resident memory of serve.py over `--minutes` under load: the median of the last tenth against that of the second."""
    with serving(args.infer_dir, *options) as (address, process, _):
        samples, done = [], threading.Event()

        def sample():
            while not done.wait(1):
                samples.append(round(resident(process.pid), 1))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            count = len(load(address, args.clients, args.minutes * 60, photos))
        finally:
            done.set()
            thread.join()
    tenth = len(samples) // 10
    first, last = (float(np.median(part)) for part in (samples[tenth : 2 * tenth], samples[-tenth:]))
    print(f'{count} requests in {args.minutes:g} minutes; resident memory {first:.0f} MB, then {last:.0f} MB')
    grown = (last / first - 1) * 100
    about = {'minutes': args.minutes, 'requests': count, 'mb': samples[:: max(1, len(samples) // 60)]}
    limit('serve_memory', [grown], '%', 2.0, **about)


if __name__ == '__main__':
    run(main)
