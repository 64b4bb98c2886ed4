"""One writer at a time for a folder: a lock that ends with the process that holds it, however that ends."""

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
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # said by file systems that have none


@contextlib.contextmanager
def held(folder, work):
    """Hold the lock of `folder`, a file beside it, for the block. Where the file system has no locks, nothing is held.

    The lock belongs to this process alone: loader processes, or whatever outlives it, do not hold it. On a file system that machines
    share it holds for all of them.

    Args:
        work: what is done to the folder, for the message: 'trained'.
    Raises: UserError naming the process that holds the lock, or where no file can be made there.
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
            f'{folder}: is being {work} by another process{holder and f" ({holder})"}; wait for it or stop it, or give this one '
            'another name with -o name=...'
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
        os.close(file)  # its holder removed the file between our opening and our locking
