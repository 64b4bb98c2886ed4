"""The notebook's prediction of a folder: a baseline of benchmarks/predict.py.

python benchmarks/notebook_predict.py WEIGHTS FOLDER CLASSES
"""

import argparse
from pathlib import Path

import numpy as np
import paddle
from paddle.vision import transforms
from PIL import Image


class Photos(paddle.io.Dataset):
    def __init__(self, folder):
        self.paths = sorted(Path(folder).iterdir())
        self.transforms = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __getitem__(self, index):
        return self.transforms(Image.open(self.paths[index]).convert('RGB'))

    def __len__(self):
        return len(self.paths)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('weights', 'folder', 'classes'):
        parser.add_argument(name)
    args = parser.parse_args()
    model = paddle.Model(paddle.vision.models.resnet50(num_classes=int(args.classes)))
    model.load(args.weights)
    model.prepare()
    photos = Photos(args.folder)
    result = model.predict(photos, verbose=0)
    for path, logits in zip(photos.paths, result[0]):
        print(f'{path}\t{np.argmax(logits)}')
