"""Soft labels: label smoothing, mixup, CutMix, and the loss for them; class weights."""

import numpy as np

from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle

functional = paddle.nn.functional


def build_mixer(settings, num_classes):
    """The `Mixer` for the section `train` of a configuration; None where labels stay class numbers."""
    for name in ('mixup', 'cutmix'):
        if getattr(settings, name) and settings.batch_size < 2:
            raise UsageError(f'train.{name}: mixes pairs of images; set train.batch_size to 2 or more')
    if not (settings.label_smoothing or settings.mixup or settings.cutmix):
        return None
    return Mixer(num_classes, settings.label_smoothing, settings.mixup, settings.cutmix)


def balanced_weights(labels, num_classes):
    """float [num_classes]: n / (num_classes * images of the class), for int [n] labels."""
    return len(labels) / (num_classes * np.bincount(labels, minlength=num_classes))


class Mixer:
    """Turns class numbers into class probabilities, and mixes pairs of images of a batch.

    Args:
        smoothing: share of each label that is spread evenly over all classes (Szegedy et al. 2016, section 7).
        mixup: alpha of Beta(alpha, alpha), which gives the weight of the first image of a pair (Zhang et al. 2018); 0 for off.
        cutmix: the same for CutMix, where the weight is its share of the area (Yun et al. 2019); 0 for off. With both on, one of
            them is drawn for each batch.
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
    """Paste a box of about 1 - `share` of the area from `others`, centred anywhere in the image.

    Returns: the images, and the share of the area that is left of the first ones.
    """
    height, width = images.shape[2:]
    side = (1 - share) ** 0.5
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, round(y - side * height / 2)), min(height, round(y + side * height / 2))
    left, right = max(0, round(x - side * width / 2)), min(width, round(x + side * width / 2))
    if top >= bottom or left >= right:  # Paddle cannot assign to an empty slice
        return images, 1.0
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


class Loss(paddle.nn.Layer):
    """Cross-entropy, in nats, of logits with class numbers or class probabilities.

    Args:
        class_weights: float [classes]; the weight of an image is their mean under its label. None: each has weight 1.
    """

    def __init__(self, class_weights=None):
        super().__init__()
        self.class_weights = None if class_weights is None else paddle.to_tensor(class_weights, 'float32')

    def forward(self, logits, labels):
        """Logits float32 [N, classes], labels int64 [N] or float32 [N, classes] -> sum over the images of weight * loss, and sum of
        the weights, each float32 []."""
        if labels.ndim == 1:
            losses = functional.cross_entropy(logits, labels, reduction='none')
            weights = None if self.class_weights is None else self.class_weights[labels]
        else:
            losses = -(labels * functional.log_softmax(logits)).sum(1)
            weights = None if self.class_weights is None else (labels * self.class_weights).sum(1)
        if weights is None:
            return losses.sum(), paddle.full([], float(len(labels)))
        return (losses * weights).sum(), weights.sum()
