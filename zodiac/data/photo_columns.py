"""Read a CSV of further facts about photos, such as camera or place, for evaluate.py --slices."""

import csv
import os
from typing import NamedTuple

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.data import list_source, tables

EXAMPLE = 'its first line must name the columns, one of them path, such as path,camera'


class Table(NamedTuple):
    """path: of the file; names: of the columns; place: number of the one with the paths; rows: [(line, cells), ...]."""

    path: str
    names: list
    place: int
    rows: list


def read(path):
    """The `Table` in a CSV or TSV file with a column `path` and others. Raises UserError if it is not one."""
    if not os.path.isfile(path):
        raise UserError(f'--slices {path}: no such file')
    source = list_source.open_list(path)
    if source.content is not None:
        raise UserError(f'--slices {path}: is JSON, not a table; {EXAMPLE}')
    delimiter = max(tables.DELIMITERS, key=source.head[0].count)
    reader = csv.reader(source.lines(newline=''), delimiter=delimiter, strict=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise UserError(f'--slices {path}, line {reader.line_num}: cannot be read: {error}') from None
    (_, names), *rows = rows
    place = _place_of_paths(names, path)
    for line, cells in rows:
        if len(cells) != len(names):
            raise UserError(f'--slices {path}, line {line}: {len(cells)} columns, but the first line has {len(names)}')
    return Table(path, names, place, rows)


def of_photos(table, paths, root, say):
    """{name of a column: list of str, the value of each photo, '' where the table has none}.

    Args:
        table: a `Table`; paths: of the photos, as in the index; the table has them like that, relative to `root`, or absolute.
        root: data.root; say: called with a message for the user.
    Raises: UserError if it names a photo twice, or none of the photos.
    """
    found, lost, places = {}, [], _places(paths, root)
    for line, cells in table.rows:
        path = cells[table.place]
        number = places.get(_normal(path))
        if number is None:
            lost.append(path)
        elif number in found:
            raise UserError(f'--slices {table.path}, line {line}: {files.printable(path)} is named twice')
        else:
            found[number] = cells
    example = f', such as {files.printable(lost[0])}' if lost else ''
    if not found:
        raise UserError(
            f'--slices {table.path}: names none of the {len(paths)} photos{example}; paths must be as in the index, such as {paths[0]}'
        )
    if lost:
        say(f'--slices {table.path}: {len(lost)} of {len(table.rows)} rows name none of the photos{example}')
    if len(found) < len(paths):
        say(f'--slices {table.path}: has {len(found)} of the {len(paths)} photos')
    empty = [''] * len(table.names)
    return {
        name: [found.get(number, empty)[place] for number in range(len(paths))]
        for place, name in enumerate(table.names)
        if place != table.place
    }


def _place_of_paths(names, path):
    known = list_source.known_columns([list_source.plain(cell) for cell in names])
    if 'path' not in known or len(names) < 2 or len(set(names)) < len(names) or not all(names):
        shown = ', '.join(map(list_source.shown, names))
        raise UserError(f'--slices {path}: its first line is {shown}; {EXAMPLE}')
    return known['path']


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
