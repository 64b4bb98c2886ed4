"""List the files below a folder."""

import operator
import os

JUNK_NAMES = ('thumbs.db', 'desktop.ini', '__macosx')


def walk(folder, note):
    """Yield the paths of all files below a folder, sorted, the files of each folder before its subfolders.

    Follows links to folders, but visits each folder only once, since links can form loops.

    Args:
        note: callable (path, why), called for everything that is skipped; why: 'junk', 'no file' (a pipe or a device), 'searched
            already' (a folder), or the OSError of an unreadable folder.
    """
    return _walk(folder, note, set(), ())


def _walk(folder, note, seen, above):
    real = os.path.join(os.path.realpath(folder), '')
    if real in seen or any(one.startswith(real) for one in above):
        note(folder, 'searched already')
        return
    seen.add(real)
    try:
        items = sorted(os.scandir(folder), key=operator.attrgetter('name'))
    except OSError as error:
        note(folder, error)
        return
    start = folder if folder.endswith(('/', os.sep)) else f'{folder}/'
    folders = []
    for item in items:
        path = start + item.name
        if is_junk(item.name):
            note(path, 'junk')
        elif _is(item.is_dir):
            folders.append(path)
        elif _is(item.is_file) or not os.path.exists(path):  # callers report a dangling link as a missing file
            yield path
        else:
            note(path, 'no file')
    for inner in folders:
        yield from _walk(inner, note, seen, (*above, real))


def _is(kind):
    """Result of `is_dir` or `is_file` of an os.DirEntry; false for a link to itself, where they raise."""
    try:
        return kind()
    except OSError:
        return False


def is_junk(name):
    """Whether a name is hidden or one that operating systems create, such as Thumbs.db."""
    return name[0] == '.' or name.lower() in JUNK_NAMES
