"""The report's numbers as CSV: predictions.csv, folds.csv, slices.csv, metrics.csv, per_class.csv, confusion_matrix.csv."""

import numpy as np

from zodiac.base import files


def write_predictions(path, paths, labels, probabilities, class_names):
    """CSV with one row per image: id, path, label, prediction, probability of the prediction, correct (1 or 0)."""
    predictions = np.asarray(probabilities).argmax(1)
    rows = (
        [i, image, class_names[true], class_names[guess], f'{probabilities[i][guess]:.6f}', int(true == guess)]
        for i, (image, true, guess) in enumerate(zip(paths, labels, predictions))
    )
    _write(path, ['id', 'path', 'label', 'prediction', 'probability', 'correct'], rows)


def write_folds(path, paths, labels, probabilities, class_names):
    """CSV with one row per image, predicted by a head that did not learn from it: path, label, prediction, its probability."""
    predictions = np.asarray(probabilities).argmax(1)
    rows = (
        [image, class_names[true], class_names[guess], f'{probabilities[i][guess]:.6f}']
        for i, (image, true, guess) in enumerate(zip(paths, labels, predictions))
    )
    _write(path, ['path', 'label', 'prediction', 'probability'], rows)


def write_slices(path, rows):
    """CSV with one row per part of the photos, see `slices.measure`, the worst first."""
    titles = ('property', 'kind', 'value', 'n', 'top1', 'top1_low', 'top1_high', 'expected', 'p', 'worse')
    _write(
        path,
        titles,
        (
            [
                *(row[key] for key in ('property', 'kind', 'value', 'n')),
                *(f'{number:.6f}' for number in (row['top1'], *row['interval_95'], row['expected'], row['p'])),
                int(row['worse']),
            ]
            for row in rows
        ),
    )


def write_metrics(folder, result):
    """metrics.csv (name, value), per_class.csv (a row per class) and confusion_matrix.csv (a row per true class).

    Args:
        result: the content of metrics.json. An interval becomes two values, <name>_low and <name>_high.
    """
    parts = {part: result.get(part) or {} for part in ('calibration', 'near_duplicates', 'folds')}
    inner = {f'{part}_{name}': value for part, values in parts.items() for name, value in values.items()}
    _write(f'{folder}/metrics.csv', ['name', 'value'], _flat({**result, **inner}).items())
    classes = [{'class': name, **_flat(row)} for name, row in result['per_class'].items()]
    _write(f'{folder}/per_class.csv', classes[0], (row.values() for row in classes))
    counts = ([name, *row] for name, row in zip(result['labels'], result['confusion_matrix']))
    _write(f'{folder}/confusion_matrix.csv', ['true class', *result['labels']], counts)


def _flat(values):
    """The scalars of a dict, with each interval as two of them."""
    flat = {}
    for name, value in values.items():
        if '_interval_' in name:
            flat[f'{name}_low'], flat[f'{name}_high'] = value or (None, None)
        elif not isinstance(value, (dict, list)):
            flat[name] = value
    return flat


def _write(path, titles, rows):
    with files.atomic_write(path) as file:
        write = files.csv_table(file)
        for row in (list(titles), *map(list, rows)):
            write(row)
