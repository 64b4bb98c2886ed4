"""Weight files of other programs are loaded or identified."""

import io
import json
import pickle
import re
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import builder, pretrained, weights


@pytest.fixture(scope='module')
def saved():
    """{name: float32 array} of a network."""
    return {name: tensor.numpy() for name, tensor in network(seed=1).state_dict().items()}


def network(classes=3, seed=0):
    paddle.seed(seed)
    return builder.build('cifarnet', classes, 32)


def bfloat16(values):
    """The upper halves of float32 numbers, as Paddle and safetensors keep bfloat16."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def safetensors(values, kinds=None):
    """bytes of a .safetensors file; `kinds` has the types that are not F32."""
    header, data = {'__metadata__': {'format': 'pt'}}, b''
    for name, array in values.items():
        start, data = len(data), data + np.ascontiguousarray(array).tobytes()
        kind = (kinds or {}).get(name, 'F32')
        header[name] = {'dtype': kind, 'shape': list(array.shape), 'data_offsets': [start, len(data)]}
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


def of_pytorch(values):
    """The tensors of a network with PyTorch's names and layouts."""
    renamed = {}
    for name, value in values.items():
        name = name.replace('._mean', '.running_mean').replace('._variance', '.running_var')
        renamed[name] = value.T if value.ndim == 2 else value
        if name.endswith('running_var'):
            renamed[name.replace('running_var', 'num_batches_tracked')] = np.array([7], np.int64)
    return renamed


def loaded(path):
    """({name: array} of a network loaded from a file, the message)."""
    filled = network()
    said = pretrained.load_pretrained(filled, 'cifarnet', str(path))
    return {name: tensor.numpy() for name, tensor in filled.state_dict().items()}, said


def assert_loads(path, content, expected, *words):
    path.write_bytes(content)
    got, said = loaded(path)
    for name, value in expected.items():
        assert np.array_equal(got[name], value), name
    for word in words:
        assert word in said


WRAPPED = {
    "found under 'state_dict'": lambda values: {'state_dict': values, 'epoch': 3},
    "found under 'model.weights'": lambda values: {'model': {'weights': values}, 'optimizer': {'a': np.zeros(3)}},
    "prefix 'module.' removed": lambda values: {f'module.{name}': value for name, value in values.items()},
    "prefix '_layers.' removed": lambda values: {f'_layers.{name}': value for name, value in values.items()},
    "found under 'net', prefix 'module.model.' removed": lambda values: {
        'net': {f'module.model.{name}': value for name, value in values.items()}
    },
    "converted from PyTorch's names": of_pytorch,
}


@pytest.mark.parametrize('said', WRAPPED)
def test_keys_prefixes_and_pytorch_names_are_recognised(tmp_path, saved, said):
    content = pickle.dumps(WRAPPED[said](saved), protocol=2)
    assert_loads(tmp_path / 'w.pdparams', content, saved, said, f'{len(saved)} of {len(saved)} tensors')


def test_a_plain_file_is_loaded_unchanged(tmp_path, saved):
    path = tmp_path / 'w.pdparams'
    assert_loads(path, pickle.dumps({**saved, 'epoch': 3}, protocol=2), saved, f'{len(saved)} tensors loaded, head')


def test_safetensors_are_read_with_paddle_and_pytorch_names(tmp_path, saved):
    path = tmp_path / 'w.safetensors'
    assert_loads(path, safetensors(saved), saved)
    with_counters = of_pytorch(saved)
    kinds = {name: 'I64' for name, value in with_counters.items() if value.dtype == np.int64}
    assert_loads(path, safetensors(with_counters, kinds), saved, "PyTorch's names")


@pytest.mark.parametrize('form', ['pdparams', 'safetensors', 'ml_dtypes'])
def test_bfloat16_is_converted_to_float32(tmp_path, saved, form):
    halves = {name: bfloat16(value) for name, value in saved.items()}
    expected = {name: (value.astype(np.uint32) << 16).view(np.float32) for name, value in halves.items()}
    if form == 'safetensors':
        content = safetensors(halves, dict.fromkeys(halves, 'BF16'))
    elif form == 'ml_dtypes':
        kind = pytest.importorskip('ml_dtypes').bfloat16
        content = pickle.dumps({name: value.view(kind) for name, value in halves.items()}, protocol=2)
    else:
        content = pickle.dumps(halves, protocol=2)
    assert_loads(tmp_path / f'w.{form}', content, expected)


def test_bfloat16_bits_of_1_5_are_read_as_1_5(tmp_path):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({'a': np.array([0x3FC0, 0xBF80], np.uint16), 'b': np.array(0x3FC0, np.uint16)}))
    read = weights.read(path)
    assert read['a'].dtype == np.float32 and read['a'].tolist() == [1.5, -1.0] and float(read['b']) == 1.5


def test_integer_tensors_are_refused(tmp_path, saved):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({name: (value * 50).astype(np.int8) for name, value in saved.items()}))
    with pytest.raises(UserError, match=re.escape(str(path))):
        loaded(path)


def test_several_fitting_sets_are_refused(tmp_path, saved):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({'model': saved, 'ema': {f'module.{name}': value for name, value in saved.items()}}))
    with pytest.raises(UserError, match="'model', 'ema module.'"):
        loaded(path)


def test_unknown_names_are_reported(tmp_path, saved):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({f'{name}.blocks': value for name, value in saved.items()}))
    with pytest.raises(UserError) as caught:
        loaded(path)
    first = next(iter(saved))
    for word in (
        str(path),
        f'0 of the {len(saved)} tensors',
        f'{first}.blocks',
        f'cifarnet has {first}',
        '#other-weights',
    ):
        assert word in str(caught.value)


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name in names:
            archive.writestr(name, b'1')
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('w.pdparams'))
    return buffer.getvalue()


class Torch:
    """Pickles like a tensor of PyTorch, as a call of its function."""

    def __reduce__(self):
        return _rebuild_tensor_v2, ()


def _rebuild_tensor_v2():
    """Stands for PyTorch's."""


def pickled_by_pytorch():
    return pickle.dumps({'fc.weight': Torch()}, protocol=2).replace(__name__.encode(), b'torch._utils')


STRANGERS = {
    'nothing': (b'', 'empty'),
    'zeros': (bytes(5000), 'zero.*again'),
    'eight bits': (safetensors({'a': np.zeros(4, np.int8)}, {'a': 'F8_E5M2'}), 'safetensors.*F8_E5M2.*float32'),
    'lfs': (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n', 'Git LFS pointer.*git lfs pull'),
    'page': (b'\n<!DOCTYPE html>\n<html><title>404 Not Found</title>', 'web page.*download'),
    'error': (b'{"error": "Entry not found"}', 'text .*Entry not found.*download'),
    'chinese text': ('权重\n'.encode() * 200, 'text .*权重'),
    'pytorch': (zipped('archive/data.pkl', 'archive/version'), 'PyTorch file that cannot be read.*again'),
    'torchscript': (zipped('archive/data.pkl', 'archive/constants.pkl'), 'TorchScript.*state_dict.*#other-weights'),
    'old pytorch': (b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.', 'cut off after 21 bytes'),
    'pickle of pytorch': (pickled_by_pytorch(), 'PyTorch file of more than weights.*state_dict'),
    'cut off pytorch': (zipped('archive/data.pkl')[:60], 'cut off.*PyTorch.*again'),
    'npz': (zipped('a.npy', 'b.npy'), 'NumPy'),
    'zip': (zipped('readme.txt'), 'archive; unpack'),
    'gzip': (b'\x1f\x8b\x08' + bytes(60), 'archive; unpack'),
    'tar': (tar(), 'archive; unpack'),
    'keras': (b'\x89HDF\r\n\x1a\n' + bytes(60), 'HDF5.*Keras'),
    'onnx': (b'\x08\x08\x12\x07pytorch\x1a\x052.1.0', 'ONNX model'),
    'pdiparams': (bytes(16) + b'\x05\0\0\0\x08\x05' + bytes(20), 'exported model.*pdparams'),
    'cut off pickle': (pickle.dumps({'a': np.zeros(99)}, protocol=2)[:300], 'cut off after 300 bytes'),
    'cut off safetensors': (
        safetensors({'a': np.zeros((9, 9), np.float32)})[:-40],
        'safetensors.*a is incomplete',
    ),
    'bad safetensors': (struct.pack('<Q', 9) + b'{"a": 1}}', 'safetensors.*Extra data'),
}


@pytest.mark.parametrize('name', STRANGERS)
def test_other_files_are_identified_with_the_next_step(tmp_path, name):
    content, words = STRANGERS[name]
    path = tmp_path / 'w.pdparams'
    path.write_bytes(content)
    with pytest.raises(UserError, match=f'{re.escape(str(path))}: is .*{words}'):
        weights.read(path)


@pytest.mark.parametrize(
    'entry',
    [
        {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 99]},
        {'dtype': 'F32', 'shape': [2], 'data_offsets': [-8, 0]},
        {'dtype': 'F32', 'shape': [-1], 'data_offsets': [4, 0]},
        {'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 8]},
        {'dtype': 'F8_E4M3', 'shape': [8], 'data_offsets': [0, 8]},
        {'dtype': 'F32'},
        [],
    ],
)
def test_a_hostile_safetensors_header_is_refused(tmp_path, entry):
    text = json.dumps({'a': entry}).encode()
    path = tmp_path / 'w.safetensors'
    path.write_bytes(struct.pack('<Q', len(text)) + text + bytes(8))
    with pytest.raises(UserError, match=re.escape(str(path))):
        weights.read(path)


@pytest.mark.parametrize('kind', [list, tuple, dict])
def test_containers_that_repeat_themselves_take_no_time(tmp_path, kind):
    content = {'x': 1}
    for _ in range(60):
        content = dict.fromkeys('abcdefgh', content) if kind is dict else kind([content, content])
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({'a': content}, protocol=4))
    with pytest.raises(UserError, match='has 0 of the'):
        loaded(path)


@pytest.mark.parametrize('depth', [300, 5000])
def test_deeply_nested_dicts_are_refused(tmp_path, depth):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(b'\x80\x02' + b'}X\x01\0\0\0a' * depth + b'}' + b's' * depth + b'.')
    with pytest.raises(UserError, match=re.escape(str(path))):
        loaded(path)
