"""Read CSV and TSV lists of images, whose columns are found by their names or, without a header, by their content."""

import contextlib
import csv

from zodiac.base.errors import UserError
from zodiac.data.folders import SPLIT_NAMES
from zodiac.data.list_source import IMAGE, SEVERAL, Row, known_columns, plain, shown

DELIMITERS = {',': 'comma', '\t': 'tab', ';': 'semicolon', '|': 'bar'}


def fits(source):
    return source.content is None


def rows(source, names, say):
    delimiter, first = _layout(source)
    header = [plain(cell) for cell in first]
    places = known_columns(header)
    if 'path' in places and 'label' in places:
        used = ', '.join(f'{what} = {first[place].strip()}' for what, place in places.items())
        left = [cell.strip() for place, cell in enumerate(first) if place not in places.values()]
        say(f'{source.path}: {used}' + (f'; not used: {", ".join(left)}' if left else ''))
        skip = True
    else:
        places, skip = _places_without_header(source, delimiter, first), False
        say(f'{source.path}: no header; {", ".join(f"{what} = column {place + 1}" for what, place in places.items())}')
    return _cells(source, delimiter, places, len(first), skip)


def _cells(source, delimiter, places, width, skip):
    """Yield the rows of a table."""
    path, label, split, group = (places.get(what) for what in ('path', 'label', 'split', 'group'))
    needed = max(place for place in places.values()) + 1
    reader = csv.reader(source.lines(newline=''), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            why = f'{error}; perhaps a quote is not closed'
            raise UserError(f'{source.path}, line {max(1, reader.line_num)}: cannot be read: {why}') from None
        if cells is None:
            return
        if not any(map(str.strip, cells)):
            continue
        if skip:
            skip = False
            continue
        if len(cells) != width and (len(cells) < needed or any(map(str.strip, cells[width:]))):
            raise UserError(
                f'{source.path}, line {reader.line_num}: {len(cells)} columns, but the first line has {width}; quote what contains a '
                f'{DELIMITERS[delimiter]}; {SEVERAL}'
            )
        yield Row(
            reader.line_num,
            cells[path].strip(),
            cells[label].strip(),
            '' if split is None else cells[split].strip(),
            '' if group is None else cells[group].strip(),
        )


def _layout(source):
    """(delimiter, cells of the first line) of a table."""
    several = []
    for delimiter in DELIMITERS:
        rows = _first_rows(source, delimiter)
        if rows and len(rows[0]) > 1:
            places = known_columns([plain(cell) for cell in rows[0]])
            if 'path' in places and 'label' in places:
                return delimiter, rows[0]
            several.append((sum(len(row) == len(rows[0]) for row in rows), delimiter, rows[0]))
    if not several:
        raise UserError(
            f'{source.path}, line 1: one column ({shown(source.head[0])}); a list needs two, path and label, separated by '
            'comma, tab or semicolon'
        )
    return max(several, key=lambda found: found[0])[1:]


def _first_rows(source, delimiter):
    """The rows at the start of a table, up to one that cannot be read."""
    rows = []
    with contextlib.suppress(csv.Error):
        rows.extend(csv.reader(source.head, delimiter=delimiter))
    return rows


def _places_without_header(source, delimiter, first):
    """The columns of a table whose first line is an image. Raises UserError if it is not, or what a column means is unclear."""
    pictures = [place for place, cell in enumerate(first) if IMAGE.fullmatch(cell.strip())]
    rows = [row for row in _first_rows(source, delimiter) if len(row) == len(first)]
    others = [place for place in range(len(first)) if place not in pictures]
    if not pictures:
        lacking = [what for what in ('path', 'label') if what not in known_columns([plain(cell) for cell in first])]
        marks = others[1:] and all(row[place].strip() in ('0', '1') for row in rows[1:] for place in others[1:])
        if marks and len(rows) > 1 and len(others) > 2:
            raise UserError(f'{source.path}: one column per class; {SEVERAL}: write columns path and label')
        raise UserError(
            f'{source.path}, line 1: no column {" or ".join(lacking)} among {", ".join(map(shown, first))}; name the columns path, label '
            'and, if you have them, split and group'
        )
    splits = [place for place in others if all(row[place].strip().lower() in SPLIT_NAMES for row in rows)]
    labels = [place for place in others if place not in splits]
    if len(pictures) != 1 or len(labels) != 1 or len(splits) > 1:
        raise UserError(
            f'{source.path}, line 1: {len(first)} columns without a header; add a first line that names them, such as '
            f'path{delimiter if delimiter != chr(9) else ","}label; {SEVERAL}'
        )
    return {'path': pictures[0], 'label': labels[0], **({'split': splits[0]} if splits else {})}
