"""Files that are whole or absent: atomic writes, folder swaps, hashes; and what lies below a folder."""

import contextlib
import csv
import ctypes
import errno
import functools
import glob
import hashlib
import json
import operator
import os
import re
import shutil
import tempfile

from zodiac.base import stops
from zodiac.base.errors import UserError, is_full

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMPORTS = re.compile(
    r'^ *(?:from (\S+) import (\([^)]*\)|[^\n]*)|import ([^\n]*))', re.MULTILINE
)  # ast takes ten times as long
JUNK_NAMES = ('thumbs.db', 'desktop.ini', '__macosx')


@contextlib.contextmanager
def atomic_write(path, binary=False, sync=True):
    """Open a file beside `path` for writing; it takes the name `path` only when the block ended well and all is on disk.

    With `sync` false the caller puts the content, and then the folder (`sync_folder`), on disk: together with other files that is faster.
    Text is UTF-8 with `\\n`; of a file name that is not, the bytes are escaped. Missing parent folders are made. A pipe or a device is
    written to as it is. Raises UserError naming `path` when it cannot be written, for a folder at once.
    """
    how = (
        {'mode': 'wb'} if binary else {'mode': 'w', 'encoding': 'utf-8', 'errors': 'backslashreplace', 'newline': '\n'}
    )
    folder = os.path.dirname(path) or '.'
    temporary = None
    try:
        if is_stream(path):
            with open(path, **how) as file:
                yield file
            return
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        os.makedirs(folder, exist_ok=True)
        with stops.at_stop(lambda: clear_leftovers(folder, os.path.basename(path))):
            handle, temporary = tempfile.mkstemp(prefix=_prefix(path), suffix='.part', dir=folder)
            with os.fdopen(handle, **how) as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        temporary = None
        if sync:
            sync_folder(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def atomic_folder(path):
    """Yield an empty folder beside `path`, to be filled; it replaces `path` only when the block ended well.

    Raises UserError naming `path` when it cannot be written; the old folder then stays as it was. Where the block raises one that
    names a file of the empty folder, it names that of `path`.
    """
    path = path.rstrip('/')
    parent = os.path.dirname(path) or '.'
    temporary = retired = None

    def clear():
        clear_leftovers(parent, os.path.basename(path))

    try:
        os.makedirs(parent, exist_ok=True)
        clear()
        with stops.at_stop(clear):
            temporary = tempfile.mkdtemp(prefix=_prefix(path), suffix='.part', dir=parent)
            os.chmod(temporary, 0o777 & ~_umask())
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with open(os.path.join(folder, name), 'rb+') as file:
                        os.fsync(file.fileno())
                sync_folder(folder)
            if not (os.path.isdir(path) and _exchange(temporary, path)):
                if os.path.isdir(path):
                    retired = tempfile.mkdtemp(prefix=_prefix(path), suffix='.old', dir=parent)
                    os.rmdir(retired)  # only its name is wanted: Windows renames onto no folder
                    os.replace(path, retired)
                os.replace(temporary, path)
        sync_folder(parent)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):  # else also that of `atomic_write` within the folder
            if temporary:
                error.args = (str(error).replace(temporary, path),)
            raise
        raise cannot_write(path, cause) from error
    finally:
        if retired and os.path.isdir(retired) and not os.path.exists(path):  # stopped between the two renames
            os.replace(retired, path)
        for leftover in (temporary, retired):
            if leftover:
                shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder():
    """Yield an empty folder that is gone after the block, also where a signal has ended the process."""
    with tempfile.TemporaryDirectory() as folder, stops.at_stop(lambda: shutil.rmtree(folder, ignore_errors=True)):
        yield folder


def remove_folder(path):
    """Remove a folder that other folders of its kind stand beside: killed meanwhile, no half of it is left under its name."""
    parent, name = os.path.split(path)
    doomed = os.path.join(parent, f'.{name}.{os.getpid()}.part')
    with contextlib.suppress(OSError):
        os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(folder, name=None):
    """Remove what a killed process has left half-written in `folder`: for the file or folder `name`, or for all.

    What another process is writing, which its name tells, is left alone. Where one was killed while a folder was exchanged, the
    old one comes back.
    """
    start = os.path.join(glob.escape(folder), f'.{glob.escape(name) if name else "*"}.*')
    for retired in glob.glob(f'{start}.old'):
        path = os.path.join(folder, os.path.basename(retired)[1:].rsplit('.', 2)[0])
        if not os.path.exists(path):
            os.replace(retired, path)
        shutil.rmtree(retired, ignore_errors=True)
    for unfinished in glob.glob(f'{start}.part'):
        if _is_being_written(unfinished):
            continue
        if os.path.isdir(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)


def _prefix(path):
    """How the name of what is not finished yet begins: with what it will be, and the process that writes it."""
    return f'.{os.path.basename(path)}.{os.getpid()}-'


def _is_being_written(unfinished):
    """Whether another process, which lives, has made this name with `_prefix`."""
    made = re.search(r'\.(\d{1,9})-[^.]*\.part$', unfinished)
    if not made or int(made[1]) == os.getpid() or os.name != 'posix':
        return False
    try:
        os.kill(int(made[1]), 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True


def is_stream(path):
    """Whether a path names a pipe, a device, or a stream of this process: what can be written to but not replaced."""
    ours = os.path.abspath(path).startswith(('/dev/std', '/dev/fd/', '/proc/self/'))
    return ours or os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def csv_table(file):
    """What writes a row, a list, into a CSV file. A carriage return gets its cell quotes too; by Python itself only from 3.13 on."""
    plain, quoted = (csv.writer(file, lineterminator='\n', quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    return lambda row: (quoted if any('\r' in str(cell) for cell in row) else plain).writerow(row)


def read_json(path):
    """The content of a JSON file; None where it cannot be read, or is no JSON."""
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def cannot_write(path, error):
    """UserError that says why `path` could not be written."""
    reason, folder = error.strerror or str(error), os.path.dirname(path) or '.'
    help_on_space = '; see docs/troubleshooting.md#disk' if is_full(error) else ''
    return UserError(
        f'{path}: cannot write ({reason}); check the free space and the permissions of {folder}{help_on_space}'
    )


def moved(root, paths):
    """Where the images of an index are, when it is read in another working folder than the one it was made in.

    Args:
        root: the folder that holds the index, and the images below it; paths: some of its paths.
    Returns: (beginning of the paths, what to put in its place), for `at`; None where the paths are right, or the images not found.
    """
    if any(map(os.path.isfile, paths)):
        return None
    for path in paths:
        parts = path.split('/')
        for number in range(len(parts)):
            if os.path.isfile(os.path.join(root, *parts[number:])):
                return ''.join(f'{part}/' for part in parts[:number]), os.path.join(root, '')
    return None


def at(path, place):
    """A path of an index, whose images have `moved` to `place` or are where it says."""
    old, new = place or ('', '')
    return new + path[len(old) :] if path.startswith(old) else path


def advice(error):
    """What to do about an image of an index that cannot be read."""
    if 'no such file' in str(error):
        return 'its path is relative to the folder where annotate.py was run: run this there, or run annotate.py again'
    return 'repair or remove the file, then run annotate.py again'


def walk(folder, note):
    """Yield the paths of the files below a folder, sorted, those of each folder before those of its subfolders.

    Linked folders are searched too, each folder once, and none that the search has come through: links may lead in circles.

    Args:
        note: callable (path, why), told of what is left out; why: 'junk', 'no file' (a pipe or a device), 'searched already' (a
            folder), or the OSError of a folder that cannot be read.
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
        elif _is(item.is_file) or not os.path.exists(path):  # a dangling link is reported as a missing file
            yield path
        else:
            note(path, 'no file')
    for inner in folders:
        yield from _walk(inner, note, seen, (*above, real))


def _is(kind):
    """What `is_dir` or `is_file` of an os.DirEntry says; false for a link to itself, at which they raise."""
    try:
        return kind()
    except OSError:
        return False


def is_junk(name):
    """Whether a file or folder name is litter of an operating system or an editor, never meant as an image."""
    return name[0] == '.' or name.lower() in JUNK_NAMES


def printable(text):
    """The text with its control characters escaped: a name cannot end a line, or tell the terminal something."""
    return re.sub(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]', lambda found: found[0].encode('unicode_escape').decode(), text)


def sha256(path):
    """Hex digest of a file's bytes."""
    with open(path, 'rb') as file:
        return sha256_of(file)


def sha256_of(file):
    """The same for what is left to read of a binary file."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b''):
        digest.update(block)
    return digest.hexdigest()


def sources(*modules):
    """{path: bytes} of modules of this project ('zodiac.data.cache', 'dataset') and of every module of it that they import, directly or
    not. Raises ModuleNotFoundError."""
    found, waiting = {}, [*modules]
    while waiting:
        name = waiting.pop()
        path = os.path.join(PROJECT, *name.split('.'))
        path = next(filter(os.path.isfile, (f'{path}.py', os.path.join(path, '__init__.py'))), None)
        if path is None and name in modules:
            raise ModuleNotFoundError(f'{name}: no such module in {PROJECT}')
        if path is None or path in found:
            continue
        with open(path, 'rb') as file:
            found[path] = file.read()
        for package, names, alone in IMPORTS.findall(found[path].decode()):
            waiting += [package, *(f'{package}.{name}' for name in re.findall(r'\w+', names))]
            waiting += re.findall(r'[\w.]+', alone)
    return found


@functools.cache
def code_hash(*modules):
    """Hex digest of `sources`: part of the key of whatever these modules make and keep, so that changed code makes it anew."""
    digest = hashlib.sha256()
    for _, content in sorted(sources(*modules).items()):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _exchange(one, other):
    """Let two paths change places in one step, so that neither is ever missing. Returns whether the system could."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2  # Linux, with glibc 2.28 or later
    except (AttributeError, OSError, TypeError):
        return False
    at_working_directory, rename_exchange = -100, 2
    return (
        renameat2(at_working_directory, os.fsencode(one), at_working_directory, os.fsencode(other), rename_exchange)
        == 0
    )


def sync_folder(folder):
    """Put the names of a folder's files on disk."""
    if hasattr(os, 'O_DIRECTORY'):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
