"""Heads from model.head, a list of layers, on a ResNet of paddle.vision."""

from zodiac.base import schema
from zodiac.base.errors import UsageError
from zodiac.base.paddle_setup import paddle

nn = paddle.nn
resnet = paddle.vision.models.resnet

DEPTHS = {
    'resnet18': (resnet.BasicBlock, 18),
    'resnet34': (resnet.BasicBlock, 34),
    'resnet50': (resnet.BottleneckBlock, 50),
    'resnet101': (resnet.BottleneckBlock, 101),
    'resnet152': (resnet.BottleneckBlock, 152),
}
HEAD_LAYERS = {  # name: (layer from the number of input features and the item's setting, default of that setting)
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


class HeadedResNet(resnet.ResNet):
    """paddle.vision's ResNet up to its last feature map, then the head `fc` built from a list of layers.

    float32 [N, 3, H, W] -> logits float32 [N, num_classes].
    """

    def __init__(self, arch, num_classes, head, image_size):
        block, depth = DEPTHS[arch]
        super().__init__(block, depth, num_classes=0, with_pool=False)
        self.eval()  # the trial run below must not change the BatchNorm statistics
        with paddle.no_grad():
            features = super().forward(paddle.zeros([1, 3, image_size, image_size]))
        self.train()
        self.fc = build_head(head, features, num_classes)

    def forward(self, x):
        return self.fc(resnet.ResNet.forward(self, x))  # Paddle 2.6 cannot export super()


def build_head(items, features, num_classes):
    """nn.Sequential from the items of model.head, each a name or {name: setting}; `linear: classes` gives the logits.

    Args:
        features: a feature map to try the layers on, float32 [1, C, H, W].
    Raises: UsageError naming the item and what it must be.
    """
    layers = []
    for number, item in enumerate(items):
        name, value = _checked(item, f'model.head, item {number + 1}: {item!r}', features)
        make, _ = HEAD_LAYERS[name]
        layers.append(make(features.shape[-1], num_classes if value == 'classes' else value))
        layers[-1].eval()
        with paddle.no_grad():
            features = layers[-1](features)
        layers[-1].train()
    if list(features.shape) != [1, num_classes]:
        raise UsageError(f'model.head: gives {list(features.shape[1:])} values per image; end it with linear: classes')
    return nn.Sequential(*layers)


def _checked(item, where, features):
    """(name, setting) of an item that can follow these features. Raises UsageError."""
    name, value = schema.item(item)
    if name == 'softmax':
        raise UsageError(f'{where}: leave it out; the loss and the exported model apply the softmax')
    if name not in HEAD_LAYERS:
        raise UsageError(f'{where}: write a name or {{name: setting}}, names: {", ".join(HEAD_LAYERS)}')
    default = HEAD_LAYERS[name][1]
    if default is None and value is not None:
        raise UsageError(f'{where}: {name} takes no setting')
    value = default if value is None else value
    if name == 'dropout' and not (type(value) in (int, float) and 0 <= value < 1):
        raise UsageError(f'{where}: must be 0 or more and below 1')
    if name == 'linear' and value != 'classes' and not (type(value) is int and value > 0):
        raise UsageError(f'{where}: must be a number of units above 0, or classes')
    if name in ('linear', 'batch_norm') and features.ndim != 2:
        raise UsageError(f'{where}: put flatten before it')
    if name.startswith('global') and features.ndim != 4:
        raise UsageError(f'{where}: there is no feature map left to pool; put it first')
    return name, value
