"""Measure how time and memory of every script grow with the number of images.

    python benchmarks/growth.py [--images 1000 10000] [--picture growth.png]
    python benchmarks/growth.py --images 1000 10000 100000       # hours

Draws JPEGs of 48 x 48 pixels in eight classes, and runs annotate.py twice, train.py (an epoch of a small network; a head solved on
its features), evaluate.py, export.py and predict.py on all of them. Memory is the peak of the largest process. Prints a table and,
last, one JSON line for time and one for memory: the steepest growth of a script between the last two numbers of images, as the power
of the number of images; 1 is a straight line.
"""

import math
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image
from ratios import ROOT, command_line, limit, run

CLASSES = [f'class{number}' for number in range(8)]
SIDE = 48
SETTINGS = ['data.root=photos', f'data.labels={CLASSES}', 'device=cpu', 'model.pretrained=false']
SETTINGS += ['image.size=32', 'image.resize=32', 'train.epochs=1', 'train.batch_size=64', 'evaluate.split=test']
SMALL = ['name=small', 'model.arch=cifarnet']
SOLVED = ['name=solved', 'model.arch=resnet18', 'model.freeze=backbone', 'train.head=linear']
STAGES = {  # name: command line; annotate.py reads a file again that has just been changed, hence the pause
    'annotate.py, first run': ['annotate.py', '-o', *SETTINGS],
    'annotate.py, nothing changed': ['annotate.py', '-o', *SETTINGS],
    'train.py, one epoch': ['train.py', '-o', *SETTINGS, *SMALL],
    'train.py, solved head': ['train.py', '-o', *SETTINGS, *SOLVED],
    'evaluate.py': ['evaluate.py', '-o', *SETTINGS, *SMALL],
    'export.py': ['export.py', '-o', *SETTINGS, *SMALL],
    'predict.py': ['predict.py', 'output/small/infer', 'photos', '--csv', 'found.csv'],
}
STEEPEST = 1.05  # a straight line, and noise


def main():
    parser = command_line(__doc__)
    parser.add_argument('--images', type=int, nargs='+', default=[1000, 10_000], help='(default: 1000 10000)')
    parser.add_argument('--picture', metavar='FILE', help='plot the table into this file')
    args = parser.parse_args()
    if len(args.images) < 2 or args.images != sorted({*args.images}):
        parser.error('--images: needs two or more numbers, from the smallest to the largest')
    rows = {name: [] for name in STAGES}
    print(f'{"images":>9}  {"":<30}{"seconds":>9}{"MB":>7}', flush=True)
    for count in args.images:
        with tempfile.TemporaryDirectory(prefix='growth') as folder:
            draw_images(f'{folder}/photos', count)
            time.sleep(2)  # annotate.py does not trust the time of a file that has just been changed
            for name, command in STAGES.items():
                seconds, megabytes = measure(command, folder)
                rows[name].append({'images': count, 'seconds': round(seconds, 2), 'mb': round(megabytes, 1)})
                print(f'{count:>9}  {name:<30}{seconds:>9.2f}{megabytes:>7.0f}', flush=True)
    if args.picture:
        plot(args.picture, rows)
    for key, what in (('seconds', 'time'), ('mb', 'memory')):
        powers = {name: power(points[-2:], key) for name, points in rows.items()}
        worst = max(powers, key=powers.get)
        about = {'what': what, 'script': worst, 'images': args.images[-1], 'rows': rows if key == 'seconds' else {}}
        limit('growth', [powers[worst]], '', STEEPEST, **about)


def draw_images(folder, count):
    """Draw `count` JPEGs below folder/<class>/, no two alike: a gradient in a color of its class, and noise."""
    rng = np.random.default_rng(0)
    for label in CLASSES:
        os.makedirs(f'{folder}/{label}')
    for number in range(count):
        kind = number % len(CLASSES)
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        pixels[..., kind % 3] = pixels[..., kind % 3] // 4 + 24 * kind
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(f'{folder}/{CLASSES[kind]}/{number:07d}.jpg', quality=90)


def measure(command, folder):
    """Seconds of a script, and its peak memory in MB."""
    command = [sys.executable, str(ROOT / command[0]), *command[1:]]
    with tempfile.TemporaryFile('w+') as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            said.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, stderr=said.read())
    return seconds, usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 1e6


def power(points, key):
    """The exponent p of a curve n^p through the two points."""
    (first, last) = points
    return math.log(last[key] / first[key]) / math.log(last['images'] / first['images'])


def plot(path, rows):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout='constrained')
    for axis, key, title in zip(axes, ('seconds', 'mb'), ('seconds', 'memory, MB')):
        for (name, points), marker in zip(rows.items(), 'osD^vPX'):
            axis.plot([row['images'] for row in points], [row[key] for row in points], marker=marker, label=name)
        axis.set(xscale='log', yscale='log', xlabel='images', title=title)
        axis.grid(True, which='major', alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    run(main)
