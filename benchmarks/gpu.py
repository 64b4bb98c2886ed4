"""Training ResNet50 on a GPU: images a second with made-up and with real input, the share of the time that waits for data, memory.

    python benchmarks/gpu.py [--device gpu] [--batch 64] [--steps 30] [--amp O0 O1] [--dtype float16] [--torch PYTHON_WITH_PYTORCH]
    python benchmarks/gpu.py --device cpu --size 64 --batch 8 --steps 3      # runs, slowly, where there is no GPU

NOT MEASURED BY US: no GPU was at hand when this was written. Real input are JPEGs of 1200 x 800 pixels that it draws, through this
project's loader. Prints a table and, last, a JSON line each.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from loader import draw_photos

from zodiac.base import device
from zodiac.base.errors import run

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='gpu', help='gpu, gpu:N or cpu (default: gpu)')
    parser.add_argument('--size', type=int, default=224, help='pixels a side (default: 224)')
    parser.add_argument('--batch', type=int, default=64, help='images a step (default: 64)')
    parser.add_argument(
        '--steps', type=int, default=30, help='steps that are timed, after five to warm up (default: 30)'
    )
    parser.add_argument('--amp', nargs='+', default=['O0', 'O1'], help='levels of mixed precision (default: both)')
    parser.add_argument('--dtype', default='float16', help='float16 or bfloat16 (default: float16)')
    parser.add_argument('--autotune', action='store_true', help='as train.autotune')
    parser.add_argument('--torch', metavar='PYTHON', help='a Python that has PyTorch, for its fp32')
    args = parser.parse_args()
    from zodiac.base.paddle_setup import paddle

    place = device.choose(args.device)
    if args.autotune:
        paddle.incubate.autotune.set_config({'kernel': {'enable': True}, 'layout': {'enable': True}})
    theirs = torch_rate(args, place) if args.torch else None
    print(f'{"amp":<5}{"input":<10}{"images/s":>10}{"waiting":>9}{"GB":>7}')
    results = []
    with tempfile.TemporaryDirectory(prefix='gpu') as folder:
        os.chdir(folder)
        draw_photos('photos', min(512, (args.steps + 5) * args.batch))
        for level in args.amp if place != 'cpu' else ['O0']:
            for kind, batches in (('made up', made_up), ('real', real)):
                rate, waiting, memory = measure(batches(args, place), level, args, place)
                print(f'{level:<5}{kind:<10}{rate:>10.1f}{waiting:>9.1%}{memory:>7.1f}', flush=True)
                found = {
                    'device': place,
                    'amp': level,
                    'dtype': args.dtype,
                    'input': kind,
                    'waiting': round(waiting, 3),
                }
                result = {
                    'benchmark': 'gpu',
                    'images_per_second': round(rate, 1),
                    'memory_gb': round(memory, 2),
                    **found,
                }
                if theirs:
                    result['ratio'] = round(rate / theirs, 2)
                results.append({**result, 'size': args.size, 'batch': args.batch})
        os.chdir(HERE)
    for result in results:
        print(json.dumps(result))


def made_up(args, place):
    """The same random batch for ever."""
    import paddle

    batch = paddle.randn([args.batch, 3, args.size, args.size]), paddle.randint(0, 2, [args.batch])
    while True:
        yield batch


def real(args, place):
    """Batches of the drawn photos, pass after pass."""
    import config
    from dataset import Loader, ZodiacDataset

    cfg = config.load(overrides=['data.root=photos', 'data.labels=[a, b]', f'image.size={args.size}'])
    loader = Loader(ZodiacDataset('train', cfg=cfg), args.batch, cfg, shuffle=True)
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def measure(batches, level, args, place):
    """Images a second, the share of the time that waits for the next batch, and the most memory of the device in GB."""
    import paddle

    from zodiac.training.soft_labels import Loss
    from zodiac.training.trainer import Trainer

    network = paddle.vision.models.resnet50(num_classes=2)
    trainer = Trainer(network, level, args.dtype)
    optimizer = paddle.optimizer.Momentum(0.001, 0.9, network.parameters())
    trainer.prepare(optimizer, Loss())
    for _ in range(5):
        images, labels = next(batches)
        trainer.train_batch([images], [labels])
    trainer.read()  # waits for the device
    start, waited = time.perf_counter(), 0.0
    for _ in range(args.steps):
        asked = time.perf_counter()
        images, labels = next(batches)
        waited += time.perf_counter() - asked
        trainer.train_batch([images], [labels])
    trained = trainer.read()[:, 3].sum()
    seconds = time.perf_counter() - start
    memory = paddle.device.cuda.max_memory_allocated() / 2**30 if place.startswith('gpu') else 0.0
    return trained / seconds, waited / seconds, memory


def torch_rate(args, place):
    """Images a second of PyTorch's fp32 steps on a random batch."""
    command = [args.torch, str(HERE / 'torch_step.py'), '--size', str(args.size), '--batch', str(args.batch)]
    command += ['--steps', str(args.steps), '--device', 'cpu' if place == 'cpu' else place.replace('gpu', 'cuda')]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == '__main__':
    run(main)
