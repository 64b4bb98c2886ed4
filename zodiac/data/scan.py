"""What lies below data.root: files by split and class, in sorted order, by their names alone."""

import difflib
import operator
import os
import unicodedata
from dataclasses import dataclass, field

from zodiac.base import schema, walk
from zodiac.base.errors import UserError
from zodiac.data import file_facts
from zodiac.data.file_facts import Verdict

UNREAD = Verdict('not read')
SPLITS = ('train', 'valid', 'test')
SPLIT_NAMES = {  # of folders, in any case
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('valid', 'val', 'validation', 'validate', 'dev'), 'valid'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}
DEPTH = 3  # folders around the classes that are looked through, for a message
OWN_FILES = tuple(f'{split}.txt' for split in SPLITS) + ('annotation.json', 'unpacked.json', '.inspected')


class Entry:
    """One file below a class folder; `verdict` and `picture`: see `file_facts`."""

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
        return file_facts.size(self.picture)


@dataclass
class Tree:
    """What lies below data.root."""

    entries: list = field(default_factory=list)
    junk: list = field(default_factory=list)  # litter of operating systems
    stray: list = field(default_factory=list)  # files and folders that are in no class folder
    given_splits: dict = field(default_factory=dict)  # {split: its folder}
    root: str = ''  # with which the paths begin

    def note(self, path, why):
        """Take down what `walk.walk` leaves out. Raises OSError for a folder that cannot be read."""
        if isinstance(why, OSError):
            raise why
        if why == 'junk':
            self.junk.append(path)
        else:
            self.stray.append(f'{path}/' if why == 'searched already' else path)


def scan(root, labels, unknown_class):
    """Walk data.root in sorted order, by names alone.

    Args:
        labels: class names, NFC; a folder belongs to the one that it looks like, also where macOS has named it (NFD).
    Returns: Tree. Raises: UserError where class folders would be left out: one that is none of `labels`, one beside the folders of
        splits, a folder around them; unless told to skip such folders, `unknown_class='skip'`.
    """
    if os.path.isfile(root):
        setting = schema.override('annotate.archive', root)
        raise UserError(
            f'{root}: data.root is a file; set it to the folder of the images, or for an archive run with -o {setting} data.root=NEW_FOLDER'
        )
    if not os.path.isdir(root):
        raise UserError(f'{root}: no such folder; {_look_alike(root) or "set data.root to the folder of the images"}')
    root = root.replace(os.sep, '/').rstrip('/') or '/'
    tree = Tree(root=root)
    top = _folders(root, tree, skip=OWN_FILES)
    tree.given_splits = _splits(top, labels)
    if tree.given_splits:
        _check_splits(top, tree, labels)
    unknown = []  # folders where classes should be, and class folders elsewhere
    for split, base in tree.given_splits.items() or [('train', root)]:
        for folder in _folders(base, tree) if tree.given_splits else top:
            label = _name(folder)
            if label in labels:
                tree.entries += [Entry(path, split, label) for path in walk.walk(folder, tree.note)]
            else:
                unknown.append(folder)
    if tree.given_splits:
        others = [folder for folder in top if folder not in tree.given_splits.values()]
        misplaced = [folder for folder in others if _name(folder) in labels or _holds_classes(folder, labels)]
        if misplaced and unknown_class == 'stop':
            raise UserError(_misplaced(misplaced[0], tree, labels))
        tree.stray += [f'{folder}/' for folder in others]
    if unknown and unknown_class == 'stop':
        raise UserError(_unknown_class(sorted(unknown), tree, labels))
    tree.stray += [f'{folder}/' for folder in sorted(unknown)]
    if not tree.entries:
        hint = _deeper(unknown, tree, labels)
        raise UserError(
            f'{root}: no images found; '
            + (hint or f'it needs {root}/<class>/ or {root}/train/<class>/ with a folder for each of data.labels')
        )
    return tree


def _name(path):
    """The name of a folder, NFC, as labels are."""
    return unicodedata.normalize('NFC', os.path.basename(path))


def _look_alike(path):
    """How to name a folder that looks like `path` but is spelled with other code points; '' where there is none."""
    parent = os.path.dirname(path.rstrip('/')) or '.'
    names = os.listdir(parent) if os.path.isdir(parent) else []
    same = next((name for name in names if _name(name) == _name(path.rstrip('/'))), None)
    if same is None:
        return ''
    setting = schema.override('data.root', os.path.join(os.path.dirname(path.rstrip('/')), same))
    return f'there is one that only looks the same (its accents are characters of their own): -o {setting}'


def _splits(top, labels):
    """{split: folder} of the folders at the top that hold the classes of a split, in the order of SPLITS.

    One that is called like a class too, `test` say, is that class where it holds files, or stands beside other classes.
    """
    found = {}
    beside_classes = any(_name(folder) in labels and _name(folder).lower() not in SPLIT_NAMES for folder in top)
    for folder in top:
        split = SPLIT_NAMES.get(_name(folder).lower())
        if not split or _name(folder) in labels and _is_class(folder, labels, beside_classes):
            continue
        if split in found:
            raise UserError(
                f'{found[split]} and {folder} both look like the folder of the {split} images; move one into the other, or rename it'
            )
        found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def _is_class(folder, labels, beside_classes):
    inner = _subfolders(folder)
    return not _labels_of(inner, labels) and (beside_classes or len(inner) < len(_visible(folder)))


def _labels_of(folders, labels):
    """Those of `labels` that folders are called."""
    return [name for name in map(_name, folders) if name in labels]


def _visible(folder):
    """The names in a folder, without junk; none where it cannot be read, such as lost+found."""
    try:
        return [name for name in os.listdir(folder) if not walk.is_junk(name)]
    except OSError:
        return []


def _subfolders(folder):
    paths = (f'{folder}/{name}' for name in sorted(_visible(folder)))
    return [path for path in paths if os.path.isdir(path)]


def _holds_classes(folder, labels):
    """Whether class folders are in it, or in folders of splits in it."""
    inner = _subfolders(folder)
    splits = [path for path in inner if _name(path).lower() in SPLIT_NAMES]
    return bool(_labels_of(inner, labels) or any(_labels_of(_subfolders(path), labels) for path in splits))


def _check_splits(top, tree, labels):
    """Raise UserError where the folders of splits are not complete, or may be none."""
    classes = _labels_of((folder for folder in top if folder not in tree.given_splits.values()), labels)
    for split, folder in tree.given_splits.items():
        if _visible(folder) and not _subfolders(folder):
            fix = f'put its images into {folder}/<class>/, or move it away'
            if classes:
                setting = schema.override('data.labels', sorted({*labels, _name(folder)}))
                fix += f'; if it is a class itself, add it to the labels: -o {setting}'
            raise UserError(f'{folder}: is taken for the {split} images, but holds no class folders; {fix}')
    if 'train' not in tree.given_splits:
        folder = os.path.basename(next(iter(tree.given_splits.values())))
        raise UserError(
            f'{tree.root}: there is {folder}/ but no train/; put the training images into {tree.root}/train/<class>/'
        )


def _folders(base, tree, skip=()):
    """Paths of the sorted subfolders of `base`; its junk and its files are noted in `tree`."""
    folders = []
    for item in sorted(os.scandir(base), key=operator.attrgetter('name')):
        path = f'{base.rstrip("/")}/{item.name}'
        if item.name in skip:
            continue
        if walk.is_junk(item.name):
            tree.junk.append(path)
        elif os.path.isdir(path):
            folders.append(path)
        else:
            tree.stray.append(path)
    return folders


def _misplaced(folder, tree, labels):
    if _name(folder) in labels:
        what = f'a class folder beside {tree.given_splits["train"]}/; move it into that'
    else:
        what = 'holds class folders, but is none of the splits; rename it to train, valid or test, or move it away'
    return f'{folder}: {what}, or set annotate.unknown_class=skip to leave it out'


def _deeper(unknown, tree, labels):
    """What to do where folders stand around the classes; '' where none does."""
    level = unknown
    for _ in range(DEPTH):
        around = [folder for folder in level if _holds_classes(folder, labels)]
        if len(around) > 1 and not tree.given_splits:
            return (
                f'there are class folders in {around[0]} and {around[1]}; rename those folders to train, valid and test'
            )
        if around and not tree.given_splits and not tree.entries:
            setting = schema.override('data.root', around[0])
            return f'the class folders are in {around[0]}; without annotate.archive, run on that folder: -o {setting}'
        if around:
            return f'there are class folders in {around[0]}; move them out of it'
        level = [inner for folder in level for inner in _subfolders(folder)]
    return ''


def _unknown_class(folders, tree, labels):
    bases = list(tree.given_splits.values()) or [tree.root]
    present = sorted({_name(folder) for base in bases for folder in _subfolders(base)})
    more = f' (and {len(folders) - 1} more)' if len(folders) > 1 else ''
    problem = f'{folders[0]}: the folder is none of data.labels{more}; '
    deeper = _deeper(folders, tree, labels)
    if deeper:
        return problem + deeper
    beside = _labels_of(_subfolders(os.path.dirname(folders[0])), labels)
    near = difflib.get_close_matches(_name(folders[0]), [label for label in labels if label not in beside], n=1)
    fixes = [f'rename it to {near[0]}' if near else 'move it away']
    inner = _subfolders(folders[0])
    if inner and len(inner) == len(_visible(folders[0])) and not tree.given_splits:
        fixes.append(f'run on it if the folders in it are the classes (-o {schema.override("data.root", folders[0])})')
    skip = 'set annotate.unknown_class=skip to leave it out'
    unfit = [name for name in present if not schema.names_a_folder(name)]
    if unfit:
        return f'{problem}{", ".join(fixes)}, or {skip}; {unfit[0]!r} cannot be the name of a class, rename that folder'
    if len(present) < 2:
        return f'{problem}{", ".join(fixes)}, or {skip}'
    setting = schema.override('data.labels', present)
    return f'{problem}{", ".join(fixes)}, {skip}, or take the folders as they are: -o {setting}'
