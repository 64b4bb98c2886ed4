"""Read a CSV of further facts about photos, such as camera or place, for evaluate.py --slices."""

import csv
import os

from zodiac.base import calls, files
from zodiac.base.errors import UserError
from zodiac.data import list_source, tables

EXAMPLE = 'its first line must name the columns, one of them path, such as path,camera'


def read(table, paths, root, say):
    """{name of a column: list of str, the value of each photo, '' where the table has none}.

    Args:
        table: path of a CSV or TSV file with a column `path` and others.
        paths: of the photos, as in the index; the table has them like that, relative to `root`, or absolute.
        root: data.root; say: called with a message for the user.
    Raises: UserError if the file cannot be read, has no such columns, names a photo twice, or names none of the photos.
    """
    if not os.path.isfile(table):
        raise UserError(f'--slices {table}: no such file')
    source = list_source.open_list(table)
    if source.content is not None:
        raise UserError(f'--slices {table}: is JSON, not a table; {EXAMPLE}')
    delimiter = max(tables.DELIMITERS, key=source.head[0].count)
    reader = csv.reader(source.lines(newline=''), delimiter=delimiter, strict=True)
    header, found, lost = None, {}, []
    places = _places(paths, root)
    try:
        for row in reader:
            where = f'--slices {table}, line {reader.line_num}'
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header is None:
                header, path = _header(cells, table)
                continue
            if len(cells) != len(header):
                raise UserError(f'{where}: {len(cells)} columns, but the first line has {len(header)}')
            number = places.get(_normal(cells[path]))
            if number is None:
                lost.append(cells[path])
            elif number in found:
                raise UserError(f'{where}: {files.printable(cells[path])} is named twice')
            else:
                found[number] = cells
    except csv.Error as error:
        raise UserError(f'--slices {table}, line {reader.line_num}: cannot be read: {error}') from None
    if not found:
        example = f', such as {files.printable(lost[0])}' if lost else ''
        raise UserError(
            f'--slices {table}: names none of the {len(paths)} photos{example}; paths must be as in the index, such as {paths[0]}'
        )
    if lost:
        rows = (
            f'{len(lost)} of {len(lost) + len(found)} rows name none of the photos, such as {files.printable(lost[0])}'
        )
        say(calls.as_called(f'--slices {table}: {rows}'))
    if len(found) < len(paths):
        say(f'--slices {table}: has {len(found)} of the {len(paths)} photos')
    columns = [place for place in range(len(header)) if place != path]
    empty = [''] * len(header)
    return {header[place]: [found.get(number, empty)[place] for number in range(len(paths))] for place in columns}


def _header(cells, table):
    """(names of the columns, number of the one with the paths)."""
    known = list_source.known_columns([list_source.plain(cell) for cell in cells])
    if 'path' not in known or len(cells) < 2 or len(set(cells)) < len(cells) or not all(cells):
        shown = ', '.join(map(list_source.shown, cells))
        raise UserError(f'--slices {table}: its first line is {shown}; {EXAMPLE}')
    return cells, known['path']


def _places(paths, root):
    """{path in any of its forms: number of the photo}."""
    start, places = f'{root.rstrip("/")}/', {}
    for number, path in enumerate(paths):
        below = path[len(start) :] if path.startswith(start) else path
        for form in (below, path, os.path.abspath(path)):
            places[_normal(form)] = number
    return places


def _normal(path):
    return os.path.normpath(path.replace('\\', '/')) if os.sep == '/' else os.path.normpath(path)
