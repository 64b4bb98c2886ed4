"""The ranked list: kinds, order, decisions, CSV, and what the page gets."""

import csv

import numpy as np
import pytest

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')

from zodiac.data.corrections import Decision
from zodiac.review import findings, listing
from zodiac.review.photos import Photos


def photos_of(labels, classes):
    count = len(labels)
    return Photos(
        [f'photos/{number}.png' for number in range(count)],
        ['train'] * count,
        np.array(labels),
        [f'c{number}' for number in range(classes)],
        [np.random.default_rng(0).normal(size=(count, 3))],
        np.arange(count),
    )


def judged_of(likely, wrong=(), strange=()):
    likely = np.array(likely)
    count = len(likely)
    return findings.Judged(
        likely,
        np.nan_to_num(likely[:, 0], nan=1.0),
        np.isin(np.arange(count), wrong),
        np.nan_to_num(likely).argmax(1),
        np.where(np.isin(np.arange(count), strange), 5.0, 0.0),
    )


def decision(action, label=''):
    return Decision('', '', action, label, '', '', 2)


LIKELY = [[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.8, 0.2], [0.7, 0.3], [np.nan, np.nan]]


def test_kinds_and_order():
    rows = listing.rows(judged_of(LIKELY, wrong=[1], strange=[0]), photos_of([0] * 6, 2), {3: 4}, {})
    assert [(row['number'], row['kind']) for row in rows] == [
        (1, 'label'),
        (2, 'doubt'),
        (3, 'copy'),
        (0, 'outlier'),
        (4, ''),
        (5, ''),
    ]
    assert rows[2]['copy'] == 'photos/4.png' and [row['rank'] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_decided_photos_come_last_and_undone_ones_do_not():
    decisions = {'photos/1.png': decision('relabel', 'c1'), 'photos/2.png': decision('undo')}
    rows = listing.rows(judged_of(LIKELY, wrong=[1]), photos_of([0] * 6, 2), {}, decisions)
    assert (rows[-1]['number'], rows[-1]['decision']) == (1, 'relabel c1') and rows[0]['number'] == 2
    assert [row['number'] for row in listing.open_findings(rows)] == [2]


def test_the_csv_has_no_number_for_photos_that_were_not_judged(tmp_path):
    rows = listing.rows(judged_of(LIKELY), photos_of([0] * 6, 2), {}, {})
    listing.write_csv(str(tmp_path / 'a.csv'), rows)
    with open(tmp_path / 'a.csv', encoding='utf-8', newline='') as file:
        found = list(csv.DictReader(file))
    assert found[-1]['path'] == 'photos/5.png' and found[-1]['probability_of_label'] == ''
    assert found[0]['probability_of_label'] == '0.1000' and tuple(found[0]) == listing.COLUMNS


@pytest.mark.parametrize(('classes', 'first'), [(3, 'c0'), (12, 'c11')])
def test_a_class_keeps_its_key_where_there_is_one_for_each(classes, first):
    photos = photos_of([0] * 6, classes)
    likely = np.linspace(0.01, 0.3, classes)
    row = listing.rows(judged_of([likely] * 6), photos, {}, {})[0]
    item = listing.item(row, likely, photos, findings.Neighbours(photos.views[0], photos.labels, photos.groups))
    assert item['top'][0][0] == first and len(item['top']) == min(9, classes)
