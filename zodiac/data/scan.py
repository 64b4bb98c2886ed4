"""Find the files below data.root and their splits and classes, by names alone, in sorted order."""

import difflib
import operator
import os
import re
import shlex
from dataclasses import dataclass, field

from zodiac.base import schema, walk
from zodiac.base.errors import UserError
from zodiac.data import groups
from zodiac.data.entry import UNREAD, Entry, Verdict
from zodiac.data.folders import DEPTH, SPLIT_NAMES, SPLITS, class_names, name_of, subfolders, visible

DRAWN = 'splits.tsv'  # see `splits.record`
OUTPUTS = (*(f'{split}.txt' for split in SPLITS), 'annotation.json', DRAWN, groups.NAME)
CORRECTIONS = 'corrections.csv'  # see corrections
OWN_FILES = (*OUTPUTS, CORRECTIONS, 'unpacked.json', '.inspected')
BREAKS_A_LINE = re.compile(r'[\t\n\r]')


@dataclass
class Tree:
    """The content of data.root."""

    entries: list = field(default_factory=list)
    junk: list = field(default_factory=list)  # files and folders of operating systems
    stray: list = field(default_factory=list)  # files and folders outside the class folders
    given_splits: dict = field(default_factory=dict)  # {split: its folder or list}
    root: str = ''  # start of all paths
    labels: list = field(default_factory=list)
    rows: str = ''  # hash of the rows of a list, see `listed`
    trained: bool = False  # the labels are those of a trained network, which the images are only to be measured with

    def note(self, path, why):
        """Record what `walk.walk` leaves out. Raises OSError for a folder that cannot be read."""
        if isinstance(why, OSError):
            raise why
        if why == 'junk':
            self.junk.append(path)
        else:
            self.stray.append(f'{path}/' if why == 'searched already' else path)


def scan(root, labels, unknown_class, trained=False):
    """Walk data.root.

    Args:
        root: data.root; with `trained`, the folder of evaluate.py --data.
        labels: class names, NFC; folder names are compared after normalisation, as macOS stores them as NFD. 'auto': see
            `folders.class_names`.
        unknown_class: 'stop' or 'skip', for folders that look like classes but are not in `labels` or not in a split.
        trained: the labels are those of a trained network, and cannot change; no split is needed for training.
    Returns: Tree; the entry of a file whose name cannot be written to an index has a verdict, the others are unread.
    Raises: UserError if `root` is not a folder, has no images, or would lose class folders ('stop').
    """
    if os.path.isfile(root):
        setting = schema.override('annotate.archive', root)
        raise UserError(
            f'{root}: data.root is a file; set it to the folder of the images, or for an archive run with -o {setting} data.root=NEW_FOLDER'
        )
    if not os.path.isdir(root):
        raise UserError(f'{root}: no such folder; {_look_alike(root) or "set data.root to the folder of the images"}')
    root = root.replace(os.sep, '/').rstrip('/') or '/'
    tree = Tree(root=root, trained=trained)
    top = _folders(root, tree, skip=OWN_FILES)
    auto = labels == 'auto'
    labels = tree.labels = class_names(root, top) if auto else labels
    tree.given_splits = _splits(top, labels)
    if tree.given_splits:
        _check_splits(top, tree, labels)
    unknown = []  # folders in the place of classes that are not in `labels`
    for split, base in tree.given_splits.items() or [('train', root)]:
        for folder in _folders(base, tree) if tree.given_splits else top:
            label = name_of(folder)
            if label in labels:
                tree.entries += [Entry(path, split, label, _by_name(path)) for path in walk.walk(folder, tree.note)]
            else:
                unknown.append(folder)
    if tree.given_splits:
        others = [folder for folder in top if folder not in tree.given_splits.values()]
        misplaced = [folder for folder in others if name_of(folder) in labels or _holds_classes(folder, labels)]
        if misplaced and unknown_class == 'stop':
            raise UserError(_misplaced(misplaced[0], tree, labels))
        tree.stray += [f'{folder}/' for folder in others]
    if unknown and unknown_class == 'stop' and not auto:  # with auto they are empty
        raise UserError(_unknown_class(sorted(unknown), tree, labels))
    tree.stray += [f'{folder}/' for folder in sorted(unknown)]
    if not tree.entries:
        hint = _deeper(unknown, tree, labels)
        raise UserError(
            f'{root}: no images found; '
            + (hint or f'it needs {root}/<class>/ or {root}/train/<class>/ with a folder for each of data.labels')
        )
    return tree


def _by_name(path):
    """The verdict on a file by its name alone."""
    problem = name_problem(path)
    return Verdict(problem) if problem else UNREAD


def name_problem(path):
    """Why a path cannot be written to an index; '' if it can."""
    if BREAKS_A_LINE.search(path):
        return 'tab or newline in the name'
    try:
        path.encode('utf-8')
    except UnicodeEncodeError:
        return 'name is not UTF-8'
    return ''


def _look_alike(path):
    """A hint to a folder that looks like `path` but has other code points; '' if there is none."""
    parent = os.path.dirname(path.rstrip('/')) or '.'
    names = os.listdir(parent) if os.path.isdir(parent) else []
    same = next((name for name in names if name_of(name) == name_of(path.rstrip('/'))), None)
    if same is None:
        return ''
    setting = schema.override('data.root', os.path.join(os.path.dirname(path.rstrip('/')), same))
    return f'there is one whose name looks the same but has separate accent characters (NFD): -o {setting}'


def _splits(top, labels):
    """{split: folder} of the top folders that hold the classes of a split, in the order of SPLITS.

    A folder with the name of both a split and a class, such as `test`, is the class if it holds files or is beside other classes.
    """
    found = {}
    beside_classes = any(name_of(folder) in labels and name_of(folder).lower() not in SPLIT_NAMES for folder in top)
    for folder in top:
        split = SPLIT_NAMES.get(name_of(folder).lower())
        if not split or name_of(folder) in labels and _is_class(folder, labels, beside_classes):
            continue
        if split in found:
            raise UserError(
                f'{found[split]} and {folder} both look like the folder of the {split} images; move one into the other, or rename it'
            )
        found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def _is_class(folder, labels, beside_classes):
    inner = subfolders(folder)
    return not _labels_of(inner, labels) and (beside_classes or len(inner) < len(visible(folder)))


def _labels_of(folders, labels):
    """The `labels` that are names of folders."""
    return [name for name in map(name_of, folders) if name in labels]


def _holds_classes(folder, labels):
    """Whether the folder holds class folders, or folders of splits that do."""
    inner = subfolders(folder)
    splits = [path for path in inner if name_of(path).lower() in SPLIT_NAMES]
    return bool(_labels_of(inner, labels) or any(_labels_of(subfolders(path), labels) for path in splits))


def _check_splits(top, tree, labels):
    """Raise UserError if the folders of the splits are incomplete, or may be something else."""
    classes = _labels_of((folder for folder in top if folder not in tree.given_splits.values()), labels)
    for split, folder in tree.given_splits.items():
        if visible(folder) and not subfolders(folder):
            fix = f'put its images into {folder}/<class>/, or move it away'
            if classes:
                setting = schema.override('data.labels', sorted({*labels, name_of(folder)}))
                fix += f'; if it is a class itself, add it to the labels: -o {setting}'
            raise UserError(f'{folder}: is taken for the {split} images, but holds no class folders; {fix}')
    if 'train' not in tree.given_splits and not tree.trained:
        folder = os.path.basename(next(iter(tree.given_splits.values())))
        raise UserError(
            f'{tree.root}: there is {folder}/ but no train/; put the training images into {tree.root}/train/<class>/'
        )


def _folders(base, tree, skip=()):
    """Sorted paths of the subfolders of `base`; its junk and its files are recorded in `tree`."""
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
    if name_of(folder) in labels:
        what = f'a class folder beside {tree.given_splits["train"]}/; move it into that folder'
    else:
        what = 'holds class folders but is not a split; rename it to train, valid or test, or move it away'
    return f'{folder}: {what}, or set annotate.unknown_class=skip to leave it out'


def _deeper(unknown, tree, labels):
    """What to do about folders around the class folders; '' if there are none."""
    level = unknown
    for _ in range(DEPTH):
        around = [folder for folder in level if _holds_classes(folder, labels)]
        if len(around) > 1 and not tree.given_splits:
            return (
                f'there are class folders in {around[0]} and {around[1]}; rename those folders to train, valid and test'
            )
        if around and not tree.given_splits and not tree.entries:
            without = '' if tree.trained else 'without annotate.archive, '
            return f'the class folders are in {around[0]}; {without}run on that folder: {_option(tree, around[0])}'
        if around:
            return f'there are class folders in {around[0]}; move them out of it'
        level = [inner for folder in level for inner in subfolders(folder)]
    return ''


def _option(tree, folder):
    """The option that makes a folder the root."""
    return f'--data {shlex.quote(folder)}' if tree.trained else f'-o {schema.override("data.root", folder)}'


def _unknown_class(folders, tree, labels):
    bases = list(tree.given_splits.values()) or [tree.root]
    present = sorted({name_of(folder) for base in bases for folder in subfolders(base)})
    more = f' (and {len(folders) - 1} more)' if len(folders) > 1 else ''
    problem = f'{folders[0]}: the folder is not in data.labels{more}; '
    deeper = _deeper(folders, tree, labels)
    if deeper:
        return problem + deeper
    beside = _labels_of(subfolders(os.path.dirname(folders[0])), labels)
    near = difflib.get_close_matches(name_of(folders[0]), [label for label in labels if label not in beside], n=1)
    fixes = [f'rename it to {near[0]}' if near else 'move it away']
    inner = subfolders(folders[0])
    if inner and len(inner) == len(visible(folders[0])) and not tree.given_splits:
        fixes.append(f'run on it if the folders in it are the classes ({_option(tree, folders[0])})')
    skip = 'set annotate.unknown_class=skip to leave it out'
    unfit = [name for name in present if not schema.names_a_folder(name)]
    if unfit:
        return f'{problem}{", ".join(fixes)}, or {skip}; {unfit[0]!r} cannot be the name of a class, rename that folder'
    if len(present) < 2 or tree.trained:
        return f'{problem}{", ".join(fixes)}, or {skip}'
    setting = schema.override('data.labels', present)
    return f'{problem}{", ".join(fixes)}, {skip}, or take the folders as they are: -o {setting}'
