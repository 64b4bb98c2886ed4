"""Files that are whole or absent: atomic writes, folder swaps, hashes."""

import contextlib
import hashlib
import os
import shutil
import tempfile

from zodiac.errors import UserError


@contextlib.contextmanager
def atomic_write(path, binary=False):
    """Open a file beside `path` for writing; it takes the name `path` only when the block ended well and all is on disk.

    Text is UTF-8 with `\\n`. Missing parent folders are made. Raises UserError naming `path` when it cannot be written.
    """
    folder = os.path.dirname(path) or '.'
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f'.{os.path.basename(path)}.', suffix='.part', dir=folder)
        with os.fdopen(
            handle, 'wb' if binary else 'w', **({} if binary else {'encoding': 'utf-8', 'newline': '\n'})
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def atomic_folder(path):
    """Yield an empty folder beside `path`, to be filled; it replaces `path` only when the block ended well.

    Raises UserError naming `path` when it cannot be written; the old folder then stays as it was.
    """
    path = path.rstrip('/')
    parent = os.path.dirname(path) or '.'
    temporary = retired = None
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f'.{os.path.basename(path)}.', suffix='.part', dir=parent)
        os.chmod(temporary, 0o777 & ~_umask())
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(folder, name), 'rb+') as file:
                    os.fsync(file.fileno())
            _sync_folder(folder)
        if os.path.isdir(path):
            retired = tempfile.mkdtemp(prefix=f'.{os.path.basename(path)}.', suffix='.old', dir=parent)
            os.rmdir(retired)  # only its name is wanted: Windows renames onto no folder
            os.replace(path, retired)
        os.replace(temporary, path)
        _sync_folder(parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if retired and os.path.isdir(retired) and not os.path.exists(path):  # stopped between the two renames
            os.replace(retired, path)
        for leftover in (temporary, retired):
            if leftover:
                shutil.rmtree(leftover, ignore_errors=True)


def cannot_write(path, error):
    """UserError that says why `path` could not be written."""
    reason = error.strerror or str(error)
    return UserError(
        f'{path}: cannot write ({reason}); check the free space and the permissions of {os.path.dirname(path) or "."}'
    )


def sha256(path):
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder):
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
