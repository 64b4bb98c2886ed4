"""Read the numbers of another program from CSV: a column per class, or columns of labels and their probabilities."""

import csv
import io
from decimal import Decimal

from zodiac.base.errors import UserError

PATH_KEYS = ('path', 'file', 'filename', 'file_name', 'image', 'photo', 'name')
LABEL_KEYS = ('label', 'class', 'prediction', 'class_name', 'predicted')
SCORE_KEYS = ('probability', 'score', 'confidence', 'prob')
FORMS = (
    'give a JSON object {photo: [numbers in the order of the classes]}, {photo: {class: number}} or {photo: class}, a JSON list in '
    'the order of the photos, a CSV file with the columns path,label,probability or with path and one per class, or a .npy file '
    '[photos, classes]'
)


def read(path, text):
    """[(path of a photo or None, its numbers or class, place in the file), ...] of a table with a header, or of numbers alone.

    Raises UserError that names the line.
    """
    first = text.lstrip('\n').partition('\n')[0]
    delimiter = max('\t;,', key=first.count)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f'{path}, line {reader.line_num}: cannot be read ({error})') from None
    if all(_is_number(cell) for cell in rows[0][1]):
        return [
            (None, [Decimal(cell) for cell in _numeric(path, line, row)], f'{path}, line {line}') for line, row in rows
        ]
    header = [cell.lower() for cell in rows[0][1]]
    place = next((header.index(key) for key in PATH_KEYS if key in header), None)
    label = next((header.index(key) for key in LABEL_KEYS if key in header), None)
    others = [number for number in range(len(header)) if number != place]
    if not others or (len(header) == 1 and label is None):
        raise UserError(f'{path}, line {rows[0][0]}: only one column, {rows[0][1][0]!r}; {FORMS}')
    found = []
    for line, row in rows[1:]:
        where = f'{path}, line {line}'
        if len(row) != len(header):
            raise UserError(f'{where}: {len(row)} columns, but the first line has {len(header)}')
        name = None if place is None else row[place]
        if label is None:
            cells = {rows[0][1][number]: row[number] for number in others}
            entry = {key: _number(cell, f'{where}, column {key}') for key, cell in cells.items() if cell}
        else:
            entry = _ranked(header, row, label, where)
        found.append((name, entry, where))
    return found


def _ranked(header, row, label, where):
    """label, probability, label2, probability2, ... as a dict, or a label alone."""
    title, top = header[label], {}
    score = next((key for key in SCORE_KEYS if key in header), None)
    if score is None:
        return row[label]
    for rank in ['', *range(2, len(header))]:
        if f'{title}{rank}' in header and f'{score}{rank}' in header:
            top[row[header.index(f'{title}{rank}')]] = _number(row[header.index(f'{score}{rank}')], where)
    return top


def _numeric(path, line, row):
    for cell in row:
        _number(cell, f'{path}, line {line}')
    return row


def _is_number(text):
    try:
        return Decimal(text) is not None
    except ArithmeticError:
        return False


def _number(text, where):
    if not _is_number(text):
        raise UserError(f'{where}: {text!r} is not a number')
    return Decimal(text)
