"""Plots of a report as PNG: confusion matrix, training curves, reliability, class counts, image grids.

A plot is at most 16 inches (1,760 pixels) on a side, however many classes there are and however long their names.
"""

import numpy as np
from matplotlib import colors
from PIL import ImageOps

from zodiac.base import formatting
from zodiac.report.figure import png, set_title

MOST_INCHES = 16
MOST_NUMBERS = 40  # up to this many classes, cells and bars show their numbers
MOST_NAMES = 60  # names along an axis
BLUE, RED, GREEN = '#0969da', '#cf222e', '#1a7f37'  # the colours of page.html


def plot_confusion_matrix(path, matrix, class_names, title):
    """PNG of counts (int [classes, classes], a row per true class), coloured by their share of the row.

    The diagonal is blue by the share, the rest red by its square root, so that a few percent are visible. Up to 40 classes, cells
    also show the count and, from 1 % on, the share.
    """
    matrix, count = np.asarray(matrix), len(class_names)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    right = np.eye(count, dtype=bool)
    shades = np.where(right, shares, np.sqrt(shares))
    hues = np.where(right[..., None], colors.to_rgb(BLUE), colors.to_rgb(RED))
    side = _inches(count)
    with png(path, side, side, layout='compressed') as (figure, axes):
        axes.imshow(np.uint8(np.rint(255 * (1 - shades[..., None] * (1 - hues)))))
        axes.set_xticks(*_names_along(class_names), rotation=45, ha='right', rotation_mode='anchor')
        axes.set_yticks(*_names_along(class_names))
        axes.set(xlabel='predicted (blue: right, red: wrong)', ylabel='true')
        set_title(figure, title)
        if count <= MOST_NUMBERS:
            for set_ticks in (axes.set_xticks, axes.set_yticks):
                set_ticks(np.arange(0.5, count - 1), minor=True)
            axes.grid(which='minor', color='0.9')
            axes.tick_params(which='minor', length=0)
            for i, j in zip(*np.nonzero(matrix)):
                colour = 'white' if shades[i, j] > 0.8 else 'black'
                axes.text(j, i, matrix[i, j], ha='center', va='bottom', fontsize=9, color=colour)
                if shares[i, j] >= 0.01:
                    axes.text(
                        j, i + 0.1, formatting.percent(shares[i, j]), ha='center', va='top', fontsize=7, color=colour
                    )


def plot_reliability(path, bins, scaled_bins=()):
    """PNG of accuracy over confidence, and of the share of images per bin.

    Bins of fewer than 10 images are drawn paler, as their accuracy is uncertain.

    Args:
        bins: what `calibration.reliability` returns.
        scaled_bins: the same after temperature scaling, drawn as points.
    """

    def faded(colour, rows):
        return [colors.to_rgba(colour, max(0.15, min(1, row['n'] / 10))) for row in rows]

    with png(path, 9, 3.8, columns=2) as (figure, axes):
        centre, width = [(row['low'] + row['high']) / 2 for row in bins], bins[0]['high'] - bins[0]['low']
        axes[0].plot([0, 1], [0, 1], color='0.5', linestyle=':', label='calibrated')
        axes[0].bar(centre, [row['accuracy'] for row in bins], 0.9 * width, color=faded('#9ec5fe', bins))
        for rows, colour, marker, label in (
            (bins, BLUE, 'o', 'accuracy'),
            (scaled_bins, GREEN, 'D', 'with temperature'),
        ):
            if rows:
                points = [[row[key] for row in rows] for key in ('confidence', 'accuracy')]
                axes[0].scatter(*points, s=28, c=faded(colour, rows), marker=marker, clip_on=False, zorder=3)
                axes[0].scatter([], [], s=28, color=colour, marker=marker, label=label)  # for the legend, never pale
        axes[0].set(title='reliability (pale: fewer than 10 images)', xlabel='confidence', ylabel='accuracy')
        axes[0].set(xlim=(0, 1), ylim=(0, 1))
        axes[0].legend(loc='upper left')
        total = sum(row['n'] for row in bins)
        axes[1].bar(centre, [row['n'] / total for row in bins], 0.9 * width, color='#9ec5fe')
        axes[1].set(title='confidence', xlabel='confidence', ylabel='share of images', xlim=(0, 1))
        for axis in axes:
            axis.grid(alpha=0.3)


def plot_pr_curves(path, curves, class_names, most=12):
    """PNG of precision over recall, one small plot per class, for the `most` classes with the lowest average precision.

    Args:
        curves: what `metrics.pr_curves` returns. If no class has samples, no file is written.
    """
    known = sorted((i for i, curve in enumerate(curves) if curve is not None), key=lambda i: curves[i][2])
    shown = known[:most]
    if not shown:
        return
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    with png(path, max(5, 2.5 * columns), 2.2 * rows + 0.8, rows, columns, sharex=True, sharey=True) as (figure, axes):
        for axis in np.ravel(axes)[len(shown) :]:
            axis.axis('off')
        for axis, number in zip(np.ravel(axes), shown):
            recall, precision, average = curves[number]
            axis.fill_between(
                recall, precision, step='pre', color=BLUE, alpha=0.15, linewidth=0
            )  # area: average precision
            axis.plot(recall, precision, drawstyle='steps-pre', color=BLUE, clip_on=False)
            axis.set_title(f'{formatting.short(class_names[number])}\nAP {average:.4f}', fontsize=9)
            axis.set(xlim=(0, 1), ylim=(0, 1.02))
            axis.grid(alpha=0.3)
        figure.supxlabel('recall')
        figure.supylabel('precision')
        lowest = f'the {most} of {len(known)} classes with the lowest average precision (AP)'
        set_title(figure, lowest if len(known) > most else 'average precision (AP) of each class, lowest first')


def plot_curves(path, log, rates=()):
    """PNG of loss, top-1 and images per second by epoch, and of the learning rate by step.

    Args:
        log: rows of log.csv, see `training_log.read`; the train columns of epoch 0, before training, are None.
        rates: learning rate of each step; if empty, the rate at the end of each epoch is drawn.
    """

    def draw(axis, column, **style):
        points = [(row['epoch'], row[column]) for row in log if row[column] is not None]
        axis.plot(*zip(*points), marker='o', markersize=3, **style)

    with png(path, 10, 6.4, rows=2, columns=2) as (figure, axes):
        loss, top1, rate, speed = axes.ravel()
        for part in ('train', 'valid'):
            draw(loss, f'{part}_loss', label=part)
            draw(top1, f'{part}_top1', label=part)
        for axis, title in ((loss, 'loss'), (top1, 'top-1')):
            axis.set(title=title, xlabel='epoch')
            axis.legend()
        top1.set_ylim(0, 1.03)  # a curve at 1 is not cut off
        if len(rates):
            _draw_rates(rate, rates)
        else:
            draw(rate, 'lr')
            rate.set(title='learning rate', xlabel='epoch', ylim=(0, None))
        draw(speed, 'images_per_second')
        fastest = max([1, *(row['images_per_second'] or 0 for row in log)])
        speed.set(title='training images per second', xlabel='epoch', ylim=(0, 1.1 * fastest))
        for axis in axes.ravel():
            axis.grid(alpha=0.3)
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def plot_rates(path, rates, steps, title):
    """PNG of the learning rate of each step, with a vertical line at the end of each epoch of `steps` steps."""
    with png(path, 7, 3.6) as (figure, axis):
        for end in range(steps, len(rates), steps):
            axis.axvline(end, color='0.9', linewidth=0.8)
        _draw_rates(axis, rates)
        axis.set_title('')
        set_title(figure, title)


def _draw_rates(axis, rates):
    axis.plot(range(1, len(rates) + 1), rates)
    axis.set(title='learning rate', xlabel='step', ylim=(0, None))


def plot_lr_finder(path, rates, losses, proposal):
    """PNG of the smoothed loss over the learning rate. `proposal`, the rate to mark, may be None."""
    with png(path, 6, 3.8) as (figure, axis):
        axis.plot(rates, losses)
        if proposal is not None:
            axis.axvline(proposal, color=GREEN, linestyle='--', label=f'proposed: {proposal:.2g}')
            axis.legend()
        axis.set(xscale='log', xlabel='learning rate', ylabel='loss, smoothed', title='learning-rate range test')
        axis.xaxis.set_major_formatter(lambda rate, _: f'{rate:g}')
        axis.xaxis.set_minor_formatter(lambda rate, _: '')
        axis.grid(alpha=0.3)


def plot_class_counts(path, counts, class_names, title):
    """PNG bar chart of images per class, stacked by split. `counts`: {split: int [classes]}."""
    with png(path, _inches(len(class_names)), 3.8) as (figure, axis):
        few, below = len(class_names) <= MOST_NUMBERS, np.zeros(len(class_names), int)
        for split, numbers in counts.items():
            axis.bar(range(len(class_names)), numbers, 0.8 if few else 1, bottom=below, label=split)
            below = below + numbers
        if few:
            for place, total in enumerate(below):
                axis.text(place, total, f'{total:,}', ha='center', va='bottom', fontsize=8)
        axis.set_xticks(*_names_along(class_names), rotation=45, ha='right', rotation_mode='anchor')
        axis.set(ylabel='images', xlim=(-0.6, len(class_names) - 0.4), ylim=(0, 1.12 * max(1, below.max())))
        set_title(figure, title)
        axis.legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=len(counts), frameon=False)  # above the bars


def plot_predictions(path, images, titles, correct, columns=6, heading=''):
    """PNG grid of PIL images, each below its title, green if `correct` and red if not."""
    rows = -(-len(images) // columns)
    above = 0.4  # inches, for a title of two lines
    head = 0.35 if heading else 0
    height = 2.35 * rows + head
    with png(path, 2 * columns, height, rows, columns, layout=None) as (figure, axes):
        figure.suptitle(heading, y=1 - 0.08 / height, va='top', fontsize='large')
        edges = {'left': 0.005, 'right': 0.995, 'bottom': 0.05 / height, 'top': 1 - (above + head) / height}
        figure.subplots_adjust(**edges, wspace=0.03, hspace=above / (2.35 - above))
        for axis in np.ravel(axes):
            axis.axis('off')
        for axis, image, title, good in zip(np.ravel(axes), images, titles, correct):
            axis.imshow(ImageOps.fit(image, (160, 160)))
            axis.set_title(
                '\n'.join(map(formatting.short, title.split('\n'))), fontsize=9, color=GREEN if good else RED
            )


def _inches(classes):
    return min(MOST_INCHES, max(5.0, 0.55 * classes + 2))


def _names_along(names):
    """Positions and texts of the ticks of an axis; with many classes only every second, third ..."""
    places = range(0, len(names), -(-len(names) // MOST_NAMES))
    return places, [formatting.short(names[place]) for place in places]
