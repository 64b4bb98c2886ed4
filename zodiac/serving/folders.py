"""The exported folders that a server is told to serve: which there are, and whether they have changed."""

import contextlib
import hashlib
import os

from zodiac.base.errors import UserError
from zodiac.inference import export_folder


def find(name):
    """The root that a name on the command line means: an export, or a folder whose folders with numbers as names are exports, versions of
    a model. Raises UserError where there is no export."""
    root = export_folder.find(name)
    if not exports([root]):
        export_folder.read_manifest(root)  # says what is wrong
    return root


def exports(roots):
    """The exported folders of some roots, each once: the root itself, or its versions, oldest first."""
    return list(dict.fromkeys(folder for root in roots for folder in _exports(root)))


def _exports(root):
    names = []
    if export_folder.is_export(root):
        return [root]
    with contextlib.suppress(NotADirectoryError, FileNotFoundError):
        names = sorted(filter(is_number, os.listdir(root)), key=int)
    return [folder for folder in (os.path.join(root, name) for name in names) if export_folder.is_export(folder)]


def is_number(name):
    return name.isascii() and name.isdigit()


def version(folder, digest):
    """The version of an export: the number that is the name of its folder, or the start of its digest."""
    name = os.path.basename(os.path.abspath(folder))
    return name if is_number(name) else digest[:12]


def digest(folder):
    """SHA-256 of inference.yaml, which holds those of the other files. Raises UserError."""
    try:
        with open(os.path.join(folder, export_folder.MANIFEST), 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise UserError(f'{error.filename}: cannot be read ({error.strerror}); export the model again') from None


def state(folder):
    """What changes when files of a folder are written or replaced; None while it is being replaced."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        stats = [(entry.name, entry.stat()) for entry in entries]
        return sorted((name, about.st_ino, about.st_size, about.st_mtime_ns) for name, about in stats)
    return None
