"""Unpack an untrusted .zip or .tar archive: all of it or nothing, and nothing outside the target."""

import contextlib
import functools
import json
import os
import posixpath
import re
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from lzma import LZMAError

from zodiac.base import files
from zodiac.base.errors import UserError, one_line
from zodiac.data.archive_names import NameDecoder, folded

MAX_ENTRIES = 2_000_000  # files and folders
MAX_BYTES = 200 * 2**30  # unpacked
MAX_RATIO = 100  # unpacked bytes per byte of the archive
TRUSTED_BYTES = 10_000_000  # unpacked; allowed whatever the ratio
BLOCK = 1 << 20
RECORD = 'unpacked.json'  # in the folder: which archive it was unpacked from
TAR_SUFFIXES = ('.tar', '.tgz', '.tar.gz', '.tbz2', '.tar.bz2', '.txz', '.tar.xz')
ZIP_STARTS = (b'PK\x03\x04', b'PK\x05\x06', b'PK\x07\x08')
UNICODE_PATH = 0x7075  # an extra field of .zip: the name in UTF-8 (APPNOTE.TXT 4.6.9)
UNSUPPORTED = (  # (first bytes, name)
    (b'7z\xbc\xaf\x27\x1c', 'a .7z archive'),
    (b'Rar!\x1a\x07', 'a .rar archive'),
    (b'\x28\xb5\x2f\xfd', 'compressed with Zstandard'),
    (b'\x04\x22\x4d\x18', 'compressed with LZ4'),
    (b'\x1f\x9d', 'compressed with compress (.Z)'),
    (b'MSCF', 'a .cab archive'),
)


def unpack_once(archive, root, known, encoding):
    """Unpack an archive into the folder `root`, unless that was done before.

    Args: see `unpack`.
    Raises: UserError if the archive is missing, `root` has other content or was unpacked with another encoding.
    """
    if not os.path.isfile(archive):
        raise UserError(f'{archive}: no such archive; check annotate.archive')
    record = {'archive': os.path.basename(archive), 'sha256': files.sha256(archive)}
    if os.path.isdir(root) and os.listdir(root):
        before = _read_record(root)
        used = before.pop('encoding', '')
        if before != record:
            raise UserError(
                f'{root}: the folder holds other files; set data.root to a new folder for {archive}, or leave annotate.archive out'
            )
        if used and encoding not in ('auto', used):
            raise UserError(
                f'{root}: was unpacked from {archive} with file names decoded as {used}; remove the folder to unpack it as {encoding}'
            )
        print(f'{archive} is already unpacked in {root}', file=sys.stderr)
        return
    if os.path.isdir(root):
        os.rmdir(root)
    used = unpack(archive, root, known, encoding)
    with files.atomic_write(f'{root}/{RECORD}') as file:
        json.dump({**record, 'encoding': used}, file)
    note = f', file names decoded as {used} (annotate.encoding sets another)' if used not in ('', 'utf-8') else ''
    print(f'{archive} unpacked into {root}{note}', file=sys.stderr)


def guessed_encoding(root):
    """The encoding in which file names were decoded when `root` was unpacked; '' if UTF-8 or not known."""
    used = _read_record(root).get('encoding', '')
    return '' if used == 'utf-8' else used


def _read_record(root):
    record = files.read_json(f'{root}/{RECORD}')
    return record if isinstance(record, dict) else {}


def unpack(archive, target, known=(), encoding='auto'):
    """Unpack an archive into the new folder `target`, all or nothing.

    A single folder around everything (`signs/train/...` in signs.zip) is dropped, unless its name is in `known`.

    Args:
        known: names of folders that are looked for.
        encoding: of names that do not declare theirs; 'auto': the one that gives the most names in `known`, else UTF-8 or GBK.
    Returns: the encoding used for such names; '' if all are ASCII, or no encoding fits.
    Raises: UserError naming the archive and the entry, for a damaged archive, an entry outside the target, a link or a device, a
        duplicate entry, or an archive that exceeds MAX_ENTRIES, MAX_BYTES (as written, not as declared) or MAX_RATIO.
    """

    def refuse(reason):
        return UserError(f'{archive}: {reason}; nothing was unpacked')

    if os.path.lexists(target):
        raise refuse(f'{target} exists already')
    limits = _Limits(os.path.getsize(archive), refuse)
    entries = _reader(archive, refuse)
    names = NameDecoder(encoding, {folded(name) for name in known}, refuse)
    tree = _Tree(refuse)
    with files.atomic_folder(target) as folder, contextlib.closing(entries(archive, limits, refuse, names)) as found:
        for name, is_folder, blocks in _readable(found, refuse):
            path = os.path.join(folder, *tree.add(name, is_folder))
            if is_folder:
                os.makedirs(path, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'xb') as file, contextlib.closing(blocks):
                for block in _readable(blocks, refuse):
                    limits.count(len(block))
                    file.write(block)
        _drop_wrapper(folder, names.known)
    return names.encoding


def _reader(archive, refuse):
    """The generator for the entries of an archive, chosen by its first bytes: a .tar may end with a .zip and look like one."""
    with open(archive, 'rb') as file:
        start = file.read(8)
    if not start.startswith(ZIP_STARTS):
        what = next((what for magic, what in UNSUPPORTED if start.startswith(magic)), '')
        if what:
            raise refuse(
                f'{what}, which is not supported; unpack it yourself and set data.root to the folder, or pack it as .zip or .tar'
            )
        if archive.lower().endswith(TAR_SUFFIXES) or _is_tar(archive):
            return _tar_entries
    if zipfile.is_zipfile(archive):  # also a self-extracting one
        return _zip_entries
    raise refuse('damaged or not an archive; .zip, .tar, .tar.gz, .tar.bz2 and .tar.xz are supported')


def _is_tar(archive):
    try:
        return tarfile.is_tarfile(archive)
    except (zlib.error, LZMAError, EOFError, OSError, ValueError):  # compressed and damaged
        return True


class _Limits:
    """Limits on the content of an archive of `size` bytes."""

    def __init__(self, size, refuse):
        by_ratio = max(TRUSTED_BYTES, MAX_RATIO * size)
        self.bytes = min(MAX_BYTES, by_ratio)
        self.why = f'the limit for an archive of {size:,} bytes' if by_ratio < MAX_BYTES else 'the limit'
        self.refuse = refuse
        self.written = 0

    def check_entries(self, number):
        if number > MAX_ENTRIES:
            raise self._exceeded(f'it has more than {MAX_ENTRIES:,} files and folders, the limit')

    def check_bytes(self, number):
        if number > self.bytes:
            raise self._exceeded(f'it unpacks to more than {self.bytes:,} bytes, {self.why}')

    def count(self, number):
        self.written += number
        self.check_bytes(self.written)

    def _exceeded(self, limit):
        return self.refuse(
            f'{limit}; if you trust it, unpack it yourself into data.root and leave annotate.archive out'
        )


class _Tree:
    """The names seen so far. None may point outside the target, appear twice, or be both a file and a folder."""

    def __init__(self, refuse):
        self.refuse = refuse
        self.files = set()
        self.folders = {()}

    def add(self, name, is_folder):
        """The components of an entry's path below the target. Raises UserError."""
        clean = name.replace('\\', '/')
        parts = tuple(part for part in clean.split('/') if part not in ('', '.'))
        if posixpath.isabs(clean) or '..' in parts or re.match(r'[A-Za-z]:', clean) or '\0' in clean:
            raise self.refuse(f'the entry {name!r} points outside the target')
        above = [parts[:length] for length in range(1, len(parts))]
        if any(folder in self.files for folder in above) or (parts in self.files and is_folder):
            raise self.refuse(f'the entry {name!r} is a file and a folder')
        if not is_folder and parts in self.folders:
            raise self.refuse(
                f'the entry {name!r} is a file and a folder' if parts else f'the entry {name!r} has no name'
            )
        if not is_folder and parts in self.files:
            raise self.refuse(f'the entry {name!r} appears twice')
        self.folders.update([*above, parts] if is_folder else above)
        if not is_folder:
            self.files.add(parts)
        return parts


def _readable(iterator, refuse):
    """Yield the items; what reading a damaged archive raises becomes a UserError."""
    iterator = iter(iterator)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except UserError:
            raise
        except RuntimeError as error:  # zipfile, for an encrypted entry
            raise refuse(f'cannot be read ({one_line(error)})') from None
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, ValueError) as error:
            raise refuse(f'damaged or not an archive ({one_line(error)})') from None
        yield item


def _zip_entries(archive, limits, refuse, names):
    """Yield (name, is a folder, iterator of blocks) of each entry of a .zip."""
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        limits.check_entries(len(infos))
        undeclared = [info for info in infos if not info.flag_bits & 0x800 and not _unicode_path(info)]
        windows = any(info.create_system == 0 for info in undeclared)
        encoding = names.choose([_raw_name(info) for info in undeclared], prefer_gbk=windows)
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise refuse(f'the entry {info.filename!r} is a link')
            name = info.orig_filename
            if not info.flag_bits & 0x800:
                name = _unicode_path(info) or (_raw_name(info).decode(encoding) if encoding else name)
            is_folder = name.endswith(('/', '\\'))
            yield name, is_folder, _blocks(functools.partial(opened.open, info))


def _raw_name(info):
    return info.orig_filename.encode('cp437', 'replace')


def _unicode_path(info):
    """The name in a separate extra field, as WinRAR and others write it; '' if there is none or it belongs to another name."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from('<HH', extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and field[:5] == struct.pack('<BI', 1, zlib.crc32(_raw_name(info))):
            with contextlib.suppress(UnicodeDecodeError):
                return field[5:].decode()
    return ''


def _tar_entries(archive, limits, refuse, names):
    """Yield (name, is a folder, iterator of blocks) of each entry of a .tar, after a first pass over all headers."""
    raw_names = []
    with tarfile.open(archive, 'r:*') as opened:
        for number, info in enumerate(opened, 1):
            limits.check_entries(number)
            limits.check_bytes(info.offset_data)  # the entries before this one, and their headers
            if not (info.isfile() or info.isdir()):
                raise refuse(f'the entry {info.name!r} is a link or a device')
            raw_names.append(info.name.encode('utf-8', 'surrogateescape'))
        _require_tar_end(opened)
    encoding = names.choose(raw_names, prefer_gbk=False) or 'utf-8'
    with tarfile.open(archive, 'r:*') as opened:
        for info in opened:
            name = info.name.encode('utf-8', 'surrogateescape').decode(encoding, 'backslashreplace')
            yield name, info.isdir(), _blocks(functools.partial(opened.extractfile, info))


def _require_tar_end(opened):
    """Check for the zeros at the end: tarfile takes a damaged header for the end. Reading on verifies the checksum of the compression."""
    opened.fileobj.seek(opened.offset)
    end = opened.fileobj.read(tarfile.BLOCKSIZE)
    if end != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('the end mark is missing, or a header is damaged')
    while opened.fileobj.read(BLOCK):
        pass


def _blocks(source):
    with source() as reader:
        yield from iter(lambda: reader.read(BLOCK), b'')


def _drop_wrapper(folder, known):
    while True:
        names = [name for name in os.listdir(folder) if name not in ('__MACOSX', '.DS_Store')]
        if len(names) != 1 or folded(names[0]) in known or not os.path.isdir(os.path.join(folder, names[0])):
            return
        wrapper = os.path.join(folder, f'.wrapper.{os.path.basename(folder)}')
        os.rename(os.path.join(folder, names[0]), wrapper)
        for name in os.listdir(wrapper):
            os.rename(os.path.join(wrapper, name), os.path.join(folder, name))
        os.rmdir(wrapper)
