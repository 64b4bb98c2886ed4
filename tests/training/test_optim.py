"""Schedules and optimizer steps, compared with formulas in NumPy."""

import math

import numpy as np
import pytest
from conftest import assert_message, make_tree

import config
from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, freezing
from zodiac.training import optim

LR, LOW = 0.02, 0.001


def rates(steps, epochs, **settings):
    return optim.rates(config.Optim(**{'lr': LR, **settings}), steps, epochs)


# Schedules


def half_cosine(t, length, high=LR, low=LOW):
    return low + (high - low) / 2 * (1 + math.cos(math.pi * t / length))


def two_phases(t, total, high, low, rise=0.3, shape=lambda share: (1 - math.cos(math.pi * share)) / 2):
    """The rate of PyTorch's OneCycleLR: from high / 25 at step 0 to high at rise * total - 1 to low at total - 1."""
    peak = rise * total - 1
    if t <= peak:
        return high / 25 + (high - high / 25) * shape(t / peak)
    return high + (low - high) * shape((t - peak) / (total - 1 - peak))


def restarting_cosine(t, length, factor, high=LR, low=LOW):
    while t >= length:
        t, length = t - length, length * factor
    return half_cosine(t, length, high, low)


def test_cosine_follows_its_closed_form_from_lr_down_to_min_lr():
    found = rates(25, 4, schedule='cosine', min_lr=LOW)
    assert found == pytest.approx([half_cosine(t, 100) for t in range(100)], rel=1e-9)
    assert found[0] == LR


def test_cosine_matches_its_closed_form_over_20_000_steps():
    found = rates(1000, 20, schedule='cosine')
    assert found == pytest.approx([half_cosine(t, 20_000, low=0) for t in range(20_000)], rel=1e-5)
    assert min(found) > 0


def test_cosine_reaches_min_lr_after_the_last_step_and_continues():
    rate = optim.schedule(config.Optim(lr=LR, schedule='cosine', min_lr=LOW), 5, 4)
    seen = []
    for _ in range(60):
        seen.append(rate())
        rate.step()
    assert seen[20] == pytest.approx(LOW, rel=1e-9)
    assert seen[21] == pytest.approx(seen[20] + (LR - LOW) / 2 * (1 - math.cos(math.pi / 20)), rel=1e-9)
    assert seen == pytest.approx([half_cosine(t, 20) for t in range(60)], rel=1e-9)


@pytest.mark.parametrize(
    ('epochs_of_a_cycle', 'factor'), [(1.0, 1.0), (2.0, 1.0), (0.5, 1.0), (1.0, 2.0), (0.5, 3.0), (2.0, 1.5)]
)
def test_cosine_restarts_follows_sgdr_also_where_it_restarts(epochs_of_a_cycle, factor):
    found = rates(
        8, 12, schedule='cosine_restarts', min_lr=LOW, restart_epochs=epochs_of_a_cycle, restart_factor=factor
    )
    length = 8 * epochs_of_a_cycle
    assert found == pytest.approx([restarting_cosine(t, length, factor) for t in range(96)], rel=1e-9)
    start = 0
    while start < 96:
        assert found[start] == pytest.approx(LR, rel=1e-12)
        if start:
            assert found[start - 1] < found[start]
        start, length = int(start + length), length * factor


def test_a_slow_growth_of_short_cycles_is_not_lost_in_rounding():
    found = rates(4, 25, schedule='cosine_restarts', restart_epochs=1.0, restart_factor=1.1)
    restarts = sum(after > before for before, after in zip(found, found[1:]))
    assert restarts == pytest.approx(13, abs=1)  # 4 (1.1^n - 1) / 0.1 = 100 at n = 13.1


def test_one_cycle_has_the_rates_that_pytorch_prints_at_the_end_of_each_epoch():
    low = 0.01 / 25 / 10_000  # PyTorch's default
    found = rates(125, 8, schedule='one_cycle', lr=0.01, min_lr=low)
    ends = [round(rate, 5) for rate in found[124::125]]  # rate of the last batch of each epoch
    assert ends == [0.00393, 0.00935, 0.00972, 0.00812, 0.00556, 0.00283, 0.00077, 0.00000]
    assert found == pytest.approx([two_phases(t, 1000, 0.01, low) for t in range(1000)], rel=1e-6)
    assert (found[0], max(found), found[-1]) == pytest.approx((0.0004, 0.01, low), rel=1e-9)
    assert found.index(max(found)) == 299


def test_one_cycle_with_linear_anneal():
    found = rates(20, 5, schedule='one_cycle', anneal='linear', rise=0.4, min_lr=LOW)
    line = [two_phases(t, 100, LR, LOW, 0.4, shape=lambda share: share) for t in range(100)]
    assert found == pytest.approx(line, rel=1e-9)
    differences = np.diff(found)
    assert differences[:39] == pytest.approx((LR - LR / 25) / 39, rel=1e-6)
    assert differences[39:] == pytest.approx((LOW - LR) / 60, rel=1e-6)


@pytest.mark.parametrize('rise', [0.01, 0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize('anneal', ['cos', 'linear'])
def test_one_cycle_with_too_few_steps_names_the_settings(rise, anneal):
    worked = []
    for steps in range(13):
        try:
            found = rates(steps, 1, schedule='one_cycle', rise=rise, anneal=anneal, min_lr=LOW)
        except UsageError as error:
            assert 'optim.schedule = one_cycle' in str(error) and 'train.epochs' in str(error)
            assert rise * steps <= 1
        else:
            worked.append(steps)
            assert len(found) == steps
            assert all(LR / 25 * (1 - 1e-9) <= rate <= LR * (1 + 1e-9) for rate in found)
            assert found[-1] == pytest.approx(LOW)
    assert worked == [steps for steps in range(13) if rise * steps > 1]


def test_step_multiplies_the_rate_every_so_many_epochs():
    found = rates(4, 5, schedule='step', step_epochs=1.5, step_factor=0.5)
    assert found == pytest.approx([LR * 0.5 ** (t // 6) for t in range(20)], rel=1e-9)


def test_every_allowed_step_factor_gives_a_schedule():
    allowed = []
    for factor in ('0.1', '0.999', '1'):
        try:
            settings = config.load(overrides=['optim.schedule=step', f'optim.step_factor={factor}']).optim
        except UsageError as error:
            assert 'optim.step_factor' in str(error)
        else:
            allowed.append(optim.rates(settings, 3, 2))
    assert all(len(found) == 6 for found in allowed)


def test_constant_stays():
    assert rates(3, 4, schedule='constant') == [LR] * 12


SCHEDULES = {
    'cosine': lambda t, total: half_cosine(t, total),
    'cosine_restarts': lambda t, total: restarting_cosine(t, 10, 2.0),
    'one_cycle': lambda t, total: two_phases(t, total, LR, LOW),
    'step': lambda t, total: LR * 0.1 ** (t // 20),
    'constant': lambda t, total: LR,
}
SHARED = {'min_lr': LOW, 'restart_epochs': 1.0, 'restart_factor': 2.0, 'step_epochs': 2.0}


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('warmup_epochs', [0.0, 0.1, 0.7, 2.0])
def test_a_linear_warm_up_precedes_the_schedule(schedule, warmup_epochs):
    warmup, total = round(10 * warmup_epochs), 60
    found = rates(10, 6, schedule=schedule, warmup_epochs=warmup_epochs, **SHARED)
    expected = [LR * t / warmup for t in range(warmup)]
    expected += [SCHEDULES[schedule](t, total - warmup) for t in range(total - warmup)]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize(('steps', 'epochs'), [(1, 5), (5, 1), (3, 7)])
def test_there_is_a_rate_for_each_step(schedule, steps, epochs):
    found = rates(steps, epochs, schedule=schedule, **SHARED)
    assert len(found) == steps * epochs
    assert all(isinstance(rate, float) and math.isfinite(rate) for rate in found)


@pytest.mark.parametrize('schedule', [name for name in SCHEDULES if name != 'one_cycle'])
@pytest.mark.parametrize('warmup_epochs', [0.0, 1.0])
def test_a_run_of_one_step_has_a_rate(schedule, warmup_epochs):
    found = rates(1, 1, schedule=schedule, warmup_epochs=warmup_epochs, **SHARED)
    assert found == [0.0 if warmup_epochs else LR]


@pytest.mark.parametrize('schedule', [name for name in SCHEDULES if name != 'one_cycle'])
@pytest.mark.parametrize('warmup_epochs', [2.0, 2.5])
def test_a_warm_up_longer_than_the_run_rises_to_the_end(schedule, warmup_epochs):
    found = rates(10, 2, schedule=schedule, warmup_epochs=warmup_epochs, **SHARED)
    assert found == pytest.approx([LR * t / (10 * warmup_epochs) for t in range(20)], rel=1e-9)


def test_a_warm_up_longer_than_the_run_leaves_no_steps_for_one_cycle():
    with pytest.raises(UsageError, match='optim.schedule = one_cycle'):
        optim.schedule(config.Optim(schedule='one_cycle', warmup_epochs=3.0), 10, 2)


@pytest.mark.parametrize('schedule', [name for name in SCHEDULES if name != 'constant'])
@pytest.mark.parametrize('warmup_epochs', [0.0, 1.0])
def test_a_schedule_can_be_stepped_after_the_last_step(schedule, warmup_epochs):
    settings = config.Optim(lr=LR, schedule=schedule, warmup_epochs=warmup_epochs, **SHARED)
    rate = optim.schedule(settings, 10, 3)
    for _ in range(30):
        rate.step()
    assert math.isfinite(rate())
    assert 0 < rate() <= LR * (1 + 1e-9)


@pytest.mark.parametrize(
    ('overrides', 'key'),
    [
        (['optim.schedule=one_cycle', 'optim.warmup_epochs=1'], 'optim.warmup_epochs'),
        (['optim.lr=0.01', 'optim.min_lr=0.02'], 'optim.min_lr'),
        (['optim.name=adam', 'optim.nesterov=true'], 'optim.nesterov'),
        (['optim.restart_factor=0.5'], 'optim.restart_factor'),
        (['optim.rise=0'], 'optim.rise'),
        (['optim.lr=0'], 'optim.lr'),
    ],
)
def test_contradictory_or_out_of_range_settings_are_refused(overrides, key):
    with pytest.raises(UsageError, match=key):
        config.load(overrides=overrides)


def test_integers_are_valid_rates():
    overrides = ['optim.lr=1', 'optim.min_lr=0', 'optim.weight_decay=0', 'optim.clip_norm=1', 'optim.norm_lr_factor=2']
    for schedule in SCHEDULES:
        settings = config.load(overrides=[*overrides, f'optim.schedule={schedule}']).optim
        assert len(optim.rates(settings, 10, 1)) == 10
        optim.optimizer(settings, optim.schedule(settings, 10, 1), Slopes(), ['body.weight'])


# Optimizers. The loss is linear in each parameter, so the gradients are known.

RNG = np.random.default_rng(0)
SHAPES = {'body.weight': (3, 2), 'body.bias': (2,), 'norm.weight': (4,), 'norm.bias': (4,), 'head.weight': (2, 2)}
START = {name: RNG.normal(0, 1, shape) for name, shape in SHAPES.items()}
SLOPES = {name: RNG.normal(0, 2, shape) for name, shape in SHAPES.items()}
SCALES = (1.0, -0.5, 2.0, 0.25)  # of the gradients, by step
SPARED = ('body.bias', 'norm.weight', 'norm.bias')


class Slopes(paddle.nn.Layer):
    """Output for a batch of one number x: x times the sum of parameter * slope."""

    def __init__(self):
        super().__init__()
        self.body = paddle.nn.Linear(3, 2)
        self.norm = paddle.nn.BatchNorm1D(4)
        self.head = paddle.nn.Linear(2, 2, bias_attr=False)
        for name, parameter in learning(self).items():
            parameter.set_value(START[name].astype('float32'))

    def forward(self, x):
        return x.sum() * paddle.add_n(
            [
                (parameter * paddle.to_tensor(SLOPES[name], 'float32')).sum()
                for name, parameter in learning(self).items()
            ]
        )


def learning(network):
    """The parameters without the statistics of BatchNorm, which Paddle counts among them."""
    return {name: parameter for name, parameter in network.named_parameters() if name in SHAPES}


def values_of(network):
    return {name: parameter.numpy().astype('float64') for name, parameter in learning(network).items()}


def through_model(network, optimizer):
    trainer = paddle.Model(network)
    trainer.prepare(optimizer, lambda output, label: output * label.sum())
    return lambda x: trainer.train_batch([np.float32([x])], [np.float32([1])])


def through_minimize(network, optimizer):
    def step(x):
        loss = network(paddle.to_tensor([x], 'float32'))
        loss.backward()
        optimizer.minimize(loss)
        optimizer.clear_grad()

    return step


def clipped(gradients, settings):
    if settings.clip_norm:
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        return {name: g * settings.clip_norm / max(norm, settings.clip_norm) for name, g in gradients.items()}
    return gradients


class Expected:
    """The same network and optimizer in NumPy: Polyak's and Nesterov's momentum, SGD, Adam (Kingma and Ba 2015)."""

    def __init__(self, settings):
        self.settings = settings
        self.values = {name: value.copy() for name, value in START.items()}
        self.first = dict.fromkeys(START, 0.0)
        self.second = dict.fromkeys(START, 0.0)
        self.count = dict.fromkeys(START, 0)

    def step(self, x, rate, frozen=(), slow=()):
        s = self.settings
        gradients = {name: x * slope for name, slope in SLOPES.items() if name not in frozen}
        for name, g in clipped(gradients, s).items():
            lr = rate * s.backbone_lr / s.lr if name in slow else rate
            lr = lr * s.norm_lr_factor if name.startswith('norm.') else lr
            lr = lr if name.startswith('head.') else lr * s.layer_decay  # norm belongs to the stage of body
            p = self.values[name]
            decay = 0.0 if name in SPARED and not s.decay_bias_and_norm else s.weight_decay
            if s.decoupled_decay or s.name == 'adamw':
                p = p * (1 - lr * decay)
            else:
                g = g + decay * p
            self.values[name] = p - lr * self.direction(name, g)

    def direction(self, name, g):
        s = self.settings
        if s.name == 'sgd':
            return g
        if s.name == 'momentum':
            self.first[name] = s.momentum * self.first[name] + g
            return g + s.momentum * self.first[name] if s.nesterov else self.first[name]
        self.count[name] += 1
        self.first[name] = 0.9 * self.first[name] + 0.1 * g
        self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
        mean = self.first[name] / (1 - 0.9 ** self.count[name])
        square = self.second[name] / (1 - 0.999 ** self.count[name])
        return mean / (np.sqrt(square) + 1e-8)


def assert_close(found, expected):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def compare(drive=through_model, slow=(), schedule=None, **settings):
    """Compare some steps of the optimizer with the formula, with a large weight decay."""
    settings = config.Optim(**{'lr': 0.1, 'weight_decay': 0.3, 'schedule': 'constant', **settings})
    network, expected = Slopes(), Expected(settings)
    rate = schedule or settings.lr
    step = drive(network, optim.optimizer(settings, rate, network, slow))
    for x in SCALES:
        expected.step(x, rate() if schedule else rate, slow=slow)
        step(x)
        assert_close(values_of(network), expected.values)
        if schedule:
            schedule.step()


KINDS = {
    'momentum': {'name': 'momentum'},
    'nesterov': {'name': 'momentum', 'nesterov': True, 'momentum': 0.5},
    'sgd': {'name': 'sgd'},
    'adam': {'name': 'adam'},
    'adamw': {'name': 'adamw'},
    'momentum decoupled': {'name': 'momentum', 'decoupled_decay': True},
    'nesterov decoupled': {'name': 'momentum', 'nesterov': True, 'decoupled_decay': True},
    'adam decoupled': {'name': 'adam', 'decoupled_decay': True},
}
each_kind = pytest.mark.parametrize('kind', KINDS)


@each_kind
@pytest.mark.parametrize(
    'settings',
    [
        *({'drive': through_minimize}, {'drive': through_model}, {'weight_decay': 0.0}, {'decay_bias_and_norm': False}),
        *({'clip_norm': 1.5}, {'clip_norm': 100.0}),  # before weight decay
        {'slow': ['body.weight', 'body.bias'], 'backbone_lr': 0.01, 'decay_bias_and_norm': False},
        {'slow': ['body.weight', 'body.bias'], 'backbone_lr': 0.01},
        {'norm_lr_factor': 3.0},
        {'norm_lr_factor': 3.0, 'slow': ['body.weight', 'norm.weight', 'norm.bias'], 'backbone_lr': 0.02},
        {'layer_decay': 0.5},
        {'layer_decay': 0.5, 'slow': ['body.weight', 'body.bias'], 'backbone_lr': 0.02, 'norm_lr_factor': 3.0},
        {'layer_decay': 0.5, 'decay_bias_and_norm': False, 'clip_norm': 1.5},
    ],
    ids=' '.join,
)
def test_steps_match_the_formula(kind, settings):
    compare(**KINDS[kind], **settings)


@each_kind
def test_weight_decay_follows_the_schedule(kind):
    schedule = optim.schedule(config.Optim(lr=0.1, schedule='cosine', warmup_epochs=1.0), 2, 3)
    compare(**KINDS[kind], schedule=schedule)


@each_kind
def test_backbone_lr_follows_the_schedule(kind):
    schedule = optim.schedule(config.Optim(lr=0.1, schedule='cosine'), 2, 3)
    compare(**KINDS[kind], slow=['body.weight', 'norm.bias'], backbone_lr=0.02, schedule=schedule)


def test_norm_lr_factor_applies_to_all_batch_norm_of_a_resnet_and_nothing_else():
    network = builder.build('resnet18', 2, head=['flatten', {'linear': 8}, 'batch_norm', 'linear'], image_size=32)
    optim.optimizer(config.Optim(norm_lr_factor=8.0), 0.1, network)
    fast = {name for name, p in network.named_parameters() if p.optimize_attr['learning_rate'] == 8.0}
    learning = {name for name, p in network.named_parameters() if not p.stop_gradient}
    assert {p.optimize_attr['learning_rate'] for p in network.parameters()} == {1.0, 8.0}
    assert len(fast & learning) == 2 * 20 + 2  # weight and bias
    assert not any(len(p.shape) > 1 for name, p in network.named_parameters() if name in fast)


@pytest.mark.parametrize(
    ('arch', 'distances'),
    [
        ('resnet18', {'fc': 0, 'layer4': 1, 'layer3': 2, 'layer2': 3, 'layer1': 4, 'bn1': 5, 'conv1': 5}),
        ('resnet9', {'classifier': 0, 'r2': 1, 'con4': 2, 'con3': 3, 'r1': 4, 'con2': 5, 'con1': 6}),
    ],
)
def test_layer_decay_is_a_power_of_the_distance_from_the_head_in_stages(arch, distances):
    network = builder.build(arch, 2, image_size=32)
    optim.optimizer(config.Optim(layer_decay=0.7), 0.1, network)
    for name, parameter in network.named_parameters():
        expected = 0.7 ** distances[name.split('.')[0]]
        assert parameter.optimize_attr['learning_rate'] == pytest.approx(expected, rel=1e-12), name


def test_layer_decay_counts_the_stages_from_the_head_also_when_some_are_frozen():
    found = []
    for freeze in ('none', 'layer2'):
        network = builder.build('resnet18', 2, image_size=32)
        frozen = freezing.freeze(network, freeze)
        optim.optimizer(config.Optim(layer_decay=0.7), 0.1, network, frozen)
        found.append([p.optimize_attr['learning_rate'] for p in network.parameters()])
    assert found[0] == found[1]


def test_norm_lr_factor_applies_to_synchronised_batch_norm():
    plain, synchronised = (builder.build('resnet18', 2, image_size=32) for _ in range(2))
    freezing.sync_batch_norm(synchronised)
    found = []
    for network in (plain, synchronised):
        optim.optimizer(config.Optim(norm_lr_factor=8.0), 0.1, network)
        found.append({name: p.optimize_attr['learning_rate'] for name, p in network.named_parameters()})
    assert found[0] == found[1]
    assert sorted(set(found[1].values())) == [1.0, 8.0]


def test_batch_norm_weights_of_cifarnet_stay_fixed_with_backbone_lr():
    network = builder.build('cifarnet', 2, image_size=32)
    frozen = freezing.freeze(network, 'backbone')
    settings = config.Optim(lr=0.1, backbone_lr=0.05, norm_lr_factor=2.0)
    trainer = paddle.Model(network)
    trainer.prepare(optim.optimizer(settings, 0.1, network, frozen), paddle.nn.CrossEntropyLoss())
    freezing.unfreeze(network, frozen)
    trainer.train_batch([np.random.default_rng(0).random((2, 3, 32, 32), 'float32')], [np.array([0, 1])])
    norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    assert all((norm.weight.numpy() == 1).all() for norm in norms)
    assert all((norm.bias.numpy() != 0).any() for norm in norms)


def test_the_whitening_of_cifarnet_stays_fixed_after_unfreezing():
    network = builder.build('cifarnet', 2, image_size=32)
    learning_before = {name for name, p in network.named_parameters() if not p.stop_gradient}
    frozen = freezing.freeze(network, 'backbone')
    freezing.unfreeze(network, frozen)
    assert {name for name, p in network.named_parameters() if not p.stop_gradient} == learning_before


def test_without_backbone_lr_all_parameters_have_the_same_rate():
    settings = config.Optim(lr=0.1)
    network, expected = Slopes(), Expected(settings)
    step = through_model(network, optim.optimizer(settings, 0.1, network, ['body.weight']))
    expected.step(1.0, 0.1)
    step(1.0)
    assert_close(values_of(network), expected.values)


@each_kind
@pytest.mark.parametrize(('drive', 'clip'), [(through_model, {'clip_norm': 1.5}), (through_minimize, {})])
def test_a_frozen_parameter_learns_once_it_is_unfrozen(kind, drive, clip):
    settings = config.Optim(**{'lr': 0.1, 'weight_decay': 0.3, **KINDS[kind], **clip})
    network, expected = Slopes(), Expected(settings)
    frozen = ['body.weight', 'body.bias']
    for parameter in network.body.parameters():
        parameter.stop_gradient = True
    step = drive(network, optim.optimizer(settings, 0.1, network, frozen))
    for number, x in enumerate(SCALES):
        if number == 2:
            frozen = []
            for parameter in network.body.parameters():
                parameter.stop_gradient = False
        expected.step(x, 0.1, frozen)
        step(x)
        found = values_of(network)
        assert_close(found, expected.values)
        for name in frozen:
            assert (found[name] == START[name].astype('float32')).all()


@each_kind
def test_a_parameter_frozen_during_the_run_stops_changing(kind):
    settings = config.Optim(**{'lr': 0.1, 'weight_decay': 0.3, **KINDS[kind]})
    network, expected = Slopes(), Expected(settings)
    step = through_model(network, optim.optimizer(settings, 0.1, network))
    for number, x in enumerate(SCALES):
        if number == 2:
            network.body.weight.stop_gradient = True
        expected.step(x, 0.1, ['body.weight'] if number >= 2 else [])
        step(x)
    assert_close(values_of(network), expected.values)


@each_kind
def test_accumulating_batches_does_not_change_the_weights(kind):
    settings = config.Optim(**{'lr': 0.1, 'weight_decay': 0.3, **KINDS[kind]})
    network, expected = Slopes(), Expected(settings)
    trainer = paddle.Model(network)
    trainer.prepare(optim.optimizer(settings, 0.1, network), lambda output, label: output * label.sum())
    trainer.train_batch([np.float32([0.5])], [np.float32([1])], update=False)
    assert_close(values_of(network), START)
    trainer.train_batch([np.float32([1.0])], [np.float32([1])])
    expected.step(1.5, 0.1)
    assert_close(values_of(network), expected.values)


@pytest.mark.parametrize('kind', KINDS)
def test_a_step_skipped_for_overflow_does_not_decay_the_weights(kind):
    settings = config.Optim(**{'lr': 0.1, 'weight_decay': 0.3, **KINDS[kind]})
    network = Slopes()
    optimizer = optim.optimizer(settings, 0.1, network)
    optimizer._set_auxiliary_var('found_inf', paddle.to_tensor([True]))  # as paddle.amp.GradScaler.minimize does
    through_minimize(network, optimizer)(1.0)
    assert_close(values_of(network), START)


def test_the_statistics_of_an_unfrozen_batch_norm_do_not_decay():
    found = {}
    for frozen_first in (False, True):
        paddle.seed(0)
        network = builder.build('resnet18', 2)
        settings = config.Optim(lr=0.1, weight_decay=1.0, decoupled_decay=True)
        frozen = freezing.freeze(network, 'layer4' if frozen_first else 'none')
        trainer = paddle.Model(network)
        trainer.prepare(optim.optimizer(settings, 0.1, network, frozen), paddle.nn.CrossEntropyLoss())
        if frozen_first:
            freezing.unfreeze(network, frozen)
        trainer.train_batch([np.random.default_rng(0).random((2, 3, 32, 32), 'float32')], [np.array([0, 1])])
        found[frozen_first] = network.bn1._variance.numpy()
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5)


def test_the_tests_cover_every_optimizer_and_schedule():
    from typing import get_args, get_type_hints

    hints = get_type_hints(config.Optim)
    assert {kind['name'] for kind in KINDS.values()} == set(get_args(hints['name']))
    assert set(SCHEDULES) == set(get_args(hints['schedule']))


# The command line


@pytest.mark.parametrize(
    ('override', 'valid'),
    [
        ('optim.schedule=cosin', ('cosine', 'cosine_restarts', 'one_cycle', 'step', 'constant')),
        ('optim.name=sgdm', ('momentum', 'sgd', 'adam', 'adamw')),
        ('optim.anneal=log', ('cos', 'linear')),
    ],
)
def test_an_unknown_name_is_refused_with_the_allowed_names(call_script, tmp_path, override, valid):
    result = call_script('train.py', '-o', override, cwd=tmp_path)
    assert_message(result, 2, *override.split('='), *valid)


def test_plot_schedule_writes_a_plot_beside_the_run_folder(call_script, tmp_path):
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'': 4})
    for split in ('train', 'valid'):
        lines = [
            f'photos/{label}/{label}_{n}.jpg\t{number}\n'
            for number, label in enumerate(['cat', 'dog'])
            for n in range(4)
        ]
        (tmp_path / 'photos' / f'{split}.txt').write_text(''.join(lines))
    (tmp_path / 'small.yaml').write_text(
        'name: tiny\ndata: {root: photos, labels: [cat, dog]}\nimage: {size: 32}\nmodel: {arch: resnet18}\n'
        'train: {epochs: 5, batch_size: 2}\noptim: {lr: 0.02, min_lr: 0.001, schedule: one_cycle}\n'
    )
    result = call_script('train.py', '--plot-schedule', '-c', 'small.yaml', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    # 20 steps; the rate is highest at step 5
    assert 'learning rate: first step 0.0008, highest 0.02, last step 0.001' in result.stdout
    assert 'written: output/tiny.schedule.png' in result.stdout
    assert [path.name for path in (tmp_path / 'output').iterdir()] == ['tiny.schedule.png']
    assert (tmp_path / 'output/tiny.schedule.png').read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
