"""Train the head of a frozen ResNet50 with plain paddle.Model.fit: the baseline of benchmarks/transfer.py.

python benchmarks/plain_transfer.py DATA WEIGHTS SIZE EPOCHS LR
"""

import argparse
import csv
import os
import sys

import paddle
from notebook_dataset import NotebookDataset


class Epochs(paddle.callbacks.Callback):
    """Print the validation accuracy at the end of each epoch, and keep it."""

    def __init__(self):
        super().__init__()
        self.scores = []

    def on_eval_end(self, logs=None):
        self.scores.append(logs['acc'])
        print(f'epoch {len(self.scores)}: {logs["acc"]:.4f}', file=sys.stderr, flush=True)


def main(data, weights, size, epochs, lr):
    paddle.seed(0)
    train, valid = (NotebookDataset(f'{data}/{mode}.txt', mode, int(size)) for mode in ('train', 'valid'))
    classes = 1 + max(int(label) for _, label in train.info)
    network = paddle.vision.models.resnet50(num_classes=classes)
    stored = paddle.load(weights)
    network.set_state_dict({name: value for name, value in stored.items() if not name.startswith('fc.')})
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._use_global_stats = True
    for name, parameter in network.named_parameters():
        parameter.stop_gradient = not name.startswith('fc.')
    model = paddle.Model(network)
    optimizer = paddle.optimizer.Adam(float(lr), parameters=network.fc.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    epochs_seen = Epochs()
    model.fit(train, valid, batch_size=32, epochs=int(epochs), num_workers=1, verbose=0, callbacks=[epochs_seen])
    os.makedirs('output/run')
    with open('output/run/log.csv', 'w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([['valid_top1'], *([score] for score in epochs_seen.scores)])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('data', 'weights', 'size', 'epochs', 'lr'):
        parser.add_argument(name)
    main(**vars(parser.parse_args()))
