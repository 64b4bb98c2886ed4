"""Archives are unpacked completely and inside their target, or refused with nothing left behind."""

import errno
import io
import os
import random
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib

import pytest
from conftest import everything_below, files_below

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.data import archive as archives

PAYLOAD = random.Random(0).randbytes(3000)  # does not compress
KINDS = ['zip', 'tar', 'tgz']


def make_archive(path, entries):
    """Write (name, bytes) pairs, in order and as they are, into a .zip, .tar or .tgz; a name ending in / is a folder."""
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries:
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(path, 'w:gz' if path.suffix == '.tgz' else 'w') as archive:
            for name, content in entries:
                member = tarfile.TarInfo(name)
                if name.endswith('/'):
                    member.type, content = tarfile.DIRTYPE, b''
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def unpack(archive, target, known=(), encoding='auto'):
    return archives.unpack(str(archive), str(target), known, encoding)


def refusal(archive, *words, encoding='auto'):
    """The error message, which must name `archive` and `words`; nothing may be left beside the archive."""
    folder = archive.parent
    before = everything_below(folder)
    with pytest.raises(UserError) as caught:
        unpack(archive, folder / 'target', encoding=encoding)
    message = str(caught.value)
    assert everything_below(folder) == before
    assert message.startswith(f'{archive}: ')
    assert 'nothing was unpacked' in message
    for word in words:
        assert word in message
    return message


# --- sound archives


@pytest.mark.parametrize('kind', [*KINDS, 'tar.gz', 'tar.bz2', 'tar.xz'])
def test_all_files_are_unpacked_and_the_wrapper_folder_is_dropped(tmp_path, kind):
    source = tmp_path / 'source'
    wanted = {'train/cat/1.jpg': PAYLOAD, 'train/dog/2.jpg': b'', 'valid/cat/3.jpg': b'x' * 5000, 'note.txt': b'n'}
    for name, content in wanted.items():
        (source / 'signs' / name).parent.mkdir(parents=True, exist_ok=True)
        (source / 'signs' / name).write_bytes(content)
    archive = tmp_path / f'signs.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(archive, 'w') as opened:
            for path in sorted(source.rglob('*')):
                opened.write(path, path.relative_to(source))
    else:
        with tarfile.open(archive, f'w:{kind.rpartition(".")[2].replace("tgz", "gz").replace("tar", "")}') as opened:
            opened.add(source / 'signs', 'signs')
    target = tmp_path / 'new' / 'target'
    unpack(archive, target)
    assert files_below(target) == wanted
    assert os.listdir(target.parent) == ['target']


def test_nested_wrappers_with_the_same_name_are_dropped(tmp_path):
    archive = make_archive(tmp_path / 'a.zip', [('signs/signs/train/cat/1.jpg', b'1'), ('signs/signs/test/x', b'2')])
    unpack(archive, tmp_path / 'target')
    assert files_below(tmp_path / 'target') == {'train/cat/1.jpg': b'1', 'test/x': b'2'}


def test_a_wrapper_is_dropped_although_macos_added_its_own_folder(tmp_path):
    entries = [
        ('signs/a/1.jpg', b'1'),
        ('signs/b/2.jpg', b'2'),
        ('__MACOSX/signs/._1.jpg', b'junk'),
        ('.DS_Store', b''),
    ]
    unpack(make_archive(tmp_path / 'a.zip', entries), tmp_path / 'target')
    found = files_below(tmp_path / 'target')
    assert found['a/1.jpg'] == b'1'
    assert found['b/2.jpg'] == b'2'


def test_a_single_folder_named_like_a_split_or_class_is_kept(tmp_path):
    archive = make_archive(tmp_path / 'a.zip', [('signs/train/cat/1.jpg', b'1')])
    unpack(archive, tmp_path / 'target', known=('train', 'valid', 'test', 'cat'))
    assert files_below(tmp_path / 'target') == {'train/cat/1.jpg': b'1'}


def test_a_single_file_is_not_a_wrapper(tmp_path):
    unpack(make_archive(tmp_path / 'a.tar', [('only.jpg', b'1')]), tmp_path / 'target')
    assert files_below(tmp_path / 'target') == {'only.jpg': b'1'}


@pytest.mark.parametrize('kind', KINDS)
def test_dots_and_double_slashes_in_a_name_are_normalised(tmp_path, kind):
    entries = [('./a/./1.jpg', b'1'), ('b//2.jpg', b'2'), ('c/', b''), ('...d/..e', b'3')]
    unpack(make_archive(tmp_path / f'a.{kind}', entries), tmp_path / 'target')
    assert files_below(tmp_path / 'target') == {'a/1.jpg': b'1', 'b/2.jpg': b'2', '...d/..e': b'3'}
    assert (tmp_path / 'target' / 'c').is_dir()


@pytest.mark.parametrize('kind', KINDS)
def test_utf8_names_are_kept(tmp_path, kind):
    entries = [('图片/猫/猫 1.jpg', b'1'), ('图片/é/b.jpg', b'2')]
    unpack(make_archive(tmp_path / f'a.{kind}', entries), tmp_path / 'target')
    assert files_below(tmp_path / 'target') == {'猫/猫 1.jpg': b'1', 'é/b.jpg': b'2'}


# One encoding per archive: the GBK bytes of 猫 alone are valid UTF-8 too. 乗 ends with the byte of a backslash.
CHINESE = ['猫/猫 1.jpg', '狗/狗 2.jpg', '乗/乗马.jpg', '图片.txt']


def zip_of_raw_names(path, names, extra=lambda raw: b''):
    """A .zip as written by Windows, with names in bytes that do not declare their encoding."""
    standins = {f'{number}'.ljust(len(raw), 'Z'): raw for number, raw in enumerate(names)}
    with zipfile.ZipFile(path, 'w') as archive:
        for standin, raw in standins.items():
            info = zipfile.ZipInfo(standin)
            info.create_system, info.extra = 0, extra(raw)
            archive.writestr(info, b'1')
    data = path.read_bytes()
    for standin, raw in standins.items():
        assert data.count(standin.encode()) == 2  # before the file and in the directory
        data = data.replace(standin.encode(), raw)
    path.write_bytes(data)
    return path


def tar_of_raw_names(path, names):
    with tarfile.open(path, 'w', encoding='latin-1', format=tarfile.GNU_FORMAT) as opened:
        for raw in names:
            opened.addfile(tarfile.TarInfo(raw.decode('latin-1')))
    return path


@pytest.mark.parametrize('encoding', ['gbk', 'utf-8'])
def test_zip_names_without_the_utf8_flag_are_decoded(tmp_path, encoding):
    archive = zip_of_raw_names(tmp_path / 'a.zip', [name.encode(encoding) for name in CHINESE])
    assert unpack(archive, tmp_path / 'target') == encoding
    assert sorted(files_below(tmp_path / 'target')) == sorted(CHINESE)


# 構, 表, 功 and 許 contain the byte of a backslash in these encodings
OF_OTHERS = {
    'shift_jis': ['構造', '表現'],
    'big5': ['功能', '許可'],
    'euc_kr': ['고양이', '강아지'],
    'euc_jp': ['猫の写真', '犬の写真'],
    'cp850': ['élan', 'bœuf'.replace('œ', 'ö')],
    'cp866': ['кошка', 'собака'],
}


@pytest.mark.parametrize('make', [zip_of_raw_names, tar_of_raw_names])
@pytest.mark.parametrize('encoding', OF_OTHERS)
def test_names_are_decoded_by_the_labels_or_the_setting(tmp_path, make, encoding):
    labels = OF_OTHERS[encoding]
    wanted = sorted(f'{label}/{label} {number}.jpg' for label in labels for number in range(2))
    archive = make(tmp_path / 'a', [f'data/{name}'.encode(encoding) for name in wanted])
    unpack(archive, tmp_path / 'by labels', known=('train', *labels))
    unpack(archive, tmp_path / 'by setting', encoding=encoding)
    for target in ('by labels', 'by setting'):
        assert sorted(files_below(tmp_path / target)) == wanted


def test_names_that_the_given_encoding_cannot_decode_are_refused(tmp_path):
    archive = zip_of_raw_names(tmp_path / 'a.zip', ['猫/1.jpg'.encode('gbk')])
    refusal(archive, 'annotate.encoding = ascii', encoding='ascii')


def test_the_unicode_path_field_takes_precedence(tmp_path):
    names = {'고양이/1.jpg'.encode('euc_kr'): '고양이/1.jpg', b'caf\x82/2.jpg': 'café/2.jpg'}

    def extra(raw):
        field = struct.pack('<BI', 1, zlib.crc32(raw)) + names[raw].encode()
        return struct.pack('<HH', 0x7075, len(field)) + field

    unpack(zip_of_raw_names(tmp_path / 'a.zip', names, extra), tmp_path / 'target')
    assert sorted(files_below(tmp_path / 'target')) == sorted(names.values())


def test_a_folder_of_a_label_with_a_decomposed_accent_is_kept(tmp_path):
    nfd = unicodedata.normalize('NFD', 'café')
    unpack(make_archive(tmp_path / 'a.zip', [(f'{nfd}/1.jpg', b'1')]), tmp_path / 'target', known=('café',))
    assert list(files_below(tmp_path / 'target')) == [f'{nfd}/1.jpg']


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    make_archive(tmp_path / 'inner.zip', [('xl/workbook.xml', b'<x/>')])
    content = (tmp_path / 'inner.zip').read_bytes()
    entries = [('cat/1.jpg', PAYLOAD), ('labels.xlsx', content)]
    make_archive(tmp_path / 'a.tar', entries)
    for name in ('a.tar', 'PK.bin'):
        (tmp_path / name).write_bytes((tmp_path / 'a.tar').read_bytes())
        unpack(tmp_path / name, tmp_path / f'{name} unpacked')
        assert files_below(tmp_path / f'{name} unpacked') == dict(entries)


def test_a_tar_with_a_damaged_start_that_ends_in_a_zip_is_refused(tmp_path):
    make_archive(tmp_path / 'inner.zip', [('a', b'1')])
    archive = make_archive(tmp_path / 'a.tar', [('1.jpg', PAYLOAD), ('b', (tmp_path / 'inner.zip').read_bytes())])
    archive.write_bytes(b'wrong' + archive.read_bytes()[5:])
    refusal(archive)


def test_a_zip_is_recognised_by_its_content_also_after_a_program(tmp_path):
    make_archive(tmp_path / 'a.zip', [('PK/1.jpg', b'1'), ('2.jpg', b'2')])
    (tmp_path / 'b.tar').write_bytes((tmp_path / 'a.zip').read_bytes())
    (tmp_path / 'c.exe').write_bytes(b'MZ' + bytes(3000) + (tmp_path / 'a.zip').read_bytes())
    for name in ('b.tar', 'c.exe'):
        unpack(tmp_path / name, tmp_path / name[0])
        assert files_below(tmp_path / name[0]) == {'PK/1.jpg': b'1', '2.jpg': b'2'}


@pytest.mark.parametrize(
    ('name', 'start', 'word'),
    [
        ('a.7z', b"7z\xbc\xaf'\x1c", '.7z'),
        ('a.rar', b'Rar!\x1a\x07\x01\x00', '.rar'),
        ('a.tar', b'Rar!\x1a\x07\x00', '.rar'),
        ('a.tar.zst', b'(\xb5/\xfd', 'Zstandard'),
    ],
)
def test_an_unsupported_archive_is_named_with_the_next_step(tmp_path, name, start, word):
    (tmp_path / name).write_bytes(start + PAYLOAD)
    refusal(tmp_path / name, word, 'unpack it yourself', '.zip or .tar')


@pytest.mark.parametrize('tar_format', [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT], ids=['gnu', 'ustar'])
def test_gbk_names_in_a_tar_are_decoded(tmp_path, tar_format):
    archive = tmp_path / 'a.tar'
    with tarfile.open(archive, 'w', encoding='gbk', format=tar_format) as opened:
        for name in CHINESE:
            opened.addfile(tarfile.TarInfo(name))
    unpack(archive, tmp_path / 'target')
    assert sorted(files_below(tmp_path / 'target')) == sorted(CHINESE)


def test_backslashes_of_a_windows_archive_separate_folders(tmp_path):
    archive = make_archive(tmp_path / 'a.zip', [('signs\\cat\\1.jpg', b'1'), ('signs\\dog\\2.jpg', b'2')])
    unpack(archive, tmp_path / 'target')
    assert files_below(tmp_path / 'target') == {'cat/1.jpg': b'1', 'dog/2.jpg': b'2'}


def test_a_folder_entry_of_a_windows_archive_is_a_folder(tmp_path):
    archive = make_archive(tmp_path / 'a.zip', [('cat\\', b''), ('cat\\1.jpg', b'1'), ('dog\\2.jpg', b'2')])
    unpack(archive, tmp_path / 'target')
    assert files_below(tmp_path / 'target') == {'cat/1.jpg': b'1', 'dog/2.jpg': b'2'}


def test_an_existing_target_is_left_alone(tmp_path):
    archive = make_archive(tmp_path / 'a.zip', [('1.jpg', b'1')])
    (tmp_path / 'target').mkdir()
    (tmp_path / 'target' / 'mine').write_bytes(b'mine')
    assert str(tmp_path / 'target') in refusal(archive)


# --- refused archives


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'name',
    [
        '../out.jpg',
        'a/../../out.jpg',
        'a/..',
        '..',
        '/out.jpg',
        '//server/out.jpg',
        '..\\out.jpg',
        'a\\..\\..\\out.jpg',
        '\\out.jpg',
        '\\\\server\\out.jpg',
        'C:\\out.jpg',
        'c:/out.jpg',
        'C:out.jpg',
    ],
)
def test_an_entry_outside_the_target_is_refused_by_name(tmp_path, kind, name):
    folder = tmp_path / 'inner'
    folder.mkdir()
    refusal(make_archive(folder / f'a.{kind}', [('fine/1.jpg', b'1'), (name, b'2')]), repr(name), 'outside the target')
    assert os.listdir(tmp_path) == ['inner']
    assert not os.path.exists('/out.jpg')


@pytest.mark.parametrize('name', ['../', '/', 'C:/'])
def test_a_folder_entry_outside_the_target_is_refused(tmp_path, name):
    refusal(make_archive(tmp_path / 'a.zip', [(name, b''), ('fine/1.jpg', b'1')]), 'outside the target')


@pytest.mark.parametrize('type_', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize('kind', ['tar', 'tgz'])
def test_a_link_or_device_in_a_tar_is_refused_by_name(tmp_path, kind, type_):
    archive = tmp_path / f'a.{kind}'
    with tarfile.open(archive, 'w:gz' if kind == 'tgz' else 'w') as opened:
        opened.addfile(tarfile.TarInfo('fine.jpg'))
        member = tarfile.TarInfo('special.jpg')
        member.type, member.linkname = type_, 'fine.jpg'
        opened.addfile(member)
    refusal(archive, "'special.jpg'", 'link')


def test_a_symlink_in_a_zip_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as opened:
        opened.writestr('fine.jpg', b'1')
        link = zipfile.ZipInfo('special.jpg')
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, '/etc/passwd')
    refusal(tmp_path / 'a.zip', "'special.jpg'", 'link')


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('second', ['a/1.jpg', './a/1.jpg', 'a//1.jpg', 'a\\1.jpg'])
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_a_duplicate_entry_is_refused_by_name(tmp_path, kind, second):
    refusal(make_archive(tmp_path / f'a.{kind}', [('a/1.jpg', b'1'), (second, b'2')]), repr(second), 'twice')


def test_a_folder_entry_may_appear_twice(tmp_path):
    unpack(make_archive(tmp_path / 'a.tar', [('a/', b''), ('a/1.jpg', b'1'), ('a/', b'')]), tmp_path / 'target')
    assert list(files_below(tmp_path / 'target').values()) == [b'1']


@pytest.mark.parametrize('kind', ['zip', 'tar'])
@pytest.mark.parametrize('names', [('a', 'a/1.jpg'), ('a/1.jpg', 'a'), ('a', 'a/')], ids='+'.join)
def test_a_name_that_is_both_file_and_folder_is_refused(tmp_path, kind, names):
    refusal(make_archive(tmp_path / f'a.{kind}', [('fine.jpg', b''), *((name, b'1') for name in names)]), "'a")


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('limits', 'words'),
    [
        ({'MAX_ENTRIES': 3}, 'more than 3 files and folders, the limit;'),
        ({'MAX_BYTES': 2 * len(PAYLOAD) - 1}, 'more than 5,999 bytes, the limit;'),
        ({'MAX_RATIO': 0.1, 'TRUSTED_BYTES': 5999}, 'more than 5,999 bytes, the limit for an archive of'),
    ],
    ids=str,
)
def test_an_archive_above_a_limit_is_refused_with_the_next_step(tmp_path, monkeypatch, kind, limits, words):
    archive = make_archive(tmp_path / f'a.{kind}', [('a/', b''), ('a/1', PAYLOAD), ('a/2', PAYLOAD), ('b', b'')])
    unpack(archive, tmp_path / 'unpacked')
    assert len(files_below(tmp_path / 'unpacked')) == 3
    for name, value in limits.items():
        monkeypatch.setattr(archives, name, value)
    refusal(archive, words, 'unpack it yourself into data.root and leave annotate.archive out')


@pytest.mark.parametrize('kind', ['zip', 'tgz'])
@pytest.mark.parametrize(('size', 'refused'), [(11_000_000, True), (9_000_000, False)])
def test_a_small_archive_may_unpack_to_10_mb(tmp_path, kind, size, refused):
    archive = make_archive(tmp_path / f'a.{kind}', [('zeros', bytes(size))])
    if refused:
        refusal(archive, 'more than 10,000,000 bytes')
    else:
        unpack(archive, tmp_path / 'target')
        assert os.path.getsize(tmp_path / 'target' / 'zeros') == size


def patched_zip(path, offset_local, offset_central, value):
    """A sound zip of one stored file, with 16 bits changed in both headers."""
    with zipfile.ZipFile(path, 'w') as opened:
        opened.writestr('secret.jpg', PAYLOAD)
    data = bytearray(path.read_bytes())
    struct.pack_into('<H', data, data.index(b'PK\x03\x04') + offset_local, value)
    struct.pack_into('<H', data, data.index(b'PK\x01\x02') + offset_central, value)
    path.write_bytes(data)
    return path


def test_an_encrypted_zip_is_refused_saying_so(tmp_path):
    refusal(patched_zip(tmp_path / 'a.zip', 6, 8, 1), 'encrypted')


def test_a_zip_with_an_unknown_compression_is_refused(tmp_path):
    refusal(patched_zip(tmp_path / 'a.zip', 8, 10, 77), 'compression')


def test_a_zip_that_declares_a_wrong_size_is_refused(tmp_path):
    refusal(patched_zip(tmp_path / 'a.zip', 22, 24, 10))


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('a.zip', b''),
        ('a.zip', b'not an archive'),
        ('a.zip', b'PK\x03\x04' + PAYLOAD),
        ('a.tgz', b'not an archive'),
        ('a.tar', bytes(100)),
        ('a.tgz', b'\x1f\x8b\x08\x00'),
        ('a.jpg', b'\xff\xd8\xff\xe0' + PAYLOAD),
    ],
    ids=['empty zip', 'text as zip', 'half a zip', 'text as tgz', 'zeros', 'gzip header', 'jpeg'],
)
def test_a_file_that_is_not_an_archive_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert '\n' not in refusal(tmp_path / name, 'damaged or not an archive')


def many(path):
    return make_archive(path, [(f'cat/{number}.jpg', PAYLOAD) for number in range(6)])


@pytest.mark.parametrize('kind', [*KINDS, 'tar.xz', 'tar.bz2'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.75, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, kind, share):
    archive = tmp_path / f'a.{kind}'
    if kind in KINDS:
        many(archive)
    else:
        with tarfile.open(archive, f'w:{kind[4:]}') as opened:
            for number in range(6):
                member = tarfile.TarInfo(f'cat/{number}.jpg')
                member.size = len(PAYLOAD)
                opened.addfile(member, io.BytesIO(PAYLOAD))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data.rstrip(b'\0')) * share)])
    refusal(archive)


@pytest.mark.parametrize('beyond', [0, 100], ids=['between entries', 'inside a header'])
def test_a_tar_truncated_between_files_is_refused(tmp_path, beyond):
    archive = many(tmp_path / 'a.tar')
    with tarfile.open(archive) as opened:
        third = opened.getmembers()[2].offset
    archive.write_bytes(archive.read_bytes()[: third + beyond])
    refusal(archive)


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path):
    archive = many(tmp_path / 'a.tar')
    with tarfile.open(archive) as opened:
        third = opened.getmembers()[2].offset
    data = bytearray(archive.read_bytes())
    data[third : third + 5] = b'wrong'
    archive.write_bytes(data)
    refusal(archive)


def flip_a_bit(archive):
    data = bytearray(archive.read_bytes())
    data[data.index(PAYLOAD[1000:1010])] ^= 1
    archive.write_bytes(data)


def test_a_zip_with_a_wrong_checksum_is_refused(tmp_path):
    flip_a_bit(many(tmp_path / 'a.zip'))
    refusal(tmp_path / 'a.zip')


@pytest.mark.parametrize('kind', ['gz', 'xz', 'bz2'])
@pytest.mark.parametrize('count', [1, 6], ids=['one file', 'many files'])
def test_a_compressed_tar_with_a_wrong_checksum_is_refused(tmp_path, kind, count):
    archive = tmp_path / f'a.tar.{kind}'
    with tarfile.open(archive, f'w:{kind}', **({'compresslevel': 0} if kind == 'gz' else {})) as opened:
        for number in range(count):
            member = tarfile.TarInfo(f'cat/{number}.jpg')
            member.size = len(PAYLOAD)
            opened.addfile(member, io.BytesIO(PAYLOAD))
    data = bytearray(archive.read_bytes())
    place = data.index(PAYLOAD[1000:1010]) if kind == 'gz' else len(data) // 2
    data[place] ^= 1
    archive.write_bytes(data)
    refusal(archive)


def test_a_bz2_damaged_near_its_end_is_refused(tmp_path):
    archive, content = tmp_path / 'a.tar.bz2', random.Random(0).randbytes(1_200_000)  # more than one block
    with tarfile.open(archive, 'w:bz2') as opened:
        member = tarfile.TarInfo('cat/1.jpg')
        member.size = len(content)
        opened.addfile(member, io.BytesIO(content))
    data = bytearray(archive.read_bytes())
    data[len(data) - 1000] ^= 1
    archive.write_bytes(data)
    refusal(archive)


def test_a_zip_with_damaged_compressed_data_is_refused(tmp_path):
    archive = make_archive(tmp_path / 'a.zip', [('a.txt', b'some words again and again, ' * 200)])
    data = bytearray(archive.read_bytes())
    data[40:60] = b'\xff' * 20
    archive.write_bytes(data)
    refusal(archive)


def test_a_full_disk_while_unpacking_leaves_nothing(tmp_path, monkeypatch):
    archive = many(tmp_path / 'a.zip')
    before = everything_below(tmp_path)

    def full(path):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(files, 'sync_folder', full)
    with pytest.raises(UserError, match='No space left on device') as caught:
        unpack(archive, tmp_path / 'target')
    assert str(tmp_path / 'target') in str(caught.value)
    assert everything_below(tmp_path) == before


# --- unpack_once


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(make_archive(tmp_path / 'a.zip', [('cat/1.jpg', b'1'), ('dog/2.jpg', b'2')]).name)


@pytest.mark.parametrize('empty_folder', [False, True])
def test_an_archive_is_unpacked_only_once(archive, capsys, empty_folder):
    if empty_folder:
        os.mkdir('signs')
    archives.unpack_once(archive, 'signs', (), 'auto')
    assert capsys.readouterr().err == 'a.zip unpacked into signs\n'
    time = os.stat('signs/cat/1.jpg').st_mtime_ns
    archives.unpack_once(archive, 'signs', (), 'auto')
    assert capsys.readouterr().err == 'a.zip is already unpacked in signs\n'
    assert os.stat('signs/cat/1.jpg').st_mtime_ns == time
    assert sorted(os.listdir('.')) == ['a.zip', 'signs']


@pytest.mark.parametrize('content', ['another archive', 'another file'])
def test_a_folder_with_other_content_is_left_alone(archive, content):
    if content == 'another archive':
        archives.unpack_once(archive, 'signs', (), 'auto')
        with zipfile.ZipFile(archive, 'a') as opened:
            opened.writestr('cat/more.jpg', b'3')
    else:
        os.mkdir('signs')
        with open('signs/mine.txt', 'w') as file:
            file.write('mine')
    before = everything_below('signs')
    with pytest.raises(UserError, match='^signs: the folder holds other files; set data.root'):
        archives.unpack_once(archive, 'signs', (), 'auto')
    assert everything_below('signs') == before


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(UserError, match=r'^gone\.zip: no such archive'):
        archives.unpack_once('gone.zip', str(tmp_path / 'signs'), (), 'auto')
