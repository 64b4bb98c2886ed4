"""Fill a run's report folder: plots, tables, metrics.json and report.html."""

import collections
import datetime
import functools
import json
import os
import shutil

import numpy as np
from markupsafe import Markup
from PIL import Image
from visualdl import LogWriter

from zodiac.base import files, formatting, networks
from zodiac.images import decoding
from zodiac.pages import render, texts
from zodiac.report import charts, gallery, metrics, mistakes, plots, small_data, summary, tables

GRID = 18  # images in predictions.png and mistakes.png
SLICES = 12  # parts of the photos, and classes, in the tables of the worst
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'report.html')
IN_VISUALDL = ('confusion_matrix', 'pr_curves', 'mistakes', 'predictions')


def write(
    folder,
    name,
    result,
    dataset,
    probabilities,
    network,
    *,
    counts,
    annotated,
    log,
    rates,
    seed,
    folds=None,
    language=None,
):
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
        language: of the page, one of `render.LANGUAGES`; None for that of the browser.
    """
    with files.atomic_write(f'{folder}/metrics.json') as file:
        json.dump(result, file, ensure_ascii=False, indent=1)
    tables.write_metrics(folder, result)
    class_names = result['labels']
    tables.write_predictions(f'{folder}/predictions.csv', dataset.paths, dataset.labels, probabilities, class_names)
    if folds:
        tables.write_folds(f'{folder}/folds.csv', *folds, class_names)
    if result.get('slices'):
        tables.write_slices(f'{folder}/slices.csv', result['slices']['rows'])
    if result.get('learning_curve'):
        small_data.plot_learning_curve(f'{folder}/learning_curve.png', result['learning_curve'])
    draw(folder, name, result, dataset, probabilities, counts, log, rates, seed)
    about = {'counts': counts, 'annotated': annotated, 'log': log, 'rates': rates, 'folds': folds, 'language': language}
    write_report_page(folder, name, result, dataset, probabilities, network, **about)


def draw(folder, name, result, dataset, probabilities, counts, log, rates, seed):
    """The plots of a report as PNG files."""
    class_names = result['labels']
    title = f'{name}, {result["split"]}: top-1 {formatting.percent(result["top1"])} of {formatting.count(result["n"], "image")}'
    plots.plot_confusion_matrix(f'{folder}/confusion_matrix.png', result['confusion_matrix'], class_names, title)
    calibration = result['calibration']
    plots.plot_reliability(
        f'{folder}/reliability.png', calibration['bins'], calibration.get('bins_with_temperature', ())
    )
    plots.plot_pr_curves(f'{folder}/pr_curves.png', metrics.pr_curves(dataset.labels, probabilities), class_names)
    sample = metrics.simple_random_sample(len(dataset), GRID, seed)
    heading = f'{len(sample)} of {formatting.count(len(dataset), "image")}, drawn at random'
    draw_grid(f'{folder}/predictions.png', sample, dataset, probabilities, class_names, heading)
    wrong = np.flatnonzero(probabilities.argmax(1) != dataset.labels)
    if len(wrong):
        first = wrong[np.argsort(-probabilities[wrong].max(1), kind='stable')][:GRID].tolist()
        heading = f'{len(first)} of {formatting.count(len(wrong), "mistake")}, most confident first'
        draw_grid(f'{folder}/mistakes.png', first, dataset, probabilities, class_names, heading)
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


def write_report_page(
    folder, name, result, dataset, probabilities, network, *, counts, annotated, log, rates, folds=None, language=None
):
    """report.html, which needs none of the files beside it. For the arguments see `write`."""
    names = result['labels']
    wrong = mistakes.all_of(dataset, probabilities, folds)
    rows, pictured = mistakes.with_pictures(wrong, folder, dataset.transform, network)
    with_photo = max([number + 1 for number, row in enumerate(rows) if row['picture']], default=0)
    short = summary.summarise(result, wrong, folds)
    date = datetime.datetime.now().strftime('%Y-%m-%d %H:%M')
    curve = result.get('learning_curve')
    short['more_photos'] = (curve['more_photos_for'] if curve else []) or short['weak']
    chosen = gallery.choose(dataset.labels, probabilities)
    show = functools.partial(gallery.card, dataset=dataset, probabilities=probabilities, class_names=names)
    calibration, precision = (
        result['calibration'],
        charts.pr_curves(metrics.pr_curves(dataset.labels, probabilities), names),
    )
    of_split, parts, unknown = dataset.labels, result.get('slices') or {'rows': []}, result.get('unknown')
    page = render.render(
        PAGE,
        language,
        name=name,
        date=date,
        result=result,
        short=short,
        weak=[(one, *short['recall'][one][:2]) for one in short['weak']],
        worth=small_data.WORTH,
        guess_of_split=float(np.bincount(of_split).max() / len(of_split)),
        guess_of_folds=float(np.bincount(folds[1]).max() / len(folds[1])) if folds else None,
        guess_loss=float(np.log(len(names))),
        sections=[
            *('mistakes', 'classes', 'matrix'),
            *(['slices'] if parts['rows'] else []),
            'sure',
            *(['unknown'] if unknown else []),
            *(['precision_recall'] if precision['shown'] else []),
            *(['curve'] if curve else []),
            *(['training'] if log else []),
            *('sample', 'data', 'made'),
        ],
        mistakes=rows,
        wrong=sum(not row['over_folds'] for row in wrong),
        more_over_folds=sum(row['over_folds'] for row in wrong),
        pictured=pictured,
        with_photo=with_photo,
        rest=mistakes.compact(rows[with_photo:], folder),
        exported=network is None,
        of_class=np.bincount([row['label'] for row in rows], minlength=len(names)).tolist(),
        slices=parts,
        worst_slices=parts['rows'][:SLICES],
        unknown=unknown,
        least_known=sorted(unknown['per_class'].items(), key=lambda item: (item[1]['coverage'], item[1]['known']))[
            :SLICES
        ]
        if unknown
        else [],
        counts_of_mistakes={
            kind: sorted(collections.Counter(row[kind] for row in rows).items()) for kind in ('label', 'guess')
        },
        number_shown=Markup('<b class="shown"></b>'),
        number_matching=Markup('<b class="matching"></b>'),
        uncertain=list(map(show, chosen['uncertain'])),
        right=[(number, None if best is None else show(best)) for number, best in chosen['right'].items()],
        reliability=list(
            zip(
                ('report.reliability', 'report.confidence'),
                charts.reliability(calibration['bins'], calibration.get('bins_with_temperature', ())),
            )
        ),
        pr_curves=precision,
        learning_curve=charts.learning_curve(curve) if curve else None,
        training=charts.training(log, rates) if log else None,
        counts={split: numbers.tolist() for split, numbers in counts.items()},
        most=max(1, *map(sum, zip(*(numbers.tolist() for numbers in counts.values())))),
        data=annotated,
        made=made_of(result, date),
    )
    with files.atomic_write(f'{folder}/report.html') as file:
        file.write(page)


def made_of(result, date):
    """(key of report.*, value) pairs: what the model is made of; a value of None is left out."""
    yes_or_no = {True: texts.both('report.mirrored'), False: texts.both('report.not_mirrored')}
    start = {
        True: texts.both('report.made_imagenet', credit=networks.credit(result['arch'])),
        False: texts.both('report.made_scratch'),
        None: texts.both('report.made_unknown'),
    }
    return [
        ('made_date', date),
        ('made_arch', f'{result["arch"]}, {result["image_size"]} px'),
        ('made_weights', render.breaks(result['weights'])),
        ('made_epoch', result['epoch']),
        ('made_from', start.get(result['pretrained']) or render.breaks(result['pretrained'])),
        ('made_mirror', yes_or_no.get(result['flip_average'])),
        *((f'made_{key}', result.get(key)) for key in ('engine', 'precision', 'temperature')),
        ('made_paddle', result['paddle']),
        ('made_labels', ', '.join(result['labels'])),
    ]


def add_to_visualdl(folder, report):
    """Log some pictures of the report folder `report` to VisualDL, replacing those of an earlier evaluation in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    with LogWriter(logdir=folder) as log:
        for name in IN_VISUALDL:
            if os.path.isfile(f'{report}/{name}.png'):
                with Image.open(f'{report}/{name}.png') as image:
                    log.add_image(name.replace('_', ' '), np.asarray(image.convert('RGB')), step=0)
