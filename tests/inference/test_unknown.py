"""An export with reject.keep: every engine takes the same photos for known, the file is sealed, and exports without it are as before."""

import dataclasses
import json
import os

import numpy as np
import pytest
from conftest import assert_message, picture
from small_export import ENGINES, HAS_OPENVINO, ONNX, PICTURES, network_of, settings, write_sealed

import predict
import zodiac
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.images import transforms
from zodiac.inference import choice, engines, exported_model, reference
from zodiac.models import convert
from zodiac.training import rejection

NAMES = ['paddle', *(['onnxruntime'] if convert.can_save_onnx() else []), *(['openvino'] if HAS_OPENVINO else [])]


def features_of(images):
    """What enters the last layer of the small network, float32 [n, 12]."""
    cfg, network = settings(), network_of('small')
    transform = transforms.eval_transform(32, cfg.image.mean, cfg.image.std, 32)
    batch = np.stack([transforms.apply(transform, image) for image in images])
    with paddle.no_grad():
        return network.pool(paddle.to_tensor(batch)).flatten(1).numpy()


@pytest.fixture(scope='module')
def rejecting():
    """Fitted on forty pictures; the threshold is between the scores of PICTURES."""
    features = features_of([picture(number) for number in range(40)])
    labels = np.arange(40) % 4
    held = rejection.over_folds([features], labels, 4)
    found, _ = rejection.calibrate(rejection.reference(features, labels), held, 0.9, 0.9, 'lac')
    ordered = np.sort(found.score(features_of(PICTURES)))
    return dataclasses.replace(found, threshold=found.threshold + float(ordered[2] + ordered[1]) / 2)


@pytest.fixture(scope='module')
def exported(tmp_path_factory, rejecting):
    folder = tmp_path_factory.mktemp('sealed')
    network = network_of('small')
    network.eval()
    write_sealed(folder / 'infer', network, settings('reject.keep=0.9'), NAMES, rejection=rejecting)
    return folder / 'infer'


@pytest.fixture
def folder(exported, tmp_path):
    target = tmp_path / 'infer'
    target.mkdir()
    for path in exported.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize('engine', ENGINES)
def test_each_engine_takes_the_same_photos_for_known(exported, rejecting, engine):
    model = exported_model.load(str(exported), 'cpu', engine, 'fp32')
    answers = model.answers(np.stack([transforms.apply(model.transform, image) for image in PICTURES]))
    expected = rejecting.score(features_of(PICTURES))
    np.testing.assert_allclose([answer.score for answer in answers], expected, atol=1e-3)
    assert [answer.known for answer in answers] == (expected >= 0).tolist()
    assert {answer.known for answer in answers} == {True, False}
    for answer in answers:
        assert answer.labels[0] == answer.probabilities.argmax() and answer.finite
        assert (np.diff(answer.probabilities[answer.labels]) <= 0).all()


@ONNX
def test_an_engine_whose_features_move_the_decision_is_not_taken(exported, monkeypatch):
    start = engines.ENGINES['onnxruntime']

    def blurred(source, place):
        run = start(source, place)

        def changed(batch):
            *others, features = run(batch)
            return [*others, features * np.linspace(0.2, 2, features.shape[1], dtype=np.float32)]

        return changed

    monkeypatch.setitem(engines.ENGINES, 'onnxruntime', blurred)
    manifest, contents = exported_model._read(str(exported))
    for name, problem in (('paddle', False), ('onnxruntime', True)):
        (row,) = choice.measure(str(exported), manifest, contents, name, 'fp32')
        assert bool(row['problem']) == problem, row


def test_the_sealed_scores_are_those_of_the_network(exported, rejecting):
    manifest, contents = exported_model._read(str(exported))
    scores, margins = reference.unpack_scores(contents['small.reference.npz'])
    network, step = network_of('small'), manifest['transform'][-1]
    batch = reference.normalised(reference.pictures(32), step)
    with paddle.no_grad():
        features = network.pool(paddle.to_tensor(batch)).flatten(1).numpy()
    np.testing.assert_allclose(scores, rejecting.score(features), atol=1e-3)
    assert len(margins) == 8 and (margins >= 0).all()


def test_a_changed_or_missing_file_is_refused(folder):
    path = folder / 'small.unknown.npz'
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(UserError, match='small.unknown.npz: was changed after the export'):
        exported_model.load(str(folder))
    path.unlink()
    with pytest.raises(UserError, match='small.unknown.npz: is missing'):
        exported_model.load(str(folder))


def test_an_export_without_reject_answers_as_before(tmp_path):
    network = network_of('small')
    network.eval()
    manifest = write_sealed(tmp_path / 'infer', network, settings())
    assert not [name for name in os.listdir(tmp_path / 'infer') if 'unknown' in name]
    assert 'unknown' not in manifest and 'features' not in manifest['outputs']
    model = exported_model.load(str(tmp_path / 'infer'), 'cpu', 'paddle')
    (answer,) = model.answers(transforms.apply(model.transform, PICTURES[0])[None])
    assert (answer.known, answer.score, answer.labels, answer.features) == (None, None, None, None)
    assert exported_model.judgement(answer, model.labels) == {}
    (one,) = zodiac.load(tmp_path / 'infer', 'paddle').predict(PICTURES[0])
    assert (one.known, one.score, one.set) == (None, None, None)


def test_predictions_tell_it_in_lines_json_csv_and_python(exported, rejecting, call_script, tmp_path):
    for number, image in enumerate(PICTURES):
        image.save(tmp_path / f'{number}.png')
    paths = [f'{number}.png' for number in range(len(PICTURES))]
    scores = rejecting.score(features_of(PICTURES))
    lines = call_script('predict.py', exported, *paths, '--engine', 'paddle', cwd=tmp_path).stdout.splitlines()
    rows = call_script('predict.py', exported, *paths, '--engine', 'paddle', '--json', cwd=tmp_path).stdout.splitlines()
    found = zodiac.load(exported, 'paddle').predict([str(tmp_path / path) for path in paths])
    for line, row, one, score in zip(lines, map(json.loads, rows), found, scores):
        assert row['known'] == one.known == bool(score >= 0)
        assert row['score'] == pytest.approx(score, abs=1e-3) and row['set'] == one.set
        assert row['label'] == one.label == row['top'][0]['label'] and one.set[0] == one.label
        cells = line.split('\t')
        if not one.known:
            assert cells[1:] == [f'none of these (nearest: {one.label} {one.probability:.2f})']
        else:
            assert cells[1:3] == [one.label, f'{one.probability:.4f}']
            assert cells[3:] == ([' or '.join(one.set)] if len(one.set) > 1 else [])
    result = call_script('predict.py', exported, *paths, '--csv', 'a.csv', '--sort-into', 'sorted', cwd=tmp_path)
    assert_message(result, 0, 'copied into sorted/: 5')
    titles, *table = [line.split(',') for line in (tmp_path / 'a.csv').read_text().splitlines()]
    assert titles == ['path', 'label', 'probability', 'known', 'score', 'set']
    assert [row[3] for row in table] == [str(int(score >= 0)) for score in scores]
    assert len(os.listdir(tmp_path / 'sorted' / predict.NONE)) == (scores < 0).sum()


def test_rejection_needs_the_features_of_the_export():
    assert settings('reject.keep=0.9').exports_features and not settings().exports_features
    with pytest.raises(UsageError, match='export.features = False: must be auto or true with reject.keep'):
        settings('reject.keep=0.9', 'export.features=false')
