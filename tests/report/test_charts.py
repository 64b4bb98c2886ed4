"""The charts of the report page take their colours and language from it."""

import re

import numpy as np
import pytest

from zodiac.report import charts, small_data


def log_of(epochs):
    return [
        {
            'epoch': epoch,
            'step': epoch,
            'lr': 0.1,
            'train_loss': 1 / (epoch + 1),
            'valid_loss': 0.5,
            'train_top1': 0.4,
            'valid_top1': 0.5,
            'images_per_second': 90.0,
        }
        for epoch in range(epochs)
    ]


def assert_chart(svg):
    assert svg.startswith('<svg class="chart" viewBox="') and svg.endswith('</svg>')
    assert not re.search(r'#[0-9a-fA-F]{6}\b(?!")', re.sub(r'url\(#[^)]*\)|href="#[^"]*"', '', svg)), (
        'a colour of its own'
    )
    assert 'chart.' not in svg and '<style' not in svg and 'xmlns' not in svg


def test_every_chart_is_in_both_languages_and_in_the_colours_of_the_page():
    bins = [{'low': 0.8, 'high': 0.9, 'n': 12, 'confidence': 0.85, 'accuracy': 0.8}]
    points = [
        {'per_class': n, 'top1': 0.8, 'interval_95': [0.7, 0.9], 'recall': [0.8, 0.8], 'draws': 3} for n in (3, 5, 10)
    ]
    curve = small_data.learning_curve(points, np.array([20, 20]), ['a', 'b'])
    found = [svg for _, svg in charts.training(log_of(4), np.linspace(0.1, 0, 40))]
    found += [*charts.reliability(bins, bins), charts.learning_curve(curve)]
    assert len(found) == 7
    for svg in found:
        assert_chart(svg)
        assert re.search(r'<tspan class="t" lang="zh-Hans">[^<]*[\u4e00-\u9fff]', svg)
    assert len(set(re.findall(r' id="([^"]*)"', ''.join(found)))) == len(re.findall(r' id="', ''.join(found)))


@pytest.mark.parametrize('epochs', [0, 1])
def test_fewer_than_two_epochs_are_no_curve(epochs):
    assert charts.training(log_of(epochs)) == []


@pytest.mark.parametrize('classes', [2, 12, 100])
def test_of_many_classes_the_worst_are_drawn(classes):
    curves = [(np.array([0, 1]), np.array([1, 1]), number / classes) for number in range(classes)]
    found = charts.pr_curves([*curves[::-1], None], [str(number) for number in range(classes + 1)])
    assert found['all'] == classes
    assert [average for _, average, _ in found['shown']] == [number / classes for number in range(min(12, classes))]
    for _, _, svg in found['shown']:
        assert_chart(svg)
    assert sum(len(svg) for *_, svg in found['shown']) < 200_000


def test_a_chart_is_the_same_each_time():
    assert charts.training(log_of(3)) == charts.training(log_of(3))
