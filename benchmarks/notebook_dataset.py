"""A dataset as readers of the notebook write it: Pillow, paddle.vision's transforms, float32 images."""

import numpy as np
import paddle
from paddle.vision import transforms as T
from PIL import Image


class NotebookDataset(paddle.io.Dataset):
    def __init__(self, index, mode='train', size=224):
        super().__init__()
        with open(index, encoding='utf-8') as file:
            self.info = [line.strip().split('\t') for line in file]
        scale = [T.RandomResizedCrop((size, size)), T.RandomHorizontalFlip(0.5)]
        if mode != 'train':
            scale = [T.Resize(round(size * 256 / 224)), T.CenterCrop(size)]
        self.transforms = T.Compose(
            [*scale, T.ToTensor(), T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])]
        )

    def __len__(self):
        return len(self.info)

    def __getitem__(self, index):
        path, label = self.info[index]
        image = Image.open(path)
        if image.mode != 'RGB':
            image = image.convert('RGB')
        return self.transforms(image), np.array(label, dtype='int64')
