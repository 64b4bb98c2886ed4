"""Accuracy of parts of the photos: by size, brightness, sharpness, folder, and what a table says of them.

Many parts are compared, so some look bad by chance. Each is tested against all other photos (Fisher's exact test), and the p-values are
corrected for their number (Holm 1979, "A simple sequentially rejective multiple test procedure"): the chance that any part is called
worse although none is, is at most LEVEL.
"""

import math
import os
import unicodedata
from collections import Counter, namedtuple

import numpy as np
from scipy.stats import fisher_exact

from zodiac.base import device
from zodiac.images import decoding, properties
from zodiac.report import metrics

LEAST = 20  # photos of a part, and of all others
LEVEL = 0.05
MOST = 5000  # photos that are looked at; of more, so many drawn at random
VALUES = 50  # of a column, the most frequent ones
CATEGORIES = 8  # a column of numbers with more different ones is divided into quarters
EMPTY = ''
AHEAD = 64
MEASURED = ('short_side', 'brightness', 'sharpness')

# kind: one of MEASURED, folder or column; name: of the kind, or of the column of a table; values: str of each photo, EMPTY where unknown
Column = namedtuple('Column', 'kind name values')


def measure(paths, labels, probabilities, class_names, seed, table=None):
    """`slices` of metrics.json.

    Args:
        paths: of n photos; labels: int [n]; probabilities: float [n, classes].
        seed: draws the photos that are looked at, where there are more than MOST.
        table: {name: list of str [n]}, further columns.
    Returns: dict: n, photos; looked_at, those whose size, brightness and sharpness were measured; tests, the number of parts; rows, the
        worst first: property, kind (see `Column`), value, n, top1, interval_95 (Wilson), expected (the accuracy that the part would have if
        each of its photos were right as often as its class), p (corrected), worse (whether p is below LEVEL and top1 below the others').
    """
    labels = np.asarray(labels)
    right = np.asarray(probabilities).argmax(1) == labels
    chosen = metrics.simple_random_sample(len(paths), MOST, seed)
    columns = _measured(paths, chosen)
    folders = _folders(paths, [class_names[label] for label in labels])
    columns += [Column('folder', 'folder', folders)] if folders else []
    columns += [Column('column', name, _numbers_or_names(values)) for name, values in (table or {}).items()]
    recall = np.array(
        [right[labels == number].mean() if (labels == number).any() else 0 for number in range(len(class_names))]
    )
    rows = [row for column in columns for row in _rows(column, right, recall[labels])]
    for row, p in zip(rows, holm([row['p'] for row in rows])):
        row['p'] = p
        row['worse'] = p < LEVEL and row['top1'] < row.pop('others')
    rows.sort(key=lambda row: (row['top1'], row['p']))
    return {'n': len(paths), 'looked_at': len(chosen), 'tests': len(rows), 'rows': rows}


def _measured(paths, chosen):
    """A `Column` for each of MEASURED, from the photos with these numbers."""
    found = list(device.in_threads(_properties, [paths[number] for number in chosen], AHEAD))
    columns = []
    for place, kind in enumerate(MEASURED):
        values = np.full(len(paths), np.nan)
        values[chosen] = [np.nan if one is None else one[place] for one in found]
        columns.append(Column(kind, kind, _by_doubling(values) if kind == 'short_side' else _quarters(values)))
    return columns


def _properties(path):
    try:
        return properties.measure(path)
    except decoding.ImageError:
        return None


def _by_doubling(values):
    """'128–255' and so on for numbers of pixels, float [n]; EMPTY for NaN."""
    return [
        EMPTY if math.isnan(one) else f'{2 ** (size := int(math.log2(one))):,}–{2 ** (size + 1) - 1:,}'
        for one in values
    ]


def _quarters(values):
    """The range of the quarter of each number, float [n], see `_short`; EMPTY for NaN. Equal numbers are in one quarter."""
    known = values[~np.isnan(values)]
    if not len(known):
        return [EMPTY] * len(values)
    limits = np.quantile(known, [0.25, 0.5, 0.75])
    quarter = np.searchsorted(limits, values, side='left')
    names = {}
    for number in np.unique(quarter[~np.isnan(values)]):
        inside = values[(quarter == number) & ~np.isnan(values)]
        low, high = _short(inside.min()), _short(inside.max())
        names[number] = low if low == high else f'{low}–{high}'
    return [EMPTY if math.isnan(one) else names[number] for one, number in zip(values, quarter)]


def _short(number):
    """A number with three digits, or without decimals: 0.173, 59.3, 1,480."""
    return f'{number:,.0f}' if abs(number) >= 100 else f'{number:.3g}'


def _numbers_or_names(values):
    """A column of a table: numbers as quarters, unless there are only a few different ones; anything else as it is."""
    known = [value for value in values if value]
    try:
        numbers = np.array([float(value) if value else math.nan for value in values])
    except ValueError:
        return values
    if len(set(known)) <= CATEGORIES or np.isinf(numbers).any():
        return values
    return _quarters(numbers)


def _folders(paths, names):
    """The folder of each photo; [] if it only repeats the class."""
    folders = [os.path.dirname(path) for path in paths]
    repeats = all(
        unicodedata.normalize('NFC', os.path.basename(folder)) == name for folder, name in zip(folders, names)
    )
    return [] if repeats else folders


def _rows(column, right, expected):
    """A row for each value of a column that enough photos have, with p not yet corrected, and the top1 of the `others`."""
    values, rows = np.array(column.values, object), []
    known = values != EMPTY
    total, hits = int(known.sum()), int(right[known].sum())
    for value, n in Counter(column.values).most_common(VALUES):
        if value == EMPTY or n < LEAST or total - n < LEAST:
            continue
        inside = values == value
        found = int(right[inside].sum())
        rest = total - n, hits - found
        p = fisher_exact([[found, n - found], [rest[1], rest[0] - rest[1]]]).pvalue
        rows.append(
            {
                'property': column.name,
                'kind': column.kind,
                'value': value,
                'n': n,
                'top1': found / n,
                'interval_95': metrics.wilson_interval(found, n),
                'expected': float(expected[inside].mean()),
                'p': float(p),
                'others': rest[1] / rest[0],
            }
        )
    return rows


def holm(p_values):
    """Corrected p-values, list of float (Holm 1979), in the order of the given ones."""
    order = np.argsort(p_values, kind='stable')
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = float(largest)
    return corrected
