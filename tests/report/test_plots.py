"""Plots of a report."""

import numpy as np
import pytest
from conftest import AWKWARD, CHINESE, ENGLISH, picture
from PIL import Image

from zodiac.report import calibration, figure, metrics, plots


def assert_picture(path):
    """The size of a complete PNG that has more than a few colours."""
    with Image.open(path) as image:
        assert image.format == 'PNG'
        image.load()
        assert len(image.convert('RGB').getcolors(1 << 24)) > 10
        return image.size


def edges(path):
    """The outermost pixels of a PNG."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert('L'))
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def log_of(epochs):
    """A log as `training_log.read` returns it."""
    return [
        {
            **{'epoch': epoch, 'step': epoch * 10, 'lr': 0.00375, 'train_loss': 2 / epoch, 'train_top1': 0.5},
            **{'valid_loss': 3 / epoch, 'valid_top1': 0.25, 'images_per_second': 100.0},
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def figures(monkeypatch):
    """The axes of each figure when it is saved."""
    seen, save = [], figure.save

    def watched(drawn, path):
        seen.append(drawn.axes)
        save(drawn, path)

    monkeypatch.setattr(figure, 'save', watched)
    return seen


def lines(axis):
    """{label: (x, y)} of the lines of a plot."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_a_confusion_matrix_is_drawn_with_any_names_and_an_empty_class(tmp_path, names):
    plots.plot_confusion_matrix(str(tmp_path / 'matrix.png'), [[5, 1, 0], [0, 4, 2], [0, 0, 0]], names, names[0])
    assert_picture(tmp_path / 'matrix.png')


@pytest.mark.parametrize('count', [2, 12, 40, 100])
def test_nothing_is_cut_off_at_the_edges(tmp_path, count):
    names = ['rooster', 'ox', 'dragon']
    names = [f'{names[number % 3]} {number}' for number in range(count)]
    matrix = 40 * np.eye(count, dtype=int)
    plots.plot_confusion_matrix(str(tmp_path / 'matrix.png'), matrix, names, 'demo, test: top-1 0.9854 of 480 images')
    plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': matrix.sum(1)}, names, 'demo_images: 2,520 images')
    for name in ('matrix.png', 'classes.png'):
        assert (edges(tmp_path / name) > 250).all(), name


def test_right_cells_are_blue_and_a_few_percent_of_wrong_ones_visibly_red(tmp_path, figures):
    plots.plot_confusion_matrix(str(tmp_path / 'matrix.png'), [[39, 1], [0, 40]], ['ox', 'dog'], 'title')
    ((axes,),) = figures
    (shown,) = axes.get_images()
    ((right, wrong), (nothing, all_right)) = shown.get_array().astype(int).tolist()
    assert nothing == [255, 255, 255] and all_right == [9, 105, 218]
    assert right[2] > right[0] + 150
    assert wrong[0] >= wrong[2] + 25  # 2.5 percent
    assert sorted(text.get_text() for text in axes.texts) == ['1', '100.0%', '2.5%', '39', '40', '97.5%']


def test_plots_of_a_thousand_classes_stay_small_and_show_some_of_the_names(tmp_path, figures):
    names = [f'class number {number}' for number in range(1000)]
    plots.plot_confusion_matrix(str(tmp_path / 'matrix.png'), np.eye(1000, dtype=int), names, '1000 classes')
    plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': np.arange(1000)}, names, 'counts')
    for name in ('matrix.png', 'classes.png'):
        assert max(assert_picture(tmp_path / name)) <= 1760
    for (axis,) in figures:
        assert len(axis.texts) == 0
        shown = {tick: label.get_text() for tick, label in zip(axis.get_xticks(), axis.get_xticklabels())}
        assert 40 <= len(shown) <= 60
        assert all(names[tick] == text for tick, text in shown.items())


@pytest.mark.parametrize('start', ['x' * 38, '$\\sqrt{' * 6, '中国大熊猫' * 8], ids=['latin', 'dollars', 'chinese'])
def test_long_names_are_shortened_and_remain_distinct(tmp_path, figures, start):
    names, white = [f'{start}{number:02d}' for number in range(12)], Image.new('RGB', (40, 40), 'white')
    matrix = 40 * np.eye(12, dtype=int)
    plots.plot_confusion_matrix(str(tmp_path / 'matrix.png'), matrix, names, f'{start * 4}: top-1 1.0000')
    plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': matrix.sum(1)}, names, start * 4)
    plots.plot_predictions(str(tmp_path / 'wall.png'), [white], [f'{names[0]} 90%\n(is {names[1]})'], [False])
    for (axis,) in figures[:2]:
        shown = [label.get_text() for label in axis.get_xticklabels()]
        assert len(set(shown)) == 12 and all(len(text) <= 24 and '…' in text for text in shown)
    guess, truth = figures[2][0].get_title().split('\n')
    assert guess.endswith('00 90%') and truth.startswith('(is ') and truth.endswith('01)')
    for name in ('matrix.png', 'classes.png', 'wall.png'):
        assert (edges(tmp_path / name) > 250).all(), name


def test_more_classes_make_larger_plots(tmp_path):
    matrices, charts = [], []
    for count in (3, 41):
        names = [f'class {number}' for number in range(count)]
        plots.plot_confusion_matrix(str(tmp_path / 'matrix.png'), np.eye(count, dtype=int), names, 'matrix')
        plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': np.arange(count)}, names, 'counts')
        matrices.append(assert_picture(tmp_path / 'matrix.png'))
        charts.append(assert_picture(tmp_path / 'classes.png'))
    assert matrices[1][0] > matrices[0][0] and matrices[1][1] > matrices[0][1]
    assert charts[1][0] > 2 * charts[0][0]


UNTRAINED = {**dict.fromkeys(log_of(1)[0]), 'epoch': 0, 'step': 0, 'valid_loss': 3.5, 'valid_top1': 0.1}


@pytest.mark.parametrize('epochs', [0, 1, 3])
def test_the_validation_before_training_is_a_point_of_its_own_curves_only(tmp_path, figures, epochs):
    plots.plot_curves(str(tmp_path / 'curves.png'), [UNTRAINED, *log_of(epochs)])
    assert_picture(tmp_path / 'curves.png')
    ((loss, top1, rate, speed),) = figures
    later = list(range(1, epochs + 1))
    assert lines(loss)['valid'] == ([0, *later], [3.5, *(3 / epoch for epoch in later)])
    assert lines(top1)['valid'] == ([0, *later], [0.1] + [0.25] * epochs)
    if epochs:
        assert lines(loss)['train'] == (later, [2 / epoch for epoch in later])
        assert [line[0] for line in lines(rate).values()] == [later]
        assert list(lines(speed).values()) == [(later, [100] * epochs)]


def test_the_learning_rate_is_drawn_by_step_if_known(tmp_path, figures):
    rates = [0.1, 0.2, 0.3, 0.2, 0.1]
    plots.plot_curves(str(tmp_path / 'curves.png'), [UNTRAINED, *log_of(2)], rates)
    assert_picture(tmp_path / 'curves.png')
    (axes,) = figures
    assert list(lines(axes[2]).values()) == [([1, 2, 3, 4, 5], rates)]
    assert (axes[2].get_xlabel(), axes[2].get_title()) == ('step', 'learning rate')


def test_curves_at_their_maximum_are_not_cut_off(tmp_path, figures):
    rows = [{**row, 'valid_top1': 1.0} for row in log_of(3)]
    plots.plot_curves(str(tmp_path / 'curves.png'), rows)
    ((_, top1, _, speed),) = figures
    assert 1.01 < top1.get_ylim()[1] < 1.1 and top1.get_ylim()[0] == 0
    assert 105 < speed.get_ylim()[1] < 130 and speed.get_ylim()[0] == 0


def test_reliability_is_drawn_with_and_without_a_temperature(tmp_path, figures):
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    bins = calibration.reliability([0, 1, 1, 0], probabilities)
    plots.plot_reliability(str(tmp_path / 'a.png'), bins)
    plots.plot_reliability(str(tmp_path / 'b.png'), bins, bins)
    assert_picture(tmp_path / 'b.png')
    assert [bar.get_height() for bar in figures[0][0].patches] == [1, 1, 0.5]
    assert [bar.get_height() for bar in figures[0][1].patches] == [0.25, 0.25, 0.5]
    legends = [[text.get_text() for text in axes[0].get_legend().get_texts()] for axes in figures]
    assert legends == [['calibrated', 'accuracy'], ['calibrated', 'accuracy', 'with temperature']]


def test_bins_of_few_images_are_pale_and_not_joined_by_a_line(tmp_path, figures):
    sizes = [1, 5, 10, 455]
    bins = [
        {'low': 0.2 * i, 'high': 0.2 * (i + 1), 'n': n, 'confidence': 0.2 * i + 0.1, 'accuracy': i % 2}
        for i, n in enumerate(sizes)
    ]
    plots.plot_reliability(str(tmp_path / 'a.png'), bins, bins)
    ((axis, _),) = figures
    opacities = [0.15, 0.5, 1, 1]
    assert [bar.get_facecolor()[3] for bar in axis.patches] == opacities
    points = [drawn for drawn in axis.collections if len(drawn.get_offsets())]
    assert len(points) == 2
    for drawn in points:
        assert drawn.get_facecolor()[:, 3].tolist() == opacities
        assert drawn.get_offsets()[:, 1].tolist() == [0, 1, 0, 1] and not drawn.get_clip_on()
    assert list(lines(axis)) == ['calibrated']


def curve(average):
    return np.array([0, 0.5, 1]), np.array([1, average, 0.5]), average


def test_pr_curves_are_one_plot_per_class_with_the_worst_first(tmp_path, figures):
    plots.plot_pr_curves(str(tmp_path / 'pr.png'), [curve(0.9), None, curve(0.25)], AWKWARD)
    assert_picture(tmp_path / 'pr.png')
    ((worst, best),) = figures
    assert [axis.get_title() for axis in (worst, best)] == [f'{AWKWARD[2]}\nAP 0.2500', f'{AWKWARD[0]}\nAP 0.9000']
    ((recall, precision),) = lines(worst).values()
    assert (recall, precision) == ([0, 0.5, 1], [1, 0.25, 0.5])
    assert (edges(tmp_path / 'pr.png') > 250).all()


def test_the_area_under_a_pr_curve_is_the_average_precision(tmp_path, figures):
    rng = np.random.default_rng(0)
    scores = rng.random(40)
    _, curve = metrics.pr_curves((rng.random(40) < 0.4).astype(int), np.stack([1 - scores, scores], 1))
    plots.plot_pr_curves(str(tmp_path / 'pr.png'), [curve], ['ox'])
    ((axis,),) = figures
    (area,) = axis.collections
    x, y = area.get_paths()[0].vertices.T
    assert abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2 == pytest.approx(curve[2])
    assert axis.get_lines()[0].get_drawstyle() == 'steps-pre'


def test_only_the_worst_of_many_classes_get_a_pr_curve(tmp_path, figures):
    averages = np.random.default_rng(0).permutation(100) / 100
    names = [f'class {average}' for average in averages]
    plots.plot_pr_curves(str(tmp_path / 'pr.png'), [curve(average) for average in averages], names)
    (axes,) = figures
    assert [axis.get_title().split('\n')[0] for axis in axes] == [f'class {number / 100}' for number in range(12)]
    assert axes[0].figure.get_suptitle() == 'the 12 of 100 classes with the lowest average precision (AP)'


def test_without_samples_there_are_no_pr_curves(tmp_path):
    plots.plot_pr_curves(str(tmp_path / 'pr.png'), [None, None], ['ox', 'dog'])
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_is_drawn_with_the_ends_of_its_epochs(tmp_path, figures):
    rates = list(np.linspace(0.1, 0, 12))
    plots.plot_rates(str(tmp_path / 'rates.png'), rates, 4, '$name$: cosine, 4 steps per epoch')
    width, height = assert_picture(tmp_path / 'rates.png')
    assert width > 1.5 * height > 400
    ((axis,),) = figures
    *ends, curve = axis.get_lines()
    assert [end.get_xdata()[0] for end in ends] == [4, 8]
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == (list(range(1, 13)), rates)
    assert axis.figure.get_suptitle() == '$name$: cosine, 4 steps per epoch' and axis.get_title() == ''


def test_a_range_test_is_drawn_with_the_proposed_rate_marked(tmp_path, figures):
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
def test_class_counts_are_stacked_bars(tmp_path, figures, names):
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
    assert axis.get_legend().get_window_extent().y0 >= axis.get_window_extent().y1  # above the bars


def test_class_counts_without_images_are_drawn(tmp_path):
    plots.plot_class_counts(str(tmp_path / 'classes.png'), {'train': np.zeros(3, int)}, ENGLISH, 'empty')
    assert_picture(tmp_path / 'classes.png')


@pytest.mark.parametrize('names', [ENGLISH[:1], CHINESE, AWKWARD * 3], ids=['one', 'chinese', 'awkward'])
def test_predictions_are_drawn_as_a_grid_in_green_or_red(tmp_path, names):
    images = [picture(number, (40 + number, 30)) for number in range(len(names))]
    titles = [f'{name} 90.0%\n(is {name})' for name in names]
    colours = []
    for right in (True, False):
        plots.plot_predictions(str(tmp_path / 'grid.png'), images, titles, [right] * len(names))
        assert_picture(tmp_path / 'grid.png')
        with Image.open(tmp_path / 'grid.png') as image:
            colours.append(set(map(tuple, np.asarray(image.convert('RGB')).reshape(-1, 3).tolist())))
    assert (26, 127, 55) in colours[0] - colours[1]
    assert (207, 34, 46) in colours[1] - colours[0]
