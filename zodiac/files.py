"""Files that are whole or absent: atomic writes, folder swaps, hashes, and safe unpacking of archives."""

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from lzma import LZMAError

from zodiac.errors import UserError

ARCHIVE_SUFFIXES = ('.zip', '.tar', '.tgz', '.tar.gz', '.tar.bz2', '.tar.xz')


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
            os.replace(path, retired)  # onto an empty folder
        os.replace(temporary, path)
        temporary = None
        _sync_folder(parent)
    except OSError as error:
        if retired and not os.path.exists(path):
            os.replace(retired, path)
        raise cannot_write(path, error) from error
    finally:
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


def unpack(archive, target, max_entries, max_bytes, max_ratio, keep=()):
    """Unpack a .zip or .tar archive into the new folder `target`, all or nothing.

    A single folder that wraps everything (`signs/train/...` in signs.zip) is dropped, unless its name is in `keep`.
    Names stored as GBK without a flag are read as GBK.

    Args:
        max_entries: files and folders the archive may hold.
        max_bytes: bytes it may have when unpacked; counted as they are written, not as the archive declares them.
        max_ratio: unpacked bytes over the archive's own bytes (beyond the first 10 MB).
    Raises: UserError naming the archive and the entry, for a damaged archive, an entry outside the target, a link or a
        device, an entry that stands twice, or a cap that is passed.
    """

    def refuse(reason):
        return UserError(f'{archive}: {reason}; nothing was unpacked')

    allowed_bytes = min(max_bytes, max(10_000_000, max_ratio * os.path.getsize(archive)))
    if os.path.lexists(target):
        raise refuse(f'{target} exists already')
    files, written = set(), 0
    with atomic_folder(target) as folder:
        try:
            for count, (name, is_folder, source) in enumerate(_entries(archive, refuse), 1):
                if count > max_entries:
                    raise refuse(f'more than {max_entries} entries; raise annotate.max_entries if you trust it')
                parts = _safe_parts(name, refuse)
                path = os.path.join(folder, *parts)
                if not parts or is_folder:
                    os.makedirs(path, exist_ok=True)
                    continue
                if parts in files:
                    raise refuse(f'the entry {name!r} stands in it twice')
                files.add(parts)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with source() as reader, open(path, 'xb') as file:
                    for block in iter(lambda reader=reader: reader.read(1 << 20), b''):
                        written += len(block)
                        if written > allowed_bytes:
                            setting = 'annotate.max_bytes' if written > max_bytes else 'annotate.max_ratio'
                            raise refuse(
                                f'it unpacks to more than {allowed_bytes:,.0f} bytes; raise {setting} if you trust it'
                            )
                        file.write(block)
        except (
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            LZMAError,
            EOFError,
            NotImplementedError,
            ValueError,
        ) as error:
            raise refuse(f'damaged or not an archive ({error})') from None
        except RuntimeError as error:  # zipfile's word for a password
            raise refuse(f'cannot be read ({error})') from None
        _drop_wrapper(folder, keep)


def _entries(archive, refuse):
    """Yield (name, is a folder, function that opens the bytes) for each entry of a .zip or .tar."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise refuse(f'the entry {info.filename!r} is a link')
                name = (
                    info.filename
                    if info.flag_bits & 0x800
                    else _decode_name(info.orig_filename.encode('cp437', 'replace'), info.filename)
                )
                yield name, info.is_dir(), lambda info=info: opened.open(info)
        return
    with tarfile.open(archive, 'r:*') as opened:
        for info in opened:
            if not (info.isfile() or info.isdir()):
                raise refuse(f'the entry {info.name!r} is a link or a device')
            name = _decode_name(info.name.encode('utf-8', 'surrogateescape'), info.name)
            yield name, info.isdir(), lambda info=info: opened.extractfile(info)


def _decode_name(raw, fallback):
    for encoding in ('utf-8', 'gbk'):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return fallback


def _safe_parts(name, refuse):
    """The path components of an entry's name, all of them below the target."""
    clean = name.replace('\\', '/')
    parts = tuple(part for part in clean.split('/') if part not in ('', '.'))
    if posixpath.isabs(clean) or '..' in parts or re.match(r'[A-Za-z]:', clean) or '\0' in clean:
        raise refuse(f'the entry {name!r} points outside the target')
    return parts


def _drop_wrapper(folder, keep):
    while True:
        names = [name for name in os.listdir(folder) if name not in ('__MACOSX', '.DS_Store')]
        if len(names) != 1 or names[0] in keep or not os.path.isdir(os.path.join(folder, names[0])):
            return
        wrapper = os.path.join(folder, f'.wrapper.{os.path.basename(folder)}')
        os.rename(os.path.join(folder, names[0]), wrapper)
        for name in os.listdir(wrapper):
            os.rename(os.path.join(wrapper, name), os.path.join(folder, name))
        os.rmdir(wrapper)


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
