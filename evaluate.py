"""Measure the trained network on a split; writes output/<name>/report/.

    python evaluate.py                                            # the best checkpoint on the test split
    python evaluate.py -c configs/demo.yaml -o evaluate.split=valid evaluate.weights=last
    python evaluate.py -o evaluate.weights=output/zodiac/infer evaluate.engine=onnxruntime     # what export.py wrote
    python evaluate.py --compare demo demo_longer                 # two evaluated runs side by side

report.html shows everything and needs no network; metrics.json holds every number, metrics.csv, per_class.csv and
confusion_matrix.csv the same as tables, predictions.csv a row an image; the pictures are there as PNG too. A simple random sample of
the split is listed as in the notebook.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn matplotlib jinja2 tqdm visualdl')

import csv
import filecmp
import json
import os
import shutil
import sys

import config
from zodiac.base import columns, device, files, schema
from zodiac.base.errors import UserError, one_line, run


def main():
    parser = config.parser(__doc__)
    parser.add_argument(
        '--compare', nargs=2, metavar='RUN', help='compare two runs (names, or folders) that were evaluated before'
    )
    args = parser.parse_args()
    if args.compare:
        from zodiac.report import compare

        compare.show(*args.compare)
    else:
        evaluate(config.use(args.config, config.overrides_of(args)))


def evaluate(cfg):
    """Measure the network and write its report, with the settings of a `config.Config`. Raises UserError."""
    from dataset import ZodiacDataset
    from zodiac.base.paddle_setup import paddle  # which takes seconds to import
    from zodiac.inference import runtime
    from zodiac.report import annotation, metrics
    from zodiac.training import checkpoint

    device.choose(cfg.device)
    dataset = ZodiacDataset(cfg.evaluate.split, augment=False, cfg=cfg)
    network = None
    if runtime.is_export(cfg.evaluate.weights):
        predict_all, origin = predictor_of_export(cfg)
    elif cfg.evaluate.engine != 'paddle':
        raise UserError(
            f'evaluate.engine = {cfg.evaluate.engine} runs what export.py wrote, and evaluate.weights = {cfg.evaluate.weights} is none of '
            f'that; -o {schema.override("evaluate.weights", cfg.run_dir + "/infer")}'
        )
    else:
        network, origin = checkpoint.load_network(
            cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
        )
        ours = {'arch': cfg.model.arch, 'image_size': cfg.image.size, 'flip_average': cfg.evaluate.flip_average}
        predict_all, origin = predictor_of_network(network, cfg), {**origin, **ours}
    probabilities = predict_all(dataset)
    require_numbers(probabilities, origin['weights'])
    valid = validation_images(dataset, cfg)
    sample = random_sample(dataset, probabilities, cfg)
    hits = sum(row['label'] == row['prediction'] for row in sample)
    found = annotation.read(f'{cfg.data.root}/annotation.json')
    right = probabilities.argmax(1) == dataset.labels
    result = {
        'split': cfg.evaluate.split,
        **metrics.evaluate(dataset.labels, probabilities, cfg.data.labels),
        'calibration': calibrate(dataset.labels, probabilities, valid, predict_all),
        'near_duplicates': annotation.without_near_duplicates(found['paths'], dataset.paths, right),
        'sample': sample,
        'sample_top1': hits / len(sample),
        'sample_interval_95': metrics.sample_interval(hits, len(sample), len(dataset)),
        **origin,
        'paddle': paddle.__version__,
    }
    folder = f'{cfg.run_dir}/report'
    counts = class_counts(cfg)
    with files.atomic_folder(folder) as unfinished:
        draw(unfinished, result, dataset, probabilities, counts, cfg)
        write(unfinished, result, dataset, probabilities, counts, found, network, cfg)
    show(result)
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'look at: {folder}/report.html')
    show_in_visualdl(folder, cfg)


def require_numbers(probabilities, weights):
    """Raise UserError where a network gives no numbers."""
    import numpy as np

    wrong = int((~np.isfinite(probabilities).all(1)).sum())
    if wrong:
        raise UserError(
            f'{weights}: gives no numbers (NaN) for {wrong} of {len(probabilities)} images: its training has diverged, or the file is '
            'damaged; train with a lower optim.lr, or name others with evaluate.weights'
        )


def predictor_of_network(network, cfg):
    """dataset -> float32 [n, classes], probabilities, by a network in eval mode."""
    from dataset import Loader
    from zodiac.models import builder

    return lambda images: builder.predict(network, Loader(images, cfg.evaluate.batch_size, cfg), len(images))


def predictor_of_export(cfg):
    """The same by what export.py wrote, and the facts of it. Raises UserError when its classes are others."""
    import numpy as np
    from tqdm import tqdm

    from zodiac.inference import runtime

    folder = cfg.evaluate.weights
    exported = runtime.load(folder, cfg.device, cfg.evaluate.engine)
    if exported.labels != cfg.data.labels:
        raise UserError(
            f'{folder}: was exported with data.labels = {exported.labels}, now it is {cfg.data.labels}; use -c with the configuration '
            'of that run'
        )

    def predict_all(dataset):
        outputs = []
        with tqdm(total=len(dataset), desc='evaluating', unit='image', leave=False, disable=None) as bar:
            for batch in runtime.sound_batches(dataset.paths, exported.transform, cfg.evaluate.batch_size):
                outputs.append(exported.predict(batch))
                bar.update(len(batch))
        return np.concatenate(outputs)

    return predict_all, {'weights': folder, 'engine': cfg.evaluate.engine, **exported.origin}


def random_sample(dataset, probabilities, cfg):
    """The notebook's table: a seeded simple random sample of the split, as JSON-ready rows."""
    from zodiac.report import metrics

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


def validation_images(dataset, cfg):
    """The validation split without augmentation; None where its images are those that are measured."""
    from dataset import ZodiacDataset

    if not os.path.isfile(f'{cfg.data.root}/valid.txt'):
        return None
    valid = ZodiacDataset('valid', augment=False, cfg=cfg)
    return None if set(valid.paths) & set(dataset.paths) else valid


def calibrate(labels, probabilities, valid, predict_all):
    """Calibration of the predictions, also with the temperature that fits the validation images, as a JSON-ready dict.

    Args:
        valid: the validation split, or None for no temperature; there is none either where these images do not tell one.
        predict_all: dataset -> float32 [n, classes].
    """
    from zodiac.report import calibration, metrics

    plain = calibration.evaluate(labels, probabilities)
    temperature = None if valid is None else calibration.fit_temperature(valid.labels, predict_all(valid))
    if temperature is None:
        return {**plain, 'temperature': None}
    warmer = calibration.with_temperature(probabilities, temperature)
    after = {**calibration.evaluate(labels, warmer), 'loss': metrics.cross_entropy(labels, warmer)}
    return {**plain, 'temperature': temperature, **{f'{key}_with_temperature': value for key, value in after.items()}}


def draw(folder, result, dataset, probabilities, counts, cfg):
    """The pictures of the report, as PNG."""
    from zodiac.images import decoding
    from zodiac.report import metrics, pages, plots

    names = cfg.data.labels
    guesses = probabilities.argmax(1)
    title = f'{cfg.name}, {result["split"]}: top-1 {result["top1"]:.4f} of {result["n"]} images'
    plots.plot_confusion_matrix(f'{folder}/confusion_matrix.png', result['confusion_matrix'], names, title)
    calibration = result['calibration']
    plots.plot_reliability(
        f'{folder}/reliability.png', calibration['bins'], calibration.get('bins_with_temperature', ())
    )
    plots.plot_pr_curves(f'{folder}/pr_curves.png', metrics.pr_curves(dataset.labels, probabilities), names)
    walls = {
        'predictions': metrics.simple_random_sample(len(dataset), 18, cfg.seed),
        'mistakes': pages.choose(dataset.labels, probabilities, 18)['mistakes'],
    }
    wrong = int((guesses != dataset.labels).sum())
    headings = {
        'predictions': f'{len(dataset)} images, drawn at random',
        'mistakes': f'{wrong} mistakes, the most probable first',
    }
    for name, shown in walls.items():
        if not len(shown):
            continue
        right = [guesses[i] == dataset.labels[i] for i in shown]
        titles = [f'{names[guesses[i]]} {probabilities[i].max():.0%}' for i in shown]
        titles = [
            title if good else f'{title}\n(is {names[dataset.labels[i]]})'
            for title, good, i in zip(titles, right, shown)
        ]
        pictures = [decoding.decode(dataset.paths[i]) for i in shown]
        plots.plot_predictions(
            f'{folder}/{name}.png', pictures, titles, right, heading=f'{len(shown)} of {headings[name]}'
        )
    total = sum(int(numbers.sum()) for numbers in counts.values())
    plots.plot_class_counts(f'{folder}/classes.png', counts, names, f'{cfg.data.root}: {total:,} images')
    rows = read_log(f'{cfg.run_dir}/log.csv')
    if rows:
        plots.plot_curves(f'{folder}/curves.png', rows, learning_rates(rows, cfg))


def write(folder, result, dataset, probabilities, counts, found, network, cfg):
    """metrics.json, the tables and report.html."""
    from zodiac.report import pages

    names = cfg.data.labels
    with files.atomic_write(f'{folder}/metrics.json') as file:
        json.dump(result, file, ensure_ascii=False, indent=1)
    pages.write_scores(folder, result)
    pages.write_predictions(f'{folder}/predictions.csv', dataset.paths, dataset.labels, probabilities, names)

    chosen = pages.choose(dataset.labels, probabilities)
    walls = {key: pages.cards(numbers, dataset, probabilities, names) for key, numbers in chosen.items()}
    looked_at = [*chosen['mistakes'][:6], *chosen['right'][:6]] if network else []  # an export has no gradients
    pictures, heat_size = pages.heat_pictures(looked_at, dataset, network) if looked_at else ([], None)
    walls['heat'] = pages.cards(looked_at, dataset, probabilities, names, pictures)
    paths = {name: f'{folder}/{name}.png' for name in ('pr_curves', 'reliability', 'curves')}
    counts = {split: numbers.tolist() for split, numbers in counts.items()}
    pages.write_page(
        f'{folder}/report.html',
        title=f'{cfg.name}: {result["split"]} images',
        subtitle=f'{result["arch"]} at {result["image_size"]} pixels, {len(names)} classes, weights {result["weights"]}',
        result=result,
        wrong=sum(dataset.labels != probabilities.argmax(1)),
        pictures={name: pages.picture(path) if os.path.isfile(path) else None for name, path in paths.items()},
        heat_size=heat_size,
        counts=counts,
        most=max(1, *map(sum, zip(*counts.values()))),
        data=found,
        made=[
            *(('weights', result['weights']), ('epoch', result['epoch']), ('started from', started_from(result))),
            ('mirror images averaged', {True: 'yes', False: 'no'}.get(result['flip_average'])),
            *((name, result.get(name)) for name in ('engine', 'precision', 'temperature')),
            ('Paddle', result['paddle']),
            ('classes, in order', ', '.join(names)),
        ],
        **walls,
    )


def show_in_visualdl(folder, cfg):
    """Some pictures of the report, beside the curves of the run."""
    import numpy as np
    from PIL import Image
    from visualdl import LogWriter

    place = f'{cfg.run_dir}/visualdl/evaluation'
    shutil.rmtree(place, ignore_errors=True)
    with LogWriter(logdir=place) as writer:
        for name in ('confusion_matrix', 'pr_curves', 'mistakes', 'predictions'):
            if os.path.isfile(f'{folder}/{name}.png'):
                with Image.open(f'{folder}/{name}.png') as image:
                    writer.add_image(name.replace('_', ' '), np.asarray(image.convert('RGB')), step=0)


def started_from(result):
    return {True: 'ImageNet weights', False: 'scratch', None: 'not recorded'}.get(
        result['pretrained'], result['pretrained']
    )


def class_counts(cfg):
    """{split: int [classes]}: images of each class, for the splits that have an index."""
    import numpy as np

    from dataset import read_index

    classes = len(cfg.data.labels)
    present = [split for split in ('train', 'valid', 'test') if os.path.isfile(f'{cfg.data.root}/{split}.txt')]
    index = {split: f'{cfg.data.root}/{split}.txt' for split in present}
    if 'valid' in index and 'test' in index and filecmp.cmp(index['valid'], index['test'], False):
        del index['valid']  # annotate.valid_from=test
    return {split: np.bincount(read_index(path, classes)[1], minlength=classes) for split, path in index.items()}


def read_log(path):
    """Rows of log.csv; none where the weights were trained elsewhere, and none, with a warning, where it is damaged."""
    if not os.path.isfile(path):
        return []
    try:
        with open(path, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            int(row['epoch']), int(row['step'])
            [float(row[column]) for column in columns.TAGS if row[column] != '']
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f'warning: {path}: is damaged ({one_line(error)}); the report shows no curves', file=sys.stderr)
        return []
    return rows


def learning_rates(rows, cfg):
    """The learning rate of each step in the rows of log.csv; none where the settings of the run cannot be read."""
    from zodiac.training import optim

    done = int(rows[-1]['step'])
    steps = done // max(1, int(rows[-1]['epoch']))
    own = f'{cfg.run_dir}/config.yaml'
    try:
        trained = config.load(own) if os.path.isfile(own) else cfg
    except UserError as error:
        print(f'warning: {error}; the report shows the learning rate of each epoch only', file=sys.stderr)
        return []
    return optim.rates(trained.optim, steps, trained.train.epochs)[:done] if steps else []


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
    calibration = result['calibration']
    print(f'calibration error {calibration["ece"]:.4f}, Brier score {calibration["brier"]:.4f}', end='')
    if calibration['temperature']:
        print(f'; with temperature {calibration["temperature"]:.3f}: {calibration["ece_with_temperature"]:.4f}', end='')
    print(f'\nsimple random sample of {len(result["sample"])}:')
    for row in result['sample']:
        print(f'SampleID: {row["id"]}, RealLabel: {row["label"]}, Predict: {row["prediction"]}')


if __name__ == '__main__':
    run(main)
