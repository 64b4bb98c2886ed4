"""Time how long predict.py and train.py take to start: --help, and the first prediction of one image, as whole processes.

    python benchmarks/start.py output/demo/infer [--pairs 5]

Prints a table of seconds and one JSON line for each command; its ratio is the time allowed over the time taken.
"""

import subprocess
import sys
import tempfile
import time

import numpy as np
from photos import draw_photo
from ratios import ROOT, command_line, report, run, table

from zodiac.inference import engines

HELP, FIRST, PADDLE = 0.5, 1.0, 3.0  # seconds allowed


def main():
    parser = command_line(__doc__, pairs=5)
    parser.add_argument('infer_dir', help='folder that export.py wrote')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = f'{folder}/photo.jpg'
        draw_photo(np.random.default_rng(0)).save(photo)
        commands = {f'{script} --help': ([script, '--help'], HELP) for script in ('predict.py', 'train.py')}
        for engine in ('auto', 'paddle', 'onnxruntime', 'openvino'):
            if engine in ('auto', 'paddle') or engines.installed(engine):
                command = ['predict.py', args.infer_dir, photo, '--engine', engine]
                commands[f'first prediction, {engine}'] = command, PADDLE if engine == 'paddle' else FIRST
        times = {name: [] for name in commands}
        for pair in range(args.pairs + 1):
            for name, (command, _) in commands.items():
                seconds = measure(command)
                if pair:  # the first fills the file cache, and makes the choice of engine and precision
                    times[name].append(seconds)
    table('seconds', times)
    for name, values in times.items():
        report(f'start: {name}', [commands[name][1]] * len(values), values, 1.0)


def measure(command):
    started = time.perf_counter()
    subprocess.run([sys.executable, ROOT / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == '__main__':
    run(main)
