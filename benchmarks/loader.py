"""Loading training images: this project's loader against the notebook's dataset in Paddle's DataLoader, in turns.

    python benchmarks/loader.py [--photos 300] [--workers 1] [--pairs 5] [--size 224] [--batch 32]

Draws JPEGs of 1200 x 800 pixels into a temporary folder. Both do the same to each: decode, a random crop scaled to size x size, a
flip, normalisation, batches of float32 Tensors, with the same number of loader processes; nothing is trained. Cold: every file is
decoded, as in a first epoch. Cached: with data.cache, as in the others. Prints a table and, last, a JSON line each. The files
themselves are in the memory of the system for all of them.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from ratios import run, summary

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TARGETS = {'cold': 2.0, 'cached': 6.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=int, default=300, help='(default: 300)')
    parser.add_argument('--workers', type=int, default=1, help='loader processes (default: 1)')
    parser.add_argument('--pairs', type=int, default=5, help='passes of each, in turns (default: 5)')
    parser.add_argument('--size', type=int, default=224, help='pixels a side for the network (default: 224)')
    parser.add_argument('--batch', type=int, default=32, help='images a batch (default: 32)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='loader') as folder:
        os.chdir(folder)
        draw_photos('photos', args.photos)
        loaders = make_loaders(args)
        rates = {name: [] for name in loaders}
        for turn in range(args.pairs + 1):
            for name, loader in loaders.items():
                rate = images_per_second(loader, turn, args.photos)
                if turn:  # the first to warm up
                    rates[name].append(rate)
        os.chdir(ROOT)
    print(f'{"images/s":<10}{"min":>8}{"median":>8}{"max":>8}')
    for name, values in rates.items():
        print(f'{name:<10}{min(values):>8.0f}{statistics.median(values):>8.0f}{max(values):>8.0f}')
    for name, target in TARGETS.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[name], rates['notebook'])]
        settings = {'photos': args.photos, 'workers': args.workers, 'size': args.size, 'pairs': args.pairs}
        print(json.dumps({'benchmark': f'loader_{name}', **summary(ratios), 'target': target, **settings}))


def draw_photos(folder, count):
    """`count` JPEGs of 1200 x 800 pixels with the frequencies of photos, and an index of them."""
    os.mkdir(folder)
    rng = np.random.default_rng(0)
    for number in range(count):
        draw_photo(rng).save(f'{folder}/{number}.jpg', quality=85)
    lines = [f'{folder}/{number}.jpg\t{number % 2}\n' for number in range(count)]
    Path(folder, 'train.txt').write_text(''.join(lines), encoding='utf-8')


def draw_photo(rng, size=(1200, 800)):
    """A PIL image: noise at every scale, the coarser the stronger. As a JPEG of quality 90 it takes two bits a pixel, as photos do."""
    picture = Image.new('RGB', size)
    for octave in range(2, 10):
        pixels = rng.integers(0, 256, (2**octave * 2 // 3 + 1, 2**octave, 3), dtype=np.uint8)
        layer = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        picture = Image.blend(picture, layer, 1.0 if octave == 2 else 0.9 / octave)
    return picture


def make_loaders(args):
    from notebook_dataset import NotebookDataset

    import config
    from dataset import Loader, ZodiacDataset
    from zodiac.base.paddle_setup import paddle

    paddle.set_device('cpu')
    settings = ['data.root=photos', 'data.labels=[a, b]', f'image.size={args.size}', f'data.num_workers={args.workers}']
    cfg = config.load(overrides=[*settings, 'data.cache=cache'])
    cold, cached = ZodiacDataset('train', cfg=cfg), ZodiacDataset('train', cfg=cfg)
    cached.keep_pictures(cfg, lambda text: print(text, file=sys.stderr))
    theirs = NotebookDataset('photos/train.txt', size=args.size)
    return {
        'notebook': paddle.io.DataLoader(
            theirs, batch_size=args.batch, shuffle=True, num_workers=args.workers, use_shared_memory=True
        ),
        'cold': Loader(cold, args.batch, cfg, shuffle=True),
        'cached': Loader(cached, args.batch, cfg, shuffle=True),
    }


def images_per_second(loader, epoch, count):
    if hasattr(loader, 'set_epoch'):
        loader.set_epoch(epoch)
    start = time.perf_counter()
    assert sum(len(labels) for _, labels in loader) == count
    return count / (time.perf_counter() - start)


if __name__ == '__main__':
    run(main)
