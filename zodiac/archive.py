"""Unpack a .zip or .tar archive that somebody else made: all of it or nothing, and nothing outside the target."""

import contextlib
import os
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from lzma import LZMAError

from zodiac.errors import UserError, one_line
from zodiac.files import atomic_folder

BLOCK = 1 << 20
TRUSTED_BYTES = 10_000_000  # below this no ratio is suspicious


def unpack(archive, target, max_entries, max_bytes, max_ratio, keep=()):
    """Unpack an archive into the new folder `target`, all or nothing.

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

    if os.path.lexists(target):
        raise refuse(f'{target} exists already')
    ratio_bytes = max(TRUSTED_BYTES, max_ratio * os.path.getsize(archive))
    caps = _Caps(max_entries, min(max_bytes, ratio_bytes), max_bytes <= ratio_bytes, refuse)
    entries = _zip_entries if zipfile.is_zipfile(archive) else _tar_entries
    tree = _Tree(refuse)
    with atomic_folder(target) as folder, contextlib.closing(entries(archive, caps, refuse)) as found:
        for name, is_folder, blocks in _readable(found, refuse):
            path = os.path.join(folder, *tree.add(name, is_folder))
            if is_folder:
                os.makedirs(path, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'xb') as file, contextlib.closing(blocks):
                for block in _readable(blocks, refuse):
                    caps.count(len(block))
                    file.write(block)
        _drop_wrapper(folder, keep)


class _Caps:
    """What an archive may hold."""

    def __init__(self, entries, total, by_bytes, refuse):
        self.entries = entries
        self.total = total
        self.setting = 'annotate.max_bytes' if by_bytes else 'annotate.max_ratio'
        self.refuse = refuse
        self.written = 0

    def check_entries(self, number):
        if number > self.entries:
            raise self.refuse(f'more than {self.entries} entries; raise annotate.max_entries if you trust it')

    def check_bytes(self, number):
        if number > self.total:
            raise self.refuse(f'it unpacks to more than {self.total:,.0f} bytes; raise {self.setting} if you trust it')

    def count(self, number):
        self.written += number
        self.check_bytes(self.written)


class _Tree:
    """The names seen so far; none may stand outside the target, twice, or as a file and a folder."""

    def __init__(self, refuse):
        self.refuse = refuse
        self.files = set()
        self.folders = {()}

    def add(self, name, is_folder):
        """The components of an entry's path below the target."""
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
            raise self.refuse(f'the entry {name!r} stands in it twice')
        self.folders.update([*above, parts] if is_folder else above)
        if not is_folder:
            self.files.add(parts)
        return parts


def _readable(iterator, refuse):
    """Pass items on; what a damaged archive makes its reader raise becomes a refusal."""
    iterator = iter(iterator)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except UserError:
            raise
        except RuntimeError as error:  # zipfile's word for a password
            raise refuse(f'cannot be read ({one_line(error)})') from None
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, ValueError) as error:
            raise refuse(f'damaged or not an archive ({one_line(error)})') from None
        yield item


def _zip_entries(archive, caps, refuse):
    """Yield (name, is a folder, iterator of blocks) for each entry of a .zip."""
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        caps.check_entries(len(infos))
        unflagged = [info.orig_filename.encode('cp437', 'replace') for info in infos if not info.flag_bits & 0x800]
        windows = any(info.create_system == 0 for info in infos if not info.flag_bits & 0x800)
        encoding = _encoding(unflagged, prefer_gbk=windows)
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise refuse(f'the entry {info.filename!r} is a link')
            name = info.orig_filename
            if not info.flag_bits & 0x800 and encoding:
                name = name.encode('cp437', 'replace').decode(encoding)
            is_folder = name.endswith(('/', '\\'))
            yield name, is_folder, _blocks(lambda info=info: opened.open(info))


def _tar_entries(archive, caps, refuse):
    """Yield (name, is a folder, iterator of blocks) for each entry of a .tar; all headers are read once before."""
    raw_names = []
    with tarfile.open(archive, 'r:*') as opened:
        for number, info in enumerate(opened, 1):
            caps.check_entries(number)
            caps.check_bytes(info.offset_data)  # the entries before this one, and their headers
            if not (info.isfile() or info.isdir()):
                raise refuse(f'the entry {info.name!r} is a link or a device')
            raw_names.append(info.name.encode('utf-8', 'surrogateescape'))
        _require_tar_end(opened)
    encoding = _encoding(raw_names, prefer_gbk=False) or 'utf-8'
    with tarfile.open(archive, 'r:*') as opened:
        for info in opened:
            name = info.name.encode('utf-8', 'surrogateescape').decode(encoding, 'backslashreplace')
            yield name, info.isdir(), _blocks(lambda info=info: opened.extractfile(info))


def _require_tar_end(opened):
    """tarfile takes a damaged header for the end; a sound archive ends in zeros. Reading on checks the compression's sum."""
    opened.fileobj.seek(opened.offset)
    end = opened.fileobj.read(tarfile.BLOCKSIZE)
    if end != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('it ends without an end mark, or a header is damaged')
    while opened.fileobj.read(BLOCK):
        pass


def _blocks(source):
    with source() as reader:
        yield from iter(lambda: reader.read(BLOCK), b'')


def _encoding(raw_names, prefer_gbk):
    """The encoding that reads all names of an archive: UTF-8 or GBK; None when neither does.

    Short GBK names can be valid UTF-8 by chance, so one decision is taken for all names; where both read all of them,
    `prefer_gbk` decides.
    """
    fitting = []
    for encoding in ('gbk', 'utf-8') if prefer_gbk else ('utf-8', 'gbk'):
        with contextlib.suppress(UnicodeDecodeError):
            for raw in raw_names:
                raw.decode(encoding)
            fitting.append(encoding)
    return fitting[0] if fitting else None


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
