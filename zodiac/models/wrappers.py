"""Networks around a network: averaging over mirror images, and what an exported model adds."""

import numpy as np

from zodiac.base.paddle_setup import paddle
from zodiac.models import builder

nn = paddle.nn


class FlipAverage(nn.Layer):
    """The mean of a network's logits for an image and its mirror image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        # by index: paddle2onnx splits a flip into single columns, which are more than WebGPU can take
        columns = paddle.to_tensor(np.arange(x.shape[3])[::-1].copy())
        return (self.network(x) + self.network(paddle.index_select(x, columns, 3))) / 2


class Deployed(nn.Layer):
    """A network as it is exported.

    Args:
        network: normalised images, float32 [N, 3, H, W] -> logits float32 [N, classes].
        mean, std: of each channel, as in `transforms.normalize`.
        preprocess: take pixels, uint8 [N, H, W, 3], and normalise them in the model.
        softmax: return probabilities and, as a second output, logits; otherwise logits only.
        temperature: divides the logits, see `calibration.fit_temperature`.
    """

    def __init__(self, network, mean, std, preprocess=False, softmax=True, temperature=1.0):
        super().__init__()
        self.network = network
        self.preprocess, self.softmax, self.temperature = preprocess, softmax, temperature
        mean, std = (np.asarray(values, np.float32).reshape([1, 3, 1, 1]) for values in (mean, std))
        self.register_buffer('scale', paddle.to_tensor(1 / (255 * std)))
        self.register_buffer('shift', paddle.to_tensor(-mean / std))

    def forward(self, image):
        if self.preprocess:
            image = image.astype('float32').transpose([0, 3, 1, 2]) * self.scale + self.shift
        logits = self.network(image) / self.temperature
        return (nn.functional.softmax(logits, -1), logits) if self.softmax else logits


class WithFeatures(Deployed):
    """A `Deployed` that returns, as its last output, the features too, float32 [N, D], see `before_last`."""

    def __init__(self, network, *how, **named):
        backbone, linear = before_last(network)
        super().__init__(backbone, *how, **named)
        self.linear = linear

    def forward(self, image):
        if self.preprocess:
            image = image.astype('float32').transpose([0, 3, 1, 2]) * self.scale + self.shift
        features = self.network(image)
        logits = self.linear(features) / self.temperature
        return (nn.functional.softmax(logits, -1), logits, features) if self.softmax else (logits, features)


def before_last(network):
    """`builder.before_last` of a network, or of a FlipAverage: its features are the mean over an image and its mirror image, of which the
    linear layer gives the mean of the logits."""
    if isinstance(network, FlipAverage):
        backbone, linear = builder.before_last(network.network)
        return FlipAverage(backbone), linear
    return builder.before_last(network)
