"""MobileNetV3-Large of paddle.vision, with its last linear layer as the head."""

from zodiac.base.paddle_setup import paddle

nn = paddle.nn


class MobileNetV3(paddle.vision.models.MobileNetV3Large):
    """float32 [N, 3, H, W] -> logits float32 [N, num_classes]. Howard et al. 2019, "Searching for MobileNetV3".

    Its children are conv, blocks, lastconv, avgpool, hidden and the head `fc`: a new head leaves the 1280 features of `hidden`,
    which ImageNet weights have, as they are.
    """

    def __init__(self, num_classes):
        super().__init__(num_classes=num_classes)
        linear, activation, dropout, last = self.classifier
        del self.classifier
        self.hidden = nn.Sequential(nn.Flatten(), linear, activation)
        self.fc = nn.Sequential(dropout, last)

    def forward(self, x):
        return self.fc(self.hidden(self.avgpool(self.lastconv(self.blocks(self.conv(x))))))
