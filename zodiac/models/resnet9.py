"""ResNet9, for images of 32 to 63 pixels."""

from zodiac.base.paddle_setup import paddle

nn = paddle.nn


class ResNet9(nn.Layer):
    """The small residual network of many CIFAR-10 tutorials, with their layer names.

    float32 [N, 3, size, size], size from 32 to 63, -> logits float32 [N, num_classes].
    """

    def __init__(self, num_classes):
        super().__init__()
        self.con1 = conv_block(3, 64)
        self.con2 = conv_block(64, 128, pool=True)
        self.r1 = nn.Sequential(conv_block(128, 128), conv_block(128, 128))
        self.con3 = conv_block(128, 256, pool=True)
        self.con4 = conv_block(256, 512, pool=True)
        self.r2 = nn.Sequential(conv_block(512, 512), conv_block(512, 512))
        initial = torch_initial(512)
        linear = nn.Linear(512, num_classes, weight_attr=initial, bias_attr=initial)
        self.classifier = nn.Sequential(nn.MaxPool2D(4, 4), nn.Flatten(), nn.Dropout(0.2), linear)

    def forward(self, x):
        x = self.con2(self.con1(x))
        x = self.r1(x) + x
        x = self.con4(self.con3(x))
        x = self.r2(x) + x
        return self.classifier(x)


def conv_block(channels_in, channels_out, pool=False):
    """3x3 convolution, BatchNorm and ReLU; with `pool`, a 2x2 max-pool."""
    layers = [Conv(channels_in, channels_out), nn.BatchNorm2D(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2D(2, 2)) if pool else nn.Sequential(*layers)


class Conv(nn.Conv2D):
    """A padded 3x3 nn.Conv2D that adds its bias in a shape for which Paddle has a fast path on the CPU: a training step of
    ResNet9 takes 20 % less time."""

    def __init__(self, channels_in, channels_out):
        initial = torch_initial(9 * channels_in)
        super().__init__(channels_in, channels_out, 3, padding=1, weight_attr=initial, bias_attr=initial)

    def forward(self, x):
        y = nn.functional.conv2d(x, self.weight, None, self._stride, self._padding)
        return y + self.bias.reshape([-1, 1, 1])


def torch_initial(fan_in):
    """PyTorch's default initial weights of convolutions and linear layers, uniform within 1 / sqrt(fan_in). With Paddle's
    wider ones ResNet9 starts at a loss of 10 instead of ln(classes)."""
    bound = fan_in**-0.5
    return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))
