"""Read weight files without running code from them: Paddle's (.pdparams, .pdopt) and .safetensors. Write Paddle's.

Paddle's files are pickles, and a pickle can call any function. This reader gives it only `tuple` and `OrderedDict`, and
rebuilds arrays of numbers from plain bytes itself.
"""

import collections
import io
import os
import pickle
import warnings

import numpy as np

from zodiac.base import provenance
from zodiac.base.errors import UserError, one_line
from zodiac.base.paddle_setup import paddle
from zodiac.models import foreign_weights

_NUMBERS = {'b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8'}
_MULTIARRAY = ('numpy.core.multiarray', 'numpy._core.multiarray')
_NUMERIC = ('numpy.core.numeric', 'numpy._core.numeric')
_PLAIN = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('builtins', 'tuple'): tuple,
    ('__builtin__', 'tuple'): tuple,
    ('ml_dtypes', 'bfloat16'): 'u2',
}


class _Refused(pickle.UnpicklingError):
    """A pickle needs more than arrays and plain containers."""


class _DType:
    """Stands for a pickled numpy dtype."""

    def __init__(self, code):
        if code not in _NUMBERS:
            raise _Refused(f'it contains an array of type {code!r}; only numbers are read')
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a pickled numpy array."""

    def __setstate__(self, state):
        _, shape, kind, fortran, data = state
        self.array = _from_bytes(data, kind, shape, 'F' if fortran else 'C')


def _from_bytes(data, kind, shape, order='C'):
    values = np.frombuffer(bytes(data), kind.dtype).reshape(shape, order=order)
    # Paddle saves the bits of bfloat16, and nothing else, as unsigned 16-bit numbers
    return foreign_weights.from_bfloat16(values) if kind.dtype.kind == 'u' and kind.dtype.itemsize == 2 else values


class _ArraysOnly(pickle.Unpickler):
    """Answers each name in a pickle with a new object, so that no file can change what the next one gets."""

    def find_class(self, module, name):
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) == ('numpy', 'dtype'):
            return lambda code, align=False, copy=False: _DType(code)
        if (module, name) == ('numpy', 'ndarray'):
            return object()  # an argument of _reconstruct, not called
        if module in _MULTIARRAY and name == '_reconstruct':
            return lambda subtype, shape, code: _Array()
        if module in _MULTIARRAY and name == 'scalar':
            return lambda kind, data: _from_bytes(data, kind, ())[()]
        if module in _NUMERIC and name == '_frombuffer':
            return lambda data, kind, shape, order: _from_bytes(data, kind, shape, order)
        if (module, name) == ('_codecs', 'encode'):
            return lambda text, encoding='latin1': text.encode('latin1')  # bytes in pickles for Python 2
        if (module, name) in (('__builtin__', 'bytes'), ('builtins', 'bytes')):
            return lambda: b''
        raise _Refused(f'it needs {module}.{name}; only arrays and plain containers are read')


def read(path):
    """Read a .pdparams, .pdopt or .safetensors file.

    Returns: dict of name to read-only numpy array or plain value; bfloat16 is converted to float32.
    Raises: UserError when the file is missing, damaged, not a dict of arrays, or needs code to run; it says what the file is instead.
    """
    try:
        with open(path, 'rb') as file:
            if foreign_weights.is_safetensors(file.peek(9)):
                return foreign_weights.read_safetensors(file)
            content = _unwrap(_ArraysOnly(file, encoding='latin1').load())
    except FileNotFoundError:
        raise UserError(f'{path}: no such weight file; check the path') from None
    except IsADirectoryError:
        raise UserError(f'{path}: is a folder; give the .pdparams file in it') from None
    except Exception as error:  # unpickling hostile or damaged bytes can raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f'{path}: cannot be read ({error.strerror}); check its permissions') from None
        raise UserError(f'{path}: {_trouble(path, error)}') from None
    if not isinstance(content, dict):
        raise UserError(f'{path}: {_trouble(path)}')
    return {str(name): value for name, value in content.items() if name != 'StructuredToParameterName@@'}


def _trouble(path, error=None):
    """Why a file is not a dict of tensors, and what to do; `error` was raised by reading it."""
    refused = isinstance(error, _Refused)  # so it is a pickle, whatever its first bytes look like
    known = (
        foreign_weights.PYTORCH
        if 'needs torch.' in str(error)
        else not refused and foreign_weights.what_is(path, one_line(error))
    )
    if known:
        return f'is {known[0]}; {known[1]}'
    if error is None:
        return 'does not contain a dict of tensors; save it with paddle.save(network.state_dict(), ...)'
    if isinstance(error, EOFError) or any(word in str(error) for word in ('truncated', 'exhausted', 'ran out of')):
        return f'is cut off after {os.path.getsize(path):,} bytes; download or copy it again'
    return f'not a Paddle weight file, or damaged ({one_line(error)}); save or download it again'


def _unwrap(value):
    """Replace the stand-ins by arrays. Paddle pickles a tensor as the pair (name, array)."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _unwrap(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        inner = [_unwrap(item) for item in value]
        is_tensor = len(inner) == 2 and isinstance(inner[0], str) and isinstance(inner[1], np.ndarray)
        return inner[1] if is_tensor else type(value)(inner)
    return value


def dump(state_dict, facts=None):
    """A state dict in Paddle's file format, which `read`, `paddle.load` and `Model.load` accept. Returns: bytes.

    Half-precision tensors are written as float32.

    Args:
        facts: JSON-ready dict to append, see `provenance`; None for nothing.
    """
    half = paddle.float16, paddle.bfloat16
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The input state dict is empty')  # that of SGD at a constant rate is
        paddle.save(
            {
                name: value.astype('float32') if getattr(value, 'dtype', None) in half else value
                for name, value in state_dict.items()
            },
            buffer,
        )
    return buffer.getvalue() + (provenance.appended(facts) if facts else b'')
