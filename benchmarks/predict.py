"""Time predict.py on a folder of photos against the notebook's code and against ONNX Runtime, as whole processes, alternately.

    python benchmarks/predict.py WORK_FOLDER [--photos FOLDER] [--pairs 5]

WORK_FOLDER keeps drawn photos (JPEG, 1200 x 800) and a ResNet50 at 224 pixels with random weights, as the notebook saves it and as
export.py writes it, with int8. Ours runs in the engine and precision that it chooses itself (random weights have no margins that could
hinder it), in fp32, and in int8. Prints a table, and one JSON line for each comparison: of whole processes, and (`_loop`) of the time after
the model is loaded.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from photos import draw_photos
from ratios import command_line, plain_environment, report, run

from zodiac.base import files
from zodiac.inference import export_folder, image_batches, reference

HERE = Path(__file__).resolve().parent
LABELS = [f'class{number}' for number in range(12)]
TARGETS = {
    'ours': {'notebook': 8.0, 'onnxruntime': 3.0},
    'ours int8': {'notebook': 15.0, 'onnxruntime': 5.0},
}  # times as fast
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
    parser = command_line(__doc__, pairs=5)
    parser.add_argument('work', type=Path, help='folder for the photos and the models')
    parser.add_argument('--photos', type=Path, help='a folder of photos instead of drawn ones')
    parser.add_argument('--count', type=int, default=48, help='photos to draw (default: 48)')
    parser.add_argument('--prepare', action='store_true', help='only make what is missing')
    args = parser.parse_args()
    photos = args.photos or draw_photos(args.work / f'photos{args.count}', args.count)
    make_model(args.work, photos)
    if args.prepare:
        return
    ours = [sys.executable, '-c', LOOP, str(HERE.parent)]
    commands = {
        'notebook': [sys.executable, HERE / 'notebook_predict.py', args.work / 'resnet50', photos, len(LABELS)],
        'onnxruntime': [sys.executable, HERE / 'onnx_predict.py', args.work / 'infer', photos],
        'ours': [*ours, args.work / 'infer', photos],
        'ours fp32': [*ours, args.work / 'infer', photos, '--precision', 'fp32'],
        'ours int8': [*ours, args.work / 'infer', photos, '--precision', 'int8'],
    }
    for name in ('ours', 'ours fp32', 'ours int8'):
        measure(commands[name])  # makes the choice
    times = {name: [] for name in commands}
    for _ in range(args.pairs):
        for name, command in commands.items():
            times[name].append(measure(command))
    count = len(list(photos.iterdir()))
    print(f'{count} photos; seconds\n{"":<13}{"process":>9}{"min":>8}{"max":>8}{"loop":>9}{"min":>8}{"max":>8}')
    for name, pairs in times.items():
        cells = (f'{statistics.median(values):>9.2f}{min(values):>8.2f}{max(values):>8.2f}' for values in zip(*pairs))
        print(f'{name:<13}{"".join(cells)}')
    for part, suffix in enumerate(('', '_loop')):
        for own, targets in TARGETS.items():
            for theirs, target in targets.items():
                seconds = ([pair[part] for pair in times[name]] for name in (theirs, own))
                report(f'predict{suffix}', *seconds, target, ours=own, against=theirs, photos=count)


def make_model(work, photos):
    """Write work/resnet50.pdparams and the export work/infer/ if they do not exist."""
    if (work / 'infer' / 'inference.yaml').exists():
        return
    import config  # these need Paddle; later runs do not
    import export
    from zodiac.base.paddle_setup import paddle
    from zodiac.models import wrappers

    paddle.seed(0)
    network = paddle.vision.models.resnet50(num_classes=len(LABELS))
    network.eval()
    paddle.Model(network).save(str(work / 'resnet50'), training=True)
    paths = sorted(str(path) for path in photos.iterdir())[:32]
    cfg = config.load(overrides=['name=resnet50', f'data.labels={LABELS}'])
    layer = wrappers.Deployed(network, cfg.image.mean, cfg.image.std)
    layer.eval()
    folder = str(work / 'infer')
    os.makedirs(folder, exist_ok=True)
    manifest = {**export.describe(cfg, {}, 1.0, True), 'parity': {}}
    export.write_models(layer, manifest, folder, True, image_batches.read_indexed(paths, manifest['transform'], 8))
    pictures = reference.normalised(reference.pictures(cfg.image.size), manifest['transform'][-1])
    logits = export.logits_of(network, np.array_split(pictures, 8))
    margins, pixels = np.full(100, 1e9, np.float32), np.zeros((0, cfg.image.size, cfg.image.size, 3), np.uint8)
    name = reference.file_name(manifest)
    Path(folder, name).write_bytes(reference.pack(logits, margins, pixels, logits[:0]))
    manifest['sha256'][name] = files.sha256(os.path.join(folder, name))
    export_folder.write_manifest(folder, manifest)


def measure(command):
    """Seconds of a process, and of its work after the model was loaded."""
    start = time.perf_counter()
    command = list(map(str, command))
    done = subprocess.run(command, env=plain_environment(), check=True, capture_output=True, text=True)
    return time.perf_counter() - start, float(done.stderr.split()[-1])


if __name__ == '__main__':
    run(main)
