"""Engine and precision are chosen where the model runs: the fastest that gives the sealed logits. The choice is kept."""

import concurrent.futures
import json
import os
import shutil

import numpy as np
import pytest
from small_export import LABELS, ONNX, OPENVINO, PICTURES, network_of, settings, write, write_sealed

from zodiac.base import device, packages
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.images import transforms
from zodiac.inference import choice, engines, export_folder, exported_model, reference

LOGITS = np.random.default_rng(0).normal(0, 3, (64, 4)).astype('float32')
ONNX_FILES = {'small.onnx': 'x', 'small.int8.onnx': 'x'}
MANIFEST = {
    'name': 'small',
    'labels': LABELS,
    'transform': [],
    'input': {'shape': [-1, 32, 32, 3], 'dtype': 'uint8'},
    'output': {'name': 'logits'},
    'sha256': {**ONNX_FILES, 'small.reference.npz': 'x'},
    'parity': {},
}
BY_PIXELS = {picture.tobytes(): logits for picture, logits in zip(reference.pictures(32), LOGITS)}
NONE = np.zeros((0, 32, 32, 3), np.uint8)
CONTENTS = {
    **dict.fromkeys(ONNX_FILES, b''),
    'small.reference.npz': reference.pack(LOGITS, np.linspace(0.1, 10, 200, dtype='float32'), NONE, LOGITS[:0]),
}
MILLISECONDS = {  # of each fake engine, for any batch
    **{('openvino', 'bf16'): 1, ('openvino', 'fp32'): 3, ('onnxruntime', 'fp32'): 5, ('openvino', 'int8'): 0.5},
    **{('onnxruntime', 'int8'): 2, ('paddle', 'bf16'): 2, ('paddle', 'fp32'): 9},
}


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A processor with bfloat16, all engines installed, an empty cache."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(device, 'has_bf16', lambda: True)
    monkeypatch.setattr(device.shutil, 'which', lambda name: None)
    monkeypatch.setattr(packages, 'is_there', lambda name: True)


@pytest.fixture
def fake(monkeypatch):
    """Engines that give the sealed logits in MILLISECONDS; returns the list of those that were started, and a function that changes
    what one of them gives."""
    started, changes = [], {}

    def engine(name):
        def start(source, place):
            started.append((name, source.precision))

            def run(batch):
                logits = np.stack([BY_PIXELS[picture.tobytes()] for picture in batch])
                return [changes.get((name, source.precision), lambda logits: logits)(logits)]

            run.milliseconds = MILLISECONDS[name, source.precision]
            return run

        return start

    for name in ('openvino', 'onnxruntime', 'paddle'):
        monkeypatch.setitem(engines.ENGINES, name, engine(name))
    monkeypatch.setattr(choice, '_timed', lambda run, batch: run.milliseconds)
    return started, changes.__setitem__


def choose(engine='auto', precision='auto', place='cpu', manifest=MANIFEST):
    return tuple(choice.choose('infer', manifest, CONTENTS, place, engine, precision))


def explain(**asked):
    return choice.explain('infer', MANIFEST, CONTENTS, 'cpu', **asked)


def row_of(table, *pair):
    return next(line for line in table.splitlines() if line.split()[:2] == [*pair])


def fails(logits):
    raise RuntimeError('no such\nkernel')


WRONG = {
    'scaled': (lambda logits: logits * 1.5, 'could change'),
    'NaN': (lambda logits: logits * np.nan, 'could change 100.00%'),
    'raises': (fails, 'no such'),
    'another shape': (lambda logits: logits[:, :2], 'shape [64, 2], not [64, 4]'),
    'coarse': (lambda logits: np.round(logits), 'could change'),
}


@pytest.mark.parametrize('fault', WRONG)
def test_a_wrong_engine_is_not_taken_the_next_is_and_the_table_says_why(fake, fault):
    fake[1](('openvino', 'bf16'), WRONG[fault][0])
    assert choose() == ('openvino', 'fp32')
    table = explain()
    assert WRONG[fault][1] in row_of(table, 'openvino', 'bf16') and 'no: ' in row_of(table, 'openvino', 'bf16')
    assert row_of(table, 'openvino', 'fp32').endswith('  yes')


def test_bf16_is_taken_where_the_processor_has_it_and_paddle_is_not_started(fake):
    assert choose() == ('openvino', 'bf16')
    assert set(fake[0]) == {('openvino', 'bf16'), ('openvino', 'fp32'), ('onnxruntime', 'fp32')}


def test_without_bfloat16_fp32_is_taken(fake, monkeypatch):
    monkeypatch.setattr(device, 'has_bf16', lambda: False)
    assert choose() == ('openvino', 'fp32')
    with pytest.raises(UsageError, match='precision bf16: this processor has no bfloat16 .* use fp32'):
        choose(precision='bf16')
    assert 'no: this processor has no bfloat16' in row_of(explain(), 'openvino', 'bf16')


def test_paddle_runs_if_no_onnx_engine_passes(fake, monkeypatch):
    for pair in MILLISECONDS:
        if pair[0] != 'paddle':
            fake[1](pair, fails)
    assert choose() == ('paddle', 'bf16')
    alone = {**MANIFEST, 'sha256': {'small.reference.npz': 'x'}}
    assert choose(manifest=alone) == ('paddle', 'bf16')
    monkeypatch.setattr(packages, 'is_there', lambda name: name == 'paddle')
    assert choose(manifest={**MANIFEST, 'name': 'small', 'extra': 1}) == ('paddle', 'bf16')


@pytest.mark.parametrize(
    ('asked', 'expected'),
    [
        ({'engine': 'onnxruntime'}, ('onnxruntime', 'fp32')),
        ({'precision': 'fp32'}, ('openvino', 'fp32')),
        ({'precision': 'int8'}, ('openvino', 'int8')),
        ({'engine': 'onnxruntime', 'precision': 'int8'}, ('onnxruntime', 'int8')),
        ({'engine': 'paddle'}, ('paddle', 'bf16')),
        ({'place': 'gpu'}, ('paddle', 'fp32')),
        ({'place': 'gpu:1', 'engine': 'onnxruntime'}, ('onnxruntime', 'fp32')),
    ],
)
def test_what_is_asked_for_limits_the_choice(fake, asked, expected):
    assert choose(**asked) == expected


@pytest.mark.parametrize(
    ('asked', 'words'),
    [
        ({'precision': 'bf16', 'place': 'gpu'}, 'a GPU runs the model in fp32'),
        ({'precision': 'int8', 'engine': 'paddle'}, 'the engine paddle does not run it'),
        ({'precision': 'bf16', 'engine': 'onnxruntime'}, 'the engine onnxruntime does not run it'),
        (
            {'precision': 'int8', 'manifest': {**MANIFEST, 'sha256': {'small.reference.npz': 'x'}}},
            'has no small.int8.onnx; export with export.int8=true',
        ),
        (
            {'engine': 'openvino', 'manifest': {**MANIFEST, 'sha256': {'small.reference.npz': 'x'}}},
            'engine openvino: the export has no small.onnx; export with export.onnx=true',
        ),
        (
            {'precision': 'int8', 'engine': 'paddle', 'manifest': {**MANIFEST, 'sha256': {'small.reference.npz': 'x'}}},
            'the engine paddle does not run it',
        ),
    ],
)
def test_what_cannot_run_is_refused(fake, asked, words):
    with pytest.raises(UsageError, match=words):
        choose(**asked)


def test_what_is_asked_for_must_agree_too(fake):
    fake[1](('onnxruntime', 'fp32'), lambda logits: -logits)
    with pytest.raises(UserError, match=r'--engine onnxruntime .*\(onnxruntime in fp32: could change .* allow more'):
        choose(engine='onnxruntime')


def test_an_engine_that_export_found_different_is_not_taken(fake):
    assert choose(manifest={**MANIFEST, 'parity': {'differs': ['openvino']}}) == ('onnxruntime', 'fp32')


def test_int8_may_differ_as_much_as_export_measured(fake):
    fake[1](('openvino', 'int8'), lambda logits: logits + 0.2 * np.sin(7 * logits))
    assert choose(precision='int8') == ('onnxruntime', 'int8')
    measured = {**MANIFEST, 'parity': {'int8': {'onnxruntime': {'share': 0.05}}}}
    assert (
        choose(precision='int8', manifest={**measured, 'sha256': {**MANIFEST['sha256'], 'other': 'x'}})[0] == 'openvino'
    )


def test_the_choice_is_kept_for_the_same_model_machine_and_packages(fake, monkeypatch, capsys):
    assert choose() == choose() == ('openvino', 'bf16')
    assert len(fake[0]) == 3
    printed = capsys.readouterr().err
    assert (
        printed.count('\n') == 1
        and 'small: checked on this machine, once, in ' in printed
        and 'openvino, bf16' in printed
    )
    for changed in ('model', 'machine', 'packages'):
        if changed == 'machine':
            monkeypatch.setattr(device, 'about_processor', lambda: 'model name : another\n')
        if changed == 'packages':
            monkeypatch.setattr(packages, 'installed_version', lambda *names: '99')
        del fake[0][:]
        choose(
            manifest={**MANIFEST, 'sha256': {**MANIFEST['sha256'], 'small.onnx': 'y'}}
            if changed == 'model'
            else MANIFEST
        )
        assert len(fake[0]) == 3, changed


@pytest.mark.parametrize(
    'content', ['', '[]', '{"engine": "none", "precision": "fp32"}', '{"engine": ["openvino"]}', '\0']
)
def test_a_damaged_cache_is_measured_again(fake, tmp_path, content):
    choose()
    (kept,) = (tmp_path / 'cache/zodiac/choices').iterdir()
    kept.write_text(content)
    del fake[0][:]
    assert choose() == ('openvino', 'bf16') and len(fake[0]) == 3
    assert json.loads(kept.read_text()) == {'engine': 'openvino', 'precision': 'bf16'}


def test_a_cache_that_cannot_be_written_is_no_error(fake, tmp_path):
    (tmp_path / 'cache').write_text('a file')
    assert choose() == choose() == ('openvino', 'bf16')


def test_processes_that_start_together_take_the_same(fake):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(lambda _: choose(), range(2)))) == 1


def test_the_table_has_all_candidates_with_difference_share_and_times(fake):
    table = explain()
    rows = table.splitlines()[1:-1]
    assert [tuple(row.split()[:2]) for row in rows] == choice.CANDIDATES
    assert row_of(table, 'openvino', 'bf16').endswith('  yes')
    assert row_of(table, 'paddle', 'fp32').endswith('  no: takes seconds to start')
    assert row_of(table, 'onnxruntime', 'fp32').endswith('  no: slower')
    assert row_of(table, 'openvino', 'int8').endswith('  no: only with --precision int8')
    assert row_of(table, 'onnxruntime', 'fp32').split()[2:4] == ['0', '0.00%']
    assert row_of(explain(engine='paddle'), 'openvino', 'bf16').endswith('  no: not asked for')


def older(tmp_path, **entries):
    """An export as it was before references: with a precision, and without the file."""
    manifest = {**write(tmp_path / 'infer', network_of('small'), settings()), **entries}
    export_folder.write_manifest(tmp_path / 'infer', manifest)
    return str(tmp_path / 'infer'), manifest


@pytest.mark.parametrize(
    ('written', 'compared', 'installed', 'expected'),
    [
        ('fp32', 'all', ('openvino', 'onnxruntime'), ('openvino', 'fp32')),
        ('int8', 'all', ('openvino', 'onnxruntime'), ('openvino', 'int8')),
        ('fp32', 'all', ('onnxruntime',), ('onnxruntime', 'fp32')),
        ('fp32', ('paddle', 'onnxruntime'), ('openvino', 'onnxruntime'), ('onnxruntime', 'fp32')),
        ('int8', 'all', (), ('paddle', 'fp32')),
        ('fp32', (), ('openvino', 'onnxruntime'), ('paddle', 'fp32')),
        ('bf16', 'all', ('onnxruntime',), ('paddle', 'bf16')),
        ('bf16', 'all', ('openvino', 'onnxruntime'), ('openvino', 'bf16')),
        ('bf16', ('paddle', 'onnxruntime'), ('openvino', 'onnxruntime'), ('paddle', 'bf16')),
    ],
)
def test_an_export_of_an_earlier_version_runs_as_it_did(monkeypatch, written, compared, installed, expected):
    monkeypatch.setattr(engines, 'installed', installed.__contains__)
    compared = ('paddle', 'openvino', 'onnxruntime') if compared == 'all' else compared
    manifest = {'name': 'a', 'sha256': {'a.onnx': 'x'}, 'precision': written, 'parity': dict.fromkeys(compared, {})}
    assert tuple(choice.choose('infer', manifest, {}, 'auto')) == expected
    assert tuple(choice.choose('infer', manifest, {}, 'cpu', *expected)) == expected
    if expected[1] == 'bf16':
        monkeypatch.setattr(device, 'has_bf16', lambda: False)
        assert choice.choose('infer', manifest, {}, 'cpu', 'paddle').precision == 'fp32'
    elif written == 'int8' and expected[0] == 'openvino':
        with pytest.raises(UsageError, match='made for int8 in openvino, .* use auto, or export the model again'):
            choice.choose('infer', manifest, {}, 'cpu', 'auto', 'fp32')
        assert choice.choose('infer', manifest, {}, 'cpu', 'openvino', 'fp32', checked=False).precision == 'int8'


@ONNX
def test_an_int8_export_of_an_earlier_version_has_integers_in_its_only_onnx_file(tmp_path):
    folder, _ = older(tmp_path, precision='int8', parity={'onnxruntime': {}})
    model = exported_model.load(folder, 'cpu', 'onnxruntime')
    assert (model.engine, model.precision) == ('onnxruntime', 'int8')
    image = transforms.apply(model.transform, PICTURES[0])
    assert model.predict(image[None]).shape == (1, 4)


def test_an_export_is_checked_with_real_engines_once_and_runs(tmp_path, capsys):
    folder = tmp_path / 'infer'
    with_onnx = [
        engine for engine in ('onnxruntime', 'openvino') if ONNX.args[0] is False and engines.installed(engine)
    ]
    network = network_of('small')
    write_sealed(folder, network, settings(), ['paddle', *with_onnx])
    models = [exported_model.load(str(folder), 'cpu') for _ in range(2)]
    assert capsys.readouterr().err.count('checked on this machine') == 1
    assert models[0].engine == models[1].engine in (with_onnx or ['paddle'])
    image = transforms.apply(models[0].transform, PICTURES[0])[None]
    expected = exported_model.softmax(network(paddle.to_tensor(image)).numpy())
    for model in models:
        np.testing.assert_allclose(model.predict(image), expected, atol=0.02)
    assert f'{models[0].engine:<13}{models[0].precision:<11}' in exported_model.explain(str(folder), 'cpu')


def test_an_export_without_onnx_runs_in_paddle(tmp_path):
    write_sealed(tmp_path / 'infer', network_of('small'), settings(), with_onnx=False)
    assert exported_model.load(str(tmp_path / 'infer'), 'cpu').engine == 'paddle'


@pytest.mark.parametrize('count', [0, 3])
def test_validation_images_travel_only_when_asked_for(tmp_path, count):
    cfg = settings(f'export.examples={count}', 'export.preprocess=true')
    manifest = write_sealed(tmp_path / 'infer', network_of('small'), cfg, with_onnx=False)
    assert 'small.reference.npz' in manifest['sha256']
    with np.load(tmp_path / 'infer/small.reference.npz') as found:
        assert found['pixels'].shape == (count, 32, 32, 3) and found['example_logits'].shape == (count, 4)
        assert found['logits'].shape == (64, 4) and found['margins'].shape == (8,)
        assert {found[name].dtype.name for name in ('logits', 'margins', 'example_logits')} == {'float32'}


def test_a_changed_reference_is_refused(tmp_path):
    write_sealed(tmp_path / 'infer', network_of('small'), settings(), with_onnx=False)
    with open(tmp_path / 'infer/small.reference.npz', 'ab') as file:
        file.write(b'x')
    with pytest.raises(UserError, match=r'small\.reference\.npz: was changed'):
        exported_model.load(str(tmp_path / 'infer'), 'cpu')


@OPENVINO
def test_openvino_starts_from_the_compiled_network_that_it_kept(tmp_path, monkeypatch):
    import openvino  # optional

    write_sealed(tmp_path / 'infer', network_of('small'), settings(), ['paddle', 'onnxruntime', 'openvino'])
    image = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)

    def predict():
        return exported_model.load(str(tmp_path / 'infer'), 'cpu', 'openvino', 'fp32').predict(image)

    expected, read = predict(), []
    kept = next((tmp_path / 'cache/zodiac/openvino').iterdir())

    class Core(openvino.Core):
        def read_model(self, *arguments):
            read.append(1)
            return super().read_model(*arguments)

    monkeypatch.setattr(openvino, 'Core', Core)
    np.testing.assert_allclose(predict(), expected, atol=1e-6)
    assert not read
    for damaged in (b'', kept.read_bytes()[:-1], os.urandom(500)):
        kept.write_bytes(damaged)
        np.testing.assert_allclose(predict(), expected, atol=1e-6)
        assert read.pop() and not read
    shutil.rmtree(tmp_path / 'cache')
    (tmp_path / 'cache').write_text('a file')
    np.testing.assert_allclose(predict(), expected, atol=1e-6)
