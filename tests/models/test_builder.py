"""Networks: their heads, their initial weights, and what stands still where a part of them is frozen."""

import pickle

import numpy as np
import pytest
from conftest import clock_of

import config
import train
from zodiac.base import paddle_setup
from zodiac.base.errors import UsageError, UserError
from zodiac.models import builder
from zodiac.training import optim

paddle = paddle_setup.import_paddle()

from zodiac.training import callbacks  # noqa: E402

LIST_HEAD = ['flatten', 'dropout', {'linear': 16}, 'elu', 'batch_norm', 'linear']


def arrays(network):
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def resnet18(num_classes, seed=0, **options):
    paddle.seed(seed)
    return builder.build('resnet18', num_classes, **options)


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


@pytest.fixture(scope='module')
def twelve():
    """A resnet18 of 12 classes for tests that leave it as it is."""
    return resnet18(12)


@pytest.mark.parametrize(('arch', 'features'), [('resnet18', 512), ('resnet50', 2048)])
def test_a_network_has_a_head_of_the_classes_asked_for(arch, features):
    network = builder.build(arch, 7)
    assert network.fc.weight.shape == [features, 7]
    assert network.fc.bias.shape == [7]
    network.eval()
    with paddle.no_grad():
        assert network(paddle.zeros([2, 3, 32, 32])).shape == [2, 7]


def test_resnet50_of_twelve_classes_has_as_many_numbers_as_the_notebooks_summary():
    network = builder.build('resnet50', 12)
    assert sum(tensor.size for tensor in network.state_dict().values()) == 23_585_740
    assert paddle.summary(network, (1, 3, 32, 32))['total_params'] == 23_585_740


def test_a_second_network_in_a_process_has_the_same_parameter_names():
    first, second = ([parameter.name for parameter in resnet18(3).parameters()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def residual_blocks(network):
    from paddle.vision.models.resnet import BasicBlock, BottleneckBlock

    return [layer for layer in network.sublayers() if isinstance(layer, (BasicBlock, BottleneckBlock))]


def test_zero_init_residual_still_lets_every_block_learn():
    network = resnet18(4, zero_init_residual=True)
    network(paddle.rand([4, 3, 32, 32])).square().sum().backward()
    assert all(float(block.bn2.weight.grad.abs().sum()) > 0 for block in residual_blocks(network))


# Pretrained weights


def test_weights_of_1000_classes_fill_the_backbone_and_leave_the_head_new(imagenet):
    path, values = imagenet
    network = resnet18(12, seed=3)
    before = arrays(network)
    message = builder.load_pretrained(network, 'resnet18', path)
    after = arrays(network)
    assert all(same(after[name], values[name]) for name in after if not name.startswith('fc.'))
    assert same(after['fc.weight'], before['fc.weight']) and same(after['fc.bias'], before['fc.bias'])
    assert path in message
    assert '1000 -> 12' in message
    assert f'{len(after) - 2} of {len(after)} tensors' in message


def test_weights_of_as_many_classes_fill_the_head_too(imagenet):
    path, values = imagenet
    network = resnet18(1000, seed=3)
    message = builder.load_pretrained(network, 'resnet18', path)
    after = arrays(network)
    assert all(same(after[name], values[name]) for name in after)
    assert f'{len(after)} of {len(after)} tensors' in message
    assert 'anew' not in message


def test_a_file_without_a_head_fills_the_backbone(imagenet, tmp_path):
    values = {name: value for name, value in imagenet[1].items() if not name.startswith('fc.')}
    network = resnet18(12)
    message = builder.load_pretrained(network, 'resnet18', save(values, tmp_path / 'backbone.pdparams'))
    after = arrays(network)
    assert all(same(after[name], value) for name, value in values.items())
    assert 'anew' in message


def with_one_reshaped(values):
    return {**values, 'layer2.0.conv1.weight': values['layer2.0.conv1.weight'][:, :, :1, :1]}


def without_one(values):
    return {name: value for name, value in values.items() if name != 'layer2.0.conv1.weight'}


def without_a_statistic(values):
    return {name: value for name, value in values.items() if name != 'bn1._mean'}


MISMATCHES = [
    (with_one_reshaped, 'layer2.0.conv1.weight'),
    (without_one, 'layer2.0.conv1.weight'),
    (without_a_statistic, 'bn1._mean'),
]


@pytest.mark.parametrize(('change', 'first'), MISMATCHES)
def test_a_backbone_that_does_not_match_stops_with_the_first_tensor(imagenet, twelve, tmp_path, change, first):
    path = save(change(imagenet[1]), tmp_path / 'other.pdparams')
    before = arrays(twelve)
    with pytest.raises(UserError) as caught:
        builder.load_pretrained(twelve, 'resnet18', path)
    for word in (path, 'resnet18', first, 'model.arch'):
        assert word in str(caught.value)
    assert all(same(value, before[name]) for name, value in arrays(twelve).items())


def deeper(values):
    """As from a ResNet34, which has every tensor of a ResNet18 and one more block behind them."""
    block = {
        name.replace('layer1.1.', 'layer1.2.'): value for name, value in values.items() if name.startswith('layer1.1.')
    }
    return {**values, **block}


def test_weights_of_a_deeper_network_do_not_match(imagenet, tmp_path):
    path = save(deeper(imagenet[1]), tmp_path / 'resnet34.pdparams')
    with pytest.raises(UserError, match=r'layer1\.2\.'):
        builder.load_pretrained(resnet18(1000), 'resnet18', path)


@pytest.mark.parametrize('kind', ['float16', 'float64'])
def test_weights_of_another_float_type_load_or_are_refused_by_name(imagenet, tmp_path, kind):
    values = {name: value.astype(kind) for name, value in imagenet[1].items()}
    path = save(values, tmp_path / f'{kind}.pdparams')
    network = resnet18(1000)
    try:
        builder.load_pretrained(network, 'resnet18', path)
    except UserError as error:
        assert path in str(error)
    else:
        loaded = arrays(network)['conv1.weight']
        assert same(loaded, values['conv1.weight'].astype(np.float32))


def test_a_file_that_holds_text_in_place_of_a_tensor_is_refused(imagenet, tmp_path):
    path = save({**imagenet[1], 'layer1.0.conv1.weight': 'text'}, tmp_path / 'odd.pdparams')
    with pytest.raises(UserError) as caught:
        builder.load_pretrained(resnet18(1000), 'resnet18', path)
    assert path in str(caught.value)


def fail_to_download(url, md5sum=None):
    raise RuntimeError(f'Downloading from {url} failed. Retry limit reached')


def test_without_a_network_pretrained_says_where_to_put_the_file(monkeypatch, twelve, tmp_path, capsys):
    from paddle.utils import download

    monkeypatch.setattr(download, 'WEIGHTS_HOME', str(tmp_path))
    monkeypatch.setattr(download, 'get_weights_path_from_url', fail_to_download)
    with pytest.raises(UserError) as caught:
        builder.load_pretrained(twelve, 'resnet18', True)
    for word in ('model.pretrained', 'https://', f'{download.WEIGHTS_HOME}/resnet18.pdparams'):
        assert word in str(caught.value)
    assert 'fetching the ImageNet weights of resnet18 from https://' in capsys.readouterr().err


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
    assert '1000 -> 12' in builder.load_pretrained(network, 'resnet18', True)
    assert asked == [resnet.model_urls['resnet18']]
    assert same(arrays(network)['conv1.weight'], values['conv1.weight'])


# Pretrained weights and a head from a list


def headed(num_classes, seed=0):
    return resnet18(num_classes, seed, image_size=32, head=LIST_HEAD)


@pytest.fixture(scope='module')
def headed_file(tmp_path_factory):
    """(path, arrays) of a file of a resnet18 of 4 classes with LIST_HEAD."""
    values = arrays(headed(4, seed=11))
    return save(values, tmp_path_factory.mktemp('weights') / 'headed.pdparams'), values


def test_weights_of_a_plain_resnet_fill_the_backbone_below_a_list_head(imagenet):
    path, values = imagenet
    network = headed(12, seed=3)
    before = arrays(network)
    message = builder.load_pretrained(network, 'resnet18', path)
    after = arrays(network)
    own = [name for name in after if name.startswith('fc.')]
    assert len(own) == 8
    assert all(same(after[name], before[name]) for name in own)
    assert all(same(after[name], values[name]) for name in after if name not in own)
    assert f'{len(after) - 8} of {len(after)} tensors' in message
    assert 'head made anew (1000 -> 12 classes)' in message


def test_weights_below_a_list_head_fill_the_backbone_of_a_plain_resnet(headed_file):
    path, values = headed_file
    network = resnet18(12, seed=3)
    before = arrays(network)
    message = builder.load_pretrained(network, 'resnet18', path)
    after = arrays(network)
    assert all(same(after[name], before[name]) for name in ('fc.weight', 'fc.bias'))
    assert all(same(after[name], values[name]) for name in after if not name.startswith('fc.'))
    assert 'head made anew (4 -> 12 classes)' in message


def test_weights_of_the_same_list_head_fill_it_too(headed_file):
    path, values = headed_file
    network = headed(4, seed=3)
    message = builder.load_pretrained(network, 'resnet18', path)
    assert all(same(value, values[name]) for name, value in arrays(network).items())
    assert 'anew' not in message


def test_load_all_restores_a_list_head(headed_file):
    path, values = headed_file
    network = headed(4, seed=3)
    builder.load_all(network, path)
    assert all(same(value, values[name]) for name, value in arrays(network).items())


def test_load_all_of_a_list_head_of_another_class_count_says_both(headed_file):
    network = headed(12)
    before = arrays(network)
    with pytest.raises(UserError) as caught:
        builder.load_all(network, headed_file[0])
    for word in (headed_file[0], 'trained for 4 classes', 'data.labels has 12'):
        assert word in str(caught.value)
    assert all(same(value, before[name]) for name, value in arrays(network).items())


def test_load_all_of_another_head_of_as_many_classes_names_the_head(headed_file):
    with pytest.raises(UserError) as caught:
        builder.load_all(resnet18(4), headed_file[0])
    assert 'model.head' in str(caught.value)


def test_resnet9_has_no_imagenet_weights_and_says_what_to_set():
    with pytest.raises(UsageError, match='model.pretrained = true: .*resnet9.*model.pretrained=false'):
        builder.load_pretrained(builder.build('resnet9', 10, 32), 'resnet9', True)


def test_weights_of_another_class_count_say_both_also_where_the_head_has_no_bias(tmp_path):
    path = save(arrays(builder.build('cifarnet', 10, 32)), tmp_path / 'cifarnet.pdparams')
    network = builder.build('cifarnet', 4, 32)
    assert 'head made anew (10 -> 4 classes)' in builder.load_pretrained(network, 'cifarnet', path)
    with pytest.raises(UserError, match='trained for 10 classes, data.labels has 4'):
        builder.load_all(network, path)


def test_resnet9_takes_weights_from_a_file_and_keeps_a_new_head_where_classes_differ(tmp_path):
    paddle.seed(1)
    values = arrays(builder.build('resnet9', 10, 32))
    path = save(values, tmp_path / 'resnet9.pdparams')
    paddle.seed(2)
    network = builder.build('resnet9', 4, 32)
    before = arrays(network)
    assert 'head made anew (10 -> 4 classes)' in builder.load_pretrained(network, 'resnet9', path)
    for name, value in arrays(network).items():
        assert same(value, before[name] if name.startswith('classifier.') else values[name])
    with pytest.raises(UserError, match='trained for 10 classes, data.labels has 4'):
        builder.load_all(network, path)


# A whole network


def test_load_all_restores_every_tensor(imagenet):
    path, values = imagenet
    network = resnet18(1000, seed=3)
    builder.load_all(network, path)
    assert all(same(value, values[name]) for name, value in arrays(network).items())


def test_load_all_of_another_class_count_says_both(imagenet, twelve):
    path, _ = imagenet
    before = arrays(twelve)
    with pytest.raises(UserError) as caught:
        builder.load_all(twelve, path)
    for word in (path, '1000', '12', 'data.labels'):
        assert word in str(caught.value)
    assert all(same(value, before[name]) for name, value in arrays(twelve).items())


def test_load_all_of_another_backbone_names_the_first_tensor(imagenet, twelve, tmp_path):
    path, first = save(with_one_reshaped(imagenet[1]), tmp_path / 'other.pdparams'), 'layer2.0.conv1.weight'
    with pytest.raises(UserError) as caught:
        builder.load_all(twelve, path)
    for word in (path, first):
        assert word in str(caught.value)


def test_load_all_of_a_deeper_network_is_refused(imagenet, tmp_path):
    path = save(deeper(imagenet[1]), tmp_path / 'resnet34.pdparams')
    with pytest.raises(UserError, match=r'layer1\.2\.'):
        builder.load_all(resnet18(1000), path)


# Freezing

STAGES = {  # all but the head
    'resnet18': ['conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4'],
    'resnet9': ['con1', 'con2', 'r1', 'con3', 'con4', 'r2'],
    'cifarnet': ['whiten', 'groups'],
}
IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
OPTIMIZERS = {
    'adam': ['optim.name=adam', 'optim.lr=0.01', 'optim.weight_decay=0.01'],
    'momentum': ['optim.name=momentum', 'optim.lr=0.1', 'optim.weight_decay=0.01'],
}


def trainer_of(arch, freeze, *overrides):
    """A prepared paddle.Model for 4 classes of 32 px images, as train.py makes it, and what is frozen in it."""
    settings = [f'model.arch={arch}', f'model.freeze={freeze}', 'model.pretrained=false', 'data.labels=[a, b, c, d]']
    cfg = config.load(overrides=[*settings, 'image.size=32', 'optim.schedule=constant', *overrides])
    paddle.seed(0)
    network, frozen = train.build_network(cfg, None)
    return train.build_trainer(cfg, network, frozen, cfg.optim.lr, np.arange(4)), frozen


def learn(trainer, steps=1):
    """Train on the four images, one of each class; returns the state before and after."""
    before = arrays(trainer.network)
    for _ in range(steps):
        trainer.train_batch([IMAGES], [np.arange(4)])
    return before, arrays(trainer.network)


def moved(before, after):
    return {name for name in after if not same(before[name], after[name])}


def of_stages(names, stages):
    return {name for name in names if name.split('.')[0] in stages}


def kept_stages(arch, freeze):
    stages = STAGES[arch]
    if freeze in ('none', 'backbone'):
        return stages if freeze == 'backbone' else []
    return stages[: stages.index(freeze) + 1]


def check_freezing_and_unfreezing(arch, freeze, name):
    """What is frozen stands still to the bit, statistics too, while all else moves; unfrozen, it moves as well."""
    trainer, names = trainer_of(arch, freeze, *OPTIMIZERS[name])
    before, after = learn(trainer, steps=2)
    frozen = of_stages(after, kept_stages(arch, freeze))
    assert moved(before, after) == set(after) - frozen
    builder.unfreeze(trainer.network, names)
    before, after = learn(trainer)
    assert moved(before, after) == set(after)


@pytest.mark.parametrize(
    ('freeze', 'name'), [('none', 'adam'), ('con1', 'momentum'), ('r1', 'adam'), ('backbone', 'momentum')]
)
def test_a_frozen_part_of_resnet9_stands_still_until_it_is_unfrozen(freeze, name):
    check_freezing_and_unfreezing('resnet9', freeze, name)


@pytest.mark.parametrize(('freeze', 'name'), [('none', 'momentum'), ('conv1', 'adam'), ('layer2', 'momentum')])
def test_a_frozen_part_of_a_resnet_stands_still_until_it_is_unfrozen(freeze, name):
    check_freezing_and_unfreezing('resnet18', freeze, name)


@pytest.mark.parametrize(('arch', 'size', 'freeze'), [('resnet18', 64, 'layer1'), ('cifarnet', 32, 'none')])
def test_synchronised_batch_norm_has_the_parameters_of_what_it_replaces_and_spares_what_is_frozen(arch, size, freeze):
    network = builder.build(arch, 3, size)
    builder.freeze(network, freeze)
    parameters, names = dict(network.named_parameters()), set(network.state_dict())
    norms = {name for name, layer in network.named_sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)}
    builder.sync_batch_norm(network)
    assert set(network.state_dict()) == names
    assert all(value is parameters[name] for name, value in network.named_parameters())
    synced = {name for name, layer in network.named_sublayers() if isinstance(layer, paddle.nn.SyncBatchNorm)}
    assert synced == norms - of_stages(norms, kept_stages(arch, freeze))


@pytest.mark.parametrize('head', ['auto', '[flatten, {linear: 16}, batch_norm, linear]'])
def test_a_frozen_backbone_stands_still_below_a_head_that_learns(head):
    trainer, _ = trainer_of('resnet18', 'backbone', f'model.head={head}', *OPTIMIZERS['adam'])
    before, after = learn(trainer, steps=2)
    assert moved(before, after) == {name for name in after if name.startswith('fc.')}


def learning(network):
    return {name for name, parameter in network.named_parameters() if not parameter.stop_gradient}


@pytest.mark.parametrize('arch', STAGES)
def test_freeze_returns_the_names_of_the_parameters_that_no_longer_learn(arch):
    network = builder.build(arch, 4, 32)
    before = learning(network)
    for freeze in ('none', STAGES[arch][0], STAGES[arch][1], 'backbone'):
        names = builder.freeze(network, freeze)
        assert set(names) == of_stages(before, kept_stages(arch, freeze)) and len(set(names)) == len(names)
        assert learning(network) == before - set(names)
        builder.unfreeze(network, names)
        assert learning(network) == before
        norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
        assert norms and not any(norm._use_global_stats for norm in norms)


def test_weights_that_a_network_keeps_at_one_stay_there_with_a_rate_of_the_backbone():
    network = builder.build('cifarnet', 4, 32)
    still = {name for name, p in network.named_parameters() if p.optimize_attr['learning_rate'] == 0}
    assert len(still) == 6
    cfg = config.load(overrides=['optim.backbone_lr=0.001', 'model.freeze=backbone', 'model.unfreeze_epoch=2'])
    optim.optimizer(cfg.optim, 0.1, network, builder.freeze(network, 'backbone'))
    assert still == {name for name, p in network.named_parameters() if p.optimize_attr['learning_rate'] == 0}


@pytest.mark.parametrize('arch', STAGES)
def test_an_unknown_stage_to_freeze_is_refused_with_the_valid_ones(arch):
    network = builder.build(arch, 4, 32)
    for freeze in ('layer9', 'fc', 'classifier', 'maxpool', 'layer1.0', ''):
        with pytest.raises(UsageError) as caught:
            builder.freeze(network, freeze)
        assert f'model.freeze = {freeze}: ' in str(caught.value)
        assert str(caught.value).endswith(f'none, backbone, or the last stage to keep: {", ".join(STAGES[arch])}')
    assert not any(parameter.stop_gradient for name, parameter in network.named_parameters() if name.endswith('bias'))


def test_a_frozen_stage_gives_the_same_in_training_as_in_evaluation():
    network = builder.build('resnet9', 4, 32)
    builder.freeze(network, 'con2')
    images = paddle.to_tensor(IMAGES)
    results = []
    for mode in (network.train, network.eval):
        mode()
        results.append(network.con2(network.con1(images)).numpy())
    assert same(*results)


@pytest.mark.parametrize('decoupled', ['false', 'true'])
def test_a_network_unfrozen_before_its_first_step_learns_like_one_never_frozen(decoupled):
    states = []
    for freeze in ('backbone', 'none'):
        overrides = [f'optim.decoupled_decay={decoupled}', 'optim.lr=0.1', 'optim.weight_decay=0.1']
        trainer, names = trainer_of('resnet9', freeze, *overrides)
        assert bool(names) == (freeze == 'backbone')
        builder.unfreeze(trainer.network, names)
        paddle.seed(5)
        states.append(learn(trainer)[1])
    for name in states[0]:
        np.testing.assert_allclose(states[0][name], states[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_backbone_below_a_head_without_parameters_is_frozen_whole():
    network = builder.build('resnet18', 512, 32, ['global_avg_pool', 'flatten'])
    builder.freeze(network, 'backbone')
    assert all(parameter.stop_gradient for parameter in network.parameters())


class Recorder(paddle.callbacks.Callback):
    """Keeps the network's state of the beginning and of the end of each epoch."""

    def on_train_begin(self, logs=None):
        self.states = [arrays(self.model.network)]

    def on_epoch_end(self, epoch, logs=None):
        self.states.append(arrays(self.model.network))


def fit(trainer, epochs, watchers):
    images = paddle.io.TensorDataset([paddle.to_tensor(IMAGES), paddle.to_tensor(np.arange(4))])
    trainer.fit(images, batch_size=4, epochs=epochs, verbose=0, callbacks=watchers)


@pytest.mark.parametrize('epoch', [1, 2])
def test_unfreeze_lets_everything_learn_from_its_epoch_on(epoch):
    trainer, names = trainer_of('resnet9', 'backbone', *OPTIMIZERS['adam'])
    recorder = Recorder()
    clock = clock_of(steps=1)
    fit(trainer, 2, [clock, callbacks.Unfreeze(clock, epoch, names), recorder])
    for number in (1, 2):
        expected = set(recorder.states[0])
        if number < epoch:
            expected -= of_stages(expected, STAGES['resnet9'])
        assert moved(*recorder.states[number - 1 : number + 1]) == expected


def test_averaged_weights_of_a_frozen_part_stand_still_to_the_bit():
    trainer, _ = trainer_of('resnet9', 'backbone', *OPTIMIZERS['adam'])
    clock = clock_of(steps=1)
    recorder, ema = Recorder(), callbacks.Ema(clock, 0.9)
    fit(trainer, 3, [clock, recorder, ema])
    average = {name: value.numpy() for name, value in ema.average.items()}
    assert moved(recorder.states[0], average) == set(average) - of_stages(average, STAGES['resnet9'])
