"""Plot time and memory over the number of images, for annotate.py, opening an index, and predict.py.

    python benchmarks/growth.py output/demo/infer [--out growth.png] [--predict 100 1000 10000] [--entries 10000 100000 1000000]

Runs benchmarks/annotate_scale.py and benchmarks/index.py, and predict.py on folders of hard links to a few JPEGs of 400 x 300 pixels.
Memory is the peak of the process; for the index, of five processes together without Paddle. Prints a table and, last,
one JSON line.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from photos import draw_photo
from ratios import ROOT, command_line, run

HERE = ROOT / 'benchmarks'
LINKS = 16  # different photos


def main():
    parser = command_line(__doc__)
    parser.add_argument('infer', help='folder that export.py wrote')
    parser.add_argument('--out', default='growth.png', help='(default: growth.png)')
    parser.add_argument('--predict', type=int, nargs='+', default=[100, 1000, 10_000])
    parser.add_argument('--entries', type=int, nargs='+', default=[10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    entries = list(map(str, args.entries))
    annotated = rows_of('annotate_scale.py', '--entries', *entries)
    curves = {
        'annotate.py, first run (decoding left out)': [row for row in annotated if row['run'] == 'first'],
        'annotate.py, nothing has changed': [row for row in annotated if row['run'] == 'unchanged'],
        'opening an index, five processes': rows_of('index.py', '--lines', *entries),
        'predict.py': [predict(args.infer, count) for count in args.predict],
    }
    print(f'{"":<44}{"images":>9}{"seconds":>9}{"MB":>7}')
    for name, rows in curves.items():
        for row in rows:
            print(f'{name:<44}{row["images"]:>9}{row["seconds"]:>9.2f}{row["mb"]:>7.0f}')
    draw(args.out, curves)
    print(json.dumps({'benchmark': 'growth', 'picture': args.out, 'curves': curves}))


def rows_of(script, *arguments):
    """The rows in the JSON line of another benchmark."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])['rows']


def predict(infer, count):
    """Seconds and peak memory of predict.py on a folder of `count` photos."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix='growth') as folder:
        os.makedirs(f'{folder}/photos')
        for number in range(count):
            path = f'{folder}/photos/{number:06d}.jpg'
            if number < LINKS:
                draw_photo(rng, (400, 300)).save(path, quality=85)
            else:
                os.link(f'{folder}/photos/{number % LINKS:06d}.jpg', path)
        command = [sys.executable, str(ROOT / 'predict.py'), infer, f'{folder}/photos', '--csv', f'{folder}/found.csv']
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f'error: {" ".join(command)} ended with status {status}')
        return {
            'images': count,
            'seconds': round(time.perf_counter() - start, 2),
            'mb': round(usage.ru_maxrss / 1e3, 1),
        }


def draw(path, curves):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout='constrained')
    for axis, key, title in zip(axes, ('seconds', 'mb'), ('seconds', 'memory, MB')):
        for (name, rows), marker in zip(curves.items(), 'osD^'):
            axis.plot([row['images'] for row in rows], [row[key] for row in rows], marker=marker, label=name)
        axis.set(xscale='log', yscale='log', xlabel='images', title=title)
        axis.grid(True, which='major', alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == '__main__':
    run(main)
