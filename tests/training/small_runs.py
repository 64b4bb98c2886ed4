"""Runs of train.py in this process, with small networks on images of a few pixels."""

import csv
import signal
import sys
from pathlib import Path

import numpy as np
from conftest import picture

import train
from zodiac.base.paddle_setup import paddle
from zodiac.models import freezing
from zodiac.training import callbacks

SETTINGS = [
    *('name=run', 'data.root=.', 'data.labels=[a,b,c]', 'data.num_workers=0', 'image.size=8', 'image.resize=8'),
    *('augment=[random_resized_crop,horizontal_flip]', 'device=cpu', 'model.pretrained=false', 'train.batch_size=4'),
    *('train.epochs=3', 'optim.lr=0.05'),
]


def write_index(split, labels, folder='.'):
    """Write <split>.txt and its images of 12 x 12 pixels, one per label."""
    (Path(folder) / split).mkdir(exist_ok=True)
    for number in range(len(labels)):
        picture(number + 1000 * (split == 'valid'), (12, 12)).save(f'{folder}/{split}/{number}.png')
    lines = [f'{split}/{number}.png\t{label}\n' for number, label in enumerate(labels)]
    (Path(folder) / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')


def run_train(monkeypatch, make, arguments, asked=None):
    """Run train.main with the network of `make()`, as in a new process; returns the folder of the run.

    Args:
        arguments: for -o, after SETTINGS, then flags.
        asked: press Ctrl-C in this step of the run.
    """

    def build(cfg, *_, **__):
        with paddle.utils.unique_name.guard():  # as builder.build
            network = make()
        return network, freezing.freeze(network, cfg.model.freeze, cfg.train.batch_norm == 'keep')

    class Interrupts(callbacks.Interrupts):
        def on_train_batch_begin(self, step, logs=None):
            self.asked = signal.SIGINT if asked is not None and self.clock.step + 1 >= asked else 0

    handler = signal.getsignal(signal.SIGINT)
    try:
        with monkeypatch.context() as patch, paddle.utils.unique_name.guard():
            patch.setattr(train, 'build_network', build)
            patch.setattr(callbacks, 'Interrupts', Interrupts)
            patch.setattr(sys, 'argv', ['train.py', '-o', *SETTINGS, *arguments])
            train.main()
    finally:
        signal.signal(signal.SIGINT, handler)
    return Path(train.config.active().run_dir)


def log_of(folder):
    """Rows of log.csv without the times."""
    with open(Path(folder) / 'log.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ('seconds', 'images_per_second')} for row in rows]


def assert_equal(ours, expected, where=''):
    """Both hold the same names and the same values to the bit."""
    if isinstance(expected, dict):
        assert sorted(ours) == sorted(expected), where
        for name in expected:
            assert_equal(ours[name], expected[name], f'{where}/{name}')
    else:
        assert np.array_equal(ours, expected), where
