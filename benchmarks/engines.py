"""Time exported models per image, alternately.

    python benchmarks/engines.py output/demo/infer output/demo/infer:onnxruntime [--batches 1 8] [--rounds 15]

Each is FOLDER or FOLDER:ENGINE; the others are compared with the first. The engine `alone` is OpenVINO on the same ONNX file without
this project, with its throughput hint and its default precision. Prints a table and, last, one JSON line, for the last model at the
last batch size.
"""

import statistics
import time

import numpy as np
from PIL import Image
from ratios import command_line, report, run

from zodiac.images import transforms
from zodiac.inference import export_folder, exported_model


def main():
    parser = command_line(__doc__)
    parser.add_argument('models', nargs='+', metavar='FOLDER[:ENGINE]', help='exports and their engines')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8], help='images per run (default: 1 8)')
    parser.add_argument('--rounds', type=int, default=15, help='runs of each, alternately (default: 15)')
    args = parser.parse_args()
    models = {name: load(name) for name in args.models}
    print(f'{"model":<48}{"batch":>6}{"ms/image":>10}{"min":>8}{"max":>8}{"ratio":>8}{"min":>7}{"max":>7}')
    for size in args.batches:
        times = {name: [] for name in models}
        for model in models.values():
            timed(model, size)  # warm up
        for _ in range(args.rounds):
            for name, model in models.items():
                times[name].append(timed(model, size))
        first = times[args.models[0]]
        for name, values in times.items():
            ratios = [one / other for one, other in zip(first, values)]
            print(f'{name:<48}{size:>6}' + numbers(values, '10.2f', '8.2f') + numbers(ratios, '8.2f', '7.2f'))
    report('engines', first, times[args.models[-1]], 1.0, models=args.models)


def load(name):
    """(exported model, a transformed image) of FOLDER or FOLDER:ENGINE."""
    folder, _, engine = name.partition(':')
    model = alone(folder) if engine == 'alone' else exported_model.load(folder, 'cpu', engine or 'paddle')
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return model, transforms.apply(model.transform, Image.fromarray(noise))


def alone(folder):
    """What OpenVINO's documentation recommends for throughput: single images in as many streams as it chooses."""
    import openvino

    manifest = export_folder.read_manifest(folder)
    path = f'{folder}/{manifest["name"]}.onnx'
    network = openvino.Core().compile_model(path, 'CPU', {'PERFORMANCE_HINT': 'THROUGHPUT'})
    queue = openvino.AsyncInferQueue(network)

    def predict(batch):
        for number in range(len(batch)):
            queue.start_async({0: batch[number : number + 1]})
        queue.wait_all()

    return exported_model.ExportedModel(manifest['name'], manifest['labels'], manifest['transform'], {}, predict)


def timed(model, size):
    """Milliseconds per image of one run."""
    exported, image = model
    batch = np.stack([image] * size)
    time.sleep(0.3)  # threads of the engine before still spin
    start = time.perf_counter()
    exported.predict(batch)
    return (time.perf_counter() - start) * 1000 / size


def numbers(values, first, others):
    return f'{statistics.median(values):>{first}}{min(values):>{others}}{max(values):>{others}}'


if __name__ == '__main__':
    run(main)
