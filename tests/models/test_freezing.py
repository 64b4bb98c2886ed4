"""Frozen parts of a network do not change; unfrozen, they learn."""

import numpy as np
import pytest
from conftest import clock_of

import config
import train
from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, freezing
from zodiac.training import callbacks, optim


def arrays(network):
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


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


def trainer_of(arch, freeze, *overrides, batch_norm='learn'):
    """train.py's trainer for 4 classes of 32 px images, and the names of its frozen parameters."""
    settings = [f'model.arch={arch}', f'model.freeze={freeze}', 'model.pretrained=false', 'data.labels=[a, b, c, d]']
    cfg = config.load(overrides=[*settings, 'image.size=32', 'optim.schedule=constant', *overrides])
    cfg.train.batch_norm = batch_norm  # keep is for pretrained weights only
    paddle.seed(0)
    network, frozen = train.build_network(cfg, None)
    return train.build_trainer(cfg, network, frozen, cfg.optim.lr, np.arange(4)), frozen


def learn(trainer, steps=1):
    """Train on the four images, one per class; returns the state before and after."""
    before = arrays(trainer.network)
    for _ in range(steps):
        trainer.train_batch([IMAGES], [np.arange(4)])
    return before, arrays(trainer.network)


def moved(before, after):
    return {name for name in after if not np.array_equal(before[name], after[name])}


def of_stages(names, stages):
    return {name for name in names if name.split('.')[0] in stages}


def kept_stages(arch, freeze):
    stages = STAGES[arch]
    if freeze in ('none', 'backbone'):
        return stages if freeze == 'backbone' else []
    return stages[: stages.index(freeze) + 1]


def check_freezing_and_unfreezing(arch, freeze, name):
    """What is frozen does not change by a bit, statistics included, and all else does; unfrozen, everything changes."""
    trainer, names = trainer_of(arch, freeze, *OPTIMIZERS[name])
    before, after = learn(trainer, steps=2)
    frozen = of_stages(after, kept_stages(arch, freeze))
    assert moved(before, after) == set(after) - frozen
    freezing.unfreeze(trainer.network, names)
    before, after = learn(trainer)
    assert moved(before, after) == set(after)


@pytest.mark.parametrize(
    ('freeze', 'name'), [('none', 'adam'), ('con1', 'momentum'), ('r1', 'adam'), ('backbone', 'momentum')]
)
def test_a_frozen_part_of_resnet9_does_not_change_until_it_is_unfrozen(freeze, name):
    check_freezing_and_unfreezing('resnet9', freeze, name)


@pytest.mark.parametrize(('freeze', 'name'), [('none', 'momentum'), ('conv1', 'adam'), ('layer2', 'momentum')])
def test_a_frozen_part_of_a_resnet_does_not_change_until_it_is_unfrozen(freeze, name):
    check_freezing_and_unfreezing('resnet18', freeze, name)


@pytest.mark.parametrize(('arch', 'size', 'freeze'), [('resnet18', 64, 'layer1'), ('cifarnet', 32, 'none')])
def test_sync_batch_norm_keeps_the_parameters_and_skips_frozen_layers(arch, size, freeze):
    network = builder.build(arch, 3, size)
    freezing.freeze(network, freeze)
    parameters, names = dict(network.named_parameters()), set(network.state_dict())
    norms = {name for name, layer in network.named_sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)}
    freezing.sync_batch_norm(network)
    assert set(network.state_dict()) == names
    assert all(value is parameters[name] for name, value in network.named_parameters())
    synced = {name for name, layer in network.named_sublayers() if isinstance(layer, paddle.nn.SyncBatchNorm)}
    assert synced == norms - of_stages(norms, kept_stages(arch, freeze))


@pytest.mark.parametrize('head', ['auto', '[flatten, {linear: 16}, batch_norm, linear]'])
def test_only_the_head_of_a_frozen_backbone_learns(head):
    trainer, _ = trainer_of('resnet18', 'backbone', f'model.head={head}', *OPTIMIZERS['adam'])
    before, after = learn(trainer, steps=2)
    assert moved(before, after) == {name for name in after if name.startswith('fc.')}


@pytest.mark.parametrize(
    ('arch', 'stages'),
    [
        ('resnet18', [['conv1', 'bn1'], ['layer1'], ['layer2'], ['layer3'], ['layer4'], ['fc']]),
        ('resnet9', [['con1'], ['con2'], ['r1'], ['con3'], ['con4'], ['r2'], ['classifier']]),
        ('cifarnet', [['whiten'], ['groups'], ['classifier']]),
        ('efficientnet_lite0', [['stem'], *([f'stage{n}'] for n in range(1, 8)), ['last'], ['fc']]),
        ('convnext_tiny', [['stem'], ['stage1'], ['stage2'], ['stage3'], ['stage4', 'norm'], ['fc']]),
    ],
)
def test_a_normalisation_belongs_to_the_stage_before_it(arch, stages):
    assert freezing.stages(builder.build(arch, 4, 32)) == stages


@pytest.mark.parametrize(
    ('freeze', 'epoch', 'every', 'expected'),
    [
        ('backbone', 0, 0, {}),
        ('none', 3, 1, {}),
        ('backbone', 3, 0, {3: ['conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4']}),
        ('backbone', 3, 2, {3: ['layer4'], 5: ['layer3'], 7: ['layer2'], 9: ['layer1'], 11: ['conv1', 'bn1']}),
        ('layer2', 1, 1, {1: ['layer2'], 2: ['layer1'], 3: ['conv1', 'bn1']}),
        ('conv1', 2, 4, {2: ['conv1']}),
    ],
)
def test_stages_begin_to_learn_from_the_head_down(freeze, epoch, every, expected):
    network = builder.build('resnet18', 4, 32)
    frozen = freezing.freeze(network, freeze)
    found = freezing.unfreezing(network, frozen, epoch, every)
    children = {number: list(dict.fromkeys(name.split('.')[0] for name in names)) for number, names in found.items()}
    assert children == expected
    assert sorted(sum(found.values(), [])) == sorted(frozen if epoch else [])


def statistics(names):
    return {name for name in names if name.endswith(('._mean', '._variance'))}


@pytest.mark.parametrize('name', OPTIMIZERS)
@pytest.mark.parametrize(
    ('arch', 'head', 'freeze'),
    [
        ('resnet9', 'auto', 'none'),
        ('resnet9', 'auto', 'r1'),
        ('resnet18', '[flatten, {linear: 16}, batch_norm, linear]', 'layer2'),
    ],
)
def test_kept_statistics_stand_still_while_all_weights_and_biases_learn(arch, head, freeze, name):
    trainer, names = trainer_of(arch, freeze, f'model.head={head}', *OPTIMIZERS[name], batch_norm='keep')
    before, after = learn(trainer, steps=2)
    frozen = of_stages(after, kept_stages(arch, freeze))
    assert moved(before, after) == set(after) - frozen - statistics(after)
    freezing.unfreeze(trainer.network, names, keep_statistics=True)
    before, after = learn(trainer)
    assert moved(before, after) == set(after) - statistics(after)


@pytest.mark.parametrize('count', [1, 3])
def test_batch_norm_with_kept_statistics_has_the_gradients_of_a_fixed_affine_function(count):
    rng = np.random.default_rng(0)
    norm = paddle.nn.BatchNorm2D(4, epsilon=1e-3)
    mean, variance, weight, bias = (rng.uniform(0.5, 2, 4).astype('float32') for _ in range(4))
    norm.set_state_dict({'_mean': mean, '_variance': variance, 'weight': weight, 'bias': bias})
    network = paddle.nn.Sequential(norm, paddle.nn.Flatten(), paddle.nn.Linear(4, 2))
    freezing.freeze(network, 'none', keep_statistics=True)
    x, slope = (rng.standard_normal((count, 4, 1, 1), dtype='float32') for _ in range(2))
    images = paddle.to_tensor(x, stop_gradient=False)
    network.train()
    result = norm(images)
    (result * paddle.to_tensor(slope)).sum().backward()

    def per_channel(values):
        return np.reshape(values, (1, 4, 1, 1))

    scale = 1 / np.sqrt(variance + 1e-3)
    normal = (x - per_channel(mean)) * per_channel(scale)
    for found, expected in (
        (result, normal * per_channel(weight) + per_channel(bias)),
        (images.grad, slope * per_channel(weight * scale)),
        (norm.weight.grad, (slope * normal).sum((0, 2, 3))),
        (norm.bias.grad, slope.sum((0, 2, 3))),
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(norm._mean.numpy(), mean) and np.array_equal(norm._variance.numpy(), variance)


def test_sync_batch_norm_leaves_kept_statistics_alone():
    network = builder.build('resnet18', 3, 32)
    freezing.freeze(network, 'none', keep_statistics=True)
    freezing.sync_batch_norm(network)
    assert not any(isinstance(layer, paddle.nn.SyncBatchNorm) for layer in network.sublayers())
    assert freezing.moving_statistics(network) == []


def learning(network):
    return {name for name, parameter in network.named_parameters() if not parameter.stop_gradient}


@pytest.mark.parametrize('arch', STAGES)
def test_freeze_returns_the_parameters_that_it_stopped(arch):
    network = builder.build(arch, 4, 32)
    before = learning(network)
    for freeze in ('none', STAGES[arch][0], STAGES[arch][1], 'backbone'):
        names = freezing.freeze(network, freeze)
        assert set(names) == of_stages(before, kept_stages(arch, freeze)) and len(set(names)) == len(names)
        assert learning(network) == before - set(names)
        freezing.unfreeze(network, names)
        assert learning(network) == before
        norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
        assert norms and not any(norm._use_global_stats for norm in norms)


def test_fixed_batch_norm_weights_of_cifarnet_stay_fixed_with_a_backbone_rate():
    network = builder.build('cifarnet', 4, 32)
    still = {name for name, p in network.named_parameters() if p.optimize_attr['learning_rate'] == 0}
    assert len(still) == 6
    cfg = config.load(overrides=['optim.backbone_lr=0.001', 'model.freeze=backbone', 'model.unfreeze_epoch=2'])
    optim.optimizer(cfg.optim, 0.1, network, freezing.freeze(network, 'backbone'))
    assert still == {name for name, p in network.named_parameters() if p.optimize_attr['learning_rate'] == 0}


@pytest.mark.parametrize('arch', STAGES)
def test_an_unknown_stage_is_refused_with_the_valid_ones(arch):
    network = builder.build(arch, 4, 32)
    for freeze in ('layer9', 'fc', 'classifier', 'maxpool', 'layer1.0', ''):
        with pytest.raises(UsageError) as caught:
            freezing.freeze(network, freeze)
        assert f'model.freeze = {freeze}: ' in str(caught.value)
        assert str(caught.value).endswith(f'none, backbone, or the last stage to freeze: {", ".join(STAGES[arch])}')
    assert not any(parameter.stop_gradient for name, parameter in network.named_parameters() if name.endswith('bias'))


def test_a_frozen_stage_gives_the_same_output_in_training_and_evaluation():
    network = builder.build('resnet9', 4, 32)
    freezing.freeze(network, 'con2')
    images = paddle.to_tensor(IMAGES)
    results = []
    for mode in (network.train, network.eval):
        mode()
        results.append(network.con2(network.con1(images)).numpy())
    assert np.array_equal(*results)


@pytest.mark.parametrize('decoupled', ['false', 'true'])
def test_unfrozen_before_the_first_step_is_the_same_as_never_frozen(decoupled):
    states = []
    for freeze in ('backbone', 'none'):
        overrides = [f'optim.decoupled_decay={decoupled}', 'optim.lr=0.1', 'optim.weight_decay=0.1']
        trainer, names = trainer_of('resnet9', freeze, *overrides)
        assert bool(names) == (freeze == 'backbone')
        freezing.unfreeze(trainer.network, names)
        paddle.seed(5)
        states.append(learn(trainer)[1])
    for name in states[0]:
        np.testing.assert_allclose(states[0][name], states[1][name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_backbone_with_a_head_without_parameters_is_frozen_completely():
    network = builder.build('resnet18', 512, 32, ['global_avg_pool', 'flatten'])
    freezing.freeze(network, 'backbone')
    assert all(parameter.stop_gradient for parameter in network.parameters())


class Recorder(paddle.callbacks.Callback):
    """Keeps the network's state at the start and after each epoch."""

    def on_train_begin(self, logs=None):
        self.states = [arrays(self.model.network)]

    def on_epoch_end(self, epoch, logs=None):
        self.states.append(arrays(self.model.network))


def fit(trainer, epochs, watchers):
    images = paddle.io.TensorDataset([paddle.to_tensor(IMAGES), paddle.to_tensor(np.arange(4))])
    trainer.fit(images, batch_size=4, epochs=epochs, verbose=0, callbacks=watchers)


@pytest.mark.parametrize('epoch', [1, 2])
def test_everything_learns_from_the_epoch_of_unfreeze(epoch):
    trainer, names = trainer_of('resnet9', 'backbone', *OPTIMIZERS['adam'])
    recorder = Recorder()
    clock = clock_of(steps=1)
    fit(trainer, 2, [clock, callbacks.Unfreeze(clock, {epoch: names}), recorder])
    for number in (1, 2):
        expected = set(recorder.states[0])
        if number < epoch:
            expected -= of_stages(expected, STAGES['resnet9'])
        assert moved(*recorder.states[number - 1 : number + 1]) == expected


@pytest.mark.parametrize('batch_norm', ['learn', 'keep'])
def test_one_stage_after_another_begins_to_learn(batch_norm, capsys):
    trainer, names = trainer_of('resnet9', 'r1', *OPTIMIZERS['adam'], batch_norm=batch_norm)
    capsys.readouterr()
    recorder = Recorder()
    clock = clock_of(steps=1, epochs=7)
    parts = freezing.unfreezing(trainer.network, names, 2, 2)
    fit(trainer, 7, [clock, callbacks.Unfreeze(clock, parts, batch_norm == 'keep'), recorder])
    stages = STAGES['resnet9']
    for number, frozen in enumerate([3, 2, 2, 1, 1, 0, 0]):
        before, after = recorder.states[number : number + 2]
        still = of_stages(after, stages[:frozen]) | (statistics(after) if batch_norm == 'keep' else set())
        assert moved(before, after) == set(after) - still, number + 1
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith('from epoch')] == [
        'from epoch 2 on, these layers learn too: r1',
        'from epoch 4 on, these layers learn too: con2',
        'from epoch 6 on, these layers learn too: con1',
    ]


def test_kept_statistics_are_not_averaged():
    trainer, _ = trainer_of('resnet9', 'none', *OPTIMIZERS['adam'], batch_norm='keep')
    clock = clock_of(steps=1)
    recorder, ema = Recorder(), callbacks.Ema(clock, 0.9)
    fit(trainer, 3, [clock, recorder, ema])
    average = {name: value.numpy() for name, value in ema.average.items()}
    assert moved(recorder.states[0], average) == set(average) - statistics(average)


def test_averaged_weights_of_a_frozen_part_do_not_change():
    trainer, _ = trainer_of('resnet9', 'backbone', *OPTIMIZERS['adam'])
    clock = clock_of(steps=1)
    recorder, ema = Recorder(), callbacks.Ema(clock, 0.9)
    fit(trainer, 3, [clock, recorder, ema])
    average = {name: value.numpy() for name, value in ema.average.items()}
    assert moved(recorder.states[0], average) == set(average) - of_stages(average, STAGES['resnet9'])
