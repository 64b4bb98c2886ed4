"""The images of a list (annotate.list) as a `scan.Tree`: find the files, and check the rows against each other and the settings."""

import array
import difflib
import hashlib
import itertools
import os
import re
import unicodedata

from zodiac.base import files, schema
from zodiac.base.errors import UserError
from zodiac.data import lists
from zodiac.data.entry import UNREAD, Entry, Verdict
from zodiac.data.folders import SPLIT_NAMES, SPLITS, look_alikes
from zodiac.data.list_paths import Search
from zodiac.data.list_source import SEVERAL
from zodiac.data.scan import OUTPUTS, Tree, name_problem

SHOWN = 3  # lines named in a message
MOST = 200  # characters of a path in a message
SAMPLE = 200  # rows by which the folder of the paths is chosen
LEFT_OUT = 'or set annotate.unknown_class=skip to leave {} out'


def scan_list(path, root, labels, unknown_class, say):
    """Read a list.

    Args:
        path: of the list; root: data.root, where the index is written, one of the folders in which paths may begin.
        labels: class names, NFC, or 'auto': those of the list, in the order of their numbers if it has numbers, else sorted.
        unknown_class: 'stop' or 'skip', for rows without a class, with one that is not in `labels`, and without a file.
        say: called with each line on what was guessed.
    Returns: Tree, its entries in the order of the list.
    Raises: UserError naming the list and the line.
    """
    path, root = path.replace(os.sep, '/'), root.replace(os.sep, '/').rstrip('/') or '/'
    if os.path.exists(root) and not os.path.isdir(root):
        raise UserError(f'{root}: data.root is a file; set it to a folder, in which the index of the list is written')
    parts, order = lists.read(path, labels, say)
    _require_kept(parts, root)
    found = _Rows(root, None if labels == 'auto' else {*labels}, path)
    for part in parts:
        found.add(part, say)
    skipped = found.skipped(unknown_class == 'skip')
    if found.repeated:
        say(f'{path}: {found.repeated} repeated {"row" if found.repeated == 1 else "rows"} kept once')
    if not found.entries:
        raise UserError(f'{path}: lists no images; give each a line with its path and label')
    tree = Tree(root=root, entries=found.entries, stray=skipped, rows=found.digest.hexdigest())
    tree.labels = _labels(path, found, order, say) if labels == 'auto' else labels
    tree.given_splits = _given_splits(found, path)
    _require_one_label(found, {} if labels == 'auto' else labels, order)
    return tree


def _require_kept(parts, root):
    """Raise UserError if annotate.py would replace the list by its index."""
    ours = {os.path.realpath(f'{root}/{name}') for name in OUTPUTS}
    for part in parts:
        if os.path.realpath(part.path) in ours:
            setting = schema.override('data.root', f'{root.rstrip("/")}_index')
            raise UserError(
                f'{part.path}: annotate.py would replace the list by its own {os.path.basename(part.path)}; set data.root to another '
                f'folder for the index, such as -o {setting}; the images stay where they are'
            )


class _Rows:
    """The rows read so far, as entries, and what is wrong with them."""

    def __init__(self, root, labels, path):
        self.labels, self.path, self.root = labels, path, root
        self.entries, self.known = [], {}  # known: {path of an image: number of its entry}
        self.parts, self.starts, self.numbers = [], [], array.array('Q')  # the place of each entry, see `place`
        self.names = {}  # {label as written: as a class name}
        self.first = {}  # {class name: number of its first entry}
        self.splits = {}  # {split: number of its first entry}
        self.repeated, self.digest = 0, hashlib.sha256()
        self.missing, self.unlabelled, self.unknown = [], [], []  # (place, what)

    def add(self, part, say):
        """Take the rows of a `lists.Part`."""
        self.parts.append(part)
        self.starts.append(len(self.entries))
        rows = iter(part.rows)
        sample = list(itertools.islice(rows, SAMPLE))
        search = Search([os.path.dirname(part.path), self.root, ''], [row.path for row in sample])
        if search.told:
            say(f'{part.path}: the paths begin in {search.told}')
        for row in itertools.chain(sample, rows):
            self._add(row, part, search)

    def _add(self, row, part, search):
        def problem(why):
            return UserError(f'{part.path}, {part.unit} {row.number}: {why}')

        split = self._split(row, part, problem)
        if not row.path:
            raise problem('no path')
        try:
            path, exists = search.find(row.path)
        except ValueError as error:
            raise problem(error) from None
        label = self.names.get(row.label)
        if label is None:
            label = self.names[row.label] = unicodedata.normalize('NFC', row.label)
            if label and not schema.names_a_folder(label):
                raise problem(
                    f'{files.printable(label)!r} cannot be the name of a class: it has a slash, backslash or tab'
                )
        before = self.known.get(path)
        if before is not None:
            self._compare(self.entries[before], label, split, row, problem, before)
            self.repeated += 1
            return
        if not label:
            self.unlabelled.append((part, row.number, path))
        elif self.labels is not None and label not in self.labels:
            self.unknown.append((part, row.number, f'{path} ({label})'))
        else:
            verdict = UNREAD
            if not exists:
                self.missing.append((part, row.number, path))
                verdict = Verdict('no such file', f'{part.unit} {row.number} of {part.path}')
            elif name_problem(path):
                verdict = Verdict(name_problem(path))
            self.known[path] = len(self.entries)
            self.first.setdefault(label, len(self.entries))
            self.splits.setdefault(split, len(self.entries))
            self.numbers.append(row.number)
            self.entries.append(Entry(path, split or 'train', label, verdict, row.group))
            self.digest.update(
                f'{path}\n{split}\n{label}\n{row.group}\n{verdict.reason}\n'.encode('utf-8', 'surrogatepass')
            )

    def _split(self, row, part, problem):
        if not row.split:
            return part.split
        split = SPLIT_NAMES.get(row.split.lower())
        if not split:
            raise problem(f'split {files.printable(row.split)!r} is not one of train, valid (or val) and test')
        return split

    def _compare(self, entry, label, split, row, problem, number):
        for what, mine, theirs in (
            ('label', label, entry.label),
            ('split', split or 'train', entry.split),
            ('group', row.group, entry.group),
        ):
            if mine != theirs:
                several = f'; {SEVERAL}' if what == 'label' else ''
                raise problem(
                    f'{entry.path} has the {what} {mine or "(none)"}, but {theirs} in {self.place(number)}{several}'
                )

    def place(self, number):
        """Where an entry is listed."""
        part = next(part for part, start in zip(self.parts[::-1], self.starts[::-1]) if start <= number)
        listed = f'{part.unit} {self.numbers[number]}'
        return listed if len(self.parts) == 1 else f'{part.path}, {listed}'

    def skipped(self, skip):
        """What the list names beside images with a class, for `Tree.stray`. Raises UserError unless `skip`."""
        if self.missing and not skip:
            every = len(self.missing) == len(self.entries)
            hint = 'set data.root to the folder in which the paths begin' if every else 'correct the list'
            raise UserError(
                f'{self.path}: {_count(self.missing, "file does", "files do")} not exist: {_first(self.missing)}; {hint}, '
                f'{LEFT_OUT.format("them")}'
            )
        if self.unlabelled and not skip:
            what = _count(self.unlabelled, f'{self.parts[0].unit} has', f'{self.parts[0].unit}s have')
            raise UserError(
                f'{self.path}: {what} no label: {_first(self.unlabelled)}; add it, {LEFT_OUT.format("them")}'
            )
        if self.unknown and not skip:
            label = self.unknown[0][2].rpartition(' (')[2][:-1]
            near = difflib.get_close_matches(label, self.labels, n=1)
            what = _count(self.unknown, f'{self.parts[0].unit} has', f'{self.parts[0].unit}s have')
            raise UserError(
                f'{self.path}: {what} a class that is not in data.labels: {_first(self.unknown)}; '
                + (f'did you mean {near[0]}? ' if near else '')
                + f'Correct it, set data.labels=auto to take all classes of the list, {LEFT_OUT.format("them")}'
            )
        return [f'{part.path}, {part.unit} {number}: {what}' for part, number, what in self.unlabelled + self.unknown]


def _count(found, one, several):
    return f'{len(found)} {one if len(found) == 1 else several}'


def _first(found):
    shown = [f'{part.unit} {number}: {files.printable(what)[:MOST]}' for part, number, what in found[:SHOWN]]
    return ', '.join(shown) + (', ...' if len(found) > SHOWN else '')


def _labels(path, found, order, say):
    """The class names of a list. Raises UserError for fewer than two, and for names that look alike."""
    numbers = all(label.isdecimal() for label in found.first)
    labels = sorted(found.first, key=(lambda label: (int(label), label)) if numbers else None)
    if order:
        order = [unicodedata.normalize('NFC', label) for label in order]
        labels = sorted(labels, key=order.index)
        empty = [label for label in order if label not in found.first]
        if empty:
            say(
                f'{path}: no images of {", ".join(empty[:SHOWN])}{", ..." if len(empty) > SHOWN else ""}: left out of the classes'
            )
    if len(labels) < 2:
        raise UserError(f'{path}: there is only one class, {labels[0]}; add images of another')
    same = look_alikes(labels)
    if same:
        places = ' and '.join(f'{label} ({found.place(found.first[label])})' for label in same)
        raise UserError(
            f'{path}: the classes {places} differ only in upper and lower case or in the form of a letter; give one class one name, or if '
            f'they are different classes: -o {schema.override("data.labels", labels)}'
        )
    return labels


def _given_splits(found, path):
    """{split: its list}; {} if the list has no splits. Raises UserError if only some rows have one, or none is for training."""
    if '' in found.splits:
        others = [number for split, number in found.splits.items() if split]
        if others:
            where, other = found.place(found.splits['']), found.place(min(others))
            raise UserError(f'{path}, {where}: no split, but {other} has one; give every row a split, or none')
        return {}
    if 'train' not in found.splits:
        split = next(iter(found.splits))
        raise UserError(
            f'{path}: there are {split} images but no training images; the splits are train, valid and test'
        )
    paths = {part.split: part.path for part in found.parts}
    return {split: paths.get(split, path) for split in SPLITS if split in found.splits}


def _require_one_label(found, labels, order):
    """Raise UserError for a label that joins others, such as `cat|dog`, unless data.labels or the label file has it."""
    for label, number in found.first.items():
        parts = [part.strip() for part in re.split('[,;|]', label)]
        if len(parts) > 1 and label not in labels and not order and any(part in found.first for part in parts):
            known = next(part for part in parts if part in found.first)
            raise UserError(
                f'{found.path}, {found.place(number)}: {label!r} joins several classes, such as {known}; {SEVERAL}; if it is one '
                'class, name all in data.labels'
            )
