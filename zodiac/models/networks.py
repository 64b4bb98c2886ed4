"""The networks that paddle.vision does not have: ResNet with a head of one's own, and small ones for small images."""

import numpy as np
import paddle
from paddle import nn
from paddle.vision.models.resnet import BasicBlock, BottleneckBlock, ResNet

from zodiac.base import schema
from zodiac.base.errors import UsageError

DEPTHS = {
    'resnet18': (BasicBlock, 18),
    'resnet34': (BasicBlock, 34),
    'resnet50': (BottleneckBlock, 50),
    'resnet101': (BottleneckBlock, 101),
    'resnet152': (BottleneckBlock, 152),
}
HEAD_LAYERS = {  # name: (layer from the number of features that come in and the layer's one setting, its default)
    'flatten': (lambda features, _: nn.Flatten(), None),
    'global_avg_pool': (lambda features, _: nn.AdaptiveAvgPool2D(1), None),
    'global_max_pool': (lambda features, _: nn.AdaptiveMaxPool2D(1), None),
    'batch_norm': (lambda features, _: nn.BatchNorm1D(features), None),
    'relu': (lambda features, _: nn.ReLU(), None),
    'elu': (lambda features, _: nn.ELU(), None),
    'gelu': (lambda features, _: nn.GELU(), None),
    'dropout': (lambda features, share: nn.Dropout(share), 0.5),
    'linear': (lambda features, units: nn.Linear(features, units), 'classes'),
}


class HeadedResNet(ResNet):
    """paddle.vision's ResNet up to its last feature map, then `fc`, a head built from a list of layers.

    float32 [N, 3, H, W] -> float32 [N, num_classes].
    """

    def __init__(self, arch, num_classes, head, image_size):
        block, depth = DEPTHS[arch]
        super().__init__(block, depth, num_classes=0, with_pool=False)
        self.eval()  # so that the trial below leaves the BatchNorm statistics alone
        with paddle.no_grad():
            features = super().forward(paddle.zeros([1, 3, image_size, image_size]))
        self.train()
        self.fc = build_head(head, features, num_classes)

    def forward(self, x):
        return self.fc(ResNet.forward(self, x))  # Paddle 2.6 cannot export super()


def build_head(items, features, num_classes):
    """nn.Sequential from a configuration's list: a name, or {name: setting}; `linear: classes` gives the logits.

    Args:
        features: a feature map to try the layers on, [1, C, H, W].
    Raises: UsageError naming the item, and what is allowed.
    """
    layers = []
    for number, item in enumerate(items):
        where = f'model.head, item {number + 1}: {item!r}'
        name, value = schema.item(item)
        if name == 'softmax':
            raise UsageError(f'{where}: leave it out; the loss and the exported model have the softmax')
        if name not in HEAD_LAYERS:
            raise UsageError(f'{where}: write a name or {{name: setting}}, names: {", ".join(HEAD_LAYERS)}')
        make, default = HEAD_LAYERS[name]
        value = default if value is None else value
        if name == 'dropout' and not (type(value) in (int, float) and 0 <= value < 1):
            raise UsageError(f'{where}: allowed is a share of 0 or more and below 1')
        if name == 'linear' and value != 'classes' and not (type(value) is int and value > 0):
            raise UsageError(f'{where}: allowed is a number of units above 0, or classes')
        if default is None and value is not None:
            raise UsageError(f'{where}: {name} takes no setting')
        if name in ('linear', 'batch_norm') and features.ndim != 2:
            raise UsageError(f'{where}: put flatten before it')
        if name.startswith('global') and features.ndim != 4:
            raise UsageError(f'{where}: there is no feature map left to pool; put it first')
        layers.append(make(features.shape[-1], num_classes if value == 'classes' else value))
        layers[-1].eval()
        with paddle.no_grad():
            features = layers[-1](features)
        layers[-1].train()
    if list(features.shape) != [1, num_classes]:
        raise UsageError(f'model.head: gives {list(features.shape[1:])} values an image; end it with linear: classes')
    return nn.Sequential(*layers)


class Conv(nn.Conv2D):
    """nn.Conv2D of 3x3, padded, whose bias is added in a shape for which Paddle has a fast path on the CPU: a step of ResNet9
    takes 4/5 of the time."""

    def __init__(self, channels_in, channels_out):
        initial = _torch_initial(9 * channels_in)
        super().__init__(channels_in, channels_out, 3, padding=1, weight_attr=initial, bias_attr=initial)

    def forward(self, x):
        y = nn.functional.conv2d(x, self.weight, None, self._stride, self._padding)
        return y + self.bias.reshape([-1, 1, 1])


def _torch_initial(fan_in):
    """PyTorch's initial weights of convolutions and linear layers, uniform within 1 / sqrt(fan_in): with Paddle's wider ones
    ResNet9 starts at a loss of 10 instead of ln(classes)."""
    bound = fan_in**-0.5
    return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))


def conv_block(channels_in, channels_out, pool=False):
    """3x3 convolution, BatchNorm, ReLU, and where `pool` a 2x2 max-pool."""
    layers = [Conv(channels_in, channels_out), nn.BatchNorm2D(channels_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2D(2, 2)) if pool else nn.Sequential(*layers)


class ResNet9(nn.Layer):
    """The small residual network that many CIFAR-10 tutorials train; its names are theirs.

    float32 [N, 3, size, size], size from 32 to 63, -> float32 [N, num_classes].
    """

    def __init__(self, num_classes):
        super().__init__()
        self.con1 = conv_block(3, 64)
        self.con2 = conv_block(64, 128, pool=True)
        self.r1 = nn.Sequential(conv_block(128, 128), conv_block(128, 128))
        self.con3 = conv_block(128, 256, pool=True)
        self.con4 = conv_block(256, 512, pool=True)
        self.r2 = nn.Sequential(conv_block(512, 512), conv_block(512, 512))
        initial = _torch_initial(512)
        linear = nn.Linear(512, num_classes, weight_attr=initial, bias_attr=initial)
        self.classifier = nn.Sequential(nn.MaxPool2D(4, 4), nn.Flatten(), nn.Dropout(0.2), linear)

    def forward(self, x):
        x = self.con2(self.con1(x))
        x = self.r1(x) + x
        x = self.con4(self.con3(x))
        x = self.r2(x) + x
        return self.classifier(x)


class CifarNet(nn.Layer):
    """The network of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", for few epochs on small images.

    A 2x2 convolution that whitens patches and does not learn, then three groups of two 3x3 convolutions; BatchNorm learns
    biases only and forgets quickly; convolutions start as the identity on their first channels.
    float32 [N, 3, size, size], size from 26 to 33, -> float32 [N, num_classes].
    """

    def __init__(self, num_classes, widths=(64, 256, 256)):
        super().__init__()
        self.whiten = nn.Conv2D(3, 24, 2)
        self.whiten.weight.stop_gradient = True
        self.groups = nn.Sequential(*(_group(i, o) for i, o in zip((24, *widths), widths)))
        self.classifier = nn.Sequential(
            nn.MaxPool2D(3), nn.Flatten(), nn.Linear(widths[-1], num_classes, bias_attr=False)
        )

    def forward(self, x):
        x = nn.functional.conv2d(x, self.whiten.weight) + self.whiten.bias.reshape([-1, 1, 1])
        return self.classifier(self.groups(nn.functional.gelu(x))) / 9

    def learn_from(self, images):
        """Set the whitening filters to the eigenvectors of 2x2 patches, and their negatives, each scaled to variance 1.

        Args:
            images: float32 [N, 3, H, W], as the network will see them.
        """
        patches = nn.functional.unfold(images, 2).transpose([0, 2, 1]).reshape([-1, 12])
        patches = patches - patches.mean(0)
        values, vectors = paddle.linalg.eigh(patches.t() @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).t().flip(0).reshape([12, 3, 2, 2])
        self.whiten.weight.set_value(paddle.concat([filters, -filters]))


def _group(channels_in, channels_out):
    convs = [
        nn.Conv2D(c, channels_out, 3, padding=1, weight_attr=_torch_initial(9 * c), bias_attr=False)
        for c in (channels_in, channels_out)
    ]
    norms = [nn.BatchNorm2D(channels_out, momentum=0.4, epsilon=1e-12) for _ in convs]
    for norm in norms:  # weights stay 1; with weight_attr=False Paddle would give the biases no gradient
        norm.weight.optimize_attr['learning_rate'] = 0.0
    for conv in convs:
        inputs = conv.weight.shape[1]
        with paddle.no_grad():  # the first filters hand their channel on, the others start at random
            identity = nn.Conv2D(inputs, inputs, 3, weight_attr=nn.initializer.Dirac(), bias_attr=False).weight
            conv.weight.set_value(paddle.concat([identity, conv.weight[inputs:]]))
    return nn.Sequential(convs[0], nn.MaxPool2D(2, 2), norms[0], nn.GELU(), convs[1], norms[1], nn.GELU())


class FlipAverage(nn.Layer):
    """The mean of a network's logits for an image and its mirror image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return (self.network(x) + self.network(x.flip(3))) / 2


class Deployed(nn.Layer):
    """A network with what deployment wants around it.

    Args:
        network: float32 [N, 3, H, W], normalised -> logits.
        mean, std: of each channel, as in `transforms.normalize`.
        preprocess: take uint8 [N, H, W, 3], the pixels, and normalise them here.
        softmax: give probabilities and, as a second output, logits; else logits only.
        temperature: divide the logits by it, see `calibration.fit_temperature`.
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


SMALL = {'resnet9': (ResNet9, 32, 63), 'cifarnet': (CifarNet, 26, 33)}  # and the image sizes that they take
