"""Optimizers and learning-rate schedules. `settings` is the section `optim` of a configuration."""

import math

from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle
from zodiac.models import freezing


def schedule(settings, steps, epochs):
    """The learning rate over `epochs` of `steps` batches each, after a linear warm-up from zero.

    - cosine: half a cosine from lr to min_lr; cosine_restarts repeats it (both Loshchilov and Hutter 2017, "SGDR").
    - one_cycle: from lr / 25 up to lr during the share `rise` of the steps, then down to min_lr (Smith and Topin 2018; the two phases
      of PyTorch's OneCycleLR).
    - step: multiplied by step_factor every step_epochs.
    - constant.

    Returns: float or paddle.optimizer.lr.LRScheduler. Raises UsageError when there are too few steps for one_cycle.
    """
    schedules = paddle.optimizer.lr
    name, lr, low = settings.schedule, settings.lr, settings.min_lr
    warmup = round(steps * settings.warmup_epochs)
    total = steps * epochs - warmup
    if name == 'one_cycle' and (settings.rise * total <= 1 or (1 - settings.rise) * total <= 0):
        raise UsageError(
            f'optim.schedule = one_cycle: {total} steps are too few for optim.rise = {settings.rise:g}; raise train.epochs, or lower '
            'train.batch_size'
        )
    builders = {
        'cosine': lambda: schedules.CosineAnnealingDecay(lr, max(1, total), low),
        'cosine_restarts': lambda: schedules.LambdaDecay(lr, lambda step: _restarts(step, settings, steps)),
        'one_cycle': lambda: schedules.OneCycleLR(lr, total, 25.0, low, float(settings.rise), settings.anneal),
        'step': lambda: schedules.StepDecay(lr, max(1, round(settings.step_epochs * steps)), settings.step_factor),
        'constant': lambda: lr,
    }
    after = builders[name]()
    return schedules.LinearWarmup(after, warmup, start_lr=0.0, end_lr=lr) if warmup else after


def _restarts(step, settings, steps):
    """Factor of lr: low + (1 - low) (1 + cos(pi t / T)) / 2 at step t of a cycle of T steps, with low = min_lr / lr."""
    start, length = 0.0, max(1.0, settings.restart_epochs * steps)
    while step >= round(start + length):
        start, length = start + length, length * settings.restart_factor
    share = (step - round(start)) / (round(start + length) - round(start))
    low = settings.min_lr / settings.lr
    return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2


def rates(settings, steps, epochs):
    """List of floats: the learning rate of each step of a run."""
    rate = schedule(settings, steps, epochs)
    if isinstance(rate, float):
        return [rate] * (steps * epochs)
    result = []
    for _ in range(steps * epochs):
        result.append(float(rate()))
        rate.step()
    return result


def optimizer(settings, rate, network, frozen=()):
    """A Paddle optimizer for a network's parameters.

    `weight_decay` is an L2 penalty on the loss; with `decoupled_decay`, and always in adamw, it shrinks the weights by
    rate * weight_decay before each step instead (Loshchilov and Hutter 2019). Without `decay_bias_and_norm` biases and BatchNorm
    weights do not decay. `layer_decay` multiplies the rate of each stage of the network by layer_decay ** n, where n is its distance
    from the head in stages (Clark et al. 2020, "ELECTRA"; Bao et al. 2022, "BEiT").

    Args:
        rate: what `schedule` returned.
        frozen: names of the parameters whose learning rate is backbone_lr once they are unfrozen.
    """
    optimizers, l2_decay = paddle.optimizer, paddle.regularizer.L2Decay
    name, decay = settings.name, settings.weight_decay
    parameters = network.parameters()
    spared = set() if settings.decay_bias_and_norm else {p.name for p in parameters if len(p.shape) < 2}
    norms = {parameter.name for layer in freezing.batch_norms(network) for parameter in layer.parameters()}
    distances = {child: n for n, stage in enumerate(reversed(freezing.stages(network))) for child in stage}
    for label, parameter in network.named_parameters():
        if parameter.name in spared and name != 'adamw':
            parameter.regularizer = l2_decay(0.0)
        if label in frozen and settings.backbone_lr:
            parameter.optimize_attr['learning_rate'] *= settings.backbone_lr / settings.lr
        if parameter.name in norms:
            parameter.optimize_attr['learning_rate'] *= settings.norm_lr_factor
        parameter.optimize_attr['learning_rate'] *= settings.layer_decay ** distances.get(label.split('.')[0], 0)
    common = {
        'learning_rate': rate,
        'parameters': parameters,
        'grad_clip': paddle.nn.ClipGradByGlobalNorm(settings.clip_norm) if settings.clip_norm else None,
    }
    if name == 'adamw':
        return optimizers.AdamW(weight_decay=decay, apply_decay_param_fun=lambda name: name not in spared, **common)
    if name == 'momentum':
        common.update(momentum=settings.momentum, use_nesterov=settings.nesterov)
    kind = {'momentum': optimizers.Momentum, 'sgd': optimizers.SGD, 'adam': optimizers.Adam}[name]
    if settings.decoupled_decay:
        return _with_decoupled_decay(kind, [p for p in parameters if p.name not in spared], decay)(**common)
    return kind(weight_decay=l2_decay(decay) if decay else None, **common)


def _with_decoupled_decay(kind, parameters, decay):
    """A subclass of an optimizer that shrinks the parameters that learn by rate * decay before each step."""

    class Decoupled(kind):
        def minimize(self, *args, **kwargs):
            overflow = self._get_auxiliary_var('found_inf')  # of mixed precision: Paddle skips this step
            if overflow is None or not bool(overflow):
                with paddle.no_grad():
                    for parameter in parameters:
                        if not parameter.stop_gradient:
                            rate = self.get_lr() * parameter.optimize_attr['learning_rate']
                            parameter.scale_(1 - rate * decay)
            return super().minimize(*args, **kwargs)

    return Decoupled
