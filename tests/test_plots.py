"""Pictures of a report."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from zodiac import calibration, plots

ENGLISH = ['ox', 'tiger', 'rabbit']
CHINESE = ['牛', '老虎', '兔子']
AWKWARD = ['$5$', '$_$ & x^', 'a,"b"\'c']  # what a plotting or a table program could take for its own language


def assert_picture(path):
    """A whole PNG that shows more than one colour; returns its size."""
    with Image.open(path) as image:
        assert image.format == 'PNG'
        image.load()
        assert len(image.convert('RGB').getcolors(1 << 24)) > 10
        return image.size


def log_rows(epochs):
    return [
        {
            'epoch': str(epoch),
            'step': str(epoch * 10),
            'lr': '0.00375',
            'train_loss': str(2 / epoch),
            'train_top1': '0.5',
            'valid_loss': str(3 / epoch),
            'valid_top1': '0.25',
            'seconds': '1.5',
            'images_per_second': '100',
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_a_confusion_matrix_becomes_a_picture(tmp_path, names):
    path = tmp_path / 'matrix.png'
    plots.plot_confusion_matrix(str(path), [[5, 1, 0], [0, 4, 2], [1, 0, 9]], names, f'{names[0]}: top-1 0.82')
    assert_picture(path)


def test_a_confusion_matrix_with_an_empty_class_becomes_a_picture(tmp_path):
    path = tmp_path / 'matrix.png'
    plots.plot_confusion_matrix(str(path), [[5, 1, 0], [0, 4, 0], [0, 0, 0]], ENGLISH, 'one class without images')
    assert_picture(path)


def test_more_classes_make_a_larger_picture(tmp_path):
    sizes = []
    for count in (3, 41):
        path = tmp_path / f'{count}.png'
        names = [f'class {number}' for number in range(count)]
        plots.plot_confusion_matrix(str(path), np.eye(count, dtype=int), names, f'{count} classes')
        sizes.append(assert_picture(path))
    assert sizes[1][0] > sizes[0][0] and sizes[1][1] > sizes[0][1]


@pytest.mark.parametrize('epochs', [1, 20])
def test_curves_become_a_picture(tmp_path, epochs):
    plots.plot_curves(str(tmp_path / 'curves.png'), log_rows(epochs))
    assert_picture(tmp_path / 'curves.png')


def untrained_row():
    return {**dict.fromkeys(log_rows(1)[0], ''), 'epoch': '0', 'step': '0', 'valid_loss': '3.5', 'valid_top1': '0.1'}


@pytest.fixture
def figures(monkeypatch):
    """The axes of each figure that gets saved, as they are then."""
    seen, save = [], plots._save

    def watched(figure, path):
        seen.append(figure.axes)
        save(figure, path)

    monkeypatch.setattr(plots, '_save', watched)
    return seen


def lines(axis):
    """{label: (x, y)} of the lines of a plot."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}


@pytest.mark.parametrize('epochs', [0, 1, 3])
def test_the_validation_before_training_is_a_point_of_its_curve_only(tmp_path, figures, epochs):
    plots.plot_curves(str(tmp_path / 'curves.png'), [untrained_row(), *log_rows(epochs)])
    assert_picture(tmp_path / 'curves.png')
    ((loss, top1, rate, speed),) = figures
    later = list(range(1, epochs + 1))
    assert lines(loss)['valid'] == ([0, *later], [3.5, *(3 / epoch for epoch in later)])
    assert lines(top1)['valid'] == ([0, *later], [0.1] + [0.25] * epochs)
    if epochs:
        assert lines(loss)['train'] == (later, [2 / epoch for epoch in later])
        assert [line[0] for line in lines(rate).values()] == [later]
        assert list(lines(speed).values()) == [(later, [100] * epochs)]


def test_the_rate_is_drawn_by_step_where_it_is_known(tmp_path, figures):
    rates = [0.1, 0.2, 0.3, 0.2, 0.1]
    plots.plot_curves(str(tmp_path / 'curves.png'), [untrained_row(), *log_rows(2)], rates)
    assert_picture(tmp_path / 'curves.png')
    (axes,) = figures
    assert list(lines(axes[2]).values()) == [([1, 2, 3, 4, 5], rates)]
    assert (axes[2].get_xlabel(), axes[2].get_title()) == ('step', 'learning rate')


def test_calibration_becomes_a_picture(tmp_path, figures):
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    bins = calibration.reliability([0, 1, 1, 0], probabilities)
    plots.plot_reliability(str(tmp_path / 'a.png'), bins)
    plots.plot_reliability(str(tmp_path / 'b.png'), bins, bins)
    assert_picture(tmp_path / 'b.png')
    assert [bar.get_height() for bar in figures[0][0].patches] == [1, 1, 0.5]
    assert [bar.get_height() for bar in figures[0][1].patches] == [0.25, 0.25, 0.5]
    assert 'with temperature' in lines(figures[1][0]) and 'with temperature' not in lines(figures[0][0])


def test_a_schedule_becomes_a_picture_with_the_ends_of_its_epochs(tmp_path, figures):
    rates = list(np.linspace(0.1, 0, 12))
    plots.plot_rates(str(tmp_path / 'rates.png'), rates, 4, '$name$: cosine, 4 steps an epoch')
    width, height = assert_picture(tmp_path / 'rates.png')
    assert width > 1.5 * height > 400
    ((axis,),) = figures
    *ends, curve = axis.get_lines()
    assert [end.get_xdata()[0] for end in ends] == [4, 8]
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == (list(range(1, 13)), rates)
    assert axis.get_title() == '$name$: cosine, 4 steps an epoch'


def test_a_schedule_of_one_step_becomes_a_picture(tmp_path):
    plots.plot_rates(str(tmp_path / 'rates.png'), [0.1], 1, 'one step')
    assert_picture(tmp_path / 'rates.png')


def test_a_range_test_becomes_a_picture_with_the_proposed_rate_marked(tmp_path, figures):
    rates = np.logspace(-6, 0, 50)
    losses = 2 + np.cos(np.linspace(0, 5, 50))
    plots.plot_lr_finder(str(tmp_path / 'finder.png'), rates, losses, 0.0123)
    width, height = assert_picture(tmp_path / 'finder.png')
    assert width > height > 300
    ((axis,),) = figures
    curve, mark = axis.get_lines()
    assert list(curve.get_xdata()) == list(rates) and list(curve.get_ydata()) == list(losses)
    assert axis.get_xscale() == 'log'
    assert list(mark.get_xdata()) == [0.0123, 0.0123] and mark.get_label() == 'proposed: 0.012'


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_class_counts_become_bars_on_top_of_each_other(tmp_path, figures, names):
    counts = {'train': np.array([1200, 30, 0]), 'valid': np.array([100, 3, 0]), 'test': np.array([100, 3, 4])}
    plots.plot_class_counts(str(tmp_path / 'classes.png'), counts, names, 'signs: 1,440 images')
    assert_picture(tmp_path / 'classes.png')
    ((axis,),) = figures
    heights = [[bar.get_height() for bar in bars] for bars in axis.containers]
    assert heights == [numbers.tolist() for numbers in counts.values()]
    assert [[bar.get_y() for bar in bars] for bars in axis.containers] == [[0, 0, 0], [1200, 30, 0], [1300, 33, 0]]
    assert [text.get_text() for text in axis.texts] == ['1,400', '36', '4']
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ['train', 'valid', 'test']
    assert [label.get_text() for label in axis.get_xticklabels()] == names
    assert axis.get_ylim()[1] > 1400


def test_class_counts_of_no_images_become_a_picture(tmp_path):
    plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': np.zeros(3, int)}, ENGLISH, 'empty')
    assert_picture(tmp_path / 'classes.png')


def test_more_classes_make_a_wider_chart_of_counts(tmp_path):
    widths = []
    for count in (3, 41):
        path = tmp_path / f'{count}.png'
        plots.plot_class_counts(str(path), {'train': np.arange(count)}, [f'class {n}' for n in range(count)], 'counts')
        widths.append(assert_picture(path)[0])
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize('count', [1, 8])
def test_predictions_become_a_wall_of_pictures(tmp_path, count):
    images = [picture(number, (40 + number, 30)) for number in range(count)]
    path = tmp_path / 'wall.png'
    plots.plot_predictions(str(path), images, ['ox 90%'] * count, [True] * count)
    assert_picture(path)


@pytest.mark.parametrize('names', [CHINESE, AWKWARD], ids=['chinese', 'awkward'])
def test_the_wall_takes_any_class_name(tmp_path, names):
    titles = [f'{name} 90%\n(is {name})' for name in names]
    path = tmp_path / 'wall.png'
    plots.plot_predictions(str(path), [picture(number) for number in range(3)], titles, [True, False, True])
    assert_picture(path)


def test_right_and_wrong_predictions_differ_in_colour(tmp_path):
    colours = []
    for good in (True, False):
        plots.plot_predictions(str(tmp_path / 'wall.png'), [picture(0)], ['ox 90%'], [good])
        with Image.open(tmp_path / 'wall.png') as image:
            colours.append(set(map(tuple, np.asarray(image.convert('RGB')).reshape(-1, 3).tolist())))
    assert (26, 127, 55) in colours[0] - colours[1]
    assert (207, 34, 46) in colours[1] - colours[0]


def test_figures_are_closed_after_they_are_written(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plots.plot_curves(str(tmp_path / 'curves.png'), log_rows(2))
    plots.plot_rates(str(tmp_path / 'rates.png'), [0.1, 0.2], 1, 'rates')
    plots.plot_lr_finder(str(tmp_path / 'finder.png'), [0.1, 0.2], [1, 2], 0.1)
    plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': np.array([1, 2, 3])}, ENGLISH, 'counts')
    assert pyplot.get_fignums() == before
