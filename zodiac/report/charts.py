"""The charts of report.html: SVG that takes its colours, font and language from the page."""

import io
import re

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from zodiac.base import formatting
from zodiac.pages import texts

# drawn in these colours, which the page replaces by its own
INK, QUIET, LINE, ONE, TWO, THREE = (f'#{number:06x}' for number in range(0x123451, 0x123457))
VARIABLES = {INK: 'ink', QUIET: 'quiet', LINE: 'line', ONE: 'one', TWO: 'two', THREE: 'three'}
STYLE = {
    **{'svg.fonttype': 'none', 'svg.hashsalt': '', 'font.size': 10, 'text.parse_math': False},
    **{
        'axes.edgecolor': QUIET,
        'axes.labelcolor': QUIET,
        'xtick.color': QUIET,
        'ytick.color': QUIET,
        'text.color': INK,
    },
    **{
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.grid': True,
        'grid.color': LINE,
        'grid.linewidth': 0.8,
    },
}
POINTS = 100  # of a curve of precision over recall
FEW = 10  # images in a bin; below, it is pale


def chart(name, draw, size=(4.2, 2.6)):
    """Markup: an <svg>. `name` is unique in a page; `draw` takes the axes. A text that is a key of the catalogue is shown in both
    languages."""
    with matplotlib.rc_context({**STYLE, 'svg.hashsalt': name}):
        figure = Figure(figsize=size, layout='constrained')
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(
            buffer, format='svg', transparent=True, metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
        )
    svg = buffer.getvalue()
    svg = svg[svg.index('<svg') :].replace('\n', ' ')
    svg = re.sub(r'<(metadata|style)\b.*?</\1>', '', svg, flags=re.S)
    svg = re.sub(
        r'<svg .*?viewBox="([^"]*)"[^>]*>', r'<svg class="chart" viewBox="\1" aria-hidden="true">', svg, count=1
    )
    svg = re.sub(r' id="[A-Za-z][\w.]*_\d+"| xmlns(:\w+)?="[^"]*"', '', svg)
    svg = re.sub(r'font: (?:\w+ )*?([\d.]+px) [^;\"]*', r'font-size: \1', svg)
    svg = re.sub(r'xlink:href', 'href', svg)
    svg = re.sub(r'(\d\.\d{2})\d+', r'\1', svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f'var(--{variable})')
    svg = re.sub(r'<text ([^>]*)style="([^"]*)"', r'<text \1style="fill: var(--ink); \2"', svg)
    return Markup(re.sub(r'>(chart\.\w+)<', _both, re.sub(r'\s{2,}', ' ', svg.strip())))


def _both(found):
    spans = (
        f'<tspan class="t" lang="{tag}">{texts.text(found[1], language)}</tspan>'
        for language, tag in texts.TAGS.items()
    )
    return f'>{"".join(spans)}<'


def training(log, rates=()):
    """[(key of the title, svg)] of a training; [] for fewer than two epochs, which are no curve. For log and rates see
    `plots.plot_curves`."""
    if len(log) < 2:
        return []

    def two(column):
        def draw(axis):
            ends = []
            for part, colour in (('train', ONE), ('valid', TWO)):
                points = [(row['epoch'], row[f'{part}_{column}']) for row in log if row[f'{part}_{column}'] is not None]
                axis.plot(
                    *zip(*points), color=colour, linewidth=2, marker='o' if len(points) < 30 else '', markersize=3
                )
                ends.append((points[-1], part, colour))
            for place, ((x, y), part, colour) in enumerate(sorted(ends, key=lambda end: -end[0][1])):
                style = {'va': ('bottom', 'top')[place], 'color': colour, 'fontweight': 'bold'}
                axis.annotate(f'chart.{part}', (x, y), (6, (-2, 2)[place]), textcoords='offset points', **style)
            axis.margins(y=0.12)
            axis.set_xlabel('chart.epoch')
            axis.set_xlim(right=log[-1]['epoch'] + 0.16 * max(1, log[-1]['epoch'] - log[0]['epoch']))
            if column == 'top1':
                _percent_axis(axis.yaxis)
            _whole_numbers(axis)

        return draw

    def rate(axis):
        numbers = rates if len(rates) else [row['lr'] for row in log]
        axis.plot(range(1, len(numbers) + 1), numbers, color=ONE, linewidth=2)
        axis.set(xlabel='chart.step' if len(rates) else 'chart.epoch', ylim=(0, None))
        _whole_numbers(axis)

    def speed(axis):
        points = [(row['epoch'], row['images_per_second']) for row in log if row['images_per_second'] is not None]
        axis.plot(*zip(*points), color=ONE, linewidth=2)
        axis.set(xlabel='chart.epoch', ylim=(0, 1.1 * max(1, *(y for _, y in points), 1)))
        _whole_numbers(axis)

    drawn = {'loss': two('loss'), 'top1': two('top1'), 'rate': rate, 'speed': speed}
    return [(f'report.curve_{name}', chart(name, draw)) for name, draw in drawn.items()]


def reliability(bins, scaled_bins=()):
    """(svg of the accuracy over the confidence, svg of the share of images per bin), see `plots.plot_reliability`."""
    width = bins[0]['high'] - bins[0]['low']
    centre = [(row['low'] + row['high']) / 2 for row in bins]

    def accuracy(axis):
        axis.plot([0, 1], [0, 1], color=QUIET, linestyle=':')
        for row, place in zip(bins, centre):
            axis.bar(place, row['accuracy'], 0.9 * width, color=ONE, alpha=0.6 if row['n'] >= FEW else 0.2)
        if scaled_bins:
            points = [[row[key] for row in scaled_bins] for key in ('confidence', 'accuracy')]
            axis.plot(*points, color=THREE, marker='D', markersize=5, linestyle='', clip_on=False)
        axis.set(xlabel='chart.confidence', xlim=(0, 1), ylim=(0, 1))
        for one in (axis.xaxis, axis.yaxis):
            _percent_axis(one)

    def share(axis):
        total = sum(row['n'] for row in bins)
        axis.bar(centre, [row['n'] / total for row in bins], 0.9 * width, color=ONE)
        axis.set(xlabel='chart.confidence', xlim=(0, 1))
        for one in (axis.xaxis, axis.yaxis):
            _percent_axis(one)

    return chart('accuracy', accuracy), chart('share', share)


def pr_curves(curves, class_names, most=12):
    """{'shown': [(class, average precision, svg)] of the `most` classes with the lowest average precision; 'all': how many there are}.
    For `curves` see `metrics.pr_curves`."""
    known = sorted((i for i, curve in enumerate(curves) if curve is not None), key=lambda i: curves[i][2])

    def drawn(number):
        recall, precision = _thinned(*curves[number][:2])

        def draw(axis):
            axis.fill_between(recall, precision, step='pre', color=ONE, alpha=0.15, linewidth=0)
            axis.plot(recall, precision, drawstyle='steps-pre', color=ONE, linewidth=2, clip_on=False)
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='chart.recall', ylabel='')
            for one in (axis.xaxis, axis.yaxis):
                one.set_ticks([0, 0.5, 1])
                _percent_axis(one)

        return class_names[number], curves[number][2], chart(f'pr{number}', draw, (2.2, 1.7))

    return {'shown': [drawn(number) for number in known[:most]], 'all': len(known)}


def learning_curve(curve):
    """svg of the accuracy over the number of photos per class, see `small_data.learning_curve`."""
    points, doubling = curve['points'], curve['doubling']
    numbers, top1 = ([point[key] for point in points] for key in ('per_class', 'top1'))
    low, high = zip(*(point['interval_95'] for point in points))

    def draw(axis):
        bars = [[mean - one for mean, one in zip(top1, low)], [one - mean for mean, one in zip(top1, high)]]
        axis.errorbar(numbers, top1, bars, color=ONE, marker='o', capsize=3, linewidth=2)
        ticks = list(numbers)
        if doubling:
            ticks.append(doubling['per_class'])
            ends = [numbers[-1], ticks[-1]], [top1[-1], doubling['top1']]
            axis.plot(*ends, color=TWO, linestyle=':', linewidth=2, marker='o', markerfacecolor='none')
            place = {'ha': 'right', 'va': 'top', 'color': TWO, 'fontweight': 'bold'}
            axis.annotate(
                'chart.expected', (ticks[-1], doubling['top1']), (4, -10), textcoords='offset points', **place
            )
        for number, share in zip(numbers, top1):
            axis.annotate(formatting.percent(share), (number, share), (5, -12), textcoords='offset points', fontsize=9)
        axis.set(xscale='log', xlabel='chart.photos')
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        _percent_axis(axis.yaxis)

    return chart('learning_curve', draw, (4.6, 3))


def _thinned(recall, precision):
    """A curve with at most POINTS + 1 points: of those of nearly the same recall the one with the highest precision."""
    best = {}
    for x, y in zip(np.rint(np.asarray(recall) * POINTS) / POINTS, precision):
        best[x] = max(y, best.get(x, 0.0))
    return zip(*sorted(best.items()))


def _percent_axis(axis):
    axis.set_major_formatter(lambda share, _: f'{100 * share:g}%')


def _whole_numbers(axis):
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1, nbins=6)
