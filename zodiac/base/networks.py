"""The table of networks: allowed input sizes, parameters, features, memory and ImageNet weights. No Paddle.

    python -m zodiac.base.networks      # the table as Markdown, as it is in docs/recipes.md

To add a network: its row here, its layers in a file of zodiac/models/, and a line in `builder.build`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """Facts about one network."""

    family: str  # networks of one family share their code and settings
    parameters: int  # that can be trained, with a head of 1000 classes
    features: int  # channels that enter the head
    sizes: tuple[int, int] = (8, 4096)  # lowest and highest image.size
    step_mb: tuple[int, int] | None = (
        None  # peak memory of a training step on a CPU: without images, per image of 224 px
    )
    imagenet: str | None = None  # where ImageNet weights come from

    @property
    def takes_head(self):
        """Whether model.head may be a list of layers."""
        return self.family == 'resnet'

    @property
    def weights_mb(self):
        """Size of the weights in MB, float32."""
        return self.parameters * 4 / 2**20


NETWORKS = {  # step_mb: measured with batches of 2 and 32 images (resnet152: 2 and 16)
    'resnet18': Network('resnet', 11_689_512, 512, step_mb=(460, 36), imagenet='Paddle'),
    'resnet34': Network('resnet', 21_797_672, 512, step_mb=(610, 48), imagenet='Paddle'),
    'resnet50': Network('resnet', 25_557_032, 2048, step_mb=(650, 141), imagenet='Paddle'),
    'resnet101': Network('resnet', 44_549_160, 2048, step_mb=(820, 233), imagenet='Paddle'),
    'resnet152': Network('resnet', 60_192_808, 2048, step_mb=(1030, 315), imagenet='Paddle'),
    'resnet9': Network('resnet9', 7_083_240, 512, sizes=(32, 63)),
    'cifarnet': Network('cifarnet', 2_225_944, 256, sizes=(26, 33)),
}


def as_markdown():
    """str: the table as Markdown."""
    rows = [
        '| `model.arch` | million parameters | features | `image.size` | `model.head` | ImageNet weights | memory of a training step |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for name, network in NETWORKS.items():
        head = '`auto` or a list' if network.takes_head else '`auto`'
        low, high = network.sizes
        memory = '{} MB + {} MB per image'.format(*network.step_mb) if network.step_mb else 'not measured'
        rows.append(
            f'| `{name}` | {network.parameters / 1e6:.1f} | {network.features} | {low} to {high} | {head} | '
            f'{network.imagenet or "none"} | {memory} |'
        )
    return '\n'.join(rows)


if __name__ == '__main__':
    print(as_markdown())
