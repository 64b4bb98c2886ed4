"""ConvNeXt-Tiny (Liu et al. 2022, "A ConvNet for the 2020s")."""

from zodiac.base.paddle_setup import paddle

nn = paddle.nn

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)


class ConvNeXt(nn.Layer):
    """float32 [N, 3, H, W] -> logits float32 [N, num_classes]. Its children are stem, stage1 to stage4, pool, norm and the head
    `fc`. Layer names within them are timm's."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(3, WIDTHS[0], 4, 4), ChannelNorm(WIDTHS[0]))
        for number, (depth, width) in enumerate(zip(DEPTHS, WIDTHS)):
            self.add_sublayer(f'stage{number + 1}', Stage(WIDTHS[max(0, number - 1)], width, depth))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Flatten())
        self.norm = nn.LayerNorm(WIDTHS[-1], epsilon=1e-6)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x):
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return self.fc(self.norm(self.pool(x)))


class Stage(nn.Layer):
    """Blocks, and before them, where the number of channels changes, a downsampling by 2."""

    def __init__(self, channels_in, channels_out, depth):
        super().__init__()
        down = [ChannelNorm(channels_in), nn.Conv2D(channels_in, channels_out, 2, 2)]
        self.downsample = nn.Sequential(*down) if channels_in != channels_out else nn.Identity()
        self.blocks = nn.Sequential(*(Block(channels_out) for _ in range(depth)))

    def forward(self, x):
        return self.blocks(self.downsample(x))


class Block(nn.Layer):
    """Depthwise 7x7 convolution, LayerNorm, a perceptron per pixel, and a learned scale of each channel before the sum."""

    def __init__(self, channels):
        super().__init__()
        self.conv_dw = nn.Conv2D(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, epsilon=1e-6)
        self.mlp = Perceptron(channels)
        self.gamma = self.create_parameter([channels], default_initializer=nn.initializer.Constant(1e-6))

    def forward(self, x):
        y = self.conv_dw(x).transpose([0, 2, 3, 1])
        return x + (self.mlp(self.norm(y)) * self.gamma).transpose([0, 3, 1, 2])


class Perceptron(nn.Layer):
    """Two linear layers, the inner one four times as wide."""

    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [N, C, H, W]."""

    def __init__(self, channels):
        super().__init__(channels, epsilon=1e-6)

    def forward(self, x):
        y = x.transpose([0, 2, 3, 1])
        y = nn.functional.layer_norm(y, self._normalized_shape, self.weight, self.bias, self._epsilon)
        return y.transpose([0, 3, 1, 2])
