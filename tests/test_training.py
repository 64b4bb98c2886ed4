"""Training options through the scripts: all at once, in two processes, and incompatible ones."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, assert_message, make_tree, run_script
from PIL import Image

from zodiac.models import weights

SETTINGS = [
    *('-o', 'name=all', 'data.root=photos', 'data.labels=[cat,dog]', 'image.size=32', 'model.arch=cifarnet'),
    *('device=cpu', 'model.pretrained=false', 'data.num_workers=0'),
]
TRAINING = [
    *('train.epochs=2', 'train.batch_size=4', 'train.label_smoothing=0.1', 'train.mixup=0.5', 'train.cutmix=2'),
    *('train.ema=0.9', 'train.accumulate=2', 'train.sampling=balanced'),
    *('train.monitor=valid_loss', 'train.patience=1', 'train.save_steps=2', 'optim.lr=0.001'),
    *('optim.decoupled_decay=true', 'optim.weight_decay=0.01', 'optim.clip_norm=1', 'optim.decay_bias_and_norm=false'),
]
FLIPPED = ['evaluate.flip_average=true']


def succeed(cwd, script, *arguments):
    result = run_script(script, *arguments, cwd=cwd)
    assert_message(result, 0)
    return result


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A working directory after annotate, train, evaluate and export with all options."""
    cwd = tmp_path_factory.mktemp('run')
    make_tree(cwd / 'photos', ['cat', 'dog'], {'train': 6, 'test': 3})
    for number in range(4):
        (cwd / f'photos/train/dog/dog_{number}.jpg').unlink()
    succeed(cwd, 'annotate.py', *SETTINGS, 'annotate.valid_from=test')
    trained = succeed(cwd, 'train.py', *SETTINGS, *TRAINING)
    succeed(cwd, 'evaluate.py', *SETTINGS, *TRAINING, *FLIPPED)
    succeed(cwd, 'export.py', *SETTINGS, *FLIPPED)
    return cwd, trained


def read_csv(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_a_run_with_all_options_writes_its_log(finished):
    cwd, trained = finished
    rows = read_csv(cwd / 'output/all/log.csv')
    warned = [line for line in trained.stderr.splitlines() if 'Warning' in line]
    assert [line for line in warned if 'You are using GPU version Paddle' not in line] == []
    assert (rows[0]['epoch'], rows[0]['step']) == ('1', '2')  # 8 images in batches of 4
    for row in rows:
        assert math.isfinite(float(row['valid_loss'])) and 0 <= float(row['valid_top1']) <= 1
        assert math.isfinite(float(row['train_loss'])) and float(row['images_per_second']) > 0
    best = json.loads((cwd / 'output/all/best/state.json').read_text())
    losses = {int(row['epoch']): float(row['valid_loss']) for row in rows}
    assert best['epoch'] == min(losses, key=losses.get)


def test_a_run_with_all_options_keeps_average_and_training_weights(finished):
    folder = finished[0] / 'output/all/checkpoints'
    last = sorted(folder.iterdir())[-1]
    average, learning = (weights.read(last / name) for name in ('model.pdparams', 'learning.pdparams'))
    assert list(average) == list(learning)
    assert all(np.isfinite(value).all() for value in average.values())
    assert not np.array_equal(average['classifier.2.weight'], learning['classifier.2.weight'])


def test_a_run_with_all_options_can_be_evaluated(finished):
    folder = finished[0] / 'output/all/report'
    metrics = json.loads((folder / 'metrics.json').read_text(encoding='utf-8'))
    assert (metrics['n'], metrics['flip_average']) == (6, True)
    assert metrics['weights'].endswith('best/model.pdparams')
    for name in ('confusion_matrix.png', 'curves.png', 'classes.png', 'predictions.png'):
        with Image.open(folder / name) as image:
            assert len(image.convert('RGB').getcolors(1 << 24)) > 10


def test_export_and_evaluation_agree_with_flip_average(finished):
    cwd, _ = finished
    result = succeed(cwd, 'predict.py', 'output/all/infer', 'photos/test')
    predicted = {path: (label, float(p)) for path, label, p in map(str.split, result.stdout.splitlines())}
    rows = read_csv(cwd / 'output/all/report/predictions.csv')
    assert len(predicted) == len(rows) == 6
    for row in rows:
        label, probability = predicted[row['path']]
        assert label == row['prediction']
        assert probability == pytest.approx(float(row['probability']), abs=2e-4)


def test_two_processes_with_ema_patience_and_unfreezing(finished, tmp_path):
    (tmp_path / 'photos').symlink_to(finished[0] / 'photos')
    launch = [sys.executable, '-m', 'paddle.distributed.launch', '--nproc_per_node', '2', '--log_dir', 'logs']
    settings = ['train.epochs=3', 'train.batch_size=4', 'train.ema=0.5', 'train.patience=1', 'optim.lr=0.001']
    frozen = ['model.freeze=backbone', 'model.unfreeze_epoch=2']

    result = subprocess.run(
        [*launch, str(ROOT / 'train.py'), *SETTINGS, *settings, *frozen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert result.returncode == 0, result.stderr
    rows = read_csv(tmp_path / 'output/all/log.csv')
    scores = [float(row['valid_top1']) for row in rows]
    better = [score > max(scores[:epoch]) for epoch, score in enumerate(scores) if epoch]
    assert [row['step'] for row in rows] == ['2', '4', '6'][: len(rows)]  # 8 images in batches of 4
    assert all(better[:-1]) and (len(rows) == 3 or not better[-1])
    assert (tmp_path / 'output/all.pdparams').is_file()
    assert not (tmp_path / 'output/all.previous').exists()


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (['train.mixup=0.2', 'train.batch_size=1'], ['train.mixup', 'train.batch_size']),
        (['train.class_weights=balanced', 'train.sampling=balanced'], ['train.class_weights', 'train.sampling']),
        (['model.unfreeze_epoch=2'], ['model.unfreeze_epoch', 'model.freeze']),
        (['train.monitor=valid_f1'], ['train.monitor', "'valid_f1'", 'valid_top1']),
        (['train.ema=1'], ['train.ema']),
        (['train.label_smoothing=1'], ['train.label_smoothing']),
        (['train.accumulate=0'], ['train.accumulate', '>= 1']),
        (['train.batch_size=1'], ['train.batch_size = 1', 'BatchNorm', 'set train.batch_size to 2 or more']),
        (['train.patience=-1'], ['train.patience', '>= 0']),
    ],
)
def test_incompatible_options_are_refused_by_name(call_script, finished, settings, words):
    result = call_script('train.py', *SETTINGS, 'name=never', *settings, cwd=finished[0])
    assert_message(result, 2, *words)
    assert result.stderr.splitlines()[-1].startswith('error: ')
    assert not (finished[0] / 'output/never').exists()
