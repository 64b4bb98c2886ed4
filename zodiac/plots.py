"""Pictures from numbers, as PNG: the confusion matrix, training curves, calibration, counts, walls of images."""

import functools
import io
import re
import sys
import warnings

import numpy as np

from zodiac import files

CJK_FONTS = (
    'Noto Sans CJK SC',
    'Noto Sans SC',
    'Source Han Sans SC',
    'Source Han Sans CN',
    'WenQuanYi Micro Hei',
    'WenQuanYi Zen Hei',
    'Microsoft YaHei',
    'SimHei',
    'PingFang SC',
    'Arial Unicode MS',
)


def plot_confusion_matrix(path, matrix, class_names, title):
    """PNG of counts, and of the shares of each true class: in colour, and in percent from 1 on."""
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(5.0, 0.55 * len(class_names) + 2)
    figure, axes = _figure(side + 1, side)
    drawn = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, fraction=0.046, label='share of the true class')
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha='right')
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(xlabel='predicted', ylabel='true', title=title)
    if len(class_names) <= 40:
        for i, j in zip(*np.nonzero(matrix)):
            colour = 'white' if shares[i, j] > 0.5 else 'black'
            axes.text(j, i, matrix[i, j], ha='center', va='bottom', fontsize=9, color=colour)
            if shares[i, j] >= 0.01:
                axes.text(j, i + 0.1, f'{shares[i, j]:.0%}', ha='center', va='top', fontsize=7, color=colour)
    _save(figure, path)


def plot_reliability(path, bins, warmer=()):
    """PNG of accuracy over confidence, and of the share of the images in each bin, see `calibration.reliability`.

    Args:
        warmer: the bins with a fitted temperature, drawn as a line.
    """
    figure, axes = _figure(9, 3.8, columns=2)
    centre, width = [(row['low'] + row['high']) / 2 for row in bins], bins[0]['high'] - bins[0]['low']
    axes[0].plot([0, 1], [0, 1], color='0.5', linestyle=':', label='calibrated')
    axes[0].bar(centre, [row['accuracy'] for row in bins], 0.9 * width, color='#9ec5fe', label='accuracy')
    axes[0].plot([row['confidence'] for row in bins], [row['accuracy'] for row in bins], 'o', markersize=4)
    if warmer:
        points = [(row['confidence'], row['accuracy']) for row in warmer]
        axes[0].plot(*zip(*points), color='#1a7f37', marker='o', markersize=3, label='with temperature')
    axes[0].set(title='reliability', xlabel='confidence', ylabel='accuracy', xlim=(0, 1), ylim=(0, 1))
    axes[0].legend()
    total = sum(row['n'] for row in bins)
    axes[1].bar(centre, [row['n'] / total for row in bins], 0.9 * width, color='#9ec5fe')
    axes[1].set(title='confidence', xlabel='confidence', ylabel='share of the images', xlim=(0, 1))
    for axis in axes:
        axis.grid(alpha=0.3)
    _save(figure, path)


def plot_curves(path, rows, rates=()):
    """PNG of loss, top-1 and images per second by epoch, and of the learning rate by step.

    Args:
        rows: dicts with the columns of log.csv; the train columns of epoch 0, before training, are empty.
        rates: learning rate of each step; where there are none, that of each epoch's end is drawn.
    """
    figure, axes = _figure(10, 6.4, rows=2, columns=2)
    axes = axes.ravel()
    for axis, name in zip(axes, ('loss', 'top1')):
        for part in ('train', 'valid'):
            points = [(int(row['epoch']), float(row[f'{part}_{name}'])) for row in rows if row[f'{part}_{name}'] != '']
            axis.plot(*zip(*points), marker='o', markersize=3, label=part)
        axis.set(title={'top1': 'top-1'}.get(name, name), xlabel='epoch')
        axis.legend()
    axes[1].set_ylim(0, 1)
    if len(rates):
        _plot_rates(axes[2], rates)
    else:
        points = [(int(row['epoch']), float(row['lr'])) for row in rows if row['lr'] != '']
        axes[2].plot(*zip(*points), marker='o', markersize=3)
        axes[2].set(title='learning rate', xlabel='epoch', ylim=(0, None))
    points = [(int(row['epoch']), float(row['images_per_second'])) for row in rows if row['images_per_second'] != '']
    axes[3].plot(*zip(*points), marker='o', markersize=3)
    axes[3].set(title='training images a second', xlabel='epoch', ylim=(0, None))
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    _save(figure, path)


def plot_rates(path, rates, steps, title):
    """PNG of the learning rate of each step, with a line at every end of an epoch of `steps`."""
    figure, axis = _figure(7, 3.6)
    for end in range(steps, len(rates), steps):
        axis.axvline(end, color='0.9', linewidth=0.8)
    _plot_rates(axis, rates)
    axis.set_title(title)
    _save(figure, path)


def _plot_rates(axis, rates):
    axis.plot(range(1, len(rates) + 1), rates)
    axis.set(title='learning rate', xlabel='step', ylim=(0, None))


def plot_lr_finder(path, rates, losses, proposal):
    """PNG of the smoothed loss over the learning rate, with the proposed one, if any, marked."""
    figure, axis = _figure(6, 3.8)
    axis.plot(rates, losses)
    if proposal is not None:
        axis.axvline(proposal, color='#1a7f37', linestyle='--', label=f'proposed: {proposal:.2g}')
        axis.legend()
    axis.set(xscale='log', xlabel='learning rate', ylabel='loss, smoothed', title='learning-rate range test')
    axis.xaxis.set_major_formatter(lambda rate, _: f'{rate:g}')
    axis.xaxis.set_minor_formatter(lambda rate, _: '')
    axis.grid(alpha=0.3)
    _save(figure, path)


def plot_class_counts(path, counts, class_names, title):
    """PNG bar chart of images per class. `counts`: {split: int [classes]}; the splits lie on top of each other."""
    figure, axis = _figure(max(5.0, 0.55 * len(class_names) + 2), 3.8)
    below = np.zeros(len(class_names), int)
    for split, numbers in counts.items():
        axis.bar(range(len(class_names)), numbers, bottom=below, label=split)
        below = below + numbers
    for place, total in enumerate(below):
        axis.text(place, total, f'{total:,}', ha='center', va='bottom', fontsize=8)
    axis.set_xticks(range(len(class_names)), class_names, rotation=45, ha='right')
    axis.set(ylabel='images', title=title, ylim=(0, 1.12 * max(1, below.max())))
    axis.legend()
    _save(figure, path)


def plot_predictions(path, images, titles, correct, columns=6):
    """PNG wall of images (PIL or uint8 arrays), each under its title, green when correct and red when not."""
    from PIL import ImageOps

    rows = -(-len(images) // columns)
    figure, axes = _figure(2 * columns, 2.35 * rows, rows=rows, columns=columns)
    for axis in np.ravel(axes):
        axis.axis('off')
    for axis, image, title, good in zip(np.ravel(axes), images, titles, correct):
        axis.imshow(ImageOps.fit(image, (160, 160)))
        axis.set_title(title, fontsize=9, color='#1a7f37' if good else '#cf222e')
    _save(figure, path)


def _figure(width, height, rows=1, columns=1):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import font_manager, pyplot

    installed = {font.name for font in font_manager.fontManager.ttflist}
    pyplot.rcParams['font.family'] = ['DejaVu Sans', *(name for name in CJK_FONTS if name in installed)]
    pyplot.rcParams['text.parse_math'] = False  # a class name may hold dollar signs
    return pyplot.subplots(rows, columns, figsize=(width, height), layout='constrained')


def _save(figure, path):
    from matplotlib import pyplot

    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings('always', message='Glyph')
        figure.savefig(buffer, format='png', dpi=110)
    pyplot.close(figure)
    for warning in said:
        box = re.match(r'Glyph (\d+)', str(warning.message))
        if box:
            _tell_of_boxes(chr(int(box[1])))
            break
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    with files.atomic_write(path, binary=True) as file:
        file.write(buffer.getvalue())


@functools.lru_cache(maxsize=1)  # once is enough
def _tell_of_boxes(character):
    import matplotlib

    print(
        f'pictures: no font here has {character!r} (U+{ord(character):04X}), so that boxes are drawn for it; install one, such as '
        f'fonts-noto-cjk, and remove {matplotlib.get_cachedir()}; see docs/troubleshooting.md#chinese-fonts',
        file=sys.stderr,
    )
