"""PyTorch's weight files are read without PyTorch, and nothing in them runs."""

import collections
import hashlib
import io
import os
import pickle
import re
import shlex
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from zodiac.base.errors import UserError
from zodiac.models import torch_files, weights

FORMS = ['old', 'zip']
ORDER = collections.OrderedDict  # state dicts are of this type


class Storage:
    """Values that tensors are views of."""

    def __init__(self, values, kind):
        self.values, self.kind, self.key = values, kind, None


class Tensor:
    """Pickles like PyTorch's."""

    def __init__(self, storage, offset, shape, strides):
        self.parts = storage, offset, shape, strides

    def __reduce__(self):
        return sys.modules['torch._utils']._rebuild_tensor_v2, (*self.parts, False, ORDER())


def tensor(array, kind='FloatStorage'):
    array = np.asarray(array)
    strides = tuple(step // array.itemsize for step in array.strides)
    return Tensor(Storage(array.ravel('K'), kind), 0, array.shape, strides)


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    """Modules with PyTorch's names, for pickle to refer to."""
    module, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    for name in (*torch_files.STORAGES, 'QInt8Storage'):
        setattr(module, name, type(name, (), {'__module__': 'torch'}))
    for name in ('_rebuild_tensor_v2', '_rebuild_parameter'):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = 'torch._utils', name
        setattr(utils, name, function)
    monkeypatch.setitem(sys.modules, 'torch', module)
    monkeypatch.setitem(sys.modules, 'torch._utils', utils)
    return module


def pickled(content, form):
    """(bytes of the pickle, its storages)."""
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            if item.key is None or item not in storages:
                item.key = str(len(storages))
                storages.append(item)
            about = 'storage', getattr(sys.modules['torch'], item.kind), item.key, 'cpu', item.values.size
            return (*about, None) if form == 'old' else about

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue(), storages


def written(content, form, compression=zipfile.ZIP_STORED, order='little'):
    """bytes of a file as torch.save writes it."""
    data, storages = pickled(content, form)
    if form == 'old':
        about = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}
        head = b''.join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, about))
        body = [struct.pack('<q', storage.values.size) + storage.values.tobytes() for storage in storages]
        return head + data + pickle.dumps([storage.key for storage in storages], 2) + b''.join(body)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', data)
        archive.writestr('archive/byteorder', order)
        for storage in storages:
            archive.writestr(f'archive/data/{storage.key}', storage.values.tobytes())
        archive.writestr('archive/version', '3\n')
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path):
    def of(content, name='w.pth'):
        (tmp_path / name).write_bytes(content)
        return weights.read(tmp_path / name)

    return of


RNG = np.random.default_rng(0)
GRID = RNG.standard_normal((3, 4)).astype(np.float32)


@pytest.mark.parametrize('form', FORMS)
def test_tensors_of_every_type_and_layout_are_read_bit_for_bit(read, torch, form):
    shared = Storage(np.arange(10, dtype=np.float32), 'FloatStorage')
    rebuild = sys.modules['torch._utils']._rebuild_parameter

    class Parameter:
        def __reduce__(self):
            return rebuild, (tensor(GRID), True, ORDER())

    halves = (GRID.view(np.uint32) >> 16).astype(np.uint16)
    content = ORDER(
        plain=tensor(GRID),
        transposed=tensor(GRID.T),
        scalar=tensor(np.int64(7), 'LongStorage'),
        double=tensor(GRID.astype(np.float64), 'DoubleStorage'),
        half=tensor(GRID.astype(np.float16), 'HalfStorage'),
        bfloat16=tensor(halves, 'BFloat16Storage'),
        flags=tensor(GRID > 0, 'BoolStorage'),
        empty=tensor(np.zeros((0, 3), np.float32)),
        first=Tensor(shared, 0, (2, 2), (2, 1)),
        rest=Tensor(shared, 4, (3,), (2,)),
        parameter=Parameter(),
        state={'epoch': 3, 'best': 0.5, 'inner': [tensor(GRID)]},
    )
    found = read(written(content, form))
    expected = {
        **{'plain': GRID, 'transposed': GRID.T, 'scalar': np.int64(7), 'double': GRID.astype(np.float64)},
        **{'half': GRID.astype(np.float16), 'flags': GRID > 0, 'empty': np.zeros((0, 3), np.float32)},
        'bfloat16': (halves.astype(np.uint32) << 16).view(np.float32),
        **{'first': np.arange(4, dtype=np.float32).reshape(2, 2), 'rest': np.float32([4, 6, 8]), 'parameter': GRID},
    }
    for name, value in expected.items():
        assert found[name].dtype == np.asarray(value).dtype and np.array_equal(found[name], value), name
        assert not found[name].flags.writeable
    assert found['state']['epoch'] == 3 and np.array_equal(found['state']['inner'][0], GRID)


class Call:
    """Unpickles to the result of a call."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize('form', FORMS)
def test_a_hostile_pickle_is_refused_and_nothing_runs(read, tmp_path, form):
    marker = tmp_path / 'it ran'
    command = f'touch {shlex.quote(str(marker))}'
    for call in (Call(os.system, command), Call(eval, f'open({str(marker)!r}, "w")'), Call(getattr, tensor(GRID), 'x')):
        for content in ({'a': tensor(GRID), 'b': call}, call, {'a': Tensor(call, 0, (1,), (1,))}):
            with pytest.raises(UserError, match='w.pth: is a PyTorch file of more than weights .*state_dict'):
                read(written(content, form))
    assert not marker.exists()


def storage(count=12):
    return Storage(np.zeros(count, np.float32), 'FloatStorage')


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    'parts',
    [
        (-1, (2,), (1,)),
        (12, (1,), (1,)),
        (0, (13,), (1,)),
        (0, (3, 4), (1 << 40, 1)),
        (0, (2,), (-1,)),
        (0, (1 << 40,), (0,)),
        (0, (3,), (1, 1)),
        (0, (2.0,), (1,)),
        (0, 'ab', (1, 1)),
    ],
    ids=str,
)
def test_a_view_outside_of_its_data_is_refused(read, form, parts):
    with pytest.raises(UserError, match='w.pth'):
        read(written({'a': Tensor(storage(), *parts)}, form))


def replaced(content, before, after):
    assert content.count(before) == 1
    return content.replace(before, after)


def test_inconsistent_files_are_refused(read, torch):
    old = written({'a': tensor(GRID)}, 'old')
    cases = {
        'numbers in the place of': replaced(old, struct.pack('<q', 12), struct.pack('<q', 11)),
        'cut off': replaced(old, struct.pack('<q', 12) + GRID.tobytes(), b''),
        'format 1002': replaced(old, b'\x80\x02M\xe9\x03.', b'\x80\x02M\xea\x03.'),
        'compressed': written({'a': tensor(GRID)}, 'zip', zipfile.ZIP_DEFLATED),
        'QInt8Storage': written({'a': Tensor(Storage(np.zeros(4, np.int8), 'QInt8Storage'), 0, (4,), (1,))}, 'zip'),
        'big-endian': written({'a': tensor(GRID)}, 'zip', order='big'),
        'reference to something else': replaced(old, b'X\x07\x00\x00\x00storage', b'X\x07\x00\x00\x00storagX'),
    }
    for word, content in cases.items():
        with pytest.raises(UserError, match=f'w.pth.*{word}'):
            read(content)


@pytest.mark.parametrize('form', FORMS)
def test_a_file_cut_short_is_refused(read, form):
    content = written({'a': tensor(GRID), 'b': tensor(GRID.T)}, form)
    for length in range(20, len(content) - 1, 7):
        with pytest.raises(UserError, match=r'w\.pth: .*again'):
            read(content[:length])


@pytest.mark.parametrize('form', FORMS)
def test_a_flipped_bit_gives_a_message_or_other_numbers_and_runs_nothing(read, form):
    content = written({'a': tensor(GRID)}, form)
    data = range(content.index(GRID.tobytes()), content.index(GRID.tobytes()) + GRID.nbytes)
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        try:
            read(bytes(changed))
        except UserError:
            continue
        assert form == 'old' or place not in data  # ZIP files have checksums


def test_the_hash_in_a_published_file_name_is_checked(read):
    content = written({'a': tensor(GRID)}, 'old')
    digest = hashlib.sha256(content).hexdigest()
    assert np.array_equal(read(content, f'net-{digest[:8]}.pth')['a'], GRID)
    with pytest.raises(
        UserError, match=re.escape('net-00000000.pth: is a PyTorch file that cannot be read (its SHA-256')
    ):
        read(content, 'net-00000000.pth')
