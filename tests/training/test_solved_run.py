"""train.head=linear: one network that the other scripts use like any other, from a head that is solved."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_message, run_script
from small_runs import SETTINGS, log_of, run_train, write_index

import config
import evaluate
from dataset import ZodiacDataset
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import weights
from zodiac.training import callbacks, checkpoint, features, linear_head, solved_run

nn = paddle.nn
LINEAR = [*SETTINGS, 'model.freeze=backbone', 'train.head=linear', 'data.cache=cache']


class Network(nn.Layer):
    def __init__(self, *more):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU())
        self.fc = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), *more, nn.Linear(144, 3))

    def forward(self, x):
        return self.fc(self.stage(x))


@pytest.fixture
def solve(workdir, monkeypatch):
    """Run train.py with a small network whose head is solved."""
    write_index('train', [number % 3 for number in range(13)])
    write_index('valid', [number % 3 for number in range(7)])

    def call(*overrides, flags=(), network=Network, asked=None):
        def make():
            paddle.seed(0)
            return network()

        return run_train(monkeypatch, make, [*LINEAR, *overrides, *flags], asked)

    return call


def features_of(run, mode, augment=False):
    """Features of the images under the backbone of a run, and its (weight, bias)."""
    values, network = weights.read(f'{run}/best/model.pdparams'), Network()
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})
    network.eval()
    images = ZodiacDataset(mode, augment=augment, cfg=config.load(overrides=LINEAR))
    inputs = paddle.to_tensor(np.stack([images[number][0] for number in range(len(images))]))
    return network.stage(inputs).flatten(1).numpy(), images.labels, (values['fc.2.weight'], values['fc.2.bias'])


def test_the_network_of_the_run_holds_the_solution_and_all_its_files(solve):
    run = solve()
    found, labels, (weight, bias) = features_of(run, 'train')
    expected = linear_head.solve([found], labels, 3)
    assert np.allclose(linear_head.softmax(found @ weight + bias, axis=1), expected.probabilities(found), atol=2e-3)
    (row,) = log_of(run)
    right = (expected.probabilities(found).argmax(1) == labels).mean()
    assert row['epoch'] == '1' and float(row['train_top1']) == pytest.approx(right, abs=1e-5)
    assert checkpoint.epochs(run) == ['step_0000004'] and os.listdir(run / 'visualdl')
    assert config.load(f'{run}/config.yaml').train.head == 'linear'
    for path in (f'{run}/checkpoints/step_0000004/model.pdparams', f'{run}.pdparams'):
        assert np.array_equal(weights.read(path)['fc.2.weight'], weight)


def test_resuming_a_solved_run_changes_nothing(solve, capsys):
    before = weights.read(f'{solve()}.pdparams')
    capsys.readouterr()
    run = solve(flags=['--resume'])
    assert 'nothing to do' in capsys.readouterr().err
    after = weights.read(f'{run}.pdparams')
    assert all(np.array_equal(before[name], after[name]) for name in before) and len(log_of(run)) == 1


def test_an_interrupted_run_is_resumed_with_its_solution(solve):
    expected = weights.read(f'{solve("name=whole")}.pdparams')
    with pytest.raises(KeyboardInterrupt):
        solve('name=stopped', 'train.save_steps=1', asked=2)
    found = weights.read(f'{solve("name=stopped", flags=["--resume"])}.pdparams')
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    'more', [['train.views=2'], ['evaluate.flip_average=true'], ['train.class_weights=balanced']], ids=str
)
def test_views_mirror_images_and_class_weights_change_the_solution(solve, more):
    plain, other = (weights.read(f'{run}.pdparams')['fc.2.weight'] for run in (solve('name=a'), solve('name=b', *more)))
    assert not np.allclose(plain, other, atol=1e-5)


def test_each_file_is_hashed_once(solve, monkeypatch):
    hashed, content = [], features._content
    monkeypatch.setattr(features, '_content', lambda path: hashed.append(path) or content(path))
    solve('train.views=2', 'evaluate.flip_average=true')
    assert len(hashed) == len(set(hashed)) == 20


def test_a_head_with_two_layers_that_learn_is_refused_before_anything_is_written(solve):
    with pytest.raises(UsageError, match='train.head = linear: .*Linear, ReLU, Linear.*train.head=sgd'):
        solve(network=lambda: Network(nn.Linear(144, 144), nn.ReLU()))
    assert not os.path.exists('output/run')


def test_a_head_without_bias_is_refused_before_anything_is_written(solve):
    def network():
        made = Network()
        made.fc[2] = nn.Linear(144, 3, bias_attr=False)  # as in cifarnet
        return made

    with pytest.raises(UsageError, match='train.head = linear: .*no bias.*train.head=sgd'):
        solve(network=network)
    assert not os.path.exists('output/run')


@pytest.mark.parametrize(
    ('overrides', 'word'),
    [
        (['model.freeze=none'], 'model.freeze is backbone'),
        (['model.freeze=layer3'], 'model.freeze is backbone'),
        (['train.mixup=0.2'], 'train.mixup'),
        (['train.cutmix=1'], 'train.cutmix'),
        (['train.label_smoothing=0.1'], 'train.label_smoothing'),
    ],
)
def test_settings_that_a_solved_head_cannot_follow_are_refused(overrides, word):
    with pytest.raises(UsageError, match=f'train.head = .linear.: must be sgd .*{word}'):
        config.load(overrides=['model.freeze=backbone', 'train.head=linear', *overrides])


def test_several_processes_are_refused(workdir):
    done = run_script('train.py', '--nproc', '2', '-o', *LINEAR, cwd='.')
    assert_message(done, 2, 'train.head', '--nproc')


# Fine-tuning from the solved head

TUNE = ['model.unfreeze_epoch=2', 'train.epochs=3', 'train.batch_norm=learn', 'optim.lr=0.01']


def test_the_head_is_solved_in_epoch_1_and_then_all_layers_learn(solve, capsys):
    frozen = solve('name=frozen')
    run = solve(*TUNE, 'train.keep_checkpoints=3')
    rows = log_of(run)
    assert [(row['epoch'], row['lr'] == '0') for row in rows] == [('1', True), ('2', False), ('3', False)]
    assert rows[0] == log_of(frozen)[0]
    first, last = (weights.read(f'{run}/checkpoints/step_{step:07d}/model.pdparams') for step in (4, 12))
    before = weights.read(f'{frozen}.pdparams')
    for name in before:
        assert np.array_equal(first[name], before[name]), name
        assert not np.array_equal(last[name], first[name]), name
    best = json.loads((run / 'best/state.json').read_text())
    assert best['valid_top1'] == pytest.approx(max(float(row['valid_top1']) for row in rows), abs=1e-5)
    assert config.load(f'{run}/config.yaml').model.unfreeze_epoch == 2
    assert 'from epoch 2 on, these layers learn too: stage' in capsys.readouterr().err


@pytest.mark.parametrize('asked', [2, 6])
def test_a_run_stopped_in_either_part_is_resumed_exactly(solve, asked):
    how = [*TUNE, 'train.class_weights=balanced', 'train.ema=0.5', 'optim.layer_decay=0.5']
    expected = solve('name=whole', *how)
    with pytest.raises(KeyboardInterrupt):
        solve('name=stopped', 'train.save_steps=1', *how, asked=asked)
    run = solve('name=stopped', *how, flags=['--resume'])
    assert log_of(run) == log_of(expected)
    ours, theirs = (weights.read(f'{one}.pdparams') for one in (run, expected))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_solved_run_can_be_fine_tuned_later(solve):
    expected = solve('name=whole', *TUNE)
    solve('name=later')
    assert log_of(solve('name=later', *TUNE, flags=['--resume'])) == log_of(expected)


@pytest.mark.parametrize(
    ('images', 'place', 'parts'), [(1999, 'gpu:0', 1), (2000, 'gpu:0', 2), (2000, 'cpu', 1), (1999, 'cpu', 1)]
)
def test_auto_fine_tunes_many_images_on_a_gpu(images, place, parts):
    cfg, said = config.load(overrides=[*LINEAR, 'model.unfreeze_epoch=auto', 'train.batch_norm=learn']), []
    found = solved_run.parts(cfg, images, place, said.append)
    assert [part.model.unfreeze_epoch for part in found] == [0, 2][:parts]
    assert [text for text in said if 'model.unfreeze_epoch=2' in text] == said and len(said) == (
        (images, place) == (2000, 'cpu')
    )


def test_a_long_run_says_how_long(solve, monkeypatch, capsys):
    monkeypatch.setattr(callbacks, 'LONG', 0)
    solve(*TUNE, 'train.batch_size=2')
    assert capsys.readouterr().err.count('training takes about 0 minutes more') == 2, 'once in each part'


def test_nothing_learns_in_the_epoch_in_which_the_head_is_solved():
    with pytest.raises(UsageError, match='model.unfreeze_epoch = 1: must be .* 2 or more'):
        config.load(overrides=['model.freeze=backbone', 'train.head=linear', 'model.unfreeze_epoch=1'])


def test_auto_never_unfreezes_a_head_that_is_trained_in_steps():
    assert config.load(overrides=['model.unfreeze_epoch=auto']).model.unfreeze_epoch == 0


# Folds


@pytest.fixture
def measure(solve, monkeypatch):
    """Solve a head, then evaluate.py on it; returns metrics.json."""

    def call(*more):
        run = solve('data.labels=[a,b,c]', *more)
        monkeypatch.setattr(checkpoint.builder, 'build', lambda *_: Network())
        cfg = config.use(overrides=[*LINEAR, 'evaluate.folds=2', 'evaluate.split=valid', *more])
        evaluate.evaluate(cfg)
        return json.loads((run / 'report-valid/metrics.json').read_text())

    return call


def test_folds_are_measured_on_all_images_and_stand_beside_the_split(measure, capsys):
    result = measure()
    assert set(result['folds']) == {'top1', 'interval_95', 'n', 'k'}
    assert (result['folds']['n'], result['folds']['k'], result['n']) == (20, 2, 7)
    assert result['learning_curve']['points'][0]['per_class'] == 3
    with open('output/run/report-valid/folds.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['path'] for row in rows[:2]] == ['train/0.png', 'train/1.png'] and len(rows) == 20
    assert sum(row['label'] == row['prediction'] for row in rows) == result['folds']['top1'] * 20
    said = capsys.readouterr()
    assert said.err.count('features: none computed') == 1, 'the training has computed them'
    assert 'over 2 folds' in said.out
    page = Path('output/run/report-valid/report.html').read_text()
    assert page.index('over 2 folds of all 20 photos') < page.index('on 7 photos (')
    assert 'How many photos are enough?' in page


def test_the_mean_of_mirror_images_is_measured_as_it_is_learned(measure, capsys):
    assert measure('evaluate.flip_average=true')['folds']['n'] == 20
    assert 'features: 7 computed' in capsys.readouterr().err, 'the mirror images of the validation images'


def test_metrics_from_features_are_those_of_the_network(measure, monkeypatch):
    def fail(*_):
        raise features.NoFeatures('no')

    from_features = measure('evaluate.flip_average=true')
    monkeypatch.setattr(features.Extractor, 'logits', fail)
    from_images = measure('evaluate.flip_average=true')
    assert from_features['loss'] == pytest.approx(from_images['loss'], abs=1e-4)
    assert from_features['confusion_matrix'] == from_images['confusion_matrix']


def test_folds_are_not_measured_on_features_that_were_learned_from_the_images(measure, capsys):
    result = measure(*TUNE, 'evaluate.weights=last')
    assert 'folds' not in result and 'evaluate.folds: not measured' in capsys.readouterr().err


def test_too_many_folds_write_no_report(measure):
    with pytest.raises(UserError, match='evaluate.folds = 9: .*too few of'):
        measure('evaluate.folds=9')
    assert not os.path.exists('output/run/report-valid')


@pytest.mark.parametrize(
    ('overrides', 'word'), [(['evaluate.folds=1'], '2 or more'), (['evaluate.folds=5'], 'train.head is linear')]
)
def test_folds_without_a_solved_head_are_refused(overrides, word):
    with pytest.raises(UsageError, match=f'evaluate.folds = .*{word}'):
        config.load(overrides=overrides)
