"""Loading weights by any path: their classes are checked, damage is found, pretrained heads are used or not."""

import pickle
import shutil
import unicodedata

import pytest

import config
import train
from zodiac.base import files, provenance
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, weights
from zodiac.training import checkpoint

SETTINGS = ['name=run', 'model.arch=cifarnet', 'image.size=32', 'image.resize=32', 'model.pretrained=false']
LABELS = ['red', 'green', 'blue']


def settings(labels=LABELS, *more):
    return config.load(overrides=[*SETTINGS, f'data.labels={labels}', *more])


def new_network(cfg):
    return builder.build(cfg.model.arch, len(cfg.data.labels), cfg.image.size)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A working directory with a run of LABELS, as train.py writes it, and its network."""
    folder = tmp_path_factory.mktemp('work')
    cfg = settings()
    network = new_network(cfg)
    facts = {'identity': cfg.identity, 'pretrained': False, 'epoch': 2}
    for name in ('best', 'checkpoints/step_0000004'):
        checkpoint.save(str(folder / 'output' / 'run' / name), {checkpoint.WEIGHTS: network.state_dict()}, facts)
    last = weights.dump(network.state_dict(), checkpoint.facts_in_file(facts))
    (folder / 'output' / 'run.pdparams').write_bytes(last)
    (folder / 'output' / 'run' / 'config.yaml').write_text(cfg.to_yaml(), encoding='utf-8')
    shutil.copy(folder / 'output' / 'run' / 'best' / 'model.pdparams', folder / 'copy.pdparams')
    # of an older version: only the folder records the classes, not the file
    old = folder / 'old' / 'best'
    shutil.copytree(folder / 'output' / 'run' / 'best', old)
    (old / 'model.pdparams').write_bytes(weights.dump(network.state_dict()))
    hashes = {name: files.sha256(str(old / name)) for name in (checkpoint.WEIGHTS, checkpoint.STATE)}
    (old / checkpoint.SUMS).write_text(checkpoint._sums(hashes))
    return folder, network


WAYS = [
    *('best', 'last', 'output/run', 'output/run/', 'output/run/best', 'output/run/checkpoints/step_0000004'),
    *('output/run/best/model.pdparams', 'output/run.pdparams', 'copy.pdparams', 'old/best', 'old/best/model.pdparams'),
]


@pytest.fixture
def here(run, monkeypatch):
    monkeypatch.chdir(run[0])
    return run[1]


@pytest.mark.parametrize('way', WAYS)
def test_weights_of_the_same_classes_are_loaded_without_a_warning(here, capsys, way):
    network, facts = checkpoint.load_network('output/run', way, settings().identity)
    assert facts['epoch'] == 2 and facts['pretrained'] is False
    assert all((network.state_dict()[name] == value).all() for name, value in here.state_dict().items())
    assert capsys.readouterr().err == ''


def test_a_class_that_was_added_or_renamed_since_is_named(here):
    with pytest.raises(
        UserError, match=r'\(new: pink; gone: blue\); train again, or use the configuration of that run'
    ):
        checkpoint.load_network('output/run', 'best', settings(['red', 'green', 'pink']).identity)


@pytest.mark.parametrize('way', WAYS)
def test_weights_of_classes_in_another_order_are_refused(here, way):
    with pytest.raises(UserError) as caught:
        checkpoint.load_network('output/run', way, settings(['blue', 'red', 'green']).identity)
    for word in (str(LABELS), "['blue', 'red', 'green']", 'another order', '#class-count'):
        assert word in str(caught.value)
    if way != 'copy.pdparams' and not way.startswith('old'):
        assert '-c output/run/config.yaml' in str(caught.value)


def test_class_names_are_compared_after_unicode_normalisation(tmp_path):
    cfg = settings(['café', 'thé'])
    facts = {
        'identity': {**cfg.identity, 'data.labels': [unicodedata.normalize('NFD', name) for name in ('café', 'thé')]}
    }
    contents = {checkpoint.WEIGHTS: new_network(cfg).state_dict()}
    checkpoint.save(str(tmp_path / 'best'), contents, facts)
    (tmp_path / 'last.pdparams').write_bytes(
        weights.dump(contents[checkpoint.WEIGHTS], checkpoint.facts_in_file(facts))
    )
    for path in ('best', 'last.pdparams'):
        assert checkpoint.find('none', str(tmp_path / path))[1]['identity'] == cfg.identity


@pytest.mark.parametrize('way', ['output/run.pdparams', 'copy.pdparams'])
def test_a_weight_file_trained_with_another_normalisation_is_refused(here, way):
    with pytest.raises(UserError, match='image.*mean'):
        checkpoint.load_network('output/run', way, settings(LABELS, 'image.mean=[0.5,0.5,0.5]').identity)


def test_a_weight_file_without_classes_is_loaded_with_a_warning(here, tmp_path, capsys):
    path = str(tmp_path / 'theirs.pdparams')
    paddle.save(here.state_dict(), path)
    checkpoint.load_network('output/run', path, settings().identity)
    said = capsys.readouterr().err
    assert f'warning: {path}' in said and 'red, green, blue' in said


def test_a_damaged_checkpoint_is_refused_by_folder_and_by_file_name(here, tmp_path):
    shutil.copytree('output/run/best', tmp_path / 'best')
    with open(tmp_path / 'best' / 'model.pdparams', 'ab') as file:
        file.write(b'0')
    for path in (tmp_path / 'best', tmp_path / 'best' / 'model.pdparams'):
        with pytest.raises(UserError, match='damaged'):
            checkpoint.locate(str(path))


def test_a_path_without_weights_is_named(here, tmp_path):
    for which in ('gone.pdparams', str(tmp_path / 'nothing')):
        with pytest.raises(UserError, match=f'{which}: no weights there.*evaluate.weights'):
            checkpoint.find('output/run', which)
    with pytest.raises(UserError, match='output/other/checkpoints: no weights'):
        checkpoint.find('output/other', 'last')
    (tmp_path / 'inference.yaml').write_text('')
    with pytest.raises(UserError, match='exported model'):
        checkpoint.locate(str(tmp_path))


def test_paddle_loads_a_weight_file_that_records_its_classes(here, tmp_path):
    loaded = paddle.load('output/run.pdparams')
    assert sorted(loaded) == sorted(here.state_dict())
    again = paddle.Model(new_network(settings()))
    again.load('output/run')  # as the notebook does
    assert all((again.network.state_dict()[name] == value).all() for name, value in here.state_dict().items())


def test_half_precision_is_written_as_float32(tmp_path):
    network = new_network(settings())
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    for kind in ('float16', 'bfloat16'):
        half = new_network(settings())
        half.set_state_dict(network.state_dict())
        half.to(dtype=kind)
        checkpoint.save(str(tmp_path / kind), {checkpoint.WEIGHTS: half.state_dict()}, {'epoch': 1})
        read = weights.read(tmp_path / kind / checkpoint.WEIGHTS)
        for name, value in before.items():
            assert read[name].dtype == 'float32' and abs(read[name] - value).max() <= abs(value).max() / 100, name
        checkpoint.restore(str(tmp_path / kind), half, None)  # into a network of that type
        assert all(str(value.dtype).endswith(kind) for value in half.state_dict().values())


def test_model_save_dir_warns_when_the_weights_have_other_classes(here, recwarn):
    for labels, warned in ((LABELS, 0), (['blue', 'red', 'green'], 1)):
        config.use(overrides=[*SETTINGS, f'data.labels={labels}'])
        assert config.get('model_save_dir') == 'output/run'
        assert len(recwarn) == warned
    said = str(recwarn.pop().message)
    for word in (
        'output/run.pdparams',
        str(LABELS),
        "['blue', 'red', 'green']",
        "config.use('output/run/config.yaml')",
    ):
        assert word in said


# --- model.pretrained


def pretrained(capsys, source, labels):
    network, _ = train.build_network(settings(labels, f'model.pretrained={source}'), None)
    return network, capsys.readouterr().err


@pytest.mark.parametrize('source', ['output/run', 'copy.pdparams'])
@pytest.mark.parametrize(
    ('labels', 'said'),
    [
        (LABELS, 'head loaded too'),
        (['blue', 'red', 'green'], 'new head (the file has the classes red, green, blue: in another order)'),
        (['cat', 'dog', 'pig'], 'new head (the file has the classes red, green, blue: not data.labels)'),
        (['cat', 'dog'], 'new head (3 -> 2 classes)'),
    ],
)
def test_pretrained_weights_of_a_run_include_the_head_only_for_the_same_classes(here, capsys, source, labels, said):
    network, told = pretrained(capsys, source, labels)
    assert said in told and 'does not tell' not in told
    head = builder.head_of(network)
    name = next(name for name in here.state_dict() if name.startswith(head) and name.endswith('weight'))
    ours, theirs = network.state_dict()[name], here.state_dict()[name]
    assert (ours.shape == theirs.shape and bool((ours == theirs).all())) == (labels == LABELS)


def test_a_head_of_unknown_classes_is_loaded_with_a_note(here, tmp_path, capsys):
    path = str(tmp_path / 'theirs.pdparams')
    paddle.save(here.state_dict(), path)
    assert 'head loaded too (the file does not name its classes' in pretrained(capsys, path, ['cat', 'dog', 'pig'])[1]


# --- provenance


@pytest.mark.parametrize(
    'content',
    [
        *(None, b'', b'short'),
        pickle.dumps({'a': 1}),
        provenance.appended({})[:-1],
        b'no json' + provenance.TAIL.pack(7, provenance.MARK),
        provenance.TAIL.pack(99, provenance.MARK),
        provenance.appended([1, 2]),
    ],
)
def test_a_missing_file_or_one_without_facts_has_none(tmp_path, content):
    if content is not None:
        (tmp_path / 'w').write_bytes(content)
    assert provenance.read(tmp_path / 'w') == {}


@pytest.mark.parametrize('identity', [None, [], {}, {'data.labels': 3}, {'data.labels': [{}]}])
def test_invalid_facts_give_no_classes(tmp_path, identity):
    assert provenance.labels({'identity': identity}) is None
