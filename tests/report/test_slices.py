"""Accuracy of parts of the photos: a part that is really worse is found, chance is not."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageFilter

from zodiac.images import properties
from zodiac.report import slices

NAMES = ['cat', 'dog']


def measured(table, right, monkeypatch, paths=None):
    """`slices.measure` of photos whose pixels are not looked at."""
    monkeypatch.setattr(slices, '_measured', lambda paths, chosen: [])
    labels = np.arange(len(right)) % 2
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
    paths = paths or [f'photos/{NAMES[label]}/{number}.jpg' for number, label in enumerate(labels)]
    return slices.measure(paths, labels, probabilities, NAMES, 0, table)


def test_a_part_that_is_worse_comes_first_and_is_marked(monkeypatch):
    camera = np.repeat(['phone', 'web', ''], [60, 40, 20])
    right = np.ones(120, bool)
    right[60:85] = False
    found = measured({'camera': camera.tolist()}, right, monkeypatch)
    worst, best = found['rows']
    assert (worst['property'], worst['value'], worst['n'], worst['worse']) == ('camera', 'web', 40, True)
    assert worst['top1'] == pytest.approx(15 / 40) and worst['interval_95'][0] < 15 / 40 < worst['interval_95'][1]
    assert worst['expected'] == pytest.approx(95 / 120, abs=0.02)  # both classes have as many of these photos
    assert (best['value'], best['worse'], found['tests'], found['n']) == ('phone', False, 2, 120)


def test_chance_alone_marks_no_more_than_one_of_twenty_data_sets(monkeypatch):
    rng, marked = np.random.default_rng(0), 0
    for _ in range(100):
        table = {name: rng.integers(0, 4, 200).astype(str).tolist() for name in 'abcde'}
        marked += any(row['worse'] for row in measured(table, rng.random(200) < 0.8, monkeypatch)['rows'])
    assert marked <= 9  # 5 expected at most; the seed is fixed


def test_a_hard_class_lowers_what_is_expected(monkeypatch):
    right = np.arange(100) % 2 == 0  # all cats, no dogs
    place = np.where(np.arange(100) % 2, 'dogs', 'cats').tolist()
    rows = {row['value']: row for row in measured({'place': place}, right, monkeypatch)['rows']}
    assert rows['dogs']['expected'] == rows['dogs']['top1'] == 0 and rows['cats']['expected'] == 1


def test_parts_with_few_photos_and_folders_that_repeat_the_class_are_left_out(monkeypatch):
    table = {'few': ['x'] * 19 + ['y'] * 81, 'all': ['z'] * 100, 'name': [str(n) + 'a' for n in range(100)]}
    assert measured(table, np.ones(100, bool), monkeypatch)['rows'] == []
    paths = [f'{"day" if number < 50 else "night"}/{number}.jpg' for number in range(100)]
    rows = measured({}, np.ones(100, bool), monkeypatch, paths)['rows']
    assert {(row['kind'], row['value']) for row in rows} == {('folder', 'day'), ('folder', 'night')}


def test_numbers_are_divided_into_quarters_and_a_few_stay_as_they_are(monkeypatch):
    table = {'iso': [str(100 + number) for number in range(99)] + [''], 'stars': [str(n % 3) for n in range(100)]}
    rows = measured(table, np.ones(100, bool), monkeypatch)['rows']
    assert {row['value'] for row in rows if row['property'] == 'iso'} == {'100–124', '125–149', '150–173', '174–198'}
    assert {row['value'] for row in rows if row['property'] == 'stars'} == {'0', '1', '2'}


@pytest.mark.parametrize(
    ('p_values', 'expected'),
    [([], []), ([0.03], [0.03]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.9, 0.8], [1.0, 1.0])],
)
def test_p_values_are_corrected_for_their_number(p_values, expected):
    assert slices.holm(p_values) == pytest.approx(expected)


def test_size_brightness_and_sharpness_of_photos_on_disk(tmp_path):
    sharp = picture(1, (300, 200)).resize((300, 200))
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    sharp.save(tmp_path / 'a.jpg')
    noisy.save(tmp_path / 'b.png')
    noisy.filter(ImageFilter.GaussianBlur(3)).save(tmp_path / 'c.png')
    Image.new('RGB', (2, 900), (255, 255, 255)).save(tmp_path / 'd.png')
    found = [properties.measure(str(tmp_path / name)) for name in ('a.jpg', 'b.png', 'c.png', 'd.png')]
    assert [one.short_side for one in found] == [200, 200, 200, 2]
    assert found[1].sharpness > 20 * found[2].sharpness > 0 and found[3] == (2, 1.0, 0.0)
    assert found[1].brightness == pytest.approx(0.5, abs=0.01)


def test_a_large_jpeg_gives_nearly_the_same_as_the_same_picture_in_png(tmp_path):
    big = picture(3, (1200, 1000))
    big.save(tmp_path / 'a.jpg', quality=95)
    big.save(tmp_path / 'a.png')
    jpeg, png = (properties.measure(str(tmp_path / name)) for name in ('a.jpg', 'a.png'))
    assert jpeg.short_side == png.short_side == 1000 and jpeg.brightness == pytest.approx(png.brightness, abs=0.01)


def test_photos_that_are_gone_or_damaged_only_lack_their_properties(tmp_path):
    paths = []
    for number in range(60):
        paths.append(str(tmp_path / f'{number}.png'))
        Image.new('RGB', (40 if number < 30 else 300,) * 2, (4 * number,) * 3).save(paths[-1])
    (tmp_path / '0.png').write_bytes(b'damaged')
    (tmp_path / '59.png').unlink()
    labels = np.zeros(60, int)
    found = slices.measure(paths, labels, np.eye(2)[labels], NAMES, 0)
    sizes = {row['value']: row['n'] for row in found['rows'] if row['kind'] == 'short_side'}
    assert sizes == {'32–63': 29, '256–511': 29} and found['looked_at'] == 60
