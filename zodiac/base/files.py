"""Write files and folders atomically; hash them; find the images of an index."""

import contextlib
import csv
import ctypes
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile

from zodiac.base import stops
from zodiac.base.errors import UserError, is_full


@contextlib.contextmanager
def atomic_write(path, binary=False, sync=True):
    """Open a temporary file beside `path`; it replaces `path` when the block succeeds and the data is on disk.

    Text is written as UTF-8 with `\\n`; undecodable bytes of file names are escaped. Creates missing parent folders. Pipes and devices
    are written to directly. Raises UserError naming `path` if it cannot be written; if `path` is a folder, before the block runs.

    Args:
        sync: false if the caller flushes the data and then the folder (`sync_folder`): faster for several files at once.
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
    """Yield a new temporary folder beside `path`; it replaces `path` when the block succeeds.

    Raises UserError naming `path` if it cannot be written; the old folder is kept. In a UserError raised by the block, the path of
    the temporary folder is replaced by `path`.
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
                    os.rmdir(retired)  # only the name is needed: Windows cannot rename onto a folder
                    os.replace(path, retired)
                os.replace(temporary, path)
        sync_folder(parent)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):  # which a UserError of `atomic_write` in the folder has too
            if temporary:
                error.args = (str(error).replace(temporary, path),)
            raise
        raise cannot_write(path, cause) from error
    finally:
        if retired and os.path.isdir(retired) and not os.path.exists(path):  # interrupted between the two renames
            os.replace(retired, path)
        for leftover in (temporary, retired):
            if leftover:
                shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder():
    """Yield an empty folder that is removed after the block, also when a signal ends the process."""
    with tempfile.TemporaryDirectory() as folder, stops.at_stop(lambda: shutil.rmtree(folder, ignore_errors=True)):
        yield folder


def remove_folder(path):
    """Remove a folder, renaming it first: if the process is killed, no partial folder remains under its name."""
    parent, name = os.path.split(path)
    doomed = os.path.join(parent, f'.{name}.{os.getpid()}.part')
    with contextlib.suppress(OSError):
        os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(folder, name=None):
    """Remove unfinished files and folders that killed processes left in `folder`: those of `name`, or all.

    Those that a running process is writing, identified by the process id in the name, are kept. A folder whose replacement was
    interrupted gets its name back.
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
    """Prefix of the name of an unfinished file: the final name and the id of the writing process."""
    return f'.{os.path.basename(path)}.{os.getpid()}-'


def _is_being_written(unfinished):
    """Whether this name contains the id of another running process, see `_prefix`."""
    made = re.search(r'\.(\d{1,9})-[^.]*\.part$', unfinished)
    if not made or int(made[1]) == os.getpid() or os.name != 'posix':
        return False
    try:
        os.kill(int(made[1]), 0)  # only checks that the process exists
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        pass
    return True


def is_stream(path):
    """Whether a path names a pipe, a device, or a stream of this process, which cannot be replaced by a file."""
    ours = os.path.abspath(path).startswith(('/dev/std', '/dev/fd/', '/proc/self/'))
    return ours or os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def csv_table(file):
    """A function that writes a row (a list) to a CSV file. Unlike csv before Python 3.13, it also quotes carriage returns."""
    plain, quoted = (csv.writer(file, lineterminator='\n', quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    return lambda row: (quoted if any('\r' in str(cell) for cell in row) else plain).writerow(row)


def read_json(path):
    """Content of a JSON file; None if it cannot be read or is not valid JSON."""
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def cannot_write(path, error):
    """A UserError for an OSError while writing `path`."""
    reason, folder = error.strerror or str(error), os.path.dirname(path) or '.'
    help_on_space = '; see docs/troubleshooting.md#disk' if is_full(error) else ''
    return UserError(
        f'{path}: cannot write ({reason}); check the free space and the permissions of {folder}{help_on_space}'
    )


def moved(root, paths):
    """Locate the images of an index whose relative paths do not match the working directory.

    Args:
        root: the folder that holds the index and the images; paths: some paths of the index.
    Returns: (old prefix of the paths, new prefix), for `at`; None if the paths are right, or the images are not below `root`.
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
    """The path of an image of an index; place: the result of `moved`."""
    old, new = place or ('', '')
    return new + path[len(old) :] if path.startswith(old) else path


def advice(error):
    """What to do about an unreadable image of an index."""
    if 'no such file' in str(error):
        return 'its path is relative to the folder where annotate.py was run: run this command there, or run annotate.py again'
    return 'repair or remove the file, then run annotate.py again'


def printable(text):
    """The text with control characters escaped, so that a file name cannot break a line or control the terminal."""
    return re.sub(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]', lambda found: found[0].encode('unicode_escape').decode(), text)


def sha256(path):
    """Hex digest of the content of a file."""
    with open(path, 'rb') as file:
        return sha256_of(file)


def sha256_of(file):
    """Hex digest of the rest of an open binary file."""
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b''):
        digest.update(block)
    return digest.hexdigest()


def _exchange(one, other):
    """Swap two paths atomically. Returns whether the system supports it."""
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
    """Flush the entries of a folder to disk."""
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
