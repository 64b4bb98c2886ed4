"""Networks: their heads, their initial weights, and what stands still when the backbone is frozen."""

import pickle

import numpy as np
import pytest

from zodiac import device, model
from zodiac.errors import UserError

paddle = device.import_paddle()


def arrays(network):
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def resnet18(num_classes, seed=0, **options):
    paddle.seed(seed)
    return model.build('resnet18', num_classes, **options)


def save(values, path):
    path.write_bytes(pickle.dumps(values, protocol=4))
    return str(path)


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """(path, arrays) of a file like Paddle's own: a ResNet18 of 1000 classes, every tensor unlike a new network's."""
    network = resnet18(1000, seed=11)
    rng = np.random.default_rng(0)
    values = {
        name: value + rng.uniform(0.1, 0.2, value.shape).astype(value.dtype) for name, value in arrays(network).items()
    }
    path = str(tmp_path_factory.mktemp('weights') / 'resnet18.pdparams')
    paddle.save({name: paddle.to_tensor(value) for name, value in values.items()}, path)
    return path, values


@pytest.mark.parametrize(('arch', 'features'), [('resnet18', 512), ('resnet50', 2048)])
def test_a_network_has_a_head_of_the_classes_asked_for(arch, features):
    network = model.build(arch, 7)
    assert network.fc.weight.shape == [features, 7]
    assert network.fc.bias.shape == [7]
    network.eval()
    with paddle.no_grad():
        assert network(paddle.zeros([2, 3, 32, 32])).shape == [2, 7]


def test_resnet50_of_twelve_classes_has_as_many_numbers_as_the_notebooks_summary():
    network = model.build('resnet50', 12)
    assert sum(tensor.size for tensor in network.state_dict().values()) == 23_585_740
    assert paddle.summary(network, (1, 3, 32, 32))['total_params'] == 23_585_740


def test_a_second_network_in_a_process_has_the_same_parameter_names():
    first, second = ([parameter.name for parameter in resnet18(3).parameters()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def residual_blocks(network):
    from paddle.vision.models.resnet import BasicBlock, BottleneckBlock

    return [layer for layer in network.sublayers() if isinstance(layer, (BasicBlock, BottleneckBlock))]


def passes_only_its_shortcut(block):
    first = next(layer for layer in block.sublayers() if isinstance(layer, paddle.nn.Conv2D))
    x = paddle.rand([2, first.weight.shape[1], 6, 6]) - 0.5
    shortcut = block.downsample(x) if block.downsample else x
    return same(block(x).numpy(), paddle.nn.functional.relu(shortcut).numpy())


@pytest.mark.parametrize(('arch', 'blocks'), [('resnet18', 8), ('resnet50', 16)])
def test_zero_init_residual_makes_each_block_the_identity_of_its_shortcut(arch, blocks):
    network = model.build(arch, 4, zero_init_residual=True)
    network.eval()
    with paddle.no_grad():
        results = [passes_only_its_shortcut(block) for block in residual_blocks(network)]
    assert results == [True] * blocks


def test_without_zero_init_residual_each_block_adds_to_its_shortcut():
    network = resnet18(4)
    network.eval()
    with paddle.no_grad():
        assert not any(passes_only_its_shortcut(block) for block in residual_blocks(network))


def test_zero_init_residual_still_lets_every_block_learn():
    network = resnet18(4, zero_init_residual=True)
    network(paddle.rand([4, 3, 32, 32])).square().sum().backward()
    assert all(float(block.bn2.weight.grad.abs().sum()) > 0 for block in residual_blocks(network))


# Pretrained weights


def test_weights_of_1000_classes_fill_the_backbone_and_leave_the_head_new(imagenet):
    path, values = imagenet
    network = resnet18(12, seed=3)
    before = arrays(network)
    message = model.load_pretrained(network, 'resnet18', path)
    after = arrays(network)
    assert all(same(after[name], values[name]) for name in after if not name.startswith('fc.'))
    assert same(after['fc.weight'], before['fc.weight']) and same(after['fc.bias'], before['fc.bias'])
    assert path in message
    assert '1000 -> 12' in message
    assert f'{len(after) - 2} of {len(after)} tensors' in message


def test_weights_of_as_many_classes_fill_the_head_too(imagenet):
    path, values = imagenet
    network = resnet18(1000, seed=3)
    message = model.load_pretrained(network, 'resnet18', path)
    after = arrays(network)
    assert all(same(after[name], values[name]) for name in after)
    assert f'{len(after)} of {len(after)} tensors' in message
    assert 'anew' not in message


def test_a_file_without_a_head_fills_the_backbone(imagenet, tmp_path):
    values = {name: value for name, value in imagenet[1].items() if not name.startswith('fc.')}
    network = resnet18(12)
    message = model.load_pretrained(network, 'resnet18', save(values, tmp_path / 'backbone.pdparams'))
    assert all(same(arrays(network)[name], value) for name, value in values.items())
    assert 'anew' in message


def renamed(values):
    return {f'backbone.{name}': value for name, value in values.items()}


def with_one_reshaped(values):
    return {**values, 'layer2.0.conv1.weight': values['layer2.0.conv1.weight'][:, :, :1, :1]}


def without_one(values):
    return {name: value for name, value in values.items() if name != 'layer2.0.conv1.weight'}


def without_a_statistic(values):
    return {name: value for name, value in values.items() if name != 'bn1._mean'}


MISMATCHES = [
    (renamed, 'conv1.weight'),
    (with_one_reshaped, 'layer2.0.conv1.weight'),
    (without_one, 'layer2.0.conv1.weight'),
    (without_a_statistic, 'bn1._mean'),
]


@pytest.mark.parametrize(('change', 'first'), MISMATCHES)
def test_a_backbone_that_does_not_match_stops_with_the_first_tensor(imagenet, tmp_path, change, first):
    path = save(change(imagenet[1]), tmp_path / 'other.pdparams')
    network = resnet18(12)
    before = arrays(network)
    with pytest.raises(UserError) as caught:
        model.load_pretrained(network, 'resnet18', path)
    for word in (path, 'resnet18', first, 'model.arch'):
        assert word in str(caught.value)
    assert all(same(value, before[name]) for name, value in arrays(network).items())


def deeper(values):
    """As from a ResNet34, which has every tensor of a ResNet18 and one more block behind them."""
    block = {
        name.replace('layer1.1.', 'layer1.2.'): value for name, value in values.items() if name.startswith('layer1.1.')
    }
    return {**values, **block}


def test_weights_of_a_deeper_network_do_not_match(imagenet, tmp_path):
    path = save(deeper(imagenet[1]), tmp_path / 'resnet34.pdparams')
    with pytest.raises(UserError, match=r'layer1\.2\.'):
        model.load_pretrained(resnet18(1000), 'resnet18', path)


@pytest.mark.parametrize('kind', ['float16', 'float64'])
def test_weights_of_another_float_type_load_or_are_refused_by_name(imagenet, tmp_path, kind):
    values = {name: value.astype(kind) for name, value in imagenet[1].items()}
    path = save(values, tmp_path / f'{kind}.pdparams')
    network = resnet18(1000)
    try:
        model.load_pretrained(network, 'resnet18', path)
    except UserError as error:
        assert path in str(error)
    else:
        loaded = arrays(network)['conv1.weight']
        assert same(loaded, values['conv1.weight'].astype(np.float32))


def test_a_file_that_holds_text_in_place_of_a_tensor_is_refused(imagenet, tmp_path):
    path = save({**imagenet[1], 'layer1.0.conv1.weight': 'text'}, tmp_path / 'odd.pdparams')
    with pytest.raises(UserError) as caught:
        model.load_pretrained(resnet18(1000), 'resnet18', path)
    assert path in str(caught.value)


def fail_to_download(url, md5sum=None):
    raise RuntimeError(f'Downloading from {url} failed. Retry limit reached')


def test_without_a_network_pretrained_says_where_to_put_the_file(monkeypatch):
    from paddle.utils import download

    monkeypatch.setattr(download, 'get_weights_path_from_url', fail_to_download)
    with pytest.raises(UserError) as caught:
        model.load_pretrained(resnet18(12), 'resnet18', True)
    for word in ('model.pretrained', 'https://', f'{download.WEIGHTS_HOME}/resnet18.pdparams'):
        assert word in str(caught.value)


def test_pretrained_takes_paddles_own_file_of_that_network(monkeypatch, imagenet):
    from paddle.utils import download
    from paddle.vision.models import resnet

    path, values = imagenet
    asked = []

    def local_file(url, md5sum=None):
        asked.append((url, md5sum))
        return path

    monkeypatch.setattr(download, 'get_weights_path_from_url', local_file)
    network = resnet18(12)
    assert '1000 -> 12' in model.load_pretrained(network, 'resnet18', True)
    assert asked == [resnet.model_urls['resnet18']]
    assert same(arrays(network)['conv1.weight'], values['conv1.weight'])


# A whole network


def test_load_all_restores_every_tensor(imagenet):
    path, values = imagenet
    network = resnet18(1000, seed=3)
    model.load_all(network, path)
    assert all(same(value, values[name]) for name, value in arrays(network).items())


def test_load_all_of_another_class_count_says_both(imagenet):
    path, _ = imagenet
    network = resnet18(12)
    before = arrays(network)
    with pytest.raises(UserError) as caught:
        model.load_all(network, path)
    for word in (path, '1000', '12', 'data.labels'):
        assert word in str(caught.value)
    assert all(same(value, before[name]) for name, value in arrays(network).items())


def test_load_all_of_another_backbone_names_the_first_tensor(imagenet, tmp_path):
    path, first = save(with_one_reshaped(imagenet[1]), tmp_path / 'other.pdparams'), 'layer2.0.conv1.weight'
    with pytest.raises(UserError) as caught:
        model.load_all(resnet18(1000), path)
    for word in (path, first):
        assert word in str(caught.value)


def test_load_all_of_a_deeper_network_is_refused(imagenet, tmp_path):
    path = save(deeper(imagenet[1]), tmp_path / 'resnet34.pdparams')
    with pytest.raises(UserError, match=r'layer1\.2\.'):
        model.load_all(resnet18(1000), path)


# Freezing


def train_one_step(network):
    """One step with momentum and L2 decay over all parameters; returns the state before and after."""
    optimizer = paddle.optimizer.Momentum(0.1, parameters=network.parameters(), weight_decay=1e-2)
    before = arrays(network)
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32))
    loss = paddle.nn.functional.cross_entropy(network(images), paddle.to_tensor([0, 1, 2, 3]))
    loss.backward()
    optimizer.step()
    return before, arrays(network)


def test_a_frozen_backbone_stands_still_to_the_bit_while_the_head_learns():
    network = resnet18(4)
    model.freeze_backbone(network)
    network.eval()
    network.train()
    before, after = train_one_step(network)
    moved = {name for name in after if not same(before[name], after[name])}
    assert moved == {'fc.weight', 'fc.bias'}


def test_without_freezing_the_backbone_and_its_statistics_move():
    network = resnet18(4)
    network.train()
    before, after = train_one_step(network)
    assert all(not same(before[name], after[name]) for name in ('conv1.weight', 'bn1._mean', 'bn1._variance'))


def test_a_frozen_backbone_leaves_only_the_head_to_the_optimizer():
    network = resnet18(4)
    model.freeze_backbone(network)
    learning = [name for name, parameter in network.named_parameters() if not parameter.stop_gradient]
    assert learning == ['fc.weight', 'fc.bias']
