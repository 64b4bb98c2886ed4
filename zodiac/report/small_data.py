"""What few photos tell: the accuracy over folds, and how many photos would help."""

import numpy as np

from zodiac.base import formatting
from zodiac.report import metrics
from zodiac.report.figure import png
from zodiac.report.plots import BLUE

FEW = 200  # test images; below, the folds come first
FITTED = 3  # last points of the learning curve that tell what more photos bring
BEHIND = 0.02  # a class whose recall is so far below the accuracy needs more photos
MOST_CLASSES = 3  # that are named
WORTH = 0.002  # a smaller gain is not named


def over_folds(labels, probabilities, folds):
    """`folds` of metrics.json.

    Args:
        labels: int [n]; probabilities: float [n, classes], each from a head that did not learn from that image.
    Returns: dict: top1; interval_95, Wilson's over all n predictions; n; k, the number of folds. The heads of two folds share most of
        their images, so the interval is approximate.
    """
    hits, n = int((np.asarray(probabilities).argmax(1) == labels).sum()), len(labels)
    return {'top1': hits / n, 'interval_95': metrics.wilson_interval(hits, n), 'n': n, 'k': folds}


def learning_curve(points, counts, class_names):
    """`learning_curve` of metrics.json.

    Args:
        points: see `linear_head.learning_curve`; counts: int [classes], the photos of each class that there are.
    Returns: dict: points, their intervals never narrower than if each photo had been predicted once (Wilson); doubling, {per_class, top1,
        gain}: what twice the photos that there are would reach, and that minus what the present number would, by a power law of the error
        through the last points (Hestness et al. 2017, "Deep learning scaling is predictable, empirically"), None with fewer than two;
        more_photos_for, the names of classes that are behind by more than chance explains; summary, a sentence. None without points.
    """
    if not points:
        return None
    points = [{**point, 'interval_95': _widened(point, sum(counts))} for point in points]
    last, doubling = points[-1], None
    if len(points) > 1:
        numbers, errors = np.array([(point['per_class'], 1 - point['top1']) for point in points[-FITTED:]]).T
        slope = min(0.0, np.polyfit(np.log(numbers), np.log(np.maximum(errors, 1e-4)), 1)[0])
        usual = int(np.median(counts))
        now, then = (float(1 - errors[-1] * (number / numbers[-1]) ** slope) for number in (usual, 2 * usual))
        doubling = {'per_class': 2 * usual, 'top1': then, 'gain': then - now}
    behind = [
        (recall, name)
        for recall, count, name in zip(last['recall'], counts, class_names)
        if recall is not None
        and recall < last['top1'] - BEHIND
        and metrics.wilson_interval(round(recall * count), count)[1] < last['top1']
    ]
    names = [name for _, name in sorted(behind)[:MOST_CLASSES]]
    return {
        'points': points,
        'doubling': doubling,
        'more_photos_for': names,
        'summary': _summary(last, doubling, names),
    }


def _widened(point, images):
    """The interval of a point over the draws, at least as wide as Wilson's of that many predictions."""
    bounds = zip(point['interval_95'], metrics.wilson_interval(round(point['top1'] * images), images))
    return [choose(both) for choose, both in zip((min, max), bounds)]


def _summary(last, doubling, names):
    reached = f'With {last["per_class"]} images per class the accuracy is {formatting.percent(last["top1"])}'
    more = ''
    if doubling:
        numbers = f'{doubling["per_class"]} instead of {doubling["per_class"] // 2} per class'
        gain = f'bring about {formatting.points(doubling["gain"])} points'
        more = f'; twice your images, {numbers}, would {gain if doubling["gain"] >= WORTH else "hardly change it"}'
    needs = f' Add images of {", ".join(names)} first.' if names else ''
    return f'{reached}{more}.{needs}'


def plot_learning_curve(path, curve):
    """PNG of the accuracy over the number of images per class, with intervals, and the expected point at twice as many."""
    points, doubling = curve['points'], curve['doubling']
    numbers, top1 = ([point[key] for point in points] for key in ('per_class', 'top1'))
    below, above = zip(
        *((mean - low, high - mean) for mean, (low, high) in ((p['top1'], p['interval_95']) for p in points))
    )
    with png(path, 7, 3.8) as (figure, axis):
        axis.errorbar(numbers, top1, [below, above], color=BLUE, marker='o', capsize=3)
        ticks = list(numbers)
        if doubling:
            ticks.append(doubling['per_class'])
            axis.plot(
                [numbers[-1], ticks[-1]],
                [top1[-1], doubling['top1']],
                color=BLUE,
                linestyle=':',
                marker='o',
                mfc='white',
            )
            label = f'expected: {formatting.percent(doubling["top1"])}'
            axis.annotate(
                label, (ticks[-1], doubling['top1']), (6, -30), textcoords='offset points', ha='right', fontsize=9
            )
        for number, share in zip(numbers, top1):
            label = formatting.percent(share)
            axis.annotate(label, (number, share), (6, -12), textcoords='offset points', fontsize=9)
        axis.set(xscale='log', xlabel='images per class', ylabel='accuracy on images left out')
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(lambda share, _: f'{100 * share:g} %')
        axis.grid(alpha=0.3)
