"""Read index files, one `path<TAB>class number` per line, with array operations and no Python object per line."""

import codecs
import mmap
import os
from collections.abc import Sequence

import numpy as np

from zodiac.base import files
from zodiac.base.errors import UserError

BLOCK = 1 << 24  # bytes parsed at once
MAPPED = 1 << 26  # bytes; larger files are mapped, smaller ones are read, so that editing them does not affect a run
TAB, NEWLINE, RETURN, ZERO = b'\t\n\r0'
DIGITS = 9  # most digits of a class number for the fast path


class Paths(Sequence):
    """The paths of an index: a sequence of str, each created on access.

    Args:
        content: the file's bytes.
        starts: int64 [n], the offset of each path; sizes: uint32 [n], its length in bytes.
        root: folder of the index, in which images are found if the paths are relative to another folder, see `files.moved`.
    """

    def __init__(self, content, starts, sizes, root='.'):
        self._content, self._starts, self._sizes, self._place = content, starts, sizes, None
        self._place = files.moved(root, [self[number] for number in {0, len(self) // 2, len(self) - 1}])

    def __len__(self):
        return len(self._starts)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        start = int(self._starts[number])
        return files.at(self._content[start : start + int(self._sizes[number])].decode(), self._place)

    def __getstate__(self):  # for processes that are not forked
        return {**self.__dict__, '_content': bytes(self._content)}


def read(path, num_classes):
    """Read an index.

    Returns: `Paths`, int64 array of labels in [0, num_classes).
    Raises: UserError naming the file, and the line, if the file is missing or empty or a line is malformed.
    """
    try:
        content = _content(path)
        parts = [_lines(content, *span, path, num_classes) for span in _spans(content)]
    except FileNotFoundError:
        root = os.path.dirname(path)
        if root and not os.path.isdir(root):
            raise UserError(
                f'{path}: no such index, and no folder {root}; name the folder of the photos with -o data.root=FOLDER, and run annotate.py '
                'on it first if it is new'
            ) from None
        raise UserError(f'{path}: no such index; run annotate.py first') from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read ({error}); run annotate.py again') from None
    starts, sizes, labels = (np.concatenate(columns) for columns in zip(*parts)) if parts else ([], [], [])
    if not len(labels):
        raise UserError(f'{path}: lists no images; run annotate.py again')
    return Paths(content, starts, sizes, os.path.dirname(path)), labels


def _content(path):
    with open(path, 'rb') as file:
        if os.fstat(file.fileno()).st_size < MAPPED:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _spans(content):
    """(start, stop) of blocks of whole lines, after a byte order mark (some Windows editors write one)."""
    start = len(codecs.BOM_UTF8) if content[: len(codecs.BOM_UTF8)] == codecs.BOM_UTF8 else 0
    while start < len(content):
        stop = len(content)
        if start + BLOCK < stop:
            stop = content.find(b'\n', start + BLOCK) + 1 or stop
        yield start, stop
        start = stop


def _lines(content, start, stop, path, num_classes):
    """(starts, sizes, labels) of the lines in content[start:stop]."""
    block = content[start:stop]
    block.decode()  # raises UnicodeDecodeError
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    starts = np.append(0, ends[:-1] + 1)
    while (closing := (ends > starts) & (data[ends - 1] == RETURN)).any():
        ends = ends - closing
    numbers = np.flatnonzero(ends > starts)  # lines that are not empty
    starts, ends = starts[numbers], ends[numbers]
    at, labels, reading = ends - 1, np.zeros(len(ends), np.int64), np.ones(len(ends), bool)
    for power in range(DIGITS):  # from the last digit to the first
        digit = data[at].astype(np.int64) - ZERO
        reading &= (digit >= 0) & (digit <= 9) & (at > starts)
        if not reading.any():
            break
        labels += np.where(reading, digit * 10**power, 0)
        at -= reading
    odd = (data[at] != TAB) | (at == starts) | (at == ends - 1) | (labels >= num_classes)
    for line in np.flatnonzero(odd):
        text = block[starts[line] : ends[line]].decode()
        number = content[:start].count(b'\n') + int(numbers[line]) + 1
        labels[line] = _label(text, f'{path}:{number}', num_classes)
        at[line] = starts[line] + len(text.rpartition('\t')[0].encode())
    return starts + start, (at - starts).astype(np.uint32), labels


def _label(line, where, num_classes):
    """The class number of a line. Raises UserError that says what is wrong with it."""
    image, tab, label = line.rpartition('\t')
    if not tab:
        raise UserError(f'{where}: no tab between path and label: {line[:80]!r}; run annotate.py again')
    if not image:
        raise UserError(f'{where}: no path before the tab: {line[:80]!r}; run annotate.py again')
    if not label.isdecimal() or int(label) >= num_classes:
        raise UserError(
            f'{where}: label {label!r} is not a number from 0 to {num_classes - 1}; '
            'run annotate.py again with the data.labels in use; see docs/troubleshooting.md#class-count'
        )
    return int(label)
