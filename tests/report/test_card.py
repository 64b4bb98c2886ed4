"""README.md of an export: everything in it was measured, in any language and with any names."""

from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import AWKWARD, CHINESE, ENGLISH

from zodiac.report import calibration, card, metrics

NAMES = pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
SPLITS = {
    split: [
        SimpleNamespace(path=f'{split}{number}', digest=f'{split}{number}', label=number % 3) for number in range(n)
    ]
    for split, n in (('train', 9), ('test', 6))
}


def write(names, result=None, measured=None, annotation=(), **more):
    manifest = {
        'name': 'pets & "co"',
        'labels': names,
        'sha256': {'a.onnx': ''},
        'transform': [
            {'op': 'center_crop', 'size': 32, 'resize': 37},
            {'op': 'normalize', 'mean': [0.5] * 3, 'std': [0.25] * 3},
        ],
        'input': {'shape': [-1, 3, 32, 32]},
        'temperature': 1.0,
        'trained': {'arch': 'resnet18', 'pretrained': False, 'epoch': 7, 'flip_average': False},
        'versions': {'paddle': '3.3.1', 'python': '3.11'},
        'measured': measured,
        **more,
    }
    settings = {
        'data': {'root': 'my/photos'},
        'seed': 5,
        'train': {'head': 'sgd', 'epochs': 9},
        'optim': {'name': 'momentum'},
    }
    about = {
        'config': settings,
        'metrics': result,
        'not_measured': 'there was no report',
        'annotation': dict(annotation),
    }
    return card.write(manifest, about, SPLITS)


def measure(names, probabilities):
    labels = np.array([0, 1, 2, 0, 1, 2])
    found = metrics.evaluate(labels, probabilities, names)
    return {**found, 'calibration': calibration.evaluate(labels, probabilities), 'worse': []}


WRONG_ONCE = np.eye(3)[[0, 1, 2, 0, 1, 1]] * 0.7 + 0.1


@NAMES
def test_the_figures_are_those_of_the_report_and_names_are_escaped(names):
    text = write(names, measure(names, WRONG_ONCE))
    assert 'right for **83.3%** of 6 photos (test photos; 95% interval 43.6% to 97.0%;' in text
    assert f'| {card.plain(names[2])} | 2 | 50.0% | 9.5% to 90.5% | 100.0% |' in text
    assert f'The class found least often is {card.plain(names[2])}: 1 of 2 photos.' in text
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert all(line.replace('\\|', '').count('|') in (4, 6) for line in rows), rows
    about = yaml.safe_load(text.split('---\n')[1])
    assert about['model-index'][0]['name'] == 'pets & "co"'
    assert about['model-index'][0]['results'][0]['metrics'] == [{'type': 'accuracy', 'value': 0.8333}]


@NAMES
def test_what_was_not_measured_has_no_figure(names):
    text = write(names)
    assert 'Its accuracy was not measured when it was exported: there was no report.' in text
    assert '%' not in text and 'model-index' not in text and '导出时没有测量准确率' in text
    assert 'momentum, up to 9 epochs; these weights are of epoch 7' in text and '9 × 9' not in text


def test_folds_come_first_with_what_guessing_gives():
    folds = {'top1': 0.9, 'interval_95': [0.7, 0.97], 'n': 30, 'k': 5, 'per_class': {'ox': [9, 10], 'tiger': [8, 10]}}
    text = write(ENGLISH, {**measure(ENGLISH, WRONG_ONCE), 'folds': folds}, {'guess': 0.4})
    assert '**90.0%** of 30 photos (all photos, over 5 folds;' in text and 'largest class: 40.0%' in text
    assert '| ox | 9 of 10 | 2 |' in text and 'found least often is tiger: 8 of 10 photos' in text
    assert '| rabbit | – | 2 |' in text  # no photo in the folds


def test_weak_groups_sizes_and_unknown_photos_are_limits():
    worse = {'kind': 'column', 'property': 'camera', 'value': 'web_1', 'top1': 0.5, 'n': 40, 'p': 0.0004}
    side = {'min': 54, 'median': 200, 'max': 900}
    annotation = {'sizes': {'width': side, 'height': {**side, 'min': 30}}, 'rejected_by_reason': {'damaged': 2}}
    result = {**measure(ENGLISH, WRONG_ONCE), 'worse': [worse]}
    text = write(ENGLISH, result, annotation=annotation, unknown={'keep': 0.95, 'level': 0.98})
    assert 'weaker on photos whose camera is web\\_1: right for 50.0% of 40 (p < 0.001,' in text
    assert 'less than 54 pixels wide or 30 pixels high' in text and 'left out: 2 damaged' in text
    assert 'How well it tells photos of something else was not measured.' in text
    assert 'always names one of its classes' in write(ENGLISH, result)
