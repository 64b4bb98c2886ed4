"""Measure the throughput of serve.py with dynamic batches against one image at a time, at several loads, alternately.

    python benchmarks/serve.py output/demo/infer [--clients 1 4 16 64] [--seconds 5] [--pairs 3] [--size 256]
    python benchmarks/serve.py output/demo/infer:openvino:int8 --against output/demo/infer:paddle:fp32

Each client sends a JPEG over its own connection as soon as it has the answer to the last one. Prints a table and, last, one JSON line
per load: the ratio of requests per second, and our p99. --against names another model, or engine, for one image at a time.
"""

import http.client
import io
import statistics
import threading
import time
import urllib.parse

import numpy as np
from PIL import Image
from ratios import command_line, report, run
from served import serving

WITHOUT = ['--batch-size', '1', '--max-delay', '0']


def main():
    parser = command_line(__doc__, pairs=3)
    parser.add_argument('infer_dir', metavar='FOLDER[:ENGINE[:PRECISION]]', help='an export, and what runs it')
    parser.add_argument(
        '--against', metavar='FOLDER[:ENGINE[:PRECISION]]', help='for one image at a time (default: the same)'
    )
    parser.add_argument('--clients', type=int, nargs='+', default=[1, 4, 16, 64], help='(default: 1 4 16 64)')
    parser.add_argument('--seconds', type=float, default=5, help='length of a run (default: 5)')
    parser.add_argument('--size', type=int, default=256, help='pixels a side of the JPEGs (default: 256)')
    args = parser.parse_args()
    photos = [jpeg(seed, args.size) for seed in range(16)]
    results = []
    print(f'{"clients":>7}  {"":<8}{"requests/s":>12}{"min":>8}{"max":>8}{"p50 ms":>9}{"p99 ms":>9}')
    ours, theirs = model(args.infer_dir), model(args.against or args.infer_dir)
    with serving(*ours) as (batched, _, _), serving(*theirs, *WITHOUT) as (single, _, _):
        for clients in args.clients:
            runs = {'batches': [], 'single': []}
            for address in (batched, single):
                load(address, clients, 1, photos)  # warm up
            for _ in range(args.pairs):
                runs['batches'].append(load(batched, clients, args.seconds, photos))
                runs['single'].append(load(single, clients, args.seconds, photos))
            for name, found in runs.items():
                rates = [len(times) / args.seconds for times in found]
                times = np.concatenate(found) * 1000
                middle, last = np.percentile(times, [50, 99])
                print(
                    f'{clients:>7}  {name:<8}{statistics.median(rates):>12.1f}{min(rates):>8.1f}{max(rates):>8.1f}'
                    f'{middle:>9.1f}{last:>9.1f}',
                    flush=True,
                )
            last = np.percentile(np.concatenate(runs['batches']) * 1000, 99)
            counts = ([len(times) for times in found] for found in runs.values())
            results.append((counts, {'clients': clients, 'p99_ms': round(last, 1)}))
    for counts, about in results:
        report('serve', *counts, 4.0, **about)


def model(name):
    """The arguments of serve.py for FOLDER, FOLDER:ENGINE or FOLDER:ENGINE:PRECISION."""
    folder, engine, precision = (*name.split(':'), '', '')[:3]
    return folder, '--engine', engine or 'auto', '--precision', precision or 'auto'


def jpeg(seed, size):
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((size, size), Image.Resampling.BICUBIC).save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


def load(address, clients, seconds, photos):
    """Seconds of each request that `clients` clients send within `seconds`: float [N]."""
    where = urllib.parse.urlsplit(address)
    times, end = [], time.perf_counter() + seconds

    def work(number):
        link = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        for turn in range(10**9):
            start = time.perf_counter()
            if start > end:
                return
            link.request('POST', '/predict', photos[(number + turn) % len(photos)], {'Content-Type': 'image/jpeg'})
            answer = link.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(times)


if __name__ == '__main__':
    run(main)
