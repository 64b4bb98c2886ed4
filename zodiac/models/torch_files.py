"""Read PyTorch's weight files (.pth, .pt) without PyTorch, in the format since version 1.6 (ZIP) and the one before it.

Nothing in them runs: see unpickling. https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
"""

import functools
import hashlib
import os
import re
import struct
import zipfile

import numpy as np

from zodiac.models import unpickling

MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'  # of the old format, a pickled number
VERSION = 1001
STORAGES = {
    **{'FloatStorage': '<f4', 'DoubleStorage': '<f8', 'HalfStorage': '<f2', 'BFloat16Storage': '<u2'},
    **{'LongStorage': '<i8', 'IntStorage': '<i4', 'ShortStorage': '<i2', 'CharStorage': '|i1'},
    **{'ByteStorage': '|u1', 'BoolStorage': '|b1'},
}


def is_torch(head):
    """Whether a file with these first bytes may be PyTorch's."""
    return head.startswith((MAGIC, b'PK\x03\x04'))


def read(path, file):
    """Read an open binary file. Returns: dict of name to read-only numpy array, plain value or dict; bfloat16 as float32.

    Raises: an exception of any kind when the file is damaged or needs code to run.
    """
    _check_hash_in_name(path)
    size = os.fstat(file.fileno()).st_size
    if file.peek(4).startswith(MAGIC):
        return _read_old(file, size)
    with zipfile.ZipFile(file) as archive:
        return _read_zip(archive, size)


def _check_hash_in_name(path):
    """PyTorch's published files end with the first digits of their SHA-256, as in resnet50-0676ba61.pth."""
    named = re.search(r'-([0-9a-f]{8,64})\.(?:pth|pt)$', os.path.basename(path))
    if named:
        with open(path, 'rb') as file:
            digest = hashlib.sha256()
            for block in iter(functools.partial(file.read, 1 << 20), b''):
                digest.update(block)
        if not digest.hexdigest().startswith(named[1]):
            raise ValueError(
                f'its SHA-256 begins with {digest.hexdigest()[:8]}, but its name ends with {named[1]}: it is damaged or was changed'
            )


def _read_old(file, size):
    storages = {}
    magic, version, about = (unpickling.ArraysOnly(file).load() for _ in range(3))
    if version != VERSION or about.get('little_endian') is not True:
        raise ValueError(f'its format {version} of magic number {magic:#x} is unknown')
    content = _Unpickler(file, lambda kind, key, count: storages.setdefault(key, _Storage(kind, count))).load()
    for key in unpickling.ArraysOnly(file).load():
        storage = storages.pop(key)
        (count,) = struct.unpack('<q', file.read(8))
        if count != storage.count:
            raise ValueError(f'it contains {count} numbers in the place of {storage.count}')
        if storage.bytes > size - file.tell():
            raise EOFError('Ran out of input')
        storage.fill(file.read(storage.bytes))
    if storages:
        raise ValueError(f'{len(storages)} of its tensors have no data')
    return _unwrap(content)


def _read_zip(archive, size):
    entries = {entry.filename: entry for entry in archive.infolist()}
    (index,) = (name for name in entries if name.endswith('/data.pkl'))
    root = index[: -len('data.pkl')]
    if any(entry.compress_type for entry in entries.values()) or sum(e.file_size for e in entries.values()) > size:
        raise ValueError('its parts are compressed, which PyTorch never does')
    if f'{root}byteorder' in entries and archive.read(f'{root}byteorder') != b'little':
        raise ValueError('it was written on a big-endian machine')
    storages = {}

    def find(kind, key, count):
        if key not in storages:
            storages[key] = _Storage(kind, count)
            storages[key].fill(archive.read(f'{root}data/{key}'))
        return storages[key]

    with archive.open(index) as file:
        return _unwrap(_Unpickler(file, find).load())


class _Unpickler(unpickling.ArraysOnly):
    """Adds PyTorch's tensors; `find` gives the _Storage of (kind, key, number of values)."""

    def __init__(self, file, find):
        super().__init__(file, encoding='latin1')
        self.find = find

    def find_class(self, module, name):
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if (module, name) == ('torch._utils', '_rebuild_parameter'):
            return lambda tensor, *_: tensor
        if module == 'torch' and name in STORAGES:
            return _StorageKind(name)
        return super().find_class(module, name)

    def persistent_load(self, parts):
        what, kind, key, _, count, *view = parts
        if what != 'storage' or type(kind) is not _StorageKind or any(view) or type(count) is not int or count < 0:
            raise unpickling.Refused('it contains a reference to something else than numbers')
        return self.find(kind, str(key), count)


class _StorageKind:
    """Stands for a class of PyTorch's storages."""

    def __init__(self, name):
        self.name = name


class _Storage:
    """The values that one or several tensors are views of."""

    def __init__(self, kind, count):
        self.dtype, self.is_bfloat16 = np.dtype(STORAGES[kind.name]), kind.name == 'BFloat16Storage'
        self.count, self.bytes, self.values = count, count * self.dtype.itemsize, None

    def fill(self, data):
        if len(data) != self.bytes:
            raise ValueError(f'a tensor of {self.bytes:,} bytes has {len(data):,}')
        values = np.frombuffer(data, self.dtype)
        self.values = unpickling.from_bfloat16(values) if self.is_bfloat16 else values


class _Tensor:
    """Stands for a tensor: a view of a storage."""

    def __init__(self, storage, offset, shape, strides):
        if type(storage) is not _Storage:
            raise unpickling.Refused('it contains a tensor without data')
        self.parts = storage, offset, shape, strides

    def array(self):
        storage, offset, shape, strides = self.parts
        numbers = [offset, *shape, *strides]
        if len(shape) != len(strides) or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError('the shape of a tensor is damaged')
        count = int(np.prod(shape, dtype=object))
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides)) if count else 0
        if last >= max(1, storage.count) or count > storage.count:
            raise ValueError('a tensor is larger than its data')
        steps = [stride * storage.values.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage.values[offset:], shape, steps, writeable=False)


def _unwrap(content):
    return unpickling.unwrap(content, (_Tensor, *unpickling.STAND_INS))
