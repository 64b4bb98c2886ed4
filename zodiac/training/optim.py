"""Optimizers, learning-rate schedules and gradient clipping. `settings` is the section `optim` of a configuration."""

import math

from zodiac.base.errors import UsageError
from zodiac.models import freezing


def schedule(settings, steps, epochs):
    """Learning rate by step, over `steps` batches in each of `epochs`.

    `cosine` falls to min_lr along half a cosine; `cosine_restarts` does so again and again, each time from lr (both of
    Loshchilov and Hutter 2017, "SGDR"); `one_cycle` rises from lr / 25 to lr during the share `rise` of the steps and falls
    to min_lr (Smith and Topin 2018, in the two phases of PyTorch's OneCycleLR); `step` multiplies by step_factor every
    step_epochs; `constant` stays. During a warm-up the rate rises linearly from zero before the schedule begins.

    Returns: float or paddle.optimizer.lr.LRScheduler. Raises UsageError when there are too few steps for the schedule.
    """
    from paddle.optimizer import lr as rates

    name, lr, low = settings.schedule, settings.lr, settings.min_lr
    warmup = round(steps * settings.warmup_epochs)
    total = steps * epochs - warmup
    if name == 'one_cycle' and (settings.rise * total <= 1 or (1 - settings.rise) * total <= 0):
        raise UsageError(
            f'optim.schedule = one_cycle: {total} steps are too few for a rise over {settings.rise:g} of them; train '
            'longer (train.epochs), or in smaller batches (train.batch_size)'
        )
    builders = {
        'cosine': lambda: rates.CosineAnnealingDecay(lr, max(1, total), low),
        'cosine_restarts': lambda: rates.LambdaDecay(lr, lambda step: _restarts(step, settings, steps)),
        'one_cycle': lambda: rates.OneCycleLR(lr, total, 25.0, low, float(settings.rise), settings.anneal),
        'step': lambda: rates.StepDecay(lr, max(1, round(settings.step_epochs * steps)), settings.step_factor),
        'constant': lambda: lr,
    }
    after = builders[name]()
    return rates.LinearWarmup(after, warmup, start_lr=0.0, end_lr=lr) if warmup else after


def _restarts(step, settings, steps):
    """Share of settings.lr: low + (1 - low) (1 + cos(pi t / T)) / 2 at step t of a cycle of T steps."""
    start, length = 0.0, max(1.0, settings.restart_epochs * steps)
    while step >= round(start + length):
        start, length = start + length, length * settings.restart_factor
    share = (step - round(start)) / (round(start + length) - round(start))
    low = settings.min_lr / settings.lr
    return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2


def rates(settings, steps, epochs):
    """List of the learning rate of each step of a run."""
    rate = schedule(settings, steps, epochs)
    if isinstance(rate, float):
        return [rate] * (steps * epochs)
    result = []
    for _ in range(steps * epochs):
        result.append(float(rate()))
        rate.step()
    return result


def optimizer(settings, rate, network, frozen=()):
    """A Paddle optimizer over a network's parameters.

    `weight_decay` is an L2 penalty on the loss, or, with `decoupled_decay` and always in adamw, a shrinking of the weights by
    rate * weight_decay beside the step (Loshchilov and Hutter 2019). With `decay_bias_and_norm` off it leaves the biases and
    the BatchNorm weights alone.

    Args:
        frozen: names of parameters that learn with backbone_lr, should they be unfrozen.
    """
    import paddle
    from paddle import nn
    from paddle import optimizer as optimizers

    name, decay = settings.name, settings.weight_decay
    parameters = network.parameters()
    spared = set() if settings.decay_bias_and_norm else {p.name for p in parameters if len(p.shape) < 2}
    norms = {parameter.name for layer in freezing.batch_norms(network) for parameter in layer.parameters()}
    for label, parameter in network.named_parameters():
        if parameter.name in spared and name != 'adamw':
            parameter.regularizer = paddle.regularizer.L2Decay(0.0)
        if label in frozen and settings.backbone_lr:
            parameter.optimize_attr['learning_rate'] *= settings.backbone_lr / settings.lr
        if parameter.name in norms:
            parameter.optimize_attr['learning_rate'] *= settings.norm_lr_factor
    clip = nn.ClipGradByGlobalNorm(settings.clip_norm) if settings.clip_norm else None
    decoupled = settings.decoupled_decay
    l2 = paddle.regularizer.L2Decay(decay) if decay and not decoupled else None
    common = {'parameters': parameters, 'grad_clip': clip}
    builders = {
        'momentum': lambda: optimizers.Momentum(
            rate, settings.momentum, use_nesterov=settings.nesterov, weight_decay=l2, **common
        ),
        'sgd': lambda: optimizers.SGD(rate, weight_decay=l2, **common),
        'adam': lambda: optimizers.Adam(rate, weight_decay=l2, **common),
        'adamw': lambda: optimizers.AdamW(
            rate, weight_decay=decay, apply_decay_param_fun=lambda name: name not in spared, **common
        ),
    }
    result = builders[name]()
    if decoupled and name != 'adamw':
        _decouple(result, [p for p in parameters if p.name not in spared], decay)
    return result


def _decouple(optimizer, parameters, decay):
    """Make an optimizer shrink the weights that learn by rate * decay before each of its steps."""
    import paddle

    step = optimizer.minimize

    def minimize(*args, **kwargs):
        overflow = optimizer._get_auxiliary_var('found_inf')  # of mixed precision: Paddle will skip this step
        with paddle.no_grad():
            for parameter in [] if overflow is not None and bool(overflow) else parameters:
                if parameter.stop_gradient:
                    continue
                parameter.scale_(1 - optimizer.get_lr() * parameter.optimize_attr['learning_rate'] * decay)
        return step(*args, **kwargs)

    optimizer.minimize = minimize
