"""Unpack a .zip or .tar archive that somebody else made: all of it or nothing, and nothing outside the target."""

import contextlib
import functools
import os
import posixpath
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from lzma import LZMAError

from zodiac.base.errors import UserError, one_line
from zodiac.base.files import atomic_folder

BLOCK = 1 << 20
TRUSTED_BYTES = 10_000_000  # below this no ratio is suspicious
TAR_SUFFIXES = ('.tar', '.tgz', '.tar.gz', '.tbz2', '.tar.bz2', '.txz', '.tar.xz')
ZIP_STARTS = (b'PK\x03\x04', b'PK\x05\x06', b'PK\x07\x08')
# Shift-JIS, Big5 and EUC-KR as Windows has them, and others that are in use; taken only where they make names that are looked for
OTHER_ENCODINGS = ('cp932', 'cp950', 'cp949', 'euc_jp', 'cp850', 'cp1252', 'cp866', 'cp1251')
UNICODE_PATH = 0x7075  # an extra field of .zip: the name in UTF-8 (APPNOTE.TXT 4.6.9)
NOT_READ = (  # (how a file begins, what it is)
    (b'7z\xbc\xaf\x27\x1c', 'a .7z archive'),
    (b'Rar!\x1a\x07', 'a .rar archive'),
    (b'\x28\xb5\x2f\xfd', 'compressed with Zstandard'),
    (b'\x04\x22\x4d\x18', 'compressed with LZ4'),
    (b'\x1f\x9d', 'compressed with compress (.Z)'),
    (b'MSCF', 'a .cab archive'),
)


def unpack(archive, target, max_entries, max_bytes, max_ratio, known=(), encoding='auto'):
    """Unpack an archive into the new folder `target`, all or nothing.

    A single folder that wraps everything (`signs/train/...` in signs.zip) is dropped, unless its name is in `known`.

    Args:
        known: names of folders that are looked for.
        encoding: of names that do not say theirs; 'auto': the one in which most of `known` are found; where none is, UTF-8 or GBK.
        max_entries: files and folders the archive may hold.
        max_bytes: bytes it may have when unpacked; counted as they are written, not as the archive declares them.
        max_ratio: unpacked bytes over the archive's own bytes (beyond the first 10 MB).
    Returns: the encoding in which names were read that do not say theirs; '' where all are ASCII, or it is not known.
    Raises: UserError naming the archive and the entry, for a damaged archive, an entry outside the target, a link or a
        device, an entry that stands twice, or a cap that is passed.
    """

    def refuse(reason):
        return UserError(f'{archive}: {reason}; nothing was unpacked')

    if os.path.lexists(target):
        raise refuse(f'{target} exists already')
    ratio_bytes = max(TRUSTED_BYTES, max_ratio * os.path.getsize(archive))
    caps = _Caps(max_entries, min(max_bytes, ratio_bytes), max_bytes <= ratio_bytes, refuse)
    entries = _reader(archive, refuse)
    names = _Names(encoding, {_folded(name) for name in known}, refuse)
    tree = _Tree(refuse)
    with atomic_folder(target) as folder, contextlib.closing(entries(archive, caps, refuse, names)) as found:
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
        _drop_wrapper(folder, names.known)
    return names.encoding


def _reader(archive, refuse):
    """What yields the entries of an archive, judged by its start: a .tar may well end in a .zip, where that one is looked for."""
    with open(archive, 'rb') as file:
        start = file.read(8)
    if not start.startswith(ZIP_STARTS):
        what = next((what for magic, what in NOT_READ if start.startswith(magic)), '')
        if what:
            raise refuse(
                f'{what}, which is not read; unpack it yourself and set data.root to the folder, or pack it as .zip or .tar'
            )
        if archive.lower().endswith(TAR_SUFFIXES) or _is_tar(archive):
            return _tar_entries
    if zipfile.is_zipfile(archive):  # also behind a program that unpacks it
        return _zip_entries
    raise refuse('damaged or not an archive; .zip, .tar, .tar.gz, .tar.bz2 and .tar.xz are read')


def _is_tar(archive):
    try:
        return tarfile.is_tarfile(archive)
    except (zlib.error, LZMAError, EOFError, OSError, ValueError):  # damaged, where it is compressed
        return True


def _folded(name):
    """A name as it is compared: macOS writes an accent as a character of its own (NFD)."""
    return unicodedata.normalize('NFC', name).lower()


class _Names:
    """How the names of an archive that do not say their encoding are read.

    Args: see `unpack`; known: folded.
    """

    def __init__(self, encoding, known, refuse):
        self.wanted = encoding
        self.known = known
        self.refuse = refuse
        self.encoding = ''

    def look(self, raw_names, prefer_gbk):
        """Choose the encoding of all, for short names are valid in several: returns it, or None where none reads them.

        Args:
            prefer_gbk: whether GBK comes before UTF-8 where both read all of them.
        """
        raw_names = [raw for raw in raw_names if not raw.isascii()]
        if not raw_names:
            return 'utf-8'
        if self.wanted != 'auto':
            self._require(raw_names)
            self.encoding = self.wanted
            return self.wanted
        usual = ('gbk', 'utf-8') if prefer_gbk else ('utf-8', 'gbk')
        found = {encoding: self._count_known(raw_names, encoding) for encoding in (*usual, *OTHER_ENCODINGS)}
        best = max(found, key=found.get)  # the first of equals
        if found[best] <= 0:
            best = next((encoding for encoding in usual if found[encoding] == 0), '')
        self.encoding = best
        return best or None

    def _count_known(self, raw_names, encoding):
        """How many of the known names there are, beside those in ASCII, if all are read so; -1 where they cannot be."""
        try:
            parts = {
                part for raw in raw_names for part in re.split(r'[/\\]', raw.decode(encoding)) if not part.isascii()
            }
        except UnicodeDecodeError:
            return -1
        return len(self.known & set(map(_folded, parts)))

    def _require(self, raw_names):
        for raw in raw_names:
            try:
                raw.decode(self.wanted)
            except UnicodeDecodeError:
                raise self.refuse(
                    f'annotate.encoding = {self.wanted} cannot read the name {raw!r}; set another'
                ) from None


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


def _zip_entries(archive, caps, refuse, names):
    """Yield (name, is a folder, iterator of blocks) for each entry of a .zip."""
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        caps.check_entries(len(infos))
        untold = [info for info in infos if not info.flag_bits & 0x800 and not _unicode_path(info)]
        windows = any(info.create_system == 0 for info in untold)
        encoding = names.look([_raw_name(info) for info in untold], prefer_gbk=windows)
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
    """The name in an extra field of its own, as WinRAR and others write it; '' where there is none that belongs to the entry."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from('<HH', extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and field[:5] == struct.pack('<BI', 1, zlib.crc32(_raw_name(info))):
            with contextlib.suppress(UnicodeDecodeError):
                return field[5:].decode()
    return ''


def _tar_entries(archive, caps, refuse, names):
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
    encoding = names.look(raw_names, prefer_gbk=False) or 'utf-8'
    with tarfile.open(archive, 'r:*') as opened:
        for info in opened:
            name = info.name.encode('utf-8', 'surrogateescape').decode(encoding, 'backslashreplace')
            yield name, info.isdir(), _blocks(functools.partial(opened.extractfile, info))


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


def _drop_wrapper(folder, known):
    while True:
        names = [name for name in os.listdir(folder) if name not in ('__MACOSX', '.DS_Store')]
        if len(names) != 1 or _folded(names[0]) in known or not os.path.isdir(os.path.join(folder, names[0])):
            return
        wrapper = os.path.join(folder, f'.wrapper.{os.path.basename(folder)}')
        os.rename(os.path.join(folder, names[0]), wrapper)
        for name in os.listdir(wrapper):
            os.rename(os.path.join(wrapper, name), os.path.join(folder, name))
        os.rmdir(wrapper)
