"""Pictures from numbers, as PNG: the confusion matrix, training curves, calibration, counts, walls of images.

However many classes there are, and however long their names, a picture is at most 16 inches (1,760 pixels) a side.
"""

import contextlib
import functools
import io
import re
import sys
import textwrap
import unicodedata
import warnings

import numpy as np

from zodiac.base import files

CJK_FONTS = (
    'Noto Sans CJK SC',
    'Noto Sans SC',
    'Source Han Sans SC',
    'Source Han Sans CN',
    'Noto Sans CJK JP',  # the first face of Noto's collection: all that matplotlib before 3.11 reads of it
    'WenQuanYi Micro Hei',
    'WenQuanYi Zen Hei',
    'Microsoft YaHei',
    'SimHei',
    'PingFang SC',
    'Arial Unicode MS',
)


MOST_INCHES = 16
MOST_NUMBERS = 40  # classes up to which each gets its numbers
MOST_NAMES = 60  # names along an axis
BLUE, RED, GREEN = '#0969da', '#cf222e', '#1a7f37'  # the colours of page.html


def plot_confusion_matrix(path, matrix, class_names, title):
    """PNG of counts, and of the shares of each true class: in colour, and in percent from 1 on.

    Blue on the diagonal by the share, red elsewhere by its square root, so that a few percent show. From 41 classes on colour only.
    """
    from matplotlib import colors

    matrix, count = np.asarray(matrix), len(class_names)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    right = np.eye(count, dtype=bool)
    shades = np.where(right, shares, np.sqrt(shares))
    hues = np.where(right[..., None], colors.to_rgb(BLUE), colors.to_rgb(RED))
    side = _inches(count)
    figure, axes = _figure(side, side, layout='compressed')
    axes.imshow(np.uint8(np.rint(255 * (1 - shades[..., None] * (1 - hues)))))
    axes.set_xticks(*_names_along(class_names), rotation=45, ha='right', rotation_mode='anchor')
    axes.set_yticks(*_names_along(class_names))
    axes.set(xlabel='predicted (blue: right, red: wrong)', ylabel='true')
    _title(figure, title)
    if count <= MOST_NUMBERS:
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(np.arange(0.5, count - 1), minor=True)
        axes.grid(which='minor', color='0.9')
        axes.tick_params(which='minor', length=0)
        for i, j in zip(*np.nonzero(matrix)):
            colour = 'white' if shades[i, j] > 0.8 else 'black'
            axes.text(j, i, matrix[i, j], ha='center', va='bottom', fontsize=9, color=colour)
            if shares[i, j] >= 0.01:
                axes.text(j, i + 0.1, f'{shares[i, j]:.0%}', ha='center', va='top', fontsize=7, color=colour)
    _save(figure, path)


def plot_reliability(path, bins, warmer=()):
    """PNG of accuracy over confidence, and of the share of the images in each bin, see `calibration.reliability`.

    A bin of fewer than 10 images, whose accuracy says little, is the paler the fewer they are.

    Args:
        warmer: the bins with a fitted temperature, drawn as points.
    """
    from matplotlib import colors

    def faded(colour, rows):
        return [colors.to_rgba(colour, max(0.15, min(1, row['n'] / 10))) for row in rows]

    figure, axes = _figure(9, 3.8, columns=2)
    centre, width = [(row['low'] + row['high']) / 2 for row in bins], bins[0]['high'] - bins[0]['low']
    axes[0].plot([0, 1], [0, 1], color='0.5', linestyle=':', label='calibrated')
    axes[0].bar(centre, [row['accuracy'] for row in bins], 0.9 * width, color=faded('#9ec5fe', bins))
    for rows, colour, marker, label in ((bins, BLUE, 'o', 'accuracy'), (warmer, GREEN, 'D', 'with temperature')):
        if rows:
            points = [[row[key] for row in rows] for key in ('confidence', 'accuracy')]
            axes[0].scatter(*points, s=28, c=faded(colour, rows), marker=marker, clip_on=False, zorder=3)
            axes[0].scatter([], [], s=28, color=colour, marker=marker, label=label)  # the legend's, never pale
    axes[0].set(title='reliability (pale: fewer than 10 images)', xlabel='confidence', ylabel='accuracy')
    axes[0].set(xlim=(0, 1), ylim=(0, 1))
    axes[0].legend(loc='upper left')
    total = sum(row['n'] for row in bins)
    axes[1].bar(centre, [row['n'] / total for row in bins], 0.9 * width, color='#9ec5fe')
    axes[1].set(title='confidence', xlabel='confidence', ylabel='share of the images', xlim=(0, 1))
    for axis in axes:
        axis.grid(alpha=0.3)
    _save(figure, path)


def plot_pr_curves(path, curves, class_names, most=12):
    """PNG of precision over recall, a small plot a class, the lowest average precision first; of many classes the `most` lowest.

    Args:
        curves: for each class (recall float [k], precision float [k], average precision), the recall ascending or descending, or None
            without samples. Where no class has any, nothing is written.
    """
    known = sorted((i for i, curve in enumerate(curves) if curve is not None), key=lambda i: curves[i][2])
    shown = known[:most]
    if not shown:
        return
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = _figure(max(5, 2.5 * columns), 2.2 * rows + 0.8, rows, columns, sharex=True, sharey=True)
    for axis in np.ravel(axes)[len(shown) :]:
        axis.axis('off')
    for axis, number in zip(np.ravel(axes), shown):
        recall, precision, average = curves[number]
        step = 'post' if recall[0] > recall[-1] else 'pre'  # so that the area is the average precision
        axis.fill_between(recall, precision, step=step, color=BLUE, alpha=0.15, linewidth=0)
        axis.plot(recall, precision, drawstyle=f'steps-{step}', color=BLUE, clip_on=False)
        axis.set_title(f'{_short(class_names[number])}\nAP {average:.4f}', fontsize=9)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    figure.supxlabel('recall')
    figure.supylabel('precision')
    which = f'the {most} of {len(known)} classes with the lowest' if len(known) > most else 'every class with its'
    _title(figure, f'{which} average precision (AP)')
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
    axes[1].set_ylim(0, 1.03)  # so that a curve at 1 is seen whole
    if len(rates):
        _plot_rates(axes[2], rates)
    else:
        points = [(int(row['epoch']), float(row['lr'])) for row in rows if row['lr'] != '']
        axes[2].plot(*zip(*points), marker='o', markersize=3)
        axes[2].set(title='learning rate', xlabel='epoch', ylim=(0, None))
    points = [(int(row['epoch']), float(row['images_per_second'])) for row in rows if row['images_per_second'] != '']
    axes[3].plot(*zip(*points), marker='o', markersize=3)
    axes[3].set(
        title='training images a second', xlabel='epoch', ylim=(0, 1.1 * max([1, *(speed for _, speed in points)]))
    )
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
    axis.set_title('')
    _title(figure, title)
    _save(figure, path)


def _plot_rates(axis, rates):
    axis.plot(range(1, len(rates) + 1), rates)
    axis.set(title='learning rate', xlabel='step', ylim=(0, None))


def plot_lr_finder(path, rates, losses, proposal):
    """PNG of the smoothed loss over the learning rate, with the proposed one, if any, marked."""
    figure, axis = _figure(6, 3.8)
    axis.plot(rates, losses)
    if proposal is not None:
        axis.axvline(proposal, color=GREEN, linestyle='--', label=f'proposed: {proposal:.2g}')
        axis.legend()
    axis.set(xscale='log', xlabel='learning rate', ylabel='loss, smoothed', title='learning-rate range test')
    axis.xaxis.set_major_formatter(lambda rate, _: f'{rate:g}')
    axis.xaxis.set_minor_formatter(lambda rate, _: '')
    axis.grid(alpha=0.3)
    _save(figure, path)


def plot_class_counts(path, counts, class_names, title):
    """PNG bar chart of images per class. `counts`: {split: int [classes]}; the splits lie on top of each other."""
    figure, axis = _figure(_inches(len(class_names)), 3.8)
    few, below = len(class_names) <= MOST_NUMBERS, np.zeros(len(class_names), int)
    for split, numbers in counts.items():
        axis.bar(range(len(class_names)), numbers, 0.8 if few else 1, bottom=below, label=split)
        below = below + numbers
    if few:
        for place, total in enumerate(below):
            axis.text(place, total, f'{total:,}', ha='center', va='bottom', fontsize=8)
    axis.set_xticks(*_names_along(class_names), rotation=45, ha='right', rotation_mode='anchor')
    axis.set(ylabel='images', xlim=(-0.6, len(class_names) - 0.4), ylim=(0, 1.12 * max(1, below.max())))
    _title(figure, title)
    axis.legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=len(counts), frameon=False)  # above, not on the bars
    _save(figure, path)


def plot_predictions(path, images, titles, correct, columns=6, heading=''):
    """PNG wall of images (PIL or uint8 arrays), each under its title, green when correct and red when not; above all a heading."""
    from PIL import ImageOps

    rows = -(-len(images) // columns)
    above = 0.4  # inches, for a title of two lines
    head = 0.35 if heading else 0
    height = 2.35 * rows + head
    figure, axes = _figure(2 * columns, height, rows, columns, layout=None)
    figure.suptitle(heading, y=1 - 0.08 / height, va='top', fontsize='large')
    edges = {'left': 0.005, 'right': 0.995, 'bottom': 0.05 / height, 'top': 1 - (above + head) / height}
    figure.subplots_adjust(**edges, wspace=0.03, hspace=above / (2.35 - above))
    for axis in np.ravel(axes):
        axis.axis('off')
    for axis, image, title, good in zip(np.ravel(axes), images, titles, correct):
        axis.imshow(ImageOps.fit(image, (160, 160)))
        axis.set_title('\n'.join(map(_short, title.split('\n'))), fontsize=9, color=GREEN if good else RED)
    _save(figure, path)


def _inches(classes):
    return min(MOST_INCHES, max(5.0, 0.55 * classes + 2))


def _names_along(names):
    """Places and texts of an axis' ticks; of many classes every second, third ..."""
    places = range(0, len(names), -(-len(names) // MOST_NAMES))
    return places, [_short(names[place]) for place in places]


def _short(text, columns=24):
    """A text at most this wide: the end stays too, where names often differ. A Chinese character is two columns wide."""
    widths = np.array([2 if unicodedata.east_asian_width(character) in 'WF' else 1 for character in text])
    if widths.sum() <= columns:
        return text
    head = np.searchsorted(widths.cumsum(), columns - columns // 3 - 1, 'right')
    tail = np.searchsorted(widths[::-1].cumsum(), columns // 3, 'right')
    return f'{text[:head]}…{text[len(text) - tail :]}'


def _title(figure, text):
    figure.suptitle(textwrap.fill(text, int((9 if text.isascii() else 5) * figure.get_figwidth())), fontsize='large')


def _figure(width, height, rows=1, columns=1, layout='constrained', **shared):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    pyplot.rcParams['font.family'] = ['DejaVu Sans', *_cjk_fonts()]
    pyplot.rcParams['text.parse_math'] = False  # a class name may hold dollar signs
    return pyplot.subplots(rows, columns, figsize=(width, height), layout=layout, **shared)


def _save(figure, path):
    from matplotlib import pyplot, text

    content, missing = _drawn(figure)
    if missing and not _cjk_fonts():
        _take_in_new_fonts()
        if _cjk_fonts():
            for part in figure.findobj(text.Text):
                part.set_fontfamily(['DejaVu Sans', *_cjk_fonts()])
            content, missing = _drawn(figure)
    pyplot.close(figure)
    if missing:
        _tell_of_boxes(missing)
    with files.atomic_write(path, binary=True) as file:
        file.write(content)


def _drawn(figure):
    """A figure as PNG, and a character of it that no font has, or None."""
    buffer, missing = io.BytesIO(), None
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings('always', message='Glyph')
        figure.savefig(buffer, format='png', dpi=110)
    for warning in said:
        box = re.match(r'Glyph (\d+)', str(warning.message))
        if box:
            missing = missing or chr(int(box[1]))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return buffer.getvalue(), missing


def _cjk_fonts():
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in CJK_FONTS if name in known]


@functools.lru_cache(maxsize=1)  # once is enough
def _take_in_new_fonts():
    """Fonts that were installed after matplotlib wrote its list of fonts, which it keeps for years."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(Exception):  # whatever FreeType says of a broken file: the other fonts count
            font_manager.fontManager.addfont(path)


@functools.lru_cache(maxsize=1)  # once is enough
def _tell_of_boxes(character):
    print(
        f'pictures: no font here has {character!r} (U+{ord(character):04X}), so that boxes are drawn for it; install one, such as '
        'fonts-noto-cjk; see docs/troubleshooting.md#chinese-fonts',
        file=sys.stderr,
    )
