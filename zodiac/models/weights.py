"""Read weight files without running code from them: Paddle's (.pdparams, .pdopt), and safetensors.

Paddle's are pickles, and a pickle may call anything. This reader hands it no function of Python's or numpy's but
`tuple` and `OrderedDict`: arrays are rebuilt here, from plain bytes, and only of number types.
"""

import collections
import io
import os
import pickle
import warnings

import numpy as np

from zodiac.base import provenance
from zodiac.base.errors import UserError, one_line
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
    """A pickle asks for more than arrays and plain containers."""


class _DType:
    """What a pickled numpy dtype is rebuilt as."""

    def __init__(self, code):
        if code not in _NUMBERS:
            raise _Refused(f'it holds an array of type {code!r}; only numbers are read')
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """What a pickled numpy array is rebuilt as."""

    def __setstate__(self, state):
        _, shape, kind, fortran, data = state
        self.array = _from_bytes(data, kind, shape, 'F' if fortran else 'C')


def _from_bytes(data, kind, shape, order='C'):
    values = np.frombuffer(bytes(data), kind.dtype).reshape(shape, order=order)
    # of bfloat16 Paddle keeps the bits; it has no other use for unsigned 16-bit numbers
    return foreign_weights.from_bfloat16(values) if kind.dtype.kind == 'u' and kind.dtype.itemsize == 2 else values


class _ArraysOnly(pickle.Unpickler):
    """Each name a pickle calls for becomes a new object made here, so that no file can change what the next one gets."""

    def find_class(self, module, name):
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) == ('numpy', 'dtype'):
            return lambda code, align=False, copy=False: _DType(code)
        if (module, name) == ('numpy', 'ndarray'):
            return object()  # an argument of _reconstruct, never called
        if module in _MULTIARRAY and name == '_reconstruct':
            return lambda subtype, shape, code: _Array()
        if module in _MULTIARRAY and name == 'scalar':
            return lambda kind, data: _from_bytes(data, kind, ())[()]
        if module in _NUMERIC and name == '_frombuffer':
            return lambda data, kind, shape, order: _from_bytes(data, kind, shape, order)
        if (module, name) == ('_codecs', 'encode'):
            return lambda text, encoding='latin1': text.encode('latin1')  # how Python 2 pickles hold bytes
        if (module, name) in (('__builtin__', 'bytes'), ('builtins', 'bytes')):
            return lambda: b''
        raise _Refused(f'it calls for {module}.{name}; only arrays and plain containers are read')


def read(path):
    """The content of a .pdparams, .pdopt or .safetensors file: a dict of name to numpy array, read-only, and plain values.

    Half-precision numbers of the type bfloat16 come as float32.

    Raises UserError when the file is missing, damaged, no dict of arrays, or asks for any code; it names what else the file is.
    """
    try:
        with open(path, 'rb') as file:
            if foreign_weights.is_safetensors(file.peek(9)):
                return foreign_weights.read_safetensors(file)
            content = _unwrap(_ArraysOnly(file, encoding='latin1').load())
    except FileNotFoundError:
        raise UserError(f'{path}: no such weight file; check the path') from None
    except IsADirectoryError:
        raise UserError(f'{path}: is a folder; name the .pdparams file in it') from None
    except Exception as error:  # an unpickler can raise anything on hostile or damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f'{path}: cannot be read ({error.strerror}); check its permissions') from None
        raise UserError(f'{path}: {_trouble(path, error)}') from None
    if not isinstance(content, dict):
        raise UserError(f'{path}: {_trouble(path)}')
    return {str(name): value for name, value in content.items() if name != 'StructuredToParameterName@@'}


def _trouble(path, error=None):
    """Why a file is no dict of tensors, and what to do; `error` is what reading it has raised."""
    refused = isinstance(error, _Refused)  # a pickle then, whatever it looks like
    known = (
        foreign_weights.PYTORCH
        if 'for torch.' in str(error)
        else not refused and foreign_weights.what_is(path, one_line(error))
    )
    if known:
        return f'is {known[0]}; {known[1]}'
    if error is None:
        return 'holds no dict of tensors; save it with paddle.save(network.state_dict(), ...)'
    if isinstance(error, EOFError) or any(word in str(error) for word in ('truncated', 'exhausted', 'ran out of')):
        return f'is cut off after {os.path.getsize(path):,} bytes; download or copy it again'
    return f'not a Paddle weight file, or a damaged one ({one_line(error)}); save or download it again'


def _unwrap(value):
    """Arrays in place of what stood for them. Paddle pickles a tensor as the pair (name, array)."""
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
    """bytes: a state dict in Paddle's own file format, which `read`, `paddle.load` and `Model.load` accept.

    Half-precision tensors are written as float32.

    Args:
        facts: JSON-ready dict of what made it, see `provenance`; None for none.
    """
    import paddle

    half = paddle.float16, paddle.bfloat16
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='The input state dict is empty')  # SGD at a constant rate has none
        paddle.save(
            {
                name: value.astype('float32') if getattr(value, 'dtype', None) in half else value
                for name, value in state_dict.items()
            },
            buffer,
        )
    return buffer.getvalue() + (provenance.appended(facts) if facts else b'')
