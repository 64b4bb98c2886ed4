"""Time exported models per image, alternately.

    python benchmarks/engines.py output/demo/infer:plain output/demo/infer                # the default choice against OpenVINO used plainly
    python benchmarks/engines.py output/demo/infer output/demo/infer:onnxruntime:fp32 [--batches 1 8 32] [--rounds 15]

Each is FOLDER, with the engine and precision that predict.py would choose, FOLDER:ENGINE or FOLDER:ENGINE:PRECISION; the others are
compared with the first. Two engines are OpenVINO on the same ONNX file without this project: `plain` compiles the file and runs each batch
with all settings at their defaults, `alone` runs single images in its throughput mode. Prints a table and one JSON line for each batch
size, which compares the last with the first.
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
    parser.add_argument('models', nargs='+', metavar='FOLDER[:ENGINE[:PRECISION]]', help='exports and what runs them')
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8, 32], help='images per run (default: 1 8 32)')
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
        last = models[args.models[-1]][0]
        ran = {'engine': last.engine, 'precision': last.precision}
        report(f'engines: batch {size}', first, times[args.models[-1]], 1.0, models=args.models, **ran)


def load(name):
    """(exported model, a transformed image) of FOLDER, FOLDER:ENGINE or FOLDER:ENGINE:PRECISION."""
    folder, engine, precision = (*name.split(':'), '', '')[:3]
    ours = engine not in PLAIN
    model = exported_model.load(folder, 'cpu', engine or 'auto', precision or 'auto') if ours else PLAIN[engine](folder)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return model, transforms.apply(model.transform, Image.fromarray(noise))


def plain(folder):
    """OpenVINO as its first example has it: compile the file, run a batch."""
    import openvino

    manifest = export_folder.read_manifest(folder)
    network = openvino.Core().compile_model(f'{folder}/{manifest["name"]}.onnx')
    return without_project(manifest, network)


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

    return without_project(manifest, predict)


def without_project(manifest, predict):
    return exported_model.ExportedModel(
        manifest['name'], manifest['labels'], manifest['transform'], {}, predict, 'openvino', None, 'its default'
    )


PLAIN = {'plain': plain, 'alone': alone}


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
