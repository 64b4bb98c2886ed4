"""Networks filled from weight files: what is loaded, what stays new, what is refused."""

import functools
import pickle

import numpy as np
import pytest

from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, pretrained

LIST_HEAD = ['flatten', 'dropout', {'linear': 16}, 'elu', 'batch_norm', 'linear']
NETWORKS = {  # each built from a number of classes
    'plain': lambda classes: builder.build('resnet18', classes),
    'list head': lambda classes: builder.build('resnet18', classes, 32, LIST_HEAD),
    'resnet9': lambda classes: builder.build('resnet9', classes, 32),
    'cifarnet': lambda classes: builder.build('cifarnet', classes, 32),
}


def network(kind, classes, seed=0):
    paddle.seed(seed)
    return NETWORKS[kind](classes)


def arrays(network):
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name


@functools.lru_cache(None)
def trained(kind, classes):
    """{name: array} of a network whose every tensor differs from a new one's."""
    rng = np.random.default_rng(0)
    values = arrays(network(kind, classes, seed=11))
    return {name: value + rng.uniform(0.1, 0.2, value.shape).astype(value.dtype) for name, value in values.items()}


@pytest.fixture
def save(tmp_path):
    def write(values):
        path = tmp_path / 'w.pdparams'
        path.write_bytes(pickle.dumps(values, protocol=4))
        return str(path)

    return write


def is_head(name):
    return name.startswith(('fc.', 'classifier.'))


def without_head(values):
    return {name: value for name, value in values.items() if not is_head(name)}


@pytest.mark.parametrize(
    ('kind', 'classes', 'source', 'of', 'expected'),
    [
        ('plain', 12, 'plain', 1000, 'new head (1000 -> 12 classes)'),
        ('plain', 1000, 'plain', 1000, 'head loaded too'),
        ('list head', 12, 'plain', 1000, 'new head (1000 -> 12 classes)'),
        ('plain', 12, 'list head', 4, 'new head (4 -> 12 classes)'),
        ('list head', 4, 'list head', 4, 'head loaded too'),
        ('resnet9', 4, 'resnet9', 10, 'new head (10 -> 4 classes)'),
        ('cifarnet', 4, 'cifarnet', 10, 'new head (10 -> 4 classes)'),
    ],
)
def test_weights_fill_the_backbone_and_a_head_of_the_same_shape(save, kind, classes, source, of, expected):
    filled, values = network(kind, classes), trained(source, of)
    before = arrays(filled)
    message = pretrained.load_pretrained(filled, 'resnet18', save(values))
    new = {name for name in before if is_head(name) and 'new' in expected}
    assert_same(arrays(filled), {name: before[name] if name in new else values[name] for name in before})
    assert f'w.pdparams: {len(before) - len(new)} of {len(before)} tensors loaded, {expected}' in message


def test_a_file_without_a_head_fills_the_backbone(save):
    filled, values = network('plain', 12), without_head(trained('plain', 1000))
    assert 'new head (none -> 12 classes)' in pretrained.load_pretrained(filled, 'resnet18', save(values))
    assert_same(without_head(arrays(filled)), values)


def reshaped(values):
    return {**values, 'layer2.0.conv1.weight': values['layer2.0.conv1.weight'][:, :, :1, :1]}


def without_a_statistic(values):
    return {name: value for name, value in values.items() if name != 'bn1._mean'}


def deeper(values):
    """As from ResNet34, which has all tensors of ResNet18 and further blocks."""
    block = {name.replace('layer1.1.', 'layer1.2.'): value for name, value in values.items() if 'layer1.1.' in name}
    return {**values, **block}


def with_text(values):
    return {**values, 'layer2.0.conv1.weight': 'text'}


@pytest.mark.parametrize(
    ('change', 'first'),
    [
        (reshaped, 'layer2.0.conv1.weight'),
        (without_a_statistic, 'bn1._mean'),
        (deeper, 'layer1.2.'),
        (with_text, 'layer2.0.conv1.weight'),
    ],
)
def test_another_backbone_is_refused_with_its_first_difference(save, change, first):
    filled, path = network('plain', 1000), save(change(trained('plain', 1000)))
    before = arrays(filled)
    for load in (
        lambda: pretrained.load_pretrained(filled, 'resnet18', path),
        lambda: pretrained.load_all(filled, path),
    ):
        with pytest.raises(UserError) as caught:
            load()
        for word in (path, 'does not fit', first, 'model.arch'):
            assert word in str(caught.value)
    assert_same(arrays(filled), before)


@pytest.mark.parametrize('kind', ['float16', 'float64'])
def test_weights_of_other_float_types_are_converted(save, kind):
    values = {name: value.astype(kind) for name, value in trained('plain', 1000).items()}
    filled = network('plain', 1000)
    pretrained.load_pretrained(filled, 'resnet18', save(values))
    assert_same(arrays(filled), {name: value.astype(np.float32) for name, value in values.items()})


def test_without_a_connection_the_message_says_where_to_put_the_file(monkeypatch, tmp_path, capsys):
    def fail(url, md5sum=None):
        raise RuntimeError(f'Downloading from {url} failed. Retry limit reached')

    monkeypatch.setattr(pretrained.imagenet, 'FOLDER', str(tmp_path))
    monkeypatch.setattr(paddle.utils.download, 'get_weights_path_from_url', fail)
    with pytest.raises(UserError) as caught:
        pretrained.load_pretrained(network('plain', 12), 'resnet18', True)
    for word in ('model.pretrained', 'https://', f'{tmp_path}/resnet18.pdparams'):
        assert word in str(caught.value)
    assert 'downloading the ImageNet weights of resnet18 from https://' in capsys.readouterr().err


def test_pretrained_true_loads_paddles_file(monkeypatch, save):
    asked, values = [], trained('plain', 1000)

    def local_file(*request):
        asked.append(request)
        return save(values)

    monkeypatch.setattr(paddle.utils.download, 'get_weights_path_from_url', local_file)
    filled = network('plain', 12)
    assert '1000 -> 12' in pretrained.load_pretrained(filled, 'resnet18', True)
    assert asked == [paddle.vision.models.resnet.model_urls['resnet18']]
    assert_same(without_head(arrays(filled)), without_head(values))


def test_a_network_without_imagenet_weights_says_what_to_set():
    with pytest.raises(UsageError, match='model.pretrained = true: .*resnet9.*model.pretrained=false'):
        pretrained.load_pretrained(network('resnet9', 10), 'resnet9', True)


@pytest.mark.parametrize(('kind', 'classes'), [('plain', 1000), ('list head', 4)])
def test_load_all_restores_every_tensor(save, kind, classes):
    filled, values = network(kind, classes), trained(kind, classes)
    pretrained.load_all(filled, save(values))
    assert_same(arrays(filled), values)


@pytest.mark.parametrize(
    ('kind', 'classes', 'source', 'of', 'words'),
    [
        ('plain', 12, 'plain', 1000, ['trained for 1000 classes', 'data.labels has 12']),
        ('list head', 12, 'list head', 4, ['trained for 4 classes', 'data.labels has 12']),
        ('cifarnet', 4, 'cifarnet', 10, ['trained for 10 classes', 'data.labels has 4']),
        ('resnet9', 4, 'resnet9', 10, ['trained for 10 classes', 'data.labels has 4']),
        ('plain', 4, 'list head', 4, ['model.head']),
    ],
)
def test_load_all_refuses_another_head(save, kind, classes, source, of, words):
    filled, path = network(kind, classes), save(trained(source, of))
    before = arrays(filled)
    with pytest.raises(UserError) as caught:
        pretrained.load_all(filled, path)
    for word in (path, *words):
        assert word in str(caught.value)
    assert_same(arrays(filled), before)
