"""The ranked list of photos: rows for review.csv and the pages. A row is a dict with the keys of COLUMNS.

kind: `label`, the label is probably wrong; `doubt`, another class is more probable; `copy`, a photo of another class looks the same;
`outlier`, like none of the classes; '' for the other photos; `new` for photos without a label. Photos that were decided on come last.
"""

import numpy as np

from zodiac.base import files

COLUMNS = (
    *('rank', 'path', 'kind', 'split', 'label', 'suggested', 'probability_of_label', 'probability_of_suggested'),
    *('quality', 'unfamiliar', 'copy', 'decision'),
)
LABEL, DOUBT, COPY, OUTLIER, NEW = 'label', 'doubt', 'copy', 'outlier', 'new'
KEYS = 9  # classes that can be chosen by a key
ORDER = {LABEL: 0, DOUBT: 0, COPY: 0, OUTLIER: 1, '': 2}


def rows(judged, photos, twins, decisions):
    """All photos of a run, ranked.

    Args:
        judged: a `findings.Judged`; photos: a `Photos`.
        twins: see `twins.find`; decisions: see `corrections.read`.
    """
    found = []
    for number, path in enumerate(photos.paths):
        given, suggested = int(photos.labels[number]), int(judged.suggested[number])
        kinds = (
            (LABEL, judged.wrong[number]),
            (COPY, number in twins),
            (DOUBT, suggested != given),
            (OUTLIER, judged.strange[number]),
        )
        kind = next((kind for kind, holds in kinds if holds), '')
        if kind == COPY and suggested == given:
            suggested = int(photos.labels[twins[number]])
        likely = judged.probabilities[number]
        found.append(
            {
                'number': number,
                'path': path,
                'kind': kind,
                'split': photos.splits[number],
                'label': photos.names[given],
                'suggested': photos.names[suggested],
                'probability_of_label': float(likely[given]),
                'probability_of_suggested': float(likely[suggested]),
                'quality': float(judged.quality[number]),
                'unfamiliar': float(judged.unfamiliar[number]),
                'twin': twins.get(number),
                'copy': photos.paths[twins[number]] if number in twins else '',
                'decision': decided(decisions.get(path)),
            }
        )

    def order(row):
        last = -row['unfamiliar'] if row['kind'] == OUTLIER else row['quality']
        return bool(row['decision']), ORDER[row['kind']], last, row['path']

    return _ranked(sorted(found, key=order))


def new_rows(paths, probabilities, order, names, decisions):
    """Unlabelled photos.

    Args:
        paths: list [n]; probabilities: float [n, classes]; order: int, the numbers of those to label, the first one first.
    """
    found = []
    for number in order.tolist():
        best = int(np.argmax(probabilities[number]))
        found.append(
            {
                **dict.fromkeys(COLUMNS, ''),
                'number': number,
                'path': paths[number],
                'kind': NEW,
                'suggested': names[best],
                'probability_of_suggested': float(probabilities[number][best]),
                'decision': decided(decisions.get(paths[number])),
            }
        )
    return _ranked(sorted(found, key=lambda row: bool(row['decision'])))


def _ranked(found):
    return [{**row, 'rank': rank} for rank, row in enumerate(found, 1)]


def decided(decision):
    """What a `corrections.Decision` says, such as 'relabel dog'; '' for None and for one that was undone."""
    if decision is None or decision.action == 'undo':
        return ''
    return f'{decision.action} {decision.label}'.strip()


def open_findings(found):
    """The rows that people should look at: those with a kind that nobody has decided on."""
    return [row for row in found if row['kind'] and not row['decision']]


def write_csv(path, found):
    """Write rows as CSV; probabilities, quality and unfamiliar with 4 decimals, empty for photos that were not judged."""
    with files.atomic_write(path) as file:
        write = files.csv_table(file)
        write(list(COLUMNS))
        for row in found:
            write([_cell(row[name]) for name in COLUMNS])


def _cell(value):
    if isinstance(value, float):
        return '' if np.isnan(value) else f'{value:.4f}'
    return value


def item(row, likely, photos, neighbours):
    """What the page shows of a row, see `server.Review`.

    Args:
        likely: float [classes], its probabilities; neighbours: a `findings.Neighbours` in which a new photo has its number, and the others
            come behind all new ones.
    """
    order = list(range(len(likely)))  # a class keeps its key where there is one for each
    if len(order) > KEYS:
        order = np.argsort(-np.nan_to_num(likely), kind='stable')[:KEYS].tolist()
    near = []
    for label in dict.fromkeys([row['label'], row['suggested']]):
        if label:
            near.append([label, neighbours.of(row['number'], photos.names.index(label))])
    twin = row.get('twin')
    if twin is not None:
        for label, numbers in near:
            if label == photos.names[photos.labels[twin]]:
                numbers[:] = [twin, *(number for number in numbers if number != twin)]
    return {
        **{name: row[name] for name in ('number', 'path', 'kind', 'label', 'suggested')},
        'top': [
            [photos.names[number], None if np.isnan(likely[number]) else float(likely[number])] for number in order
        ],
        'near': near,
        'twin': twin,
    }
