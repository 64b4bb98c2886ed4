"""CifarNet, for short training on images of 26 to 33 pixels."""

from zodiac.base.paddle_setup import paddle
from zodiac.models.resnet9 import torch_initial

nn = paddle.nn


class CifarNet(nn.Layer):
    """The network of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU".

    A 2x2 convolution that whitens patches and is not trained, then three groups of two 3x3 convolutions. BatchNorm learns
    only biases, and its running statistics change quickly. Convolutions start as the identity on their first channels.
    float32 [N, 3, size, size], size from 26 to 33, -> logits float32 [N, num_classes].
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
        """Set the whitening filters to the eigenvectors of 2x2 patches and their negatives, scaled to variance 1.

        Args:
            images: float32 [N, 3, H, W], normalised as in training.
        """
        patches = nn.functional.unfold(images, 2).transpose([0, 2, 1]).reshape([-1, 12])
        patches = patches - patches.mean(0)
        values, vectors = paddle.linalg.eigh(patches.t() @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).t().flip(0).reshape([12, 3, 2, 2])
        self.whiten.weight.set_value(paddle.concat([filters, -filters]))


def _group(channels_in, channels_out):
    convs = [
        nn.Conv2D(c, channels_out, 3, padding=1, weight_attr=torch_initial(9 * c), bias_attr=False)
        for c in (channels_in, channels_out)
    ]
    norms = [nn.BatchNorm2D(channels_out, momentum=0.4, epsilon=1e-12) for _ in convs]
    for norm in norms:  # weights stay 1; with weight_attr=False Paddle would give the biases no gradient
        norm.weight.optimize_attr['learning_rate'] = 0.0
    for conv in convs:
        inputs = conv.weight.shape[1]
        with paddle.no_grad():  # the first filters pass their channel on, the others start at random
            identity = nn.Conv2D(inputs, inputs, 3, weight_attr=nn.initializer.Dirac(), bias_attr=False).weight
            conv.weight.set_value(paddle.concat([identity, conv.weight[inputs:]]))
    return nn.Sequential(convs[0], nn.MaxPool2D(2, 2), norms[0], nn.GELU(), convs[1], norms[1], nn.GELU())
