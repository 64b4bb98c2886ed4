"""Measure time and memory of annotate.py on up to a million files, without decoding them.

    python benchmarks/annotate_scale.py [--entries 10000 100000 1000000]

The files are hard links to a few small ones in a temporary folder. Only their inspection is simulated, with a different made-up image
for each. Scanning, drawing splits, looking for equal and similar images, writing the index files and the summary, and reading them
again are real. Each row is a separate process. Prints a table and, last, one JSON line per kind of run with the bytes that each file
adds to the peak memory, between the last two numbers of entries.
"""

import argparse
import gc
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from ratios import command_line, limit, run

HERE = os.path.dirname(os.path.abspath(__file__))
LABELS = [f'class{number}' for number in range(10)]
LINKS = 10_000  # to one file; ext4 allows 65,000
TARGET = 600  # bytes per entry
RUNS = ('first', 'some changed', 'unchanged')


def main():
    parser = command_line(__doc__)
    parser.add_argument('--entries', type=int, nargs='+', default=[10_000, 100_000, 1_000_000])
    parser.add_argument('--run', metavar='ROOT', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        return annotate(args.run)
    peaks = {}
    print(f'{"entries":>9}  {"run":<13}{"seconds":>8}{"cpu s":>8}{"us per entry":>13}{"peak MB":>9}', flush=True)
    for entries in args.entries:
        with tempfile.TemporaryDirectory() as root:
            draw(root, entries)
            for run in RUNS:
                if run == 'some changed':
                    os.utime(f'{root}/{LABELS[0]}/{0:010d}.jpg', (0, 0))  # and its links: 10,000 at most
                time.sleep(2.1)  # a file that has just been changed is read again by the next run
                started = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, __file__, '--run', root], check=True, stdout=subprocess.PIPE, text=True
                )
                seconds = time.perf_counter() - started
                peak, cpu = json.loads(done.stdout.splitlines()[-1])
                peaks[run, entries] = peak
                us = cpu / entries * 1e6
                print(f'{entries:>9}  {run:<13}{seconds:>8.2f}{cpu:>8.2f}{us:>13.1f}{peak / 1e6:>9.0f}', flush=True)
    few, many = sorted(args.entries)[-2:]
    for name in RUNS:
        added = (peaks[name, many] - peaks[name, few]) / (many - few)
        limit('annotate_scale', [added], 'bytes per file', TARGET, run=name, files=many)


def draw(root, entries):
    """Create the files, in one folder per class."""
    for label in LABELS:
        os.mkdir(f'{root}/{label}')
    for number in range(entries):
        path = f'{root}/{LABELS[number % len(LABELS)]}/{number:010d}.jpg'
        if number % LINKS == 0:
            first = path
            with open(path, 'wb') as file:
                file.write(b'not an image')
        else:
            os.link(first, path)


def annotate(root):
    """Run annotate.py in this process with made-up inspections; print its peak memory in bytes and its CPU seconds."""
    sys.path.insert(0, os.path.dirname(HERE))
    gc.disable()  # as annotate.py does
    import annotate
    from zodiac.data import entry, inspection

    def made_up(paths, convert, workers, reduce=True):
        found = entry.Verdict(mode='RGB')
        for path in paths:
            made = hashlib.shake_128(path.encode()).digest(entry.HASH_BYTES + entry.SKETCH_BYTES)
            picture = entry.pack((640, 480), made[: entry.HASH_BYTES], made[entry.HASH_BYTES :])
            yield entry.Inspection(found, picture, entry.stamp_when_read(os.stat(path)))

    inspection.inspect_all = made_up
    sys.argv = ['annotate.py', '-o', f'data.root={root}', f'data.labels={json.dumps(LABELS)}']
    annotate.main()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([used.ru_maxrss * (1 if sys.platform == 'darwin' else 1024), used.ru_utime + used.ru_stime]))


if __name__ == '__main__':
    run(main)
