"""Shared by the benchmarks: their command line, their table, their JSON lines, and how they end."""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from zodiac.base import device, errors, files, packages  # noqa: E402

FEATURES = ('avx2', 'avx512f', 'avx_vnni', 'avx512_vnni', 'avx512_bf16', 'amx_int8', 'amx_bf16')
NEEDED = {'bf16': ('avx512_bf16', 'amx_bf16'), 'vnni': ('avx_vnni', 'avx512_vnni', 'amx_int8')}  # any of these
PACKAGES = ('paddlepaddle', 'onnxruntime', 'openvino', 'pillow', 'numpy')  # whose versions matter for speed
SET_BY_US = ('OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE', 'MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_')


def command_line(doc, pairs=None):
    """A parser that shows `doc`; with --pairs, runs of each, if a default is given."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if pairs:
        parser.add_argument('--pairs', type=int, default=pairs, help=f'runs of each, alternately (default: {pairs})')
    return parser


def plain_environment():
    """The environment variables of this process without those that this project sets for Paddle."""
    return {name: value for name, value in os.environ.items() if name not in SET_BY_US}


def table(title, rows, width=32):
    """Print minimum, median and maximum of each row, {name: numbers}."""
    print(f'{title:<{width}}{"min":>9}{"median":>9}{"max":>9}')
    for name, values in rows.items():
        numbers = (min(values), statistics.median(values), max(values))
        print(f'{name:<{width}}' + ''.join(f'{number:>9.{3 if number < 10 else 1}f}' for number in numbers))


def record(result, path):
    """Write a JSON-ready result, indented, to the file of --record; None: to no file."""
    if path:
        with files.atomic_write(path) as file:
            json.dump(result, file, indent=1)
            file.write('\n')


def report(benchmark, above, below, target, /, **more):
    """Print the JSON line of a comparison, with the ratios of two lists of numbers, one per turn.

    Args:
        above, below: rates of ours and theirs, or times of theirs and ours: a ratio above 1 means that ours is faster.
        target: lowest ratio wanted, or None.
        more: facts about the run; `needs`, a key of NEEDED, is what the processor must have for the target to apply.
    """
    ratios = [one / other for one, other in zip(above, below)]
    found = _middle('ratio', ratios, 2)
    print(json.dumps({'benchmark': benchmark, **found, 'target': target, 'pairs': len(ratios), **more}), flush=True)


def limit(benchmark, values, unit, most, /, **more):
    """Print the JSON line of something that should be small: `values` in `unit`, one per turn, `most` wanted at most, or None."""
    found = _middle('value', values, 3)
    print(
        json.dumps({'benchmark': benchmark, **found, 'unit': unit, 'most': most, 'pairs': len(values), **more}),
        flush=True,
    )


def _middle(name, values, digits):
    found = {name: statistics.median(values), f'{name}_min': min(values), f'{name}_max': max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def machine():
    """The processor and what it can do, and the versions that matter for speed: JSON-ready dict."""
    about = device.about_processor()
    model = re.search(r'model name\s*: (.*)', about)
    flags = set(about.split())
    installed = {name: version for name in PACKAGES if (version := packages.installed_version(name))}
    return {
        'processor': model[1] if model else platform.processor(),
        'features': [name for name in FEATURES if name in flags],
        'cores': device.cores(),
        'python': platform.python_version(),
        **installed,
    }


def run(main):
    """As `errors.run`, with one line for a measured script that fails."""

    def guarded():
        try:
            return main()
        except subprocess.CalledProcessError as error:
            last = str(error.stderr or '').strip().splitlines()[-1:]
            command = shlex.join(map(str, error.cmd))
            raise errors.UserError(': '.join([f'{command} ended with status {error.returncode}', *last])) from None

    errors.run(guarded)
