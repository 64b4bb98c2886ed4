"""Measure the trained network on a split; writes output/<name>/report/.

    python evaluate.py                                            # the best checkpoint on the test split
    python evaluate.py -c configs/demo.yaml -o evaluate.split=valid evaluate.weights=last

metrics.json holds every number, predictions.csv a row an image; confusion_matrix.png, curves.png, classes.png and predictions.png
are to look at. A simple random sample of the split is listed as in the notebook.
"""

import csv
import json
import os

import config
from zodiac import device, files
from zodiac.errors import run


def main():
    cfg = config.from_command_line(__doc__)
    paddle = device.import_paddle()
    from dataset import Loader, ZodiacDataset
    from zodiac import checkpoint, metrics

    device.choose(cfg.device)
    dataset = ZodiacDataset(cfg.evaluate.split, augment=False, cfg=cfg)
    network, origin = checkpoint.load_network(
        cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
    )
    probabilities = predict(network, Loader(dataset, cfg.evaluate.batch_size, cfg), len(dataset))

    result = {
        'split': cfg.evaluate.split,
        **metrics.evaluate(dataset.labels, probabilities, cfg.data.labels),
        'sample': random_sample(dataset, probabilities, cfg),
        **origin,
        'arch': cfg.model.arch,
        'image_size': cfg.image.size,
        'flip_average': cfg.evaluate.flip_average,
        'paddle': paddle.__version__,
    }
    folder = f'{cfg.run_dir}/report'
    with files.atomic_folder(folder) as unfinished:
        write(unfinished, result, dataset, probabilities, cfg)
    show(result)
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')


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


def random_sample(dataset, probabilities, cfg):
    """The notebook's table: a seeded simple random sample of the split, as JSON-ready rows."""
    from zodiac import metrics

    names = cfg.data.labels
    guesses = probabilities.argmax(1)
    return [
        {
            'id': int(i),
            'path': dataset.paths[i],
            'label': names[dataset.labels[i]],
            'prediction': names[guesses[i]],
            'probability': float(probabilities[i].max()),
        }
        for i in metrics.simple_random_sample(len(dataset), cfg.evaluate.sample, cfg.seed)
    ]


def write(folder, result, dataset, probabilities, cfg):
    """Fill the report folder."""
    from zodiac import images, metrics, optim, report

    names = cfg.data.labels
    guesses = probabilities.argmax(1)
    report.write_predictions(f'{folder}/predictions.csv', dataset.paths, dataset.labels, probabilities, names)
    title = f'{cfg.name}, {result["split"]}: top-1 {result["top1"]:.4f} of {result["n"]} images'
    report.plot_confusion_matrix(f'{folder}/confusion_matrix.png', result['confusion_matrix'], names, title)
    shown = metrics.simple_random_sample(len(dataset), 18, cfg.seed)
    right = [guesses[i] == dataset.labels[i] for i in shown]
    titles = [f'{names[guesses[i]]} {probabilities[i].max():.0%}' for i in shown]
    titles = [
        title if good else f'{title}\n(is {names[dataset.labels[i]]})' for title, good, i in zip(titles, right, shown)
    ]
    pictures = [images.decode(dataset.paths[i]) for i in shown]
    report.plot_predictions(f'{folder}/predictions.png', pictures, titles, right)
    counts = class_counts(cfg)
    total = sum(int(numbers.sum()) for numbers in counts.values())
    report.plot_class_counts(f'{folder}/classes.png', counts, names, f'{cfg.data.root}: {total:,} images')
    rows = read_log(f'{cfg.run_dir}/log.csv')
    if rows:
        steps = int(rows[-1]['step']) // max(1, int(rows[-1]['epoch']))
        own = f'{cfg.run_dir}/config.yaml'
        trained = config.load(own) if os.path.isfile(own) else cfg
        rates = optim.rates(trained.optim, steps, trained.train.epochs)[: int(rows[-1]['step'])] if steps else []
        report.plot_curves(f'{folder}/curves.png', rows, rates)
    with files.atomic_write(f'{folder}/metrics.json') as file:
        json.dump(result, file, ensure_ascii=False, indent=1)


def class_counts(cfg):
    """{split: int [classes]}: images of each class, for the splits that have an index."""
    import numpy as np

    from dataset import read_index

    classes = len(cfg.data.labels)
    present = [split for split in ('train', 'valid', 'test') if os.path.isfile(f'{cfg.data.root}/{split}.txt')]
    read = {split: read_index(f'{cfg.data.root}/{split}.txt', classes) for split in present}
    if 'valid' in read and 'test' in read and read['valid'][0] == read['test'][0]:  # annotate.valid_from=test
        del read['valid']
    return {split: np.bincount(labels, minlength=classes) for split, (_, labels) in read.items()}


def read_log(path):
    """Rows of log.csv; none where the weights were trained elsewhere."""
    if not os.path.isfile(path):
        return []
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def show(result):
    """Print the numbers."""
    low, high = result['top1_interval_95']
    print(f'{result["split"]}: {result["n"]} images, weights {result["weights"]}')
    print(f'top-1 {result["top1"]:.4f} (95 % interval {low:.4f} to {high:.4f}), top-5 {result["top5"]:.4f}')
    means = [
        f'{name} {result[f"macro_{key}"]:.4f}'
        for name, key in (('precision', 'precision'), ('recall', 'recall'), ('F1', 'f1'))
    ]
    print(f'loss {result["loss"]:.4f}, macro {", ".join(means)}')
    print(f'{"class":<16}{"precision":>10}{"recall":>8}{"F1":>8}{"images":>8}')
    for name, row in result['per_class'].items():
        print(f'{name:<16}{row["precision"]:>10.4f}{row["recall"]:>8.4f}{row["f1"]:>8.4f}{row["support"]:>8}')
    print(f'simple random sample of {len(result["sample"])}:')
    for row in result['sample']:
        print(f'SampleID: {row["id"]}, RealLabel: {row["label"]}, Predict: {row["prediction"]}')


if __name__ == '__main__':
    run(main)
