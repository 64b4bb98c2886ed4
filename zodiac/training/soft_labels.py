"""What is done to a whole training batch: soft labels, mixup, CutMix; and the loss that takes such labels."""

import paddle
from paddle import nn
from paddle.nn import functional


class Mixer:
    """Turns class numbers into shares of the classes, and mixes pairs of images where that is asked for.

    Args:
        smoothing: share of each label that is spread evenly over all classes (Szegedy et al. 2016, section 7).
        mixup: alpha of Beta(alpha, alpha), from which the share of the first image of a pair is drawn (Zhang et al. 2018);
            0 for off.
        cutmix: the same for CutMix, where the share is that of the area (Yun et al. 2019); with both on, each batch draws
            one of the two.
    """

    def __init__(self, num_classes, smoothing=0.0, mixup=0.0, cutmix=0.0):
        self.num_classes = num_classes
        self.smoothing = smoothing
        self.alphas = {name: alpha for name, alpha in (('mixup', mixup), ('cutmix', cutmix)) if alpha}

    def __call__(self, images, labels, rng):
        """float32 [N, 3, H, W], int64 [N] -> images of the same shape, float32 [N, num_classes] whose rows sum to 1."""
        shares = functional.one_hot(labels, self.num_classes)
        shares = shares * (1 - self.smoothing) + self.smoothing / self.num_classes
        if not self.alphas:
            return images, shares
        kind = list(self.alphas)[int(rng.integers(len(self.alphas)))]
        share = float(rng.beta(self.alphas[kind], self.alphas[kind]))
        partner = paddle.to_tensor(rng.permutation(len(labels)))
        others = images.index_select(partner)
        if kind == 'mixup':
            images = images * share + others * (1 - share)
        else:
            images, share = _paste(images, others, share, rng)
        return images, shares * share + shares.index_select(partner) * (1 - share)


def _paste(images, others, share, rng):
    """A box of about 1 - `share` of the area from `others`, its middle anywhere in the image.

    Returns: images, the share that is left of the first ones.
    """
    height, width = images.shape[2:]
    side = (1 - share) ** 0.5
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, round(y - side * height / 2)), min(height, round(y + side * height / 2))
    left, right = max(0, round(x - side * width / 2)), min(width, round(x + side * width / 2))
    if top >= bottom or left >= right:  # Paddle cannot assign to nothing
        return images, 1.0
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


class Loss(nn.Layer):
    """Cross-entropy, in nats, of logits against class numbers or shares of the classes.

    Args:
        class_weights: float [classes]; an image counts by the sum of its shares times these. None: all count alike.
    """

    def __init__(self, class_weights=None):
        super().__init__()
        self.class_weights = None if class_weights is None else paddle.to_tensor(class_weights, 'float32')

    def forward(self, logits, labels):
        """Logits float32 [N, classes], labels int64 [N] or float32 [N, classes] -> sum over the images of their losses times
        their weights, sum of the weights; float32 []."""
        if labels.ndim == 1:
            losses = functional.cross_entropy(logits, labels, reduction='none')
            weights = None if self.class_weights is None else self.class_weights[labels]
        else:
            losses = -(labels * functional.log_softmax(logits)).sum(1)
            weights = None if self.class_weights is None else (labels * self.class_weights).sum(1)
        if weights is None:
            return losses.sum(), paddle.full([], float(len(labels)))
        return (losses * weights).sum(), weights.sum()
