"""Time loading of training images: this project's loader against the notebook's dataset in Paddle's DataLoader.

    python benchmarks/loader.py [--photos 300] [--workers 1] [--pairs 5] [--size 224] [--batch 32]

Draws JPEGs of 1200 x 800 pixels into a temporary folder. Both decode, scale a random crop, flip and normalise, and return batches of
float32 Tensors, with the same number of loader processes; nothing is trained. `cold` decodes every file, as in a first epoch; `cached`
uses data.cache, as in later ones. Prints a table and, last, one JSON line for each. The system keeps the files in memory for all.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from photos import draw_photos
from ratios import ROOT, command_line, report, run, table

TARGETS = {'cold': 2.0, 'cached': 6.0}


def main():
    parser = command_line(__doc__, pairs=5)
    parser.add_argument('--photos', type=int, default=300, help='(default: 300)')
    parser.add_argument('--workers', type=int, default=1, help='loader processes (default: 1)')
    parser.add_argument('--size', type=int, default=224, help='pixels a side for the network (default: 224)')
    parser.add_argument('--batch', type=int, default=32, help='images per batch (default: 32)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='loader') as folder:
        os.chdir(folder)
        draw_photos('photos', args.photos)
        lines = (f'photos/{number:04}.jpg\t{number % 2}\n' for number in range(args.photos))
        Path('photos/train.txt').write_text(''.join(lines), encoding='utf-8')
        loaders = make_loaders(args)
        rates = {name: [] for name in loaders}
        for turn in range(args.pairs + 1):
            for name, loader in loaders.items():
                rate = images_per_second(loader, turn, args.photos)
                if turn:  # the first is for warming up
                    rates[name].append(rate)
        os.chdir(ROOT)
    table('images/s', rates)
    for name, target in TARGETS.items():
        settings = {'photos': args.photos, 'workers': args.workers, 'size': args.size}
        report(f'loader_{name}', rates[name], rates['notebook'], target, **settings)


def make_loaders(args):
    from notebook_dataset import NotebookDataset  # these need Paddle, --help does not

    import config
    from dataset import Loader, ZodiacDataset
    from zodiac.base.paddle_setup import paddle

    paddle.set_device('cpu')
    settings = ['data.root=photos', 'data.labels=[a, b]', f'image.size={args.size}', f'data.num_workers={args.workers}']
    cfg = config.load(overrides=[*settings, 'data.cache=cache'])
    cold, cached = ZodiacDataset('train', cfg=cfg), ZodiacDataset('train', cfg=cfg)
    cached.keep_pictures(cfg, lambda text: print(text, file=sys.stderr))
    how = {'batch_size': args.batch, 'shuffle': True, 'num_workers': args.workers, 'use_shared_memory': True}
    return {
        'notebook': paddle.io.DataLoader(NotebookDataset('photos/train.txt', size=args.size), **how),
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
