"""How long predict.py and train.py take to start: --help, and the first prediction of one image, as whole processes.

    python benchmarks/start.py output/demo/infer [--pairs 5]

Prints a table of seconds and a JSON line each; its ratio is the time that is allowed over the time that was taken.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import run, summary

ROOT = Path(__file__).resolve().parent.parent
HELP, FIRST = 0.5, 4.0  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('infer_dir', help='folder that export.py wrote')
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from zodiac.inference import engines

    with tempfile.TemporaryDirectory() as folder:
        photo = f'{folder}/photo.jpg'
        pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
        Image.fromarray(pixels).resize((1200, 800)).save(photo)
        commands = {
            'predict.py --help': (['predict.py', '--help'], HELP),
            'train.py --help': (['train.py', '--help'], HELP),
        }
        for engine in ('auto', 'paddle', 'onnxruntime', 'openvino'):
            if engine in ('auto', 'paddle') or engines.installed(engine):
                command = ['predict.py', args.infer_dir, photo, '--engine', engine]
                commands[f'first prediction, {engine}'] = command, FIRST
        times = {name: [] for name in commands}
        for pair in range(args.pairs + 1):
            for name, (command, _) in commands.items():
                seconds = measure(command)
                if pair:  # the first fills the file cache
                    times[name].append(seconds)
    print(f'{"seconds":<32}{"min":>8}{"median":>8}{"max":>8}{"allowed":>9}')
    for name, values in times.items():
        allowed = commands[name][1]
        print(f'{name:<32}{min(values):>8.2f}{statistics.median(values):>8.2f}{max(values):>8.2f}{allowed:>9.1f}')
    for name, values in times.items():
        ratios = [commands[name][1] / seconds for seconds in values]
        print(json.dumps({'benchmark': f'start: {name}', **summary(ratios), 'target': 1.0, 'pairs': args.pairs}))


def measure(command):
    started = time.perf_counter()
    subprocess.run([sys.executable, ROOT / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == '__main__':
    run(main)
