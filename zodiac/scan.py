"""What lies below data.root: files by split and class, in sorted order, by their names alone."""

import difflib
import operator
import os
from dataclasses import dataclass, field

from zodiac import inspection
from zodiac.errors import UserError
from zodiac.files import is_junk
from zodiac.inspection import Verdict

ARCHIVE_SUFFIXES = ('.zip', '.tar', '.tgz', '.tar.gz', '.tar.bz2', '.tar.xz')
UNREAD = Verdict('not read')
SPLITS = ('train', 'valid', 'test')
OWN_FILES = tuple(f'{split}.txt' for split in SPLITS) + ('annotation.json', 'unpacked.json', '.inspected')


class Entry:
    """One file below a class folder; `verdict` and `picture`: see `inspection`."""

    __slots__ = ('path', 'split', 'label', 'verdict', 'picture')  # there may be a million

    def __init__(self, path, split, label):
        self.path = path  # as it stands in the index
        self.split = split
        self.label = label
        self.verdict = UNREAD
        self.picture = b''

    @property
    def size(self):
        """(width, height) of a usable image."""
        return inspection.size(self.picture)


@dataclass
class Tree:
    """What lies below data.root."""

    entries: list = field(default_factory=list)
    junk: list = field(default_factory=list)  # litter of operating systems
    stray: list = field(default_factory=list)  # files that are in no class folder
    given_splits: tuple = ()
    root: str = ''  # with which the paths begin


def scan(root, labels, unknown_class):
    """Walk data.root in sorted order, by names alone. Raises UserError for a folder that is no class, unless told to skip it."""
    if os.path.isfile(root) and root.lower().endswith(ARCHIVE_SUFFIXES):
        raise UserError(f'{root}: data.root is an archive; run with -o annotate.archive={root} data.root=NEW_FOLDER')
    if not os.path.isdir(root):
        raise UserError(f'{root}: no such folder; set data.root to the folder of the images')
    root = root.replace(os.sep, '/').rstrip('/') or '/'
    tree = Tree(given_splits=tuple(split for split in SPLITS if os.path.isdir(f'{root}/{split}')), root=root)
    if tree.given_splits and 'train' not in tree.given_splits:
        raise UserError(
            f'{root}: there is {tree.given_splits[0]}/ but no train/; put the training images into {root}/train/<class>/'
        )
    unknown = set()
    for split in tree.given_splits or ('train',):
        base = f'{root}/{split}' if tree.given_splits else root
        for folder in _folders(base, tree, skip=() if tree.given_splits else OWN_FILES):
            label = os.path.basename(folder)
            if label in labels:
                tree.entries += [Entry(path, split, label) for path in _walk(folder, tree)]
            else:
                unknown.add(folder)
    if tree.given_splits:
        tree.stray += [
            folder + '/' for folder in _folders(root, tree, skip=OWN_FILES) if os.path.basename(folder) not in SPLITS
        ]
    if unknown and unknown_class == 'stop':
        raise UserError(_unknown_class(sorted(unknown), root, tree.given_splits, labels))
    tree.stray += [folder + '/' for folder in sorted(unknown)]
    if not tree.entries:
        raise UserError(
            f'{root}: no images found; it needs {root}/<class>/ or {root}/train/<class>/ with a folder for each of data.labels'
        )
    return tree


def _folders(base, tree, skip=()):
    """Paths of the sorted subfolders of `base`; its junk and its files are noted in `tree`."""
    folders = []
    for item in sorted(os.scandir(base), key=operator.attrgetter('name')):
        path = f'{base}/{item.name}'
        if item.name in skip:
            continue
        if is_junk(item.name):
            tree.junk.append(path)
        elif item.is_dir():
            folders.append(path)
        else:
            tree.stray.append(path)
    return folders


def _walk(folder, tree):
    """Paths of all files below a class folder, sorted, folders after files; junk is noted in `tree`."""
    folders = []
    for item in sorted(os.scandir(folder), key=operator.attrgetter('name')):
        path = f'{folder}/{item.name}'
        if is_junk(item.name):
            tree.junk.append(path)
        elif item.is_dir(follow_symlinks=False):
            folders.append(path)
        elif item.is_file() or not os.path.exists(path):  # a dangling link is reported as a missing file
            yield path
        else:
            tree.stray.append(path)  # a pipe or a device
    for inner in folders:
        yield from _walk(inner, tree)


def _unknown_class(folders, root, given_splits, labels):
    name = os.path.basename(folders[0])
    near = difflib.get_close_matches(name, labels, n=1)
    hint = f'rename it to {near[0]}' if near else 'move it away'
    bases = [f'{root}/{split}' for split in given_splits] or [root]
    present = sorted(
        {item.name for base in bases for item in os.scandir(base) if item.is_dir() and not is_junk(item.name)}
    )
    more = f' (and {len(folders) - 1} more)' if len(folders) > 1 else ''
    return (
        f'{folders[0]}: the folder is none of data.labels{more}; {hint}, set annotate.unknown_class=skip to leave it out, '
        f'or take the folders as they are: {labels_setting(present)}'
    )


def labels_setting(labels):
    """The command line's spelling of a list of labels."""
    import yaml

    return (
        f"-o 'data.labels={yaml.safe_dump(labels, default_flow_style=True, allow_unicode=True, width=10**6).strip()}'"
    )
