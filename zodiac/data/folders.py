"""Folders by their names: those of splits, and with data.labels=auto those of the classes."""

import collections
import os
import unicodedata

from zodiac.base import files, schema, walk
from zodiac.base.errors import UserError

SPLITS = ('train', 'valid', 'test')
SPLIT_NAMES = {  # folder names, in any case
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('valid', 'val', 'validation', 'validate', 'dev'), 'valid'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}
DEPTH = 3  # levels of folders that are searched for the classes, for a message


def name_of(path):
    """The name of a folder, NFC as labels are."""
    return unicodedata.normalize('NFC', os.path.basename(path))


def visible(folder):
    """The names in a folder, without junk; none if it cannot be read, such as lost+found."""
    try:
        return [item for item in os.listdir(folder) if not walk.is_junk(item)]
    except OSError:
        return []


def subfolders(folder):
    """The sorted paths of its folders, without junk."""
    paths = (f'{folder}/{item}' for item in sorted(visible(folder)))
    return [path for path in paths if os.path.isdir(path)]


def class_names(root, top):
    """The sorted names of the class folders: those in the folders of splits, or else the `top` folders. Folders without files are left out.

    Args:
        top: the folders in `root`.
    Raises: UserError for fewer than two classes, a name that cannot be that of a class, and names that look alike.
    """
    of_splits = [folder for folder in top if name_of(folder).lower() in SPLIT_NAMES and subfolders(folder)]
    has_train = any(SPLIT_NAMES[name_of(folder).lower()] == 'train' for folder in of_splits)
    if of_splits and (has_train or len(of_splits) == len(top)):
        top = [folder for base in of_splits for folder in subfolders(base)]
    folders = {name_of(folder): folder for folder in top if any(walk.walk(folder, lambda path, why: None))}
    labels = sorted(folders)
    if len(labels) < 2:
        raise UserError(f'{root}: {_too_few(root, list(folders.values()))}')
    unfit = next((label for label in labels if not schema.names_a_folder(label)), None)
    if unfit is not None:
        raise UserError(
            f'{files.printable(folders[unfit])}: cannot be the name of a class: it begins or ends with a space, or has a tab, newline, '
            'backslash or a character that is not UTF-8; rename the folder'
        )
    same = look_alikes(labels)
    if same:
        raise UserError(
            f'{root}: the class folders {" and ".join(same)} differ only in upper and lower case or in the form of a letter; give the '
            f'images of one class one folder name, or if they are different classes: -o {schema.override("data.labels", labels)}'
        )
    return labels


def look_alikes(labels):
    """The first names that differ only in upper and lower case or in the form of a letter; None if there are none."""
    alike = collections.defaultdict(list)
    for label in labels:
        alike[unicodedata.normalize('NFKC', label).casefold()].append(label)
    return next((found for found in alike.values() if len(found) > 1), None)


def _too_few(root, found):
    """What is wrong with fewer than two class folders, and what to do."""
    if not found:
        return f'no class folders with images; put the images of each class into a folder of its own, {root}/<class>/'
    inner = found[0]
    for _ in range(DEPTH):
        below = subfolders(inner)
        if len(below) > 1:
            setting = schema.override('data.root', inner)
            return (
                f'only one class folder has images, {found[0]}; if the folders in {inner} are the classes: -o {setting}'
            )
        inner = below[0] if below else inner
    return f'only one class folder has images, {found[0]}; add another class'
