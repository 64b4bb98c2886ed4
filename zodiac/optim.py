"""Optimizers and learning-rate schedules."""


def schedule(name, lr, total_steps, warmup_steps=0):
    """Learning rate by step: `cosine` falls to zero over the steps after the warm-up (Loshchilov and Hutter 2017, without
    restarts), `constant` stays. During the warm-up the rate rises linearly from zero.

    Returns: float or paddle.optimizer.lr.LRScheduler.
    """
    from paddle.optimizer import lr as rates

    builders = {
        'cosine': lambda: rates.CosineAnnealingDecay(lr, T_max=max(1, total_steps - warmup_steps)),
        'constant': lambda: lr,
    }
    after = builders[name]()
    return rates.LinearWarmup(after, warmup_steps, start_lr=0.0, end_lr=lr) if warmup_steps else after


def optimizer(name, rate, parameters, weight_decay=0.0, momentum=0.9, nesterov=False):
    """A Paddle optimizer. `weight_decay` is an L2 penalty on the loss, for adamw the decoupled decay."""
    import paddle
    from paddle import optimizer as optimizers

    l2 = paddle.regularizer.L2Decay(weight_decay) if weight_decay else None
    builders = {
        'momentum': lambda: optimizers.Momentum(rate, momentum, parameters, use_nesterov=nesterov, weight_decay=l2),
        'sgd': lambda: optimizers.SGD(rate, parameters, weight_decay=l2),
        'adam': lambda: optimizers.Adam(rate, parameters=parameters, weight_decay=l2),
        'adamw': lambda: optimizers.AdamW(rate, parameters=parameters, weight_decay=weight_decay),
    }
    return builders[name]()
