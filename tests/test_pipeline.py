"""The scripts one after another on a small drawn tree, as a user runs them, and what they say to bad input."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from conftest import ROOT, assert_message, make_tree, picture, run_script, without_pictures

import config
from zodiac.base import packages
from zodiac.base.errors import UserError
from zodiac.models import weights
from zodiac.report import compare

LABELS = ['cat', 'dog', '猫']
ONNX = pytest.mark.skipif(bool(packages.why_no_onnx()), reason='requirements-deploy.txt is not installed')
SETTINGS = ['-o', 'name=small', 'data.root=photos', 'data.labels=[cat,dog,猫]', 'image.size=32', 'model.arch=cifarnet']
TRAINING = [*SETTINGS, 'model.pretrained=false', 'train.epochs=2', 'train.batch_size=4', 'optim.lr=0.0005']


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A working directory in which annotate, train, evaluate and export have run."""
    cwd = tmp_path_factory.mktemp('run')
    make_tree(cwd / 'photos', LABELS, {'train': 6, 'valid': 3, 'test': 4})
    (cwd / 'said').mkdir()
    for script, settings in (
        ('annotate.py', SETTINGS),
        ('train.py', TRAINING),
        ('evaluate.py', SETTINGS),
        ('export.py', SETTINGS),
    ):
        result = run_script(script, *settings, cwd=cwd)
        assert result.returncode == 0, result.stderr
        (cwd / 'said' / script).write_text(result.stderr, encoding='utf-8')
    return cwd


def copy_of(finished, tmp_path):
    """A copy of it, in which large files are links: a test that damages one of them removes it first."""

    def link_or_copy(source, target):
        return os.link(source, target) if os.path.getsize(source) > 1 << 20 else shutil.copy2(source, target)

    return shutil.copytree(finished, tmp_path / 'copy', copy_function=link_or_copy)


def test_printed_commands_can_be_pasted_for_any_run_name(finished, tmp_path, call_script):
    cwd = copy_of(finished, tmp_path)
    os.rename(cwd / 'output' / 'small', cwd / 'output' / 'two words')
    settings = [*SETTINGS, 'name=two words']
    said = call_script('export.py', *settings, 'export.onnx=false', cwd=cwd).stdout
    command = re.search(r'^next: (.*)', said, re.MULTILINE)[1]
    pasted = subprocess.run(command, shell=True, cwd=cwd, capture_output=True)
    assert pasted.returncode == 0, pasted.stderr
    assert len(pasted.stdout.splitlines()) == 1
    wrong = call_script('evaluate.py', *settings, 'evaluate.engine=onnxruntime', cwd=cwd).stderr
    override = shlex.split(re.search(r'-o (.*)', wrong)[1])
    assert config.load(overrides=override).evaluate.weights == 'output/two words/infer'
    os.remove(cwd / 'output' / 'two words' / 'report' / 'predictions.csv')
    with pytest.raises(UserError) as caught:
        compare.read('output/two words')
    assert "evaluate.py -c 'output/two words/config.yaml' first" in str(caught.value)


def read_csv(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_training_writes_the_files_of_a_run(finished):
    run = finished / 'output' / 'small'
    rows = read_csv(run / 'log.csv')

    assert list(rows[0]) == [
        *('epoch', 'step', 'lr', 'train_loss', 'train_top1', 'valid_loss', 'valid_top1', 'seconds', 'images_per_second')
    ]
    assert [(row['epoch'], row['step']) for row in rows] == [('1', '5'), ('2', '10')]  # 18 images in batches of 4
    assert sorted(path.name for path in (run / 'checkpoints').iterdir()) == ['step_0000005', 'step_0000010']
    assert (run / 'best' / 'model.pdparams').is_file()
    assert any((run / 'visualdl').iterdir())
    assert (finished / 'output' / 'small.pdparams').is_file()
    assert 'epochs: 2' in (run / 'config.yaml').read_text(encoding='utf-8')


def test_visualdl_holds_the_curves_and_sample_images(finished):
    from visualdl import LogReader

    (file,) = (finished / 'output/small/visualdl').glob('vdlrecords*')
    reader = LogReader(file_path=str(file))
    last = read_csv(finished / 'output/small/log.csv')[-1]

    assert set(reader.get_tags()['scalar']) == {
        *('train/loss', 'train/top1', 'train/lr', 'train/images_per_second', 'valid/loss', 'valid/top1')
    }
    assert len(reader.get_tags()['image']) == 8
    assert [record.id for record in reader.get_data('scalar', 'train/loss')] == list(range(1, 11))
    assert reader.get_data('scalar', 'valid/loss')[-1].value == pytest.approx(float(last['valid_loss']), rel=1e-4)


def test_visualdl_holds_the_pictures_of_the_evaluation(finished):
    from visualdl import LogReader

    (file,) = (finished / 'output/small/visualdl/evaluation').iterdir()
    assert set(LogReader(file_path=str(file)).get_tags()['image']) >= {'confusion matrix', 'pr curves', 'predictions'}


def test_training_prints_its_images_parameters_and_initial_weights(finished):
    said = (finished / 'said' / 'train.py').read_text(encoding='utf-8')

    assert 'training images: 18, validation images: 9, classes: 3, device: ' in said
    assert 'cifarnet is trained from scratch' in said
    assert 'cifarnet: 1,973,304 parameters' in said
    assert 'Warning' not in said


def test_the_learning_rate_follows_the_cosine_over_all_steps(finished):
    import math

    rows = read_csv(finished / 'output' / 'small' / 'log.csv')

    for row in rows:
        step = int(row['step']) - 1  # the rate that the last step of the epoch used
        assert float(row['lr']) == pytest.approx(0.0005 * (1 + math.cos(math.pi * step / 10)) / 2, rel=1e-4)


def test_the_log_agrees_with_an_evaluation_of_the_same_weights(call_script, finished, tmp_path):
    cwd = copy_of(finished, tmp_path)
    result = call_script('evaluate.py', *SETTINGS, 'evaluate.split=valid', 'evaluate.weights=last', cwd=cwd)
    assert result.returncode == 0, result.stderr

    metrics = json.loads((cwd / 'output/small/report-valid/metrics.json').read_text(encoding='utf-8'))
    last = read_csv(cwd / 'output/small/log.csv')[-1]

    assert metrics['loss'] == pytest.approx(float(last['valid_loss']), rel=1e-4)
    assert metrics['top1'] == pytest.approx(float(last['valid_top1']), abs=1e-4)


def test_evaluation_writes_its_numbers_and_pictures(finished):
    report = finished / 'output/small/report'
    metrics = json.loads((report / 'metrics.json').read_text(encoding='utf-8'))
    rows = read_csv(report / 'predictions.csv')

    assert (metrics['split'], metrics['n'], metrics['top5'], len(metrics['confusion_matrix'])) == ('test', 12, 1.0, 3)
    assert set(metrics['per_class']) == set(LABELS)
    assert metrics['top1'] == pytest.approx(sum(int(row['correct']) for row in rows) / 12)
    assert metrics['near_duplicates'] == {'images': 0, 'top1_without': metrics['top1']}
    assert len({row['id'] for row in metrics['sample']}) == 6
    for row in metrics['sample']:
        assert rows[row['id']]['label'] == row['label'] and rows[row['id']]['prediction'] == row['prediction']
    table = {row['name']: row['value'] for row in read_csv(report / 'metrics.csv')}
    low, high = metrics['top1_interval_95']
    expected = {'top1': metrics['top1'], 'top1_interval_95_low': low, 'top1_interval_95_high': high}
    assert {name: float(table[name]) for name in expected} == expected
    assert float(table['calibration_ece']) == metrics['calibration']['ece']
    for row in read_csv(report / 'per_class.csv'):
        assert float(row['f1']) == metrics['per_class'][row['class']]['f1']
    counts = [list(row.values()) for row in read_csv(report / 'confusion_matrix.csv')]
    assert counts == [[name, *map(str, row)] for name, row in zip(LABELS, metrics['confusion_matrix'])]
    for name in (
        'confusion_matrix.png',
        'pr_curves.png',
        'curves.png',
        'predictions.png',
        'reliability.png',
        'classes.png',
    ):
        assert (report / name).read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'


def test_evaluation_writes_a_page_with_every_part(finished):
    report = finished / 'output/small/report'
    metrics = json.loads((report / 'metrics.json').read_text(encoding='utf-8'))
    page = (report / 'report.html').read_text(encoding='utf-8')
    for words in (
        'Grad-CAM',
        'Confusion matrix',
        'How far to trust the probabilities',
        'A random sample',
        'Training',
        'photos accepted',
        'Sizes and modes',
        'No validation or test photo is a near-copy of a training photo.',
    ):
        assert words in page
    for label in LABELS:
        assert f'<div class="cell">{label}</div>' in page
    for row in metrics['sample']:
        assert row['path'].replace('/', '/<wbr>') in page
    assert 0 <= metrics['sample_interval_95'][0] <= metrics['top1'] <= metrics['sample_interval_95'][1] <= 1
    assert 0 <= metrics['calibration']['ece'] <= 1
    assert page.count('src="data:image/') > 15 and 'http' not in without_pictures(page)


def test_a_run_compared_with_itself_shows_no_difference(finished):
    result = run_script('evaluate.py', '--compare', 'small', 'output/small', cwd=finished)
    assert_message(result, 0)
    assert 'the difference may be chance' in result.stdout and 'p = 1)' in result.stdout
    comparison = json.loads((finished / 'output/small_vs_small/compare.json').read_text(encoding='utf-8'))
    assert (comparison['n'], comparison['difference'], comparison['differing']) == (12, 0, [])


def test_prediction_of_the_export_agrees_with_evaluation_on_every_image(call_script, finished):
    result = call_script('predict.py', 'output/small/infer', 'photos/test', cwd=finished)
    assert result.returncode == 0, result.stderr

    predicted = {
        path: (label, float(p)) for path, label, p in (line.split('\t') for line in result.stdout.splitlines())
    }
    rows = read_csv(finished / 'output/small/report/predictions.csv')

    assert len(predicted) == len(rows) == 12
    for row in rows:
        label, probability = predicted[row['path']]
        assert label == row['prediction']
        assert probability == pytest.approx(float(row['probability']), abs=2e-4)


def test_predict_gives_top_n_json_and_csv(call_script, finished, tmp_path):
    image = 'photos/test/猫/猫_0.jpg'
    as_json = call_script('predict.py', 'output/small/infer', image, '--json', '--top', '3', cwd=finished)
    to_csv = call_script(
        'predict.py', 'output/small/infer', image, '--csv', tmp_path / 'a.csv', '--top', '9', cwd=finished
    )

    record = json.loads(as_json.stdout)
    row = read_csv(tmp_path / 'a.csv')[0]

    assert record['path'] == image and len(record['top']) == 3
    assert sum(guess['probability'] for guess in record['top']) == pytest.approx(1, abs=1e-4)
    assert to_csv.returncode == 0 and row['path'] == image and row['label'] == record['label'] and row['label3']


def test_a_second_run_of_the_same_name_keeps_the_first_one(finished, tmp_path):
    cwd = copy_of(finished, tmp_path)
    before = (cwd / 'output/small/log.csv').read_bytes()

    result = run_script('train.py', *TRAINING, 'train.epochs=1', cwd=cwd)

    assert result.returncode == 0, result.stderr
    assert (cwd / 'output/small.previous/log.csv').read_bytes() == before
    assert len(read_csv(cwd / 'output/small/log.csv')) == 1


def test_save_steps_adds_checkpoints_to_those_of_the_epochs(finished, tmp_path):
    shutil.copytree(finished / 'photos', tmp_path / 'photos')

    result = run_script('train.py', *TRAINING, 'train.save_steps=3', 'train.keep_checkpoints=4', cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    folder = tmp_path / 'output/small/checkpoints'
    states = [json.loads((path / 'state.json').read_text()) for path in sorted(folder.iterdir())]
    assert [(state['step'], state['epoch']) for state in states] == [(3, 0), (5, 1), (8, 1), (10, 2)]
    for path, state in zip(sorted(folder.iterdir()), states):
        assert weights.read(path / 'model.pdopt')['LR_Scheduler']['last_epoch'] == state['step']


def test_equal_seeds_give_equal_logs_with_any_number_of_workers(finished, tmp_path):
    logs = []
    for workers in (0, 2):
        cwd = tmp_path / str(workers)
        shutil.copytree(finished / 'photos', cwd / 'photos')
        result = run_script('train.py', *TRAINING, f'data.num_workers={workers}', cwd=cwd)
        assert result.returncode == 0, result.stderr
        logs.append([list(row.values())[:7] for row in read_csv(cwd / 'output/small/log.csv')])

    assert logs[0] == logs[1]
    assert logs[0] == [list(row.values())[:7] for row in read_csv(finished / 'output/small/log.csv')]


def test_ctrl_c_leaves_a_checkpoint_that_can_be_evaluated(call_script, finished, tmp_path):
    cwd = tmp_path
    shutil.copytree(finished / 'photos', cwd / 'photos')
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'train.py'), *TRAINING, 'train.epochs=1000'],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = cwd / 'output/small/log.csv'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) > 1):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert 'Traceback' not in said and 'checkpoints/step_' in said
    result = call_script('evaluate.py', *SETTINGS, 'evaluate.weights=last', cwd=cwd)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_damaged_after_annotation_ends_the_run_with_its_name(finished, tmp_path, workers):
    cwd = copy_of(finished, tmp_path)
    path = cwd / 'photos/train/dog/dog_1.jpg'
    path.write_bytes(path.read_bytes()[:200])

    result = run_script('train.py', *TRAINING, f'data.num_workers={workers}', 'name=other', cwd=cwd)

    assert_message(result, 1, 'photos/train/dog/dog_1.jpg', 'truncated or damaged', 'annotate.py')


def test_a_non_finite_loss_stops_the_run_and_names_the_step(call_script, finished, tmp_path):
    cwd = copy_of(finished, tmp_path)

    result = call_script('train.py', *TRAINING, 'optim.lr=1e30', cwd=cwd)

    assert_message(result, 1, 'loss is', 'epoch 1, step', 'optim.lr')


def test_two_processes_train_and_only_the_first_one_writes(finished, tmp_path):
    cwd = tmp_path
    shutil.copytree(finished / 'photos', cwd / 'photos')
    launch = [sys.executable, '-m', 'paddle.distributed.launch', '--nproc_per_node', '2', '--log_dir', 'logs']

    result = subprocess.run(
        [*launch, str(ROOT / 'train.py'), *TRAINING, 'device=cpu'], cwd=cwd, capture_output=True, text=True, timeout=240
    )

    assert result.returncode == 0, result.stderr
    rows = read_csv(cwd / 'output/small/log.csv')
    assert [row['step'] for row in rows] == ['4', '8']  # 18 images in batches of 4, two for each process at least
    assert not (cwd / 'output/small.previous').exists()


@pytest.mark.parametrize(
    ('script', 'settings', 'status', 'words'),
    [
        ('train.py', ['train.epochs=abc'], 2, ['train.epochs', "'abc'", 'whole number']),
        ('train.py', ['trian.epochs=3'], 2, ['trian.epochs', 'train.epochs']),
        ('train.py', ['train.batch_size=0'], 2, ['train.batch_size', '>= 1']),
        ('train.py', ['device=gpu:7'], 2, ['device = gpu:7', 'device=cpu']),
        ('train.py', ['device=cpu', 'train.amp=O1'], 1, ['train.amp']),
        ('train.py', ['device=cpu', 'train.sync_batch_norm=true'], 1, ['train.sync_batch_norm=false']),
        ('train.py', ['model.pretrained=nowhere.pdparams'], 1, ['nowhere.pdparams']),
        ('train.py', ['data.labels=[cat,dog,猫,pig]'], 1, ['pig', 'no images']),
        ('train.py', ['data.labels=[cat,dog]'], 1, ['photos/train.txt:', "label '2'", '0 to 1']),
        ('evaluate.py', ['evaluate.weights=elsewhere'], 1, ['elsewhere']),
        ('evaluate.py', ['evaluate.engine=onnxruntime'], 1, ['evaluate.engine', 'evaluate.weights=output/small/infer']),
        ('evaluate.py', ['data.labels=[dog,cat,猫]'], 1, ['data.labels', 'output/small/config.yaml']),
        ('evaluate.py', ['model.arch=resnet34'], 1, ['model.arch', 'cifarnet']),
        ('export.py', ['image.size=64'], 1, ['image', 'output/small/config.yaml']),
        (
            'evaluate.py',
            ['evaluate.weights=output/small.pdparams', 'data.labels=[cat,dog,猫,pig]'],
            1,
            ['was trained with data.labels', 'pig'],
        ),
        ('export.py', ['name=never'], 1, ['output/never/best', 'train.py']),
    ],
)
def test_wrong_settings_end_in_one_message(call_script, finished, script, settings, status, words):
    base = TRAINING if script == 'train.py' else SETTINGS

    result = call_script(script, *base, *settings, cwd=finished)

    assert_message(result, status, *words)


def test_an_output_folder_that_cannot_be_written_is_named(call_script, finished, tmp_path):
    shutil.copytree(finished / 'photos', tmp_path / 'photos')
    (tmp_path / 'output').write_text('a file where the folder should be')

    result = call_script('train.py', *TRAINING, cwd=tmp_path)

    assert_message(result, 1, 'output/small', 'cannot write')


def test_predict_refuses_a_folder_that_is_not_an_export(call_script, finished, tmp_path):
    (tmp_path / 'empty').mkdir()
    image = finished / 'photos/test/cat/cat_0.jpg'

    assert_message(call_script('predict.py', 'empty', image, cwd=tmp_path), 1, 'empty', 'inference.yaml')
    assert_message(call_script('predict.py', cwd=tmp_path), 2, 'usage')


@pytest.mark.parametrize('damage', ['truncated', 'missing', 'flipped', 'manifest'])
def test_predict_refuses_a_damaged_export(call_script, finished, tmp_path, damage):
    infer = shutil.copytree(finished / 'output/small/infer', tmp_path / 'infer')
    weights = infer / 'small.pdiparams'
    content = weights.read_bytes()
    if damage == 'truncated':
        weights.write_bytes(content[: len(content) // 2])
    elif damage == 'missing':
        weights.unlink()
    elif damage == 'flipped':
        weights.write_bytes(content[:1000] + bytes([content[1000] ^ 255]) + content[1001:])
    else:
        (infer / 'inference.yaml').write_text('labels: [cat', encoding='utf-8')

    result = call_script('predict.py', infer, finished / 'photos/test/cat/cat_0.jpg', cwd=tmp_path)

    assert_message(result, 1, 'inference.yaml' if damage == 'manifest' else 'small.pdiparams', 'export')


def test_an_export_of_paddle_3_is_refused_by_paddle_2_instead_of_crashing_it(finished, tmp_path, monkeypatch):
    import paddle

    from zodiac.inference import exported_model

    infer = shutil.copytree(finished / 'output/small/infer', tmp_path / 'infer')
    if (infer / 'small.pdmodel').is_file():
        pytest.skip('this Paddle writes the older format')
    monkeypatch.setattr(paddle, '__version__', '2.6.2')

    with pytest.raises(UserError, match=r'small\.json: needs Paddle 3'):
        exported_model.load(str(infer), 'cpu', 'paddle')


def test_predict_names_folders_without_images_and_files_that_cannot_be_read(call_script, finished, tmp_path):
    infer = finished / 'output/small/infer'
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'a.txt').write_text('text')
    (tmp_path / 'mixed').mkdir()
    (tmp_path / 'mixed' / 'bad.jpg').write_text('text')
    picture(5, mode='RGBA').save(tmp_path / 'mixed' / '猫 1.png')

    assert_message(call_script('predict.py', infer, 'empty', cwd=tmp_path), 1, 'empty', 'no images')
    assert_message(call_script('predict.py', infer, 'texts', cwd=tmp_path), 1, 'texts', 'no images')
    assert_message(call_script('predict.py', infer, 'gone.jpg', cwd=tmp_path), 1, 'gone.jpg')
    mixed = call_script('predict.py', infer, 'mixed', cwd=tmp_path)
    assert_message(mixed, 1, 'mixed/bad.jpg', 'not an image', '1 of 2')
    assert mixed.stdout.startswith('mixed/猫 1.png\t')


def test_evaluating_the_export_gives_the_metrics_of_the_network(finished, tmp_path, call_script):
    cwd = copy_of(finished, tmp_path)
    expected = json.loads((cwd / 'output/small/report/metrics.json').read_text(encoding='utf-8'))
    overrides = [*SETTINGS, 'evaluate.weights=output/small/infer']
    evaluated = call_script('evaluate.py', *overrides, cwd=cwd)
    assert_message(evaluated, 0)
    assert evaluated.stdout.endswith('serve.py output/small/infer\n')  # it is exported already
    found = json.loads((cwd / 'output/small/report/metrics.json').read_text(encoding='utf-8'))
    assert found['confusion_matrix'] == expected['confusion_matrix'] and found['epoch'] == expected['epoch']
    assert found['loss'] == pytest.approx(expected['loss'], rel=1e-4)
    assert (found['weights'], found['engine']) == ('output/small/infer', 'paddle')
    assert 'Grad-CAM' not in (cwd / 'output/small/report/report.html').read_text(encoding='utf-8')

    other = call_script('evaluate.py', *overrides, 'data.labels=[cat,dog,tiger]', cwd=cwd)
    assert_message(other, 1, 'output/small/infer', 'data.labels', '(new: tiger; gone: 猫)')


def test_an_export_that_fails_parity_keeps_the_old_one(call_script, finished, tmp_path):
    cwd = copy_of(finished, tmp_path)
    infer = cwd / 'output/small/infer'
    before = {name: (infer / name).read_bytes() for name in os.listdir(infer)}

    result = call_script('export.py', *SETTINGS, 'export.tolerance=1e-12', cwd=cwd)

    assert_message(result, 1, 'export.tolerance', 'not exported')
    assert {name: (infer / name).read_bytes() for name in os.listdir(infer)} == before
    assert sorted(os.listdir(cwd / 'output/small')) == sorted(os.listdir(finished / 'output/small'))


@ONNX
def test_openvino_is_not_the_default_where_it_disagrees(call_script, finished, tmp_path, monkeypatch):
    from zodiac.inference import engines

    cwd = copy_of(finished, tmp_path)
    monkeypatch.setattr(engines, 'installed', lambda package: True)
    monkeypatch.setitem(
        engines.ENGINES, 'openvino', lambda *_: lambda batch: [np.full((len(batch), 3), 1 / 3, 'float32')] * 2
    )

    result = call_script('export.py', *SETTINGS, cwd=cwd)

    assert_message(result, 0, 'warning', 'openvino', 'will not choose openvino')
    manifest = yaml.safe_load((cwd / 'output/small/infer/inference.yaml').read_text(encoding='utf-8'))
    assert set(manifest['parity']) & set(engines.ENGINES) == {'paddle', 'onnxruntime'}
    assert manifest['parity']['top1_agreement'] == 1.0


@ONNX
def test_int8_is_a_second_file_that_is_smaller_and_has_its_own_limits(call_script, finished, tmp_path, monkeypatch):
    cwd = copy_of(finished, tmp_path)
    infer = cwd / 'output/small/infer'
    settings = [*SETTINGS, 'export.int8=true']
    barely_trained = ['export.logit_tolerance=100', 'export.loss_tolerance=100']

    assert_message(call_script('export.py', *settings, 'export.agreement=0.5', *barely_trained, cwd=cwd), 0)

    manifest = yaml.safe_load((infer / 'inference.yaml').read_text(encoding='utf-8'))
    assert 'precision' not in manifest
    assert (infer / 'small.int8.onnx').stat().st_size < 0.3 * (infer / 'small.onnx').stat().st_size
    parity = manifest['parity']
    assert parity['int8']['onnxruntime']['largest_difference'] > 1e-4  # the price, and the others are as they were:
    assert parity['paddle']['largest_difference'] < 1e-4 and parity['onnxruntime']['largest_difference'] < 1e-4
    options = ['--engine', 'onnxruntime', '--precision', 'int8', '--json']
    lines = call_script('predict.py', infer, 'photos/test', *options, cwd=cwd).stdout.splitlines()
    assert [json.loads(line)['precision'] for line in lines] == ['int8'] * 12

    def spoil(path, target, batches):
        import onnx

        model = onnx.load(path)
        last = next(node for node in model.graph.node if node.op_type == 'Softmax')
        last.op_type = 'Neg'  # what was most probable is least so
        del last.attribute[:]
        onnx.save(model, target)

    from zodiac.models import convert

    kept = (infer / 'small.int8.onnx').read_bytes()
    monkeypatch.setattr(convert, 'quantize_onnx', spoil)
    failed = call_script('export.py', *settings, cwd=cwd)
    assert_message(failed, 1, 'onnxruntime', 'export.agreement = 0.98', 'older export is kept')
    assert (infer / 'small.int8.onnx').read_bytes() == kept


def test_an_unavailable_precision_is_refused(call_script, finished, tmp_path, monkeypatch):
    from zodiac.base import device

    cwd = copy_of(finished, tmp_path)
    monkeypatch.setattr(device, 'has_bf16', lambda: False)
    bf16 = ['output/small/infer', 'photos/test', '--precision', 'bf16']
    assert_message(call_script('predict.py', *bf16, cwd=cwd), 2, 'precision bf16', 'no bfloat16', 'use fp32')
    integers = [*SETTINGS, 'export.int8=true']
    monkeypatch.setattr(packages, 'why_no_onnx', lambda: ('not installed: onnx', 'install it'))
    assert_message(call_script('export.py', *integers, cwd=cwd), 1, 'export.int8=true', 'requirements-deploy.txt')
    assert_message(call_script('export.py', *integers, 'export.onnx=false', cwd=cwd), 2, 'export.onnx', 'int8')


def test_weights_for_pytorch_travel_with_the_export(call_script, finished, tmp_path, monkeypatch):
    pytest.importorskip('safetensors', reason='requirements-deploy.txt is not installed')
    cwd = copy_of(finished, tmp_path)
    options = [*SETTINGS, 'export.onnx=false', 'export.weights=safetensors', 'evaluate.flip_average=true']
    assert_message(call_script('export.py', *options, cwd=cwd), 0)
    infer = cwd / 'output/small/infer'
    manifest = yaml.safe_load((infer / 'inference.yaml').read_text(encoding='utf-8'))
    assert 'small.safetensors' in manifest['sha256']
    found = weights.read(str(infer / 'small.safetensors'))
    trained = weights.read(str(cwd / 'output/small/best/model.pdparams'))
    assert len(found) == len(trained) and not any(name.startswith('network.') for name in found)
    monkeypatch.setattr(packages, 'is_there', lambda module: module != 'safetensors')
    refused = call_script('export.py', *options, cwd=cwd)
    assert_message(refused, 1, 'export.weights=safetensors', 'not installed: safetensors', 'requirements-deploy.txt')
    assert (infer / 'small.safetensors').exists()


def test_a_damaged_checkpoint_is_refused(call_script, finished, tmp_path):
    cwd = copy_of(finished, tmp_path)
    weights = cwd / 'output/small/best/model.pdparams'
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[:-1])

    assert_message(call_script('evaluate.py', *SETTINGS, cwd=cwd), 1, 'best/model.pdparams', 'damaged')


def test_export_and_evaluation_name_a_missing_image_and_the_next_step(call_script, finished, tmp_path):
    cwd = copy_of(finished, tmp_path)
    before = sorted(os.listdir(cwd / 'output/small'))
    (cwd / 'photos/valid/dog/dog_0.jpg').unlink()
    (cwd / 'photos/test/dog/dog_0.jpg').unlink()
    weights_of_export = 'evaluate.weights=output/small/infer'
    exported = call_script('export.py', *SETTINGS, cwd=cwd)
    evaluated = call_script('evaluate.py', *SETTINGS, weights_of_export, cwd=cwd)
    assert_message(exported, 1, 'photos/valid/dog/dog_0.jpg: no such file', 'run annotate.py again')
    assert_message(evaluated, 1, 'photos/test/dog/dog_0.jpg: no such file', 'run annotate.py again')
    assert sorted(os.listdir(cwd / 'output/small')) == before


def test_int8_without_training_images_is_refused_at_the_start(call_script, finished, tmp_path, monkeypatch):
    from zodiac.models import convert

    cwd = copy_of(finished, tmp_path)
    (cwd / 'photos/train.txt').unlink()
    monkeypatch.setattr(packages, 'why_no_onnx', lambda: ())
    monkeypatch.setattr(convert, 'save_static', lambda *_: pytest.fail('the work must not begin'))
    result = call_script('export.py', *SETTINGS, 'export.int8=true', cwd=cwd)
    assert_message(result, 1, 'photos/train.txt', 'run annotate.py')
    assert 'quantize' not in result.stderr and '.part' not in result.stderr


def test_an_export_without_the_earlier_onnx_file_gives_a_warning(call_script, finished, tmp_path, monkeypatch):

    cwd = copy_of(finished, tmp_path)
    (cwd / 'output/small/infer/small.onnx').unlink()
    (cwd / 'output/small/infer/small.onnx').write_bytes(b'of an older export')
    monkeypatch.setattr(packages, 'why_no_onnx', lambda: ('not installed: onnx', 'install it'))
    first, second = (call_script('export.py', *SETTINGS, cwd=cwd) for _ in range(2))
    assert_message(first, 0, 'output/small/infer/small.onnx', 'was removed', 'requirements-deploy.txt')
    assert_message(second, 0)
    assert 'was removed' not in second.stderr


def test_a_full_disk_during_export_names_the_user_visible_path(call_script, finished, tmp_path, monkeypatch):
    import paddle

    def full(layer, path, **how):
        raise RuntimeError('[Errno 28] No space left on device')

    cwd = copy_of(finished, tmp_path)
    monkeypatch.setattr(paddle.jit, 'save', full)
    result = call_script('export.py', *SETTINGS, cwd=cwd)
    assert_message(result, 1, 'output/small/infer/small: cannot write it, the disk is full', 'free some space')
    assert '.part' not in result.stderr
