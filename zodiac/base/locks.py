"""Folder locks that are released when the process ends, even if it is killed."""

import contextlib
import errno
import os
import socket

from zodiac.base import files
from zodiac.base.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HELD = (errno.EACCES, errno.EAGAIN)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # errors of file systems without locks


@contextlib.contextmanager
def held(folder, work):
    """Hold a lock on `folder` (a file beside it) during the block. Does nothing if the file system has no locks.

    Child processes do not inherit the lock. On a network file system it applies to all machines.

    Args:
        work: participle for the error message, such as 'trained'.
    Raises: UserError if another process holds the lock, naming it, or if the file cannot be created.
    """
    parent, name = os.path.split(folder.rstrip('/'))
    path = os.path.join(parent, f'.{name}.lock')
    try:
        os.makedirs(parent or '.', exist_ok=True)
        file, holder = _take(path)
    except OSError as error:
        raise files.cannot_write(folder, error) from None
    if file is None:
        raise UserError(
            f'{folder}: is being {work} by another process{holder and f" ({holder})"}; wait for it, stop it, or use another '
            'name with -o name=...'
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(file)


def _take(path):
    """(descriptor of the lock file, ''), or (None, who holds it)."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 200).decode('utf-8', 'replace').strip()
            if error.errno in HELD:
                os.close(file)
                return None, holder
            if error.errno not in WITHOUT_LOCKS:
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                os.ftruncate(file, 0)
                os.write(file, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())
                return file, ''
        os.close(file)  # the holder removed the file after we opened it: try again
