"""Grad-CAM: which parts of an image speak for the prediction."""


def heat(network, images):
    """Grad-CAM at the last feature map (Selvaraju et al. 2017, equations 1 and 2), for the most probable class.

    Args:
        network: Layer in eval mode, images -> logits.
        images: float32 [N, 3, H, W].
    Returns: float32 array [N, h, w] of that map's size, the highest value of each image 1 (0 where nothing speaks for the class).
    """
    import paddle

    maps = []

    def keep(layer, given, output):
        if isinstance(output, paddle.Tensor) and output.ndim == 4 and output.shape[2] > 1:
            maps.append(output)

    hooks = [layer.register_forward_post_hook(keep) for layer in network.sublayers()]
    images = paddle.to_tensor(images, stop_gradient=False)  # so that there is a gradient in a frozen network too
    logits = network(images)
    for hook in hooks:
        hook.remove()
    (gradient,) = paddle.grad(logits.max(1).sum(), maps[-1])
    weights = gradient.mean([2, 3], keepdim=True)
    heat = paddle.nn.functional.relu((weights * maps[-1]).sum(1))
    return (heat / heat.max([1, 2], keepdim=True).clip(min=1e-12)).numpy()
