"""EfficientNet-Lite: EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as released by Google for TPUs."""

import math

from zodiac.base.paddle_setup import paddle
from zodiac.models.heads import build_head

nn = paddle.nn

SCALES = {  # factors of widths and depths, dropout before the last layer
    'efficientnet_lite0': (1.0, 1.0, 0.2),
    'efficientnet_lite1': (1.0, 1.1, 0.2),
    'efficientnet_lite2': (1.1, 1.2, 0.3),
}
STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, LAST = 32, 1280  # channels, the same at each scale


def depths(arch):
    """Number of blocks of each stage; the first and last stage are not scaled."""
    factor = SCALES[arch][1]
    return [math.ceil(factor * s[0]) if 0 < n < len(STAGES) - 1 else s[0] for n, s in enumerate(STAGES)]


class EfficientNetLite(nn.Layer):
    """float32 [N, 3, H, W] -> logits float32 [N, num_classes]. Its children are stem, stage1 to stage7, last and the head `fc`.

    Args:
        head: 'auto' for pool, dropout and a linear layer, or a list of layers, see heads.build_head.
    """

    def __init__(self, arch, num_classes, head='auto', image_size=224):
        super().__init__()
        width, _, dropout = SCALES[arch]
        self.stem = ConvNorm(3, STEM, 3, 2)
        channels, self.stages = STEM, []
        for number, (count, (_, kernel, stride, expansion, out)) in enumerate(zip(depths(arch), STAGES), 1):
            out = _rounded(width * out)
            blocks = [Block(channels, out, kernel, stride, expansion)]
            blocks += [Block(out, out, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(f'stage{number}')
            self.add_sublayer(self.stages[-1], nn.Sequential(*blocks))
            channels = out
        self.last = ConvNorm(channels, LAST, 1)
        if head == 'auto':
            layers = nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(LAST, num_classes)
            self.fc = nn.Sequential(*layers)
        else:
            side = math.ceil(image_size / 32)
            self.fc = build_head(head, paddle.zeros([1, LAST, side, side]), num_classes)

    def forward(self, x):
        x = self.stem(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(self.last(x))


class Block(nn.Layer):
    """Inverted residual block (Sandler et al. 2018): expand, depthwise convolution, project."""

    def __init__(self, channels_in, channels_out, kernel, stride, expansion):
        super().__init__()
        inner = expansion * channels_in
        self.expand = ConvNorm(channels_in, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, channels_out, 1, activate=False)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class ConvNorm(nn.Layer):
    """Convolution with TensorFlow's SAME padding, BatchNorm and, with `activate`, ReLU6."""

    def __init__(self, channels_in, channels_out, kernel, stride=1, groups=1, activate=True):
        super().__init__()
        initial = nn.initializer.Normal(0.0, math.sqrt(2 * groups / (kernel * kernel * channels_out)))
        self.conv = nn.Conv2D(
            channels_in,
            channels_out,
            kernel,
            stride,
            padding='SAME' if kernel > 1 else 0,
            groups=groups,
            weight_attr=paddle.ParamAttr(initializer=initial),
            bias_attr=False,
        )
        self.bn = nn.BatchNorm2D(channels_out, momentum=0.99, epsilon=1e-3)
        self.activation = nn.ReLU6() if activate else nn.Identity()

    def forward(self, x):
        return self.activation(self.bn(self.conv(x)))


def _rounded(channels):
    """The nearest multiple of 8, at most 10 % lower."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
