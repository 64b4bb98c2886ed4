"""Measure the trained network on a split; writes output/<name>/report/.

    python evaluate.py                                            # the best checkpoint on the test split
    python evaluate.py -c configs/demo.yaml -o evaluate.split=valid evaluate.weights=last

metrics.json holds every number, predictions.csv a row an image; confusion_matrix.png, curves.png and predictions.png
are to look at. A simple random sample of the split is listed as in the notebook.
"""

import csv
import json
import os

import config
from zodiac import device
from zodiac.errors import UserError, run


def main():
    cfg = config.from_command_line(__doc__)
    paddle = device.import_paddle()
    from dataset import Loader, ZodiacDataset
    from zodiac import files, metrics, report, transforms

    device.choose(cfg.device)
    dataset = ZodiacDataset(cfg.evaluate.split, augment=False, cfg=cfg)
    network, path, facts = trained_network(cfg)
    probabilities = predict(network, Loader(dataset, cfg.evaluate.batch_size, cfg), len(dataset))

    names = cfg.data.labels
    guesses = probabilities.argmax(1)
    sample = [
        {
            'id': int(i),
            'path': dataset.paths[i],
            'label': names[dataset.labels[i]],
            'prediction': names[guesses[i]],
            'probability': float(probabilities[i].max()),
        }
        for i in metrics.simple_random_sample(len(dataset), cfg.evaluate.sample, cfg.seed)
    ]
    scores = metrics.evaluate(dataset.labels, probabilities, names)
    result = {
        'split': cfg.evaluate.split,
        **scores,
        'sample': sample,
        'weights': path,
        'epoch': facts.get('epoch'),
        'pretrained': facts.get('pretrained'),
        'arch': cfg.model.arch,
        'image_size': cfg.image.size,
        'paddle': paddle.__version__,
    }

    folder = f'{cfg.run_dir}/report'
    report.write_predictions(f'{folder}/predictions.csv', dataset.paths, dataset.labels, probabilities, names)
    title = f'{cfg.name}, {cfg.evaluate.split}: top-1 {scores["top1"]:.4f} of {scores["n"]} images'
    report.plot_confusion_matrix(f'{folder}/confusion_matrix.png', scores['confusion_matrix'], names, title)
    rows = read_log(f'{cfg.run_dir}/log.csv')
    if rows:
        report.plot_curves(f'{folder}/curves.png', rows)
    shown = metrics.simple_random_sample(len(dataset), 18, cfg.seed)
    report.plot_predictions(
        f'{folder}/predictions.png',
        [transforms.decode(dataset.paths[i]) for i in shown],
        [
            f'{names[guesses[i]]} {probabilities[i].max():.0%}'
            + ('' if guesses[i] == dataset.labels[i] else f'\n(is {names[dataset.labels[i]]})')
            for i in shown
        ],
        [guesses[i] == dataset.labels[i] for i in shown],
    )
    with files.atomic_write(f'{folder}/metrics.json') as file:
        json.dump(result, file, ensure_ascii=False, indent=1)
    show(result, folder)


def trained_network(cfg):
    """The network of a run with the weights that evaluate.weights names: (Layer in eval mode, path, facts of the checkpoint).

    Raises UserError when they are missing, damaged, or of another class list or network.
    """
    from zodiac import checkpoint, model

    path, facts = checkpoint.find(cfg.run_dir, cfg.evaluate.weights)
    for key, ours, setting in (('arch', cfg.model.arch, 'model.arch'), ('labels', cfg.data.labels, 'data.labels')):
        if facts.get(key, ours) != ours:
            raise UserError(
                f'{os.path.dirname(path)}: was trained with {setting} = {facts[key]}, now it is {ours}; '
                f'use the configuration of that run: -c {cfg.run_dir}/config.yaml'
            )
    network = model.build(cfg.model.arch, len(cfg.data.labels))
    model.load_all(network, path)
    network.eval()
    return network, path, facts


def predict(network, loader, total):
    """Probabilities of a network over a loader's images. Returns: float32 [total, classes], in the loader's order."""
    import numpy as np
    import paddle
    from tqdm import tqdm

    outputs = []
    with paddle.no_grad(), tqdm(total=total, desc='evaluating', unit='image', leave=False, disable=None) as bar:
        for images, _ in loader:
            outputs.append(paddle.nn.functional.softmax(network(images)).numpy())
            bar.update(len(outputs[-1]))
    return np.concatenate(outputs)


def read_log(path):
    if not os.path.isfile(path):
        return []
    with open(path, encoding='utf-8', newline='') as file:
        return [row for row in csv.DictReader(file) if row['epoch']]


def show(result, folder):
    low, high = result['top1_interval_95']
    print(f'{result["split"]}: {result["n"]} images, weights {result["weights"]}')
    print(
        f'top-1 {result["top1"]:.4f} (95 % interval {low:.4f} to {high:.4f}), top-5 {result["top5"]:.4f}, loss {result["loss"]:.4f}'
    )
    print(
        f'macro precision {result["macro_precision"]:.4f}, recall {result["macro_recall"]:.4f}, F1 {result["macro_f1"]:.4f}'
    )
    print(f'{"class":<16}{"precision":>10}{"recall":>8}{"F1":>8}{"images":>8}')
    for name, row in result['per_class'].items():
        print(f'{name:<16}{row["precision"]:>10.4f}{row["recall"]:>8.4f}{row["f1"]:>8.4f}{row["support"]:>8}')
    print(f'simple random sample of {len(result["sample"])}:')
    for row in result['sample']:
        print(f'SampleID: {row["id"]}, RealLabel: {row["label"]}, Predict: {row["prediction"]}')
    print(f'written: {folder}/metrics.json, predictions.csv, confusion_matrix.png, curves.png, predictions.png')


if __name__ == '__main__':
    run(main)
