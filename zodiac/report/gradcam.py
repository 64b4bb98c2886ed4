"""Grad-CAM: which parts of an image speak for the prediction."""

SIDE = 4  # of the smallest map that tells where


def heat(network, images):
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) for the most probable class, at the last feature map of 4 x 4 or more.

    The last map of all is 7 x 7 in a ResNet at 224 pixels, but 2 x 2 at 64, which shows a fog: then an earlier one is taken, as
    the paper does too, less close to the decision but with places in it. Only maps between the steps of the network count, not those
    within a residual block, past which a shortcut goes.

    Args:
        network: Layer in eval mode, images -> logits.
        images: float32 [N, 3, H, W], 4 pixels a side or more.
    Returns: float32 array [N, h, w] of that map's size, the highest value of each image 1 (0 where nothing speaks for the class).
    """
    import paddle

    maps = []

    def keep(step, given):
        maps.extend(one for one in given if one.ndim == 4 and min(one.shape[2:]) >= SIDE)

    hooks = [step.register_forward_pre_hook(keep) for step in _steps(network)]
    images = paddle.to_tensor(images, stop_gradient=False)  # so that there is a gradient in a frozen network too
    logits = network(images)
    for hook in hooks:
        hook.remove()
    (gradient,) = paddle.grad(logits.max(1).sum(), maps[-1])
    weights = gradient.mean([2, 3], keepdim=True)
    heat = paddle.nn.functional.relu((weights * maps[-1]).sum(1))
    return (heat / heat.max([1, 2], keepdim=True).clip(min=1e-12)).numpy()


def _steps(layer):
    """The layers that a network goes through one after the other; a Sequential is its layers."""
    import paddle

    for child in layer.children():
        yield from _steps(child) if isinstance(child, paddle.nn.Sequential) else [child]
