"""A folder of photos through predict.py against the notebook's way and against ONNX Runtime, as whole processes, in turns.

    python benchmarks/predict.py WORK_FOLDER [--photos FOLDER] [--pairs 5]

WORK_FOLDER keeps what is made once: photos (drawn, 1200 x 800, JPEG) and a ResNet50 at 224 pixels with random weights as the notebook
saves it and as export.py writes it, in float32 and in 8-bit integers. Prints a table, and a JSON line a comparison: of whole processes,
and (`_loop`) of what follows once the model is loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import run, summary

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

LABELS = [f'class{number}' for number in range(12)]
SET_BY_US = ('OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE')
AGAINST = {'notebook': 8.0, 'onnxruntime': 3.0}  # how many times as fast predict.py should be
LOOP = """
import runpy, sys, time
sys.path.insert(0, sys.argv[1])
from zodiac.inference import exported_model
load = exported_model.load
def timed(*arguments):
    global start
    model = load(*arguments)
    start = time.perf_counter()
    return model
exported_model.load = timed
sys.argv = [sys.argv[1] + '/predict.py', *sys.argv[2:]]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
finally:
    print('seconds', time.perf_counter() - start, file=sys.stderr)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path, help='folder for what is made once')
    parser.add_argument('--photos', type=Path, help='a folder of photos instead of drawn ones')
    parser.add_argument('--count', type=int, default=48, help='photos to draw (default: 48)')
    parser.add_argument('--pairs', type=int, default=5, help='runs of each, in turns (default: 5)')
    parser.add_argument('--prepare', action='store_true', help='only make what is missing')
    args = parser.parse_args()
    photos = args.photos or draw(args.work / f'photos{args.count}', args.count)
    engine = make_models(args.work, photos)
    if args.prepare:
        return
    ours = [sys.executable, '-c', LOOP, str(HERE.parent)]
    commands = {
        'notebook': [sys.executable, HERE / 'notebook_predict.py', args.work / 'resnet50', photos, len(LABELS)],
        'onnxruntime': [sys.executable, HERE / 'onnx_predict.py', args.work / 'fp32', photos],
        'ours fp32': [*ours, args.work / 'fp32', photos, '--engine', engine],
        'ours int8': [*ours, args.work / 'int8', photos, '--engine', engine],
    }
    times = {name: [] for name in commands}
    for _ in range(args.pairs):
        for name, command in commands.items():
            times[name].append(measure(command))
    count = len(list(photos.iterdir()))
    print(
        f'{count} photos, ours with {engine}; seconds\n{"":<13}{"process":>9}{"min":>8}{"max":>8}{"loop":>9}{"min":>8}{"max":>8}'
    )
    for name, pairs in times.items():
        cells = (f'{statistics.median(values):>9.2f}{min(values):>8.2f}{max(values):>8.2f}' for values in zip(*pairs))
        print(f'{name:<13}{"".join(cells)}')
    for part, suffix in enumerate(('', '_loop')):
        for theirs, target in AGAINST.items():
            for own in ('ours fp32', 'ours int8'):
                ratios = [slow[part] / fast[part] for slow, fast in zip(times[theirs], times[own])]
                line = {
                    'benchmark': f'predict{suffix}',
                    'ours': f'{own[5:]} {engine}',
                    'against': theirs,
                    **summary(ratios),
                }
                print(json.dumps({**line, 'target': target, 'pairs': args.pairs, 'photos': count}))


def draw(folder, count):
    """`count` JPEGs with shapes of all sizes and some noise, about 200 kB each."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        path = folder / f'{seed:04}.jpg'
        if not path.exists():
            rng = np.random.default_rng(seed)
            pixels = np.full((800, 1200, 3), 120, np.float32)
            for cells, strength in ((4, 90), (12, 40), (40, 25), (150, 12), (500, 8)):
                for channel in range(3):
                    blobs = Image.fromarray(rng.normal(0, strength, (cells * 2 // 3, cells)).astype(np.float32))
                    pixels[..., channel] += np.asarray(blobs.resize((1200, 800), Image.Resampling.BICUBIC))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def make_models(work, photos):
    """Write work/resnet50.pdparams, work/fp32/ and work/int8/ where they are not there yet; returns the engine that is best for both."""
    from zodiac.inference import engines

    engine = 'openvino' if engines.installed('openvino') else 'onnxruntime'
    if (work / 'int8' / 'inference.yaml').exists():
        return engine
    import config
    import export
    from zodiac.base import paddle_setup
    from zodiac.inference import image_batches
    from zodiac.models import wrappers

    paddle = paddle_setup.import_paddle()
    paddle.seed(0)
    network = paddle.vision.models.resnet50(num_classes=len(LABELS))
    paddle.Model(network).save(str(work / 'resnet50'), training=True)
    paths = sorted(str(path) for path in photos.iterdir())[:32]
    for precision in ('fp32', 'int8'):
        cfg = config.load(overrides=['name=resnet50', f'data.labels={LABELS}', f'export.precision={precision}'])
        layer = wrappers.Deployed(network, cfg.image.mean, cfg.image.std)
        layer.eval()
        os.makedirs(work / precision, exist_ok=True)
        manifest = export.describe(cfg, {}, 1.0, True)
        examples = image_batches.read_indexed(paths, manifest['transform'], 8)
        export.write_models(layer, manifest, str(work / precision), True, examples)
    return engine


def measure(command):
    """Seconds of a process, and of what it did once its model was loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_US}
    start = time.perf_counter()
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, float(done.stderr.split()[-1])


if __name__ == '__main__':
    run(main)
