"""Groups of images that stay in one split and one fold, such as the frames of one video or the photos of one animal.

A group comes from a column of the list, from the file names (annotate.group), or from near-copies. groups.csv in data.root keeps them for
training and evaluation.
"""

import csv
import io
import os
import re

from zodiac.base import files
from zodiac.base.errors import UserError

NAME = 'groups.csv'
NEAR_DUPLICATES = 'near_duplicates'  # a value of annotate.group


def by_names(entries, root, pattern):
    """Set the group of entries that have none to the part of the file's name that the pattern finds: what its parentheses match, or all.
    A pattern with a slash is searched in the path below `root` instead.

    Returns: the number of entries in which it was not found; each of these stays a group of its own.
    Raises: UserError if it was found in none.
    """
    find, start, found, without = re.compile(pattern).search, f'{root.rstrip("/")}/', {}, 0
    for entry in entries:
        path = entry.path[len(start) :] if entry.path.startswith(start) else entry.path
        match = find(path if '/' in pattern else os.path.basename(path))
        name = '/'.join(filter(None, match.groups())) or match[0] if match else ''
        without += not name
        entry.group = entry.group or found.setdefault(name, name)
    if entries and without == len(entries):
        raise UserError(
            f'annotate.group = {pattern}: found in no file name, such as {os.path.basename(entries[0].path)}'
        )
    return without


def require_one_split(entries, root):
    """Raise UserError for a group with images in two splits that are given, not drawn."""
    first = {}
    for entry in entries:
        other = first.setdefault(entry.group, entry) if entry.group else entry
        if other.split != entry.split:
            raise UserError(
                f'{root}: the group {files.printable(entry.group)} is in two splits, {other.split} ({other.path}) and {entry.split} '
                f'({entry.path}); move its images into one, or leave the splits out to draw them'
            )


def join_near_copies(entries, pairs, drawn):
    """Put near-copies that lie in two splits into one group, with the groups that they are in.

    Args:
        pairs: see `near_duplicates.of_training`; drawn: splits that are drawn; images of others cannot move.
    Returns: whether there are any.
    """
    copies = {pair['path']: pair['train_path'] for pair in pairs if pair['split'] in drawn}
    if copies:
        names, places = (
            {},
            joined(
                [copies.get(entry.path, entry.path) for entry in entries], [entry.group or None for entry in entries]
            ),
        )
        alone = {entry.path for entry in entries if not entry.group} - {*copies, *copies.values()}
        for entry, place in zip(entries, places):
            if entry.path not in alone:
                entry.group = names.setdefault(place, entry.group or entry.path)
    return bool(copies)


def joined(*columns):
    """The component of each item, list of int: items that share a key in any column are in one.

    Args:
        columns: lists of equal length with a key for each item; None: none.
    """
    parent = list(range(len(columns[0])))

    def root(item):
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    for column in columns:
        first = {}
        for item, key in enumerate(column):
            if key is not None:
                one, other = sorted((root(first.setdefault(key, item)), root(item)))
                parent[other] = one
    return [root(item) for item in range(len(parent))]


def record(entries):
    """The content of groups.csv, list of one str: path and group of each entry that is in one."""
    file = io.StringIO()
    write = files.csv_table(file)
    write(['path', 'group'])
    for entry in entries:
        if entry.group:
            write([entry.path, entry.group])
    return [file.getvalue()]


def together(same, paths, root):
    """Join what must stay in one fold: list of int [n].

    Args:
        same: list [n], equal for files of equal content; paths: of the images; root: data.root, whose groups.csv is read.
    """
    group_of = read(root)
    return joined(same, [group_of.get(path) for path in paths]) if group_of else same


def read(root):
    """{path: group} of groups.csv, with the paths by which the images are found from here; {} if there is none."""
    try:
        with open(f'{root}/{NAME}', encoding='utf-8', newline='') as file:
            rows = [row for row in csv.reader(file) if len(row) == 2][1:]
    except (OSError, ValueError, csv.Error):
        return {}
    place = files.moved(root, [path for path, _ in rows[:3]])
    return {files.at(path, place): group for path, group in rows}
