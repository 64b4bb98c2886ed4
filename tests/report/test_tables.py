"""The tables of a report."""

import csv

import numpy as np
import pytest
from conftest import AWKWARD, CHINESE, ENGLISH

from zodiac.report import calibration, metrics, tables


def read_table(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('names', [ENGLISH, CHINESE, AWKWARD], ids=['english', 'chinese', 'awkward'])
def test_predictions_have_one_row_per_image(tmp_path, names):
    paths = ['signs/test/a.jpg', 'signs/test/猫 1.jpg', 'signs/test/a,"b".jpg', 'd\r 1.jpg']
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]], np.float32)
    tables.write_predictions(str(tmp_path / 'report' / 'predictions.csv'), paths, labels, probabilities, names)
    rows = read_table(tmp_path / 'report' / 'predictions.csv')  # a missing folder is made
    assert list(rows[0]) == ['id', 'path', 'label', 'prediction', 'probability', 'correct']
    assert [row['id'] for row in rows] == ['0', '1', '2', '3']
    assert [row['path'] for row in rows] == paths
    assert [row['label'] for row in rows] == [names[0], names[1], names[2], names[2]]
    assert [row['prediction'] for row in rows] == [names[0], names[0], names[2], names[1]]
    assert [float(row['probability']) for row in rows] == pytest.approx([0.7, 0.5, 0.7, 0.8], abs=1e-6)
    assert [row['correct'] for row in rows] == ['1', '0', '1', '0']


def test_predictions_are_utf8_with_plain_newlines(tmp_path):
    tables.write_predictions(str(tmp_path / 'p.csv'), ['猫 1.jpg'], [1], np.array([[0.25, 0.75]]), ['狗', '猫'])
    content = (tmp_path / 'p.csv').read_bytes()
    assert content.decode('utf-8').splitlines()[1] == '0,猫 1.jpg,猫,猫,0.750000,1'
    assert b'\r' not in content
    assert content.endswith(b'\n')


@pytest.mark.parametrize('names', [CHINESE, AWKWARD], ids=['chinese', 'awkward'])
def test_metrics_are_written_as_tables(tmp_path, names):
    labels = np.array([0, 0, 1, 1])  # none of the third class
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]])
    result = metrics.evaluate(labels, probabilities, names)
    others = {
        'calibration': calibration.evaluate(labels, probabilities),
        'near_duplicates': None,
        'sample': [],
    }
    tables.write_metrics(str(tmp_path), {**result, **others})
    table = {row['name']: row['value'] for row in read_table(tmp_path / 'metrics.csv')}
    assert float(table['top1']) == 0.75 and float(table['top1_interval_95_low']) == result['top1_interval_95'][0]
    assert {'sample', 'labels', 'per_class', 'calibration_bins'}.isdisjoint(table)
    classes = read_table(tmp_path / 'per_class.csv')
    assert [row['class'] for row in classes] == names
    assert [row['recall'] for row in classes] == ['1.0', '0.5', '0.0']
    assert classes[2]['recall_interval_95_high'] == '' and classes[2]['support'] == '0'
    counts = read_table(tmp_path / 'confusion_matrix.csv')
    assert [[row[name] for name in names] for row in counts] == [['2', '0', '0'], ['0', '1', '1'], ['0', '0', '0']]
