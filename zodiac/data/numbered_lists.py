"""Read the lists of PaddleClas and PaddleX: `path number`, with the names of the classes in a file beside them."""

import collections
import os
import re

from zodiac.base.errors import UserError
from zodiac.data.list_source import SEVERAL, Row, known_columns, open_list, plain, shown

NUMBERED = re.compile(r'(.*\.\w{1,5})[ \t]+([\d,]+)')  # a path, which has a suffix, and a number
LABEL_FILES = ('labels.txt', 'label.txt', 'label_list.txt', 'class_id_map.txt', 'classes.txt')


def fits(source):
    if source.content is not None or {'path', 'label'} <= {
        *known_columns([plain(cell) for cell in source.head[0].split('\t')])
    }:
        return False
    return 2 * sum(bool(NUMBERED.fullmatch(line.strip())) for line in source.head) > len(source.head)


def rows(source, names, say):
    for number, line in enumerate(source.lines(), 1):
        line = line.strip()
        if not line:
            continue
        path, _, label = line.replace('\t', ' ').rpartition(' ')
        if ',' in label and label.replace(',', '').isdecimal():
            raise UserError(f'{source.path}, line {number}: labels {label}; {SEVERAL}')
        if not path or not label.isdecimal():
            raise UserError(
                f'{source.path}, line {number}: {shown(line)} is not a path, a space and the number of a class'
            )
        if names and int(label) not in names:
            raise UserError(
                f'{source.path}, line {number}: there is no class {label}; the classes have the numbers {_range(names)}'
            )
        yield Row(number, line[: len(path)].strip(), names[int(label)] if names else label)


def _range(names):
    return f'{min(names)} to {max(names)}'


def class_names(path, labels, say):
    """{number: name} of the label file beside a list, or else of data.labels; None with data.labels=auto if there is no such file."""
    folder = os.path.dirname(path)
    found = [os.path.join(folder, name) for name in LABEL_FILES if os.path.isfile(os.path.join(folder, name))]
    found += sorted(
        os.path.join(folder, name) for name in os.listdir(folder or '.') if name.lower().endswith('_label_list.txt')
    )
    found = [one for one in found if os.path.abspath(one) != os.path.abspath(path)]
    if found:
        say(f'{found[0]}: the names of the classes')
        return _label_file(found[0])
    if labels != 'auto':
        say(f'{path}: no label file beside it, so the numbers are those of data.labels')
        return dict(enumerate(labels))
    say(f'{path}: no {LABEL_FILES[0]} or {LABEL_FILES[1]} beside it, so the numbers are the names of the classes')
    return None


def _label_file(path):
    """{number: name}: of lines `number name` (PaddleClas, PaddleX 3), or of one name per line, numbered from 0 (PaddleX)."""
    source = open_list(path)
    lines = [line.strip() for line in source.lines()]
    while lines and not lines[-1]:
        lines.pop()
    pairs = [re.fullmatch(r'(\d+)[ \t]+(\S.*)', line) for line in lines if line]
    if all(pairs):
        names = {}
        for pair in pairs:
            if names.setdefault(int(pair[1]), pair[2]) != pair[2]:
                raise UserError(f'{path}: the number {pair[1]} has two names, {names[int(pair[1])]} and {pair[2]}')
        names = dict(sorted(names.items()))
    else:
        names = dict(enumerate(lines))
    empty = next((number for number, name in names.items() if not name), None)
    if empty is not None:
        raise UserError(f'{path}, line {empty + 1}: no name; the number of a class is that of its line, from 0')
    twice = next((name for name, count in collections.Counter(names.values()).items() if count > 1), None)
    if twice:
        raise UserError(f'{path}: the name {twice} comes twice')
    return names
