"""The list of mistakes, and their heat maps."""

import base64
import io
import urllib.parse

import numpy as np
import pytest
from PIL import Image
from small_report import LABELS, PROBABILITIES, dataset_of
from test_gradcam import Bright

from zodiac.report import mistakes


def test_mistakes_are_sorted_by_their_probability(tmp_path):
    rows = mistakes.all_of(dataset_of(tmp_path), PROBABILITIES)
    assert [(row['label'], row['guess'], row['probability'], row['probability_of_label']) for row in rows] == [
        (1, 0, 0.9, 0.0),
        (1, 0, 0.7, 0.2),
        (2, 0, 0.5, 0.4),
        (2, 1, 0.4, 0.3),
    ]


def test_a_mistake_of_the_split_is_not_repeated_as_one_of_the_folds(tmp_path):
    dataset = dataset_of(tmp_path)
    rows = mistakes.all_of(dataset, PROBABILITIES, (dataset.paths, LABELS, PROBABILITIES[:, ::-1]))
    assert sorted(row['path'] for row in rows) == sorted(dataset.paths)
    assert [row['over_folds'] for row in sorted(rows, key=lambda row: row['path'])].count(True) == 2


@pytest.mark.parametrize('seconds', [60, 0])
def test_heat_maps_stop_after_their_time(tmp_path, seconds):
    dataset = dataset_of(tmp_path)
    rows = mistakes.all_of(dataset, PROBABILITIES)
    for row in rows:
        row['guess'] %= 2
    found, counts = mistakes.with_pictures(rows, str(tmp_path), dataset.transform, Bright(), seconds)
    assert counts == {'pictured': 4, 'heated': 4 if seconds else 0, 'size': (4, 4) if seconds else None}
    assert all(row['picture'] for row in found)


def test_a_photo_that_is_gone_is_listed_without_a_picture(tmp_path):
    dataset = dataset_of(tmp_path, photos=False)
    rows = mistakes.all_of(dataset, PROBABILITIES)
    found, counts = mistakes.with_pictures(rows, str(tmp_path), dataset.transform, Bright())
    assert len(found) == 4 and counts == {'pictured': 0, 'heated': 0, 'size': None}


def test_a_heat_map_is_smooth_and_leaves_cold_regions_unchanged():
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    address = mistakes.overlaid(np.full((64, 64, 3), 128, np.uint8), heat)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(',')[2]))).convert('L'), int)
    assert pixels[20, -10] > pixels[-10, 10] + 30
    assert abs(pixels[-30:, :30] - 128).max() < 12
    assert np.abs(np.diff(pixels[20])).max() < 25, 'no edges between the cells of the map'


@pytest.mark.parametrize('name', ['a b#1.png', '牛.png', '100%.png'])
def test_the_address_of_a_file_leads_to_it(tmp_path, name):
    found = mistakes.address(str(tmp_path / 'photos' / name), str(tmp_path / 'output/a/report'))
    assert urllib.parse.unquote(found) == f'../../../photos/{name}' and not set(found) & set(' #牛')
