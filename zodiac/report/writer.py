"""Fill a run's report folder: plots, tables, metrics.json and report.html."""

import json
import os
import shutil

import numpy as np
from PIL import Image
from visualdl import LogWriter

from zodiac.base import files, networks
from zodiac.images import decoding, transforms
from zodiac.report import formatting, gallery, gradcam, metrics, pages, plots, small_data, tables

GRID = 18  # images in predictions.png and mistakes.png
HEAT_MAPS = 6  # Grad-CAM pictures of mistakes, and of correct predictions
IN_VISUALDL = ('confusion_matrix', 'pr_curves', 'mistakes', 'predictions')


def write(folder, name, result, dataset, probabilities, network, *, counts, annotated, log, rates, seed, folds=None):
    """Write all files of a report.

    Args:
        name: of the run.
        result: the content of metrics.json.
        dataset: the images that were evaluated, with paths, labels and transform.
        probabilities: float [n, classes].
        network: Layer in eval mode for Grad-CAM; None for an exported model, which has no gradients.
        counts: {split: int [classes]}, the images of each class.
        annotated: what `annotation.read` returns.
        log, rates: see `plots.plot_curves`; an empty log gives no curves.png.
        seed: of the random images in predictions.png.
        folds: (paths, labels, probabilities) of all images over folds; None: not measured.
    """
    with files.atomic_write(f'{folder}/metrics.json') as file:
        json.dump(result, file, ensure_ascii=False, indent=1)
    tables.write_metrics(folder, result)
    class_names = result['labels']
    tables.write_predictions(f'{folder}/predictions.csv', dataset.paths, dataset.labels, probabilities, class_names)
    if folds:
        tables.write_folds(f'{folder}/folds.csv', *folds, class_names)
    if result.get('learning_curve'):
        small_data.plot_learning_curve(f'{folder}/learning_curve.png', result['learning_curve'])
    draw(folder, name, result, dataset, probabilities, counts, log, rates, seed)
    write_report_page(f'{folder}/report.html', name, result, dataset, probabilities, counts, annotated, network)


def draw(folder, name, result, dataset, probabilities, counts, log, rates, seed):
    """The plots of a report as PNG files."""
    class_names = result['labels']
    title = f'{name}, {result["split"]}: top-1 {result["top1"]:.4f} of {formatting.count(result["n"], "image")}'
    plots.plot_confusion_matrix(f'{folder}/confusion_matrix.png', result['confusion_matrix'], class_names, title)
    calibration = result['calibration']
    plots.plot_reliability(
        f'{folder}/reliability.png', calibration['bins'], calibration.get('bins_with_temperature', ())
    )
    plots.plot_pr_curves(f'{folder}/pr_curves.png', metrics.pr_curves(dataset.labels, probabilities), class_names)
    sample = metrics.simple_random_sample(len(dataset), GRID, seed)
    heading = f'{len(sample)} of {formatting.count(len(dataset), "image")}, drawn at random'
    draw_grid(f'{folder}/predictions.png', sample, dataset, probabilities, class_names, heading)
    mistakes = gallery.choose(dataset.labels, probabilities, GRID)['mistakes']
    if mistakes:
        total = int((probabilities.argmax(1) != dataset.labels).sum())
        heading = f'{len(mistakes)} of {formatting.count(total, "mistake")}, most confident first'
        draw_grid(f'{folder}/mistakes.png', mistakes, dataset, probabilities, class_names, heading)
    total = sum(int(numbers.sum()) for numbers in counts.values())
    plots.plot_class_counts(f'{folder}/classes.png', counts, class_names, f'{name}: {formatting.count(total, "image")}')
    if log:
        plots.plot_curves(f'{folder}/curves.png', log, rates)


def draw_grid(path, chosen, dataset, probabilities, class_names, heading):
    """PNG grid of the images `chosen` with their predictions."""
    titles, right = [], []
    for i in chosen:
        guess, truth = probabilities[i].argmax(), dataset.labels[i]
        title = f'{class_names[guess]} {formatting.percent(probabilities[i].max())}'
        titles.append(title if guess == truth else f'{title}\n(is {class_names[truth]})')
        right.append(guess == truth)
    images = [decoding.decode(dataset.paths[i]) for i in chosen]
    plots.plot_predictions(path, images, titles, right, heading=heading)


def write_report_page(path, name, result, dataset, probabilities, counts, annotated, network):
    """report.html; the plots beside it become part of it."""
    folder, class_names = os.path.dirname(path), result['labels']
    chosen = gallery.choose(dataset.labels, probabilities)
    walls = {key: gallery.cards(numbers, dataset, probabilities, class_names) for key, numbers in chosen.items()}
    explained = [*chosen['mistakes'][:HEAT_MAPS], *chosen['right'][:HEAT_MAPS]] if network is not None else []
    pictures, heat_size = heat_pictures(explained, dataset, network) if explained else ([], None)
    walls['heat'] = gallery.cards(explained, dataset, probabilities, class_names, pictures)
    counts = {split: numbers.tolist() for split, numbers in counts.items()}
    pages.write_page(
        path,
        'report.html',
        title=f'{name}: {result["split"]} images',
        subtitle=f'{result["arch"]} at {result["image_size"]} pixels, {len(class_names)} classes, weights {result["weights"]}',
        result=result,
        few=small_data.FEW,
        wrong=int((dataset.labels != probabilities.argmax(1)).sum()),
        pictures={
            name: gallery.png(f'{folder}/{name}.png')
            for name in ('pr_curves', 'reliability', 'curves', 'learning_curve')
        },
        heat_size=heat_size,
        counts=counts,
        most=max(1, *map(sum, zip(*counts.values()))),
        data=annotated,
        made=[
            ('weights', result['weights']),
            ('epoch', result['epoch']),
            ('trained from', networks.initial_weights(result['arch'], result['pretrained'])),
            ('averaged with mirror images', {True: 'yes', False: 'no'}.get(result['flip_average'])),
            *((key, result.get(key)) for key in ('engine', 'precision', 'temperature')),
            ('Paddle', result['paddle']),
            ('classes, in order', ', '.join(class_names)),
        ],
        **walls,
    )


def heat_pictures(numbers, dataset, network):
    """The images as the network sees them under their Grad-CAM heat maps, as data: URLs; and the maps' (height, width)."""
    seen = np.stack([dataset[i][0] for i in numbers])
    heats = gradcam.heat(getattr(network, 'network', network), seen)
    last = dataset.transform[-1]
    pictures = [Image.fromarray(transforms.denormalize(image, last['mean'], last['std'])) for image in seen]
    return list(map(gallery.thumbnail, pictures, heats)), heats.shape[1:]


def add_to_visualdl(folder, report):
    """Log some pictures of the report folder `report` to VisualDL, replacing those of an earlier evaluation in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    with LogWriter(logdir=folder) as log:
        for name in IN_VISUALDL:
            if os.path.isfile(f'{report}/{name}.png'):
                with Image.open(f'{report}/{name}.png') as image:
                    log.add_image(name.replace('_', ' '), np.asarray(image.convert('RGB')), step=0)
