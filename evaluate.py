"""Measure the trained network on a split; writes output/<name>/report/.

    python evaluate.py                                            # the best checkpoint on the test split
    python evaluate.py -c configs/demo.yaml -o evaluate.split=valid evaluate.weights=last
    python evaluate.py -o evaluate.weights=output/zodiac/infer evaluate.engine=onnxruntime     # what export.py wrote
    python evaluate.py --compare demo demo_longer                 # two evaluated runs side by side

report.html shows everything and needs no network; metrics.json holds every number, metrics.csv, per_class.csv and
confusion_matrix.csv the same as tables, predictions.csv a row an image; the pictures are there as PNG too. A simple random sample of
the split is listed as in the notebook.
"""

import csv
import filecmp
import json
import os
import shutil

import config
from zodiac import device, files
from zodiac.errors import UserError, run


def main():
    parser = config.parser(__doc__)
    parser.add_argument(
        '--compare', nargs=2, metavar='RUN', help='compare two runs (names, or folders) that were evaluated before'
    )
    args = parser.parse_args()
    if args.compare:
        compare_runs(*args.compare)
    else:
        evaluate(config.use(args.config, config.overrides_of(args)))


def evaluate(cfg):
    """Measure the network and write its report, with the settings of a `config.Config`. Raises UserError."""
    paddle = device.import_paddle()
    from dataset import ZodiacDataset
    from zodiac import checkpoint, findings, inference, metrics

    device.choose(cfg.device)
    dataset = ZodiacDataset(cfg.evaluate.split, augment=False, cfg=cfg)
    network = None
    if inference.is_export(cfg.evaluate.weights):
        predict_all, origin = predictor_of_export(cfg)
    else:
        network, origin = checkpoint.load_network(
            cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
        )
        predict_all = predictor_of_network(network, cfg)
    probabilities = predict_all(dataset)
    valid = validation_images(dataset, cfg)
    sample = random_sample(dataset, probabilities, cfg)
    hits = sum(row['label'] == row['prediction'] for row in sample)
    found = findings.read(f'{cfg.data.root}/annotation.json')
    right = probabilities.argmax(1) == dataset.labels
    result = {
        'split': cfg.evaluate.split,
        **metrics.evaluate(dataset.labels, probabilities, cfg.data.labels),
        'calibration': calibrate(dataset.labels, probabilities, valid, predict_all),
        'near_duplicates': findings.without_near_duplicates(found, dataset.paths, right),
        'sample': sample,
        'sample_top1': hits / len(sample),
        'sample_interval_95': metrics.sample_interval(hits, len(sample), len(dataset)),
        **origin,
        'arch': cfg.model.arch,
        'image_size': cfg.image.size,
        'flip_average': cfg.evaluate.flip_average,
        'paddle': paddle.__version__,
    }
    folder = f'{cfg.run_dir}/report'
    counts = class_counts(cfg)
    with files.atomic_folder(folder) as unfinished:
        draw(unfinished, result, dataset, probabilities, counts, cfg)
        write(unfinished, result, dataset, probabilities, counts, found, network, cfg)
    show_in_visualdl(folder, cfg)
    show(result)
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'look at: {folder}/report.html')


def predictor_of_network(network, cfg):
    """dataset -> float32 [n, classes], probabilities, by a network in eval mode."""
    from dataset import Loader
    from zodiac import model

    return lambda images: model.predict(network, Loader(images, cfg.evaluate.batch_size, cfg), len(images))


def predictor_of_export(cfg):
    """The same by what export.py wrote, and the facts of it. Raises UserError when its classes are others."""
    import numpy as np
    from tqdm import tqdm

    from zodiac import inference

    folder = cfg.evaluate.weights
    exported = inference.load(folder, cfg.device, cfg.evaluate.engine)
    if exported.labels != cfg.data.labels:
        raise UserError(
            f'{folder}: was exported with data.labels = {exported.labels}, now it is {cfg.data.labels}; use -c with the configuration '
            'of that run'
        )

    def predict_all(dataset):
        outputs = []
        with tqdm(total=len(dataset), desc='evaluating', unit='image', leave=False, disable=None) as bar:
            for batch in inference.sound_batches(dataset.paths, exported.transform, cfg.evaluate.batch_size):
                outputs.append(exported.predict(batch))
                bar.update(len(batch))
        return np.concatenate(outputs)

    origin = {'weights': folder, 'engine': cfg.evaluate.engine}
    return predict_all, {**origin, **{key: exported.trained.get(key) for key in ('epoch', 'pretrained')}}


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
        valid: the validation split, or None for no temperature.
        predict_all: dataset -> float32 [n, classes].
    """
    from zodiac import calibration

    plain = calibration.evaluate(labels, probabilities)
    if valid is None:
        return {**plain, 'temperature': None}
    temperature = calibration.fit_temperature(valid.labels, predict_all(valid))
    warmer = calibration.evaluate(labels, calibration.with_temperature(probabilities, temperature))
    return {**plain, 'temperature': temperature, **{f'{key}_with_temperature': value for key, value in warmer.items()}}


def draw(folder, result, dataset, probabilities, counts, cfg):
    """The pictures of the report, as PNG."""
    from zodiac import images, metrics, optim, plots

    names = cfg.data.labels
    guesses = probabilities.argmax(1)
    title = f'{cfg.name}, {result["split"]}: top-1 {result["top1"]:.4f} of {result["n"]} images'
    plots.plot_confusion_matrix(f'{folder}/confusion_matrix.png', result['confusion_matrix'], names, title)
    calibration = result['calibration']
    plots.plot_reliability(
        f'{folder}/reliability.png', calibration['bins'], calibration.get('bins_with_temperature', ())
    )
    shown = metrics.simple_random_sample(len(dataset), 18, cfg.seed)
    right = [guesses[i] == dataset.labels[i] for i in shown]
    titles = [f'{names[guesses[i]]} {probabilities[i].max():.0%}' for i in shown]
    titles = [
        title if good else f'{title}\n(is {names[dataset.labels[i]]})' for title, good, i in zip(titles, right, shown)
    ]
    pictures = [images.decode(dataset.paths[i]) for i in shown]
    plots.plot_predictions(f'{folder}/predictions.png', pictures, titles, right)
    total = sum(int(numbers.sum()) for numbers in counts.values())
    plots.plot_class_counts(f'{folder}/classes.png', counts, names, f'{cfg.data.root}: {total:,} images')
    rows = read_log(f'{cfg.run_dir}/log.csv')
    if rows:
        steps = int(rows[-1]['step']) // max(1, int(rows[-1]['epoch']))
        own = f'{cfg.run_dir}/config.yaml'
        trained = config.load(own) if os.path.isfile(own) else cfg
        rates = optim.rates(trained.optim, steps, trained.train.epochs)[: int(rows[-1]['step'])] if steps else []
        plots.plot_curves(f'{folder}/curves.png', rows, rates)


def write(folder, result, dataset, probabilities, counts, found, network, cfg):
    """metrics.json, the tables and report.html."""
    from zodiac import findings, report

    names = cfg.data.labels
    with files.atomic_write(f'{folder}/metrics.json') as file:
        json.dump(result, file, ensure_ascii=False, indent=1)
    report.write_scores(folder, result)
    report.write_predictions(f'{folder}/predictions.csv', dataset.paths, dataset.labels, probabilities, names)

    chosen = report.choose(dataset.labels, probabilities)
    walls = {key: cards(numbers, dataset, probabilities, names) for key, numbers in chosen.items()}
    looked_at = [*chosen['mistakes'][:6], *chosen['right'][:6]] if network else []  # an export has no gradients
    pictures = heat_pictures(looked_at, dataset, network) if looked_at else []
    walls['heat'] = cards(looked_at, dataset, probabilities, names, pictures)
    paths = {name: f'{folder}/{name}.png' for name in ('reliability', 'curves')}
    counts = {split: numbers.tolist() for split, numbers in counts.items()}
    report.write_page(
        f'{folder}/report.html',
        title=f'{cfg.name}: {result["split"]} images',
        subtitle=f'{result["arch"]} at {result["image_size"]} pixels, {len(names)} classes, weights {result["weights"]}',
        result=result,
        wrong=sum(dataset.labels != probabilities.argmax(1)),
        pictures={name: report.picture(path) if os.path.isfile(path) else None for name, path in paths.items()},
        counts=counts,
        most=max(1, *map(sum, zip(*counts.values()))),
        data=findings.content(found, f'{cfg.data.root}/annotation.json'),
        made=[
            *(('weights', result['weights']), ('epoch', result['epoch']), ('started from', started_from(result))),
            *(('mirror images averaged', 'yes' if result['flip_average'] else 'no'), ('Paddle', result['paddle'])),
            ('classes, in order', ', '.join(names)),
        ],
        **walls,
    )


def show_in_visualdl(folder, cfg):
    """The confusion matrix and the wall of predictions, beside the curves of the run."""
    import numpy as np
    from PIL import Image
    from visualdl import LogWriter

    place = f'{cfg.run_dir}/visualdl/evaluation'
    shutil.rmtree(place, ignore_errors=True)
    with LogWriter(logdir=place) as writer:
        for name in ('confusion_matrix', 'predictions'):
            with Image.open(f'{folder}/{name}.png') as image:
                writer.add_image(name.replace('_', ' '), np.asarray(image.convert('RGB')), step=0)


def started_from(result):
    return {True: 'ImageNet weights', False: 'scratch', None: 'not recorded'}.get(
        result['pretrained'], result['pretrained']
    )


def cards(numbers, dataset, probabilities, names, pictures=None):
    """What the page shows of some images: a dict each."""
    from zodiac import images, report

    pictures = pictures or [report.thumbnail(images.decode(dataset.paths[i])) for i in numbers]
    return [
        {
            'picture': picture,
            'path': dataset.paths[i],
            'prediction': names[probabilities[i].argmax()],
            'probability': float(probabilities[i].max()),
            'label': names[dataset.labels[i]],
            'probability_of_label': float(probabilities[i][dataset.labels[i]]),
            'right': bool(probabilities[i].argmax() == dataset.labels[i]),
        }
        for i, picture in zip(numbers, pictures)
    ]


def heat_pictures(numbers, dataset, network):
    """The images as the network sees them, with Grad-CAM laid over, as data: addresses."""
    import numpy as np
    from PIL import Image

    from zodiac import gradcam, report, transforms

    seen = np.stack([dataset[i][0] for i in numbers])
    heats = gradcam.heat(getattr(network, 'network', network), seen)
    last = dataset.transform[-1]
    pictures = [Image.fromarray(transforms.denormalize(image, last['mean'], last['std'])) for image in seen]
    return list(map(report.thumbnail, pictures, heats))


def compare_runs(*runs):
    """Put two evaluated runs side by side in output/<first>_vs_<second>/: compare.html and compare.json."""
    from zodiac import compare, images, report

    first, second = map(compare.read, runs)
    result = compare.compare(first, second)
    names = first['name'], second['name']
    surer = {'first': 'second_probability', 'second': 'first_probability'}  # that of the one that is wrong
    walls = {}
    for which, probability in surer.items():
        rows = [row for row in result['differing'] if row['right'] == which]
        walls[f'only_{which}'] = sorted(rows, key=lambda row: -row[probability])[:12]
    for row in [row for rows in walls.values() for row in rows]:
        found = os.path.isfile(row['path'])
        row['picture'] = report.thumbnail(images.decode(row['path'])) if found else None
    scores = [
        (key, first['metrics'][key], second['metrics'][key])
        for key in ('top1', 'top5', 'loss', 'macro_precision', 'macro_recall', 'macro_f1', 'macro_roc_auc')
    ]
    folder = f'output/{names[0]}_vs_{names[1]}'
    with files.atomic_folder(folder) as unfinished:
        with files.atomic_write(f'{unfinished}/compare.json') as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
        report.write_page(
            f'{unfinished}/compare.html',
            'compare.html',
            title=f'{names[0]} and {names[1]}',
            first=names[0],
            second=names[1],
            split=first['metrics']['split'],
            result=result,
            verdict=verdict(result),
            scores=scores,
            **walls,
        )
    for one in (result['first'], result['second']):
        print(f'{one["name"]}: top-1 {one["top1"]:.4f} of {result["n"]} images')
    low, high = result['difference_interval_95']
    print(
        f'difference {result["difference"]:+.4f} (95 % interval {low:+.4f} to {high:+.4f}), McNemar p {result["p"]:.3g}'
    )
    print(verdict(result))
    print(f'written: {folder}/compare.html, compare.json')


def verdict(result):
    """What a comparison says, in words."""
    first, second = result['first']['name'], result['second']['name']
    counts = f'{result["only_first"]} images only {first} gets right, {result["only_second"]} only {second}'
    if result['p'] >= 0.05:
        return f'These images do not tell the two apart: {counts}.'
    better = second if result['difference'] > 0 else first
    return (
        f'{better} is better: {counts}; equally good ones would differ so much with a probability of {result["p"]:.2g}.'
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
    calibration = result['calibration']
    print(f'calibration error {calibration["ece"]:.4f}, Brier score {calibration["brier"]:.4f}', end='')
    if calibration['temperature']:
        print(f'; with temperature {calibration["temperature"]:.3f}: {calibration["ece_with_temperature"]:.4f}', end='')
    print(f'\nsimple random sample of {len(result["sample"])}:')
    for row in result['sample']:
        print(f'SampleID: {row["id"]}, RealLabel: {row["label"]}, Predict: {row["prediction"]}')


if __name__ == '__main__':
    run(main)
