"""Weight files are read bit for bit, and nothing in them runs."""

import collections
import contextlib
import functools
import importlib
import io
import operator
import os
import pathlib
import pickle
import re
import runpy
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import weights


def assert_same_arrays(read, expected):
    """Same names; each array has the same dtype, shape and bits."""
    assert set(read) == set(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        assert isinstance(read[name], np.ndarray), name
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape), name
        assert read[name].tobytes() == array.tobytes(), name


def some_arrays():
    rng = np.random.default_rng(0)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    return {
        'conv.weight': rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
        'bn._mean': odd,
        'half': rng.standard_normal(5).astype(np.float16),
        'step': np.array(7, np.int64),
    }


def small_network():
    return paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Flatten())


def trained(optimizer):
    """A network and its optimizer after one step, with all of its state."""
    network = small_network()
    rate = paddle.optimizer.lr.CosineAnnealingDecay(0.1, T_max=10)
    optimizer = optimizer(rate, parameters=network.parameters())
    network(paddle.rand([2, 3, 8, 8])).square().mean().backward()
    optimizer.step()
    rate.step()
    return network, optimizer


OPTIMIZERS = [paddle.optimizer.Momentum, paddle.optimizer.Adam]


def test_a_saved_network_reads_back_bit_for_bit(tmp_path):
    network, _ = trained(paddle.optimizer.Momentum)
    paddle.save(network.state_dict(), str(tmp_path / 'net.pdparams'))
    expected = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert_same_arrays(weights.read(tmp_path / 'net.pdparams'), expected)


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_a_saved_optimizer_reads_back_bit_for_bit(tmp_path, kind):
    _, optimizer = trained(kind)
    state = optimizer.state_dict()
    paddle.save(state, str(tmp_path / 'net.pdopt'))
    read = weights.read(tmp_path / 'net.pdopt')
    assert read.pop('LR_Scheduler') == state['LR_Scheduler']
    assert len(read) >= 4
    assert_same_arrays(read, {name: value.numpy() for name, value in state.items() if name != 'LR_Scheduler'})


def test_tensors_inside_a_nested_dict_read_as_arrays(tmp_path):
    # like `master_weights` of an optimizer in mixed precision
    values = np.arange(3, dtype=np.float32)
    tensor = paddle.to_tensor(values)
    paddle.save({'velocity': tensor, 'master_weights': {'conv_w': tensor}}, str(tmp_path / 'net.pdopt'))
    read = weights.read(tmp_path / 'net.pdopt')
    assert_same_arrays({'velocity': read['velocity']}, {'velocity': values})
    assert_same_arrays(read['master_weights'], {'conv_w': values})


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_every_pickle_protocol_of_paddle_is_read(tmp_path, protocol):
    network = small_network()
    paddle.save(network.state_dict(), str(tmp_path / 'net.pdparams'), protocol=protocol)
    expected = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert_same_arrays(weights.read(tmp_path / 'net.pdparams'), expected)


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize('kind', [dict, collections.OrderedDict])
def test_pickled_arrays_are_read_bit_for_bit(tmp_path, protocol, kind):
    (tmp_path / 'w.pdparams').write_bytes(pickle.dumps(kind(some_arrays()), protocol=protocol))
    assert_same_arrays(weights.read(tmp_path / 'w.pdparams'), some_arrays())


@pytest.mark.parametrize('protocol', [2, 4])
def test_an_array_without_elements_is_read(tmp_path, protocol):
    arrays = {'none': np.zeros((0, 4), np.float32)}
    (tmp_path / 'w.pdparams').write_bytes(pickle.dumps(arrays, protocol=protocol))
    assert_same_arrays(weights.read(tmp_path / 'w.pdparams'), arrays)


@pytest.mark.parametrize(('ours', 'theirs'), [(b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')])
def test_files_of_numpy_1_and_2_are_read(tmp_path, ours, theirs):
    content = pickle.dumps(some_arrays(), protocol=2).replace(ours, theirs)
    (tmp_path / 'w.pdparams').write_bytes(content)
    assert_same_arrays(weights.read(tmp_path / 'w.pdparams'), some_arrays())


def test_a_pair_of_name_and_array_is_read_as_the_array(tmp_path):
    pairs = {name: (f'{name}_0', array) for name, array in some_arrays().items()}
    (tmp_path / 'w.pdparams').write_bytes(pickle.dumps(pairs, protocol=2))
    assert_same_arrays(weights.read(tmp_path / 'w.pdparams'), some_arrays())


# Hostile files


class Call:
    """Unpickles to the result of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments

    def __call__(self):
        """pickle requires a callable."""


def touch(marker):
    return f'touch {shlex.quote(str(marker))}'


def in_object_array(item):
    array = np.empty((2, 2), object)
    array[1, 0] = item
    return array


def hostile_npy(marker):
    path = marker.with_suffix('.npy')
    np.save(path, in_object_array(Call(os.system, touch(marker))), allow_pickle=True)
    return str(path)


def hostile_script(marker):
    path = marker.with_suffix('.py')
    path.write_text(f'open({str(marker)!r}, "w").close()')
    return str(path)


HOSTILE = {
    'os.system': lambda marker: Call(os.system, touch(marker)),
    'builtins.eval': lambda marker: Call(eval, f'open({str(marker)!r}, "w").close()'),
    'builtins.exec': lambda marker: Call(exec, f'open({str(marker)!r}, "w").close()'),
    'subprocess.Popen': lambda marker: Call(subprocess.Popen, ['touch', str(marker)]),
    'subprocess.check_call': lambda marker: Call(subprocess.check_call, ['touch', str(marker)]),
    'numpy.load': lambda marker: Call(np.load, hostile_npy(marker), None, True),
    'object array': lambda marker: in_object_array(Call(os.system, touch(marker))),
    'nested object array': lambda marker: in_object_array(in_object_array([Call(os.system, touch(marker))])),
    'getattr': lambda marker: Call(Call(getattr, pathlib.PosixPath(marker), 'touch')),
    'importlib': lambda marker: Call(Call(getattr, Call(importlib.import_module, 'os'), 'system'), touch(marker)),
    'functools.partial': lambda marker: Call(functools.partial(os.system, touch(marker))),
    'operator.methodcaller': lambda marker: Call(operator.methodcaller('touch'), pathlib.PosixPath(marker)),
    'runpy.run_path': lambda marker: Call(runpy.run_path, hostile_script(marker)),
    'pickle.loads': lambda marker: Call(pickle.loads, pickle.dumps(Call(os.system, touch(marker)))),
    'builtins.map': lambda marker: Call(list, Call(map, os.system, [touch(marker)])),
}


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize(
    ('protocol', 'key'), [(0, 'conv1.weight'), (2, 'StructuredToParameterName@@'), (4, 'conv1.weight')]
)
def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path, name, protocol, key):
    marker, path = tmp_path / 'it ran', tmp_path / 'hostile.pdparams'
    path.write_bytes(pickle.dumps({key: HOSTILE[name](marker)}, protocol=protocol))
    with pytest.raises(UserError, match=re.escape(str(path))):
        weights.read(path)
    assert not marker.exists()
    result = pickle.loads(path.read_bytes())  # pickle itself runs it: the file is really hostile
    if name == 'subprocess.Popen':
        result[key].wait()
    assert marker.exists()


def test_a_file_that_is_only_a_call_is_refused(tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'hostile.pdparams'
    path.write_bytes(f'(S{touch(marker)!r}\nios\nsystem\n.'.encode())  # the opcode INST of protocol 0
    with pytest.raises(UserError, match=re.escape(str(path))):
        weights.read(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()


def test_a_hostile_pickle_after_the_weights_is_not_run(tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'net.pdparams'
    hostile = pickle.dumps(Call(os.system, touch(marker)))
    path.write_bytes(pickle.dumps(some_arrays(), protocol=2) + hostile)
    assert_same_arrays(weights.read(path), some_arrays())
    assert not marker.exists()


def test_a_persistent_id_is_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return 'storage 0' if isinstance(obj, set) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({'conv1.weight': {1}})
    path = tmp_path / 'hostile.pdparams'
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=re.escape(str(path))):
        weights.read(path)


def test_a_few_bytes_cannot_ask_for_gigabytes(tmp_path):
    path = tmp_path / 'hostile.pdparams'
    path.write_bytes(b'\x80\x02}r\xff\xff\xff\x0f.')  # keep the dict as object number 268,435,455
    with pytest.raises(UserError, match='hostile.pdparams: .*damaged'):
        weights.read(path)


def test_a_refusal_names_the_function(tmp_path):
    path = tmp_path / 'hostile.pdparams'
    for protocol in (0, 4):
        path.write_bytes(pickle.dumps({'a': Call(eval, '1')}, protocol=protocol))
        with pytest.raises(UserError, match=r'__builtin__\.eval' if protocol == 0 else r'builtins\.eval'):
            weights.read(path)


# An ndarray of objects whose memory is eight bytes of the file: the file chooses the pointers.
FORGED_POINTER = (
    b'cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R'
    b'c_codecs\nencode\nX\x08\x00\x00\x00AAAAAAAA\x85RtR'
)
FORGED = {
    'value.pdparams': b'\x80\x02}X\x01\x00\x00\x00a' + FORGED_POINTER + b's.',
    'tuple.pdparams': b'\x80\x02}X\x01\x00\x00\x00acbuiltins\ntuple\n' + FORGED_POINTER + b'\x85Rs.',
}
READ_AND_LOOK = """
import sys
from zodiac.models import weights
from zodiac.base.errors import UserError
for path in sys.argv[1:]:
    try:
        weights.read(path)
    except UserError as error:
        print('refused:', error)
"""


def test_a_file_cannot_forge_pointers(tmp_path):
    for name, content in FORGED.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in FORGED]
    done = subprocess.run(
        [sys.executable, '-c', READ_AND_LOOK, *paths], cwd=ROOT, capture_output=True, text=True
    )  # another process: a forged pointer crashes it
    assert done.returncode == 0, f'ended with {done.returncode} {done.stderr}'
    for path, line in zip(paths, done.stdout.splitlines()):
        assert line.startswith(f'refused: {path}')
    assert done.stdout.count('refused: ') == len(FORGED)


def test_a_file_cannot_change_how_the_next_one_is_read(tmp_path):
    core = np.zeros(1).__reduce__()[0].__module__.rpartition('.')[0]  # numpy.core before numpy 2
    function = importlib.import_module(f'{core}.numeric')._frombuffer
    before = dict(vars(function))
    build = b'\x80\x02c' + core.encode() + b'.numeric\n_frombuffer\n}X\x06\x00\x00\x00markedI01\nsb0}.'
    path = tmp_path / 'hostile.pdparams'
    path.write_bytes(build)
    with contextlib.suppress(UserError):
        weights.read(path)
    after = dict(vars(function))
    vars(function).clear()
    vars(function).update(before)
    assert after == before


# Damaged files, and files that are not weights


@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / 'net.pdparams'
    paddle.save(small_network().state_dict(), str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=re.escape(str(path))):
        weights.read(path)


@pytest.mark.parametrize(
    'content',
    [
        pytest.param(b'', id='empty'),
        pytest.param(b'\x08', id='a byte'),
        pytest.param('weights of 猫\n'.encode(), id='text'),
        pytest.param(b'\xff\xd8\xff\xe0' + bytes(100), id='a JPEG'),
        pytest.param(b'PK\x03\x04' + bytes(100), id='a zip'),
        pytest.param(bytes(range(256)), id='bytes'),
        pytest.param(pickle.dumps([1, 2]), id='a list'),
        pytest.param(pickle.dumps(np.zeros(3), protocol=2), id='an array'),
        pytest.param(pickle.dumps(None), id='nothing'),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / 'net.pdparams'
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        weights.read(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path)) + '.*folder'):
        weights.read(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / 'gone.pdparams'
    with pytest.raises(UserError, match=re.escape(str(path)) + '.*no such'):
        weights.read(path)


# Writing


def test_paddle_loads_what_dump_writes(tmp_path):
    network, _ = trained(paddle.optimizer.Momentum)
    path = tmp_path / 'net.pdparams'
    path.write_bytes(weights.dump(network.state_dict()))
    loaded = paddle.load(str(path))
    expected = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert_same_arrays({name: tensor.numpy() for name, tensor in loaded.items()}, expected)
    assert_same_arrays(weights.read(path), expected)


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_a_dumped_optimizer_is_restored_by_paddle(tmp_path, kind):
    _, optimizer = trained(kind)
    path = tmp_path / 'net.pdopt'
    path.write_bytes(weights.dump(optimizer.state_dict()))
    loaded, state = paddle.load(str(path)), optimizer.state_dict()
    assert loaded.pop('LR_Scheduler') == state.pop('LR_Scheduler')
    assert_same_arrays(
        {name: tensor.numpy() for name, tensor in loaded.items()},
        {name: tensor.numpy() for name, tensor in state.items()},
    )
