"""Grad-CAM: heat maps of the image regions that a prediction is based on."""

from zodiac.base.paddle_setup import paddle

MIN_SIDE = 4  # of a usable feature map


def heat(network, images, classes=None):
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of a class, at the last feature map of 4 x 4 or more.

    The last feature map of a ResNet is 7 x 7 at 224 pixels, but 2 x 2 at 64, too coarse to locate anything; an earlier one is then
    used. Only the inputs of the network's stages count, not maps inside a residual block, which its shortcut bypasses.

    Args:
        network: Layer in eval mode, images -> logits.
        images: float32 [N, 3, H, W], at least 4 x 4 pixels.
        classes: int [N], the class of each image; None for the most probable one.
    Returns: float32 array [N, h, w], the size of that map, scaled to a maximum of 1 per image (all 0 if nothing supports the class).
    """
    maps = []

    def keep(layer, inputs):
        maps.extend(one for one in inputs if one.ndim == 4 and min(one.shape[2:]) >= MIN_SIDE)

    hooks = [layer.register_forward_pre_hook(keep) for layer in _stages(network)]
    images = paddle.to_tensor(images, stop_gradient=False)  # gives gradients in a frozen network too
    logits = network(images)
    for hook in hooks:
        hook.remove()
    wanted = logits.argmax(1) if classes is None else paddle.to_tensor(classes, dtype='int64')
    chosen = paddle.take_along_axis(logits, wanted.reshape([-1, 1]), 1)
    (gradient,) = paddle.grad(chosen.sum(), maps[-1])
    weights = gradient.mean([2, 3], keepdim=True)
    heat = paddle.nn.functional.relu((weights * maps[-1]).sum(1))
    return (heat / heat.max([1, 2], keepdim=True).clip(min=1e-12)).numpy()


def _stages(layer):
    """The layers that run one after another; a Sequential counts as its layers."""
    for child in layer.children():
        yield from _stages(child) if isinstance(child, paddle.nn.Sequential) else [child]
