"""Decisions on photos, <data.root>/corrections.csv: wrong labels, photos to leave out, labels of new photos.

`zodiac review --serve` adds a line for each decision and changes none; the last line on a photo counts. annotate.py applies them. The file
is plain CSV in UTF-8, one line per decision, so people and other programs can write it too. Paths are as in the index files. The photos
themselves are never moved or changed.
"""

import contextlib
import csv
import datetime
import io
import os
import posixpath
import re
import threading
from typing import NamedTuple

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.data.entry import UNREAD, Entry, Verdict
from zodiac.data.scan import CORRECTIONS, name_problem

try:
    import fcntl
except ImportError:  # Windows, where only the threads of one server take turns
    fcntl = None

COLUMNS = ('time', 'path', 'action', 'label', 'given', 'reason')
WITH_LABEL = ('relabel', 'label')  # label: of a photo that is in no class folder
ACTIONS = ('keep', 'drop', 'undo', *WITH_LABEL)  # undo: as if nothing had been decided
LONGEST_REASON = 500  # characters
TURN = threading.Lock()  # of the threads of this process, which share a lock on the file


class Decision(NamedTuple):
    """A line of the file. `given`: the label before, '' if there was none; `line`: its number, from 1."""

    time: str
    path: str
    action: str
    label: str
    given: str
    reason: str
    line: int


class Conflict(Exception):
    """Somebody else has decided on this photo since it was shown. `decision`: the newest `Decision` on it, or None."""

    def __init__(self, decision):
        super().__init__()
        self.decision = decision


def path_of(root):
    """The path of the file of a data.root."""
    return f'{root.rstrip("/")}/{CORRECTIONS}'


def read(root):
    """{path: `Decision`}: the last one on each photo, `undo` among them, in the order of the file; {} without a file. Where the folder has
    moved, the paths are those by which the photos are found from here, see `files.moved`.

    Raises: UserError naming the file and the line, for a line that is not as `append` writes it.
    """
    path = path_of(root)
    try:
        with open(path, 'rb') as file:
            return _last(_parse(file.read(), path), root)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror}); check its permissions') from None


def append(root, path, action, label='', given='', reason='', seen=None):
    """Add a decision; it is on the disk when this returns.

    Args:
        path: as in the index; action: one of ACTIONS; label: a class for those in WITH_LABEL, else ''.
        given: the label before; reason: in one line, without a line break.
        seen: the number of the line that was the last one on this photo when it was shown, 0 for none; None: decide whatever there is.
    Returns: the `Decision`.
    Raises: Conflict, without a change, if there is a newer line on the photo than `seen`; UserError if the file has a bad line or cannot be
        written.
    """
    place = path_of(root)
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
    row = [now, path, action, label, given, _one_line(reason)]
    try:
        with TURN, open(place, 'ab+', buffering=0) as file:
            file.seek(0)
            _lock(file)  # until it is closed
            content = file.read()
            decisions = _parse(content, place)
            before = _last(decisions, root).get(path)
            if seen is not None and seen != (before.line if before else 0):
                raise Conflict(before)
            kept = content[: content.rfind(b'\n') + 1] if _is_torn(content) else content
            added = ('' if not kept or kept.endswith(b'\n') else '\n') + ('' if kept else _line(COLUMNS)) + _line(row)
            _write(file, len(kept), added.encode())
            line = (kept + added.encode()).count(b'\n')
    except OSError as error:
        raise files.cannot_write(place, error) from None
    if not content:
        files.sync_folder(os.path.dirname(place))
    return Decision(*row, line)


def apply(tree):
    """Change a `scan.Tree` as the file in its root says: set labels, take out dropped photos, add new ones to the training images.

    Returns: what was done, for annotation.json: dict of relabelled (dicts of path, from, to, reason), dropped and labelled (path, class,
        reason), and gone, the paths of decisions without a photo.
    Raises: UserError naming the line, for a label that is not a class.
    """
    done = {'relabelled': [], 'dropped': [], 'labelled': [], 'gone': []}
    decisions = {_normal(path): one for path, one in read(tree.root).items() if one.action not in ('keep', 'undo')}
    if not decisions:
        return done
    for one in decisions.values():
        if one.action in WITH_LABEL and one.label not in tree.labels:
            raise UserError(
                f'{path_of(tree.root)}, line {one.line}: {files.printable(one.label)!r} is not a class; the classes are '
                f'{", ".join(tree.labels)}; correct the line, or make a folder for the class'
            )
    kept = []
    for entry in tree.entries:
        one = decisions.pop(_normal(entry.path), None)
        if one and one.action == 'drop':
            done['dropped'].append({'path': entry.path, 'class': entry.label, 'reason': one.reason})
            continue
        if one and one.label != entry.label:
            done['relabelled'].append({'path': entry.path, 'from': entry.label, 'to': one.label, 'reason': one.reason})
            entry.label = one.label
        kept.append(entry)
    for path, one in decisions.items():
        if one.action == 'label' and os.path.isfile(path):
            problem = name_problem(path)
            kept.append(Entry(path, 'train', one.label, Verdict(problem) if problem else UNREAD))
            done['labelled'].append({'path': path, 'class': one.label, 'reason': one.reason})
        elif not (one.action == 'drop' and os.path.isfile(path)):  # a new photo that is not to be used
            done['gone'].append(path)
    tree.entries = kept
    return done


def _normal(path):
    return posixpath.normpath(path.replace(os.sep, '/'))


def _last(decisions, root):
    """{path: the last `Decision`}, with the paths by which the photos are found."""
    place = files.moved(root, list(dict.fromkeys(one.path for one in decisions)))
    found = {}
    for one in decisions:
        path = files.at(one.path, place)
        found.pop(path, None)  # so that the newest comes last
        found[path] = one
    return found


def _parse(content, path):
    """List of `Decision`. A last line that was cut off while it was written, of which nobody was told that it is there, is left out."""
    if _is_torn(content):
        content = content[: content.rfind(b'\n') + 1]
    try:
        lines = [line.rstrip('\r') for line in content.decode('utf-8-sig').split('\n')]
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b'\n') + 1
        raise UserError(f'{path}, line {number}: is not UTF-8; save the file as UTF-8') from None
    if content and tuple(_cells(lines[0])) != COLUMNS:
        raise UserError(f'{path}, line 1: must be {",".join(COLUMNS)}; write it so, or move the file away')
    return [_decision(line, number, path) for number, line in enumerate(lines, 1) if number > 1 and line.strip()]


def _is_torn(content):
    """Whether the last line has no end and too few columns."""
    first, _, last = content.rpartition(b'\n')
    if not first:
        return bool(last) and _line(COLUMNS).encode().startswith(last)
    return bool(last) and len(_cells(last.decode('utf-8', 'replace'))) < len(COLUMNS)


def _decision(line, number, path):
    cells = _cells(line)
    problem = ''
    if len(cells) != len(COLUMNS):
        problem = f'has {len(cells)} columns, not {len(COLUMNS)} ({", ".join(COLUMNS)})'
    elif not cells[1]:
        problem = 'has no path'
    elif cells[2] not in ACTIONS:
        problem = f'the action {files.printable(cells[2])!r} is not one of {", ".join(ACTIONS)}'
    elif cells[2] in WITH_LABEL and not cells[3]:
        problem = f'{cells[2]} needs a label'
    if problem:
        raise UserError(f'{path}, line {number}: {problem}; correct or remove the line')
    return Decision(*cells, number)


def _cells(line):
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # such as a NUL
        return []


def _line(cells):
    file = io.StringIO()
    files.csv_table(file)(cells)
    return file.getvalue()


def _one_line(text):
    return re.sub(r'[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+', ' ', text).strip()[:LONGEST_REASON]


def _lock(file):
    if fcntl:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX)


def _write(file, end, added):
    """Replace what is behind `end` by `added`, and flush it to the disk; on a full disk the file stays as it was up to `end`."""
    try:
        file.truncate(end)
        file.seek(end)
        view = memoryview(added)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise
