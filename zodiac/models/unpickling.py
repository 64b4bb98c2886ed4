"""A pickle reader that runs nothing: it rebuilds arrays of numbers, and refuses everything but plain containers."""

import collections
import contextlib
import pickle
import pickletools

import numpy as np

_NUMBERS = {'b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8'}
_MULTIARRAY = ('numpy.core.multiarray', 'numpy._core.multiarray')
_NUMERIC = ('numpy.core.numeric', 'numpy._core.numeric')
PUTS = ('PUT', 'BINPUT', 'LONG_BINPUT')
_PLAIN = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('builtins', 'tuple'): tuple,
    ('__builtin__', 'tuple'): tuple,
    ('ml_dtypes', 'bfloat16'): 'u2',
}


class Refused(pickle.UnpicklingError):
    """A pickle needs more than arrays and plain containers."""


class _DType:
    """Stands for a pickled numpy dtype."""

    def __init__(self, code):
        if code not in _NUMBERS:
            raise Refused(f'it contains an array of type {code!r}; only numbers are read')
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for a pickled numpy array."""

    def __setstate__(self, state):
        _, shape, kind, fortran, data = state
        self._array = _from_bytes(data, kind, shape, 'F' if fortran else 'C')

    def array(self):
        return self._array


def _from_bytes(data, kind, shape, order='C'):
    values = np.frombuffer(bytes(data), kind.dtype).reshape(shape, order=order)
    # Paddle saves the bits of bfloat16, and nothing else, as unsigned 16-bit numbers
    return from_bfloat16(values) if kind.dtype.kind == 'u' and kind.dtype.itemsize == 2 else values


def from_bfloat16(bits):
    """bfloat16 numbers, given as uint16, in an array of float32 of the same shape."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)


def _check_memo(file):
    """Raise UnpicklingError where a pickle keeps an object at a place far beyond the last one, up to which memory would be allocated."""
    start, damaged = file.tell(), False
    with contextlib.suppress(Exception):  # the unpickler finds the same damage, and says it better
        puts = (n for n, (op, place, _) in enumerate(pickletools.genops(file)) if op.name in PUTS and place > n)
        damaged = next(puts, None) is not None
    file.seek(start)
    if damaged:
        raise pickle.UnpicklingError('its list of objects is damaged')


class ArraysOnly(pickle.Unpickler):
    """Answers each name in a pickle with a new object, so that no file can change what the next one gets."""

    def __init__(self, file, **options):
        _check_memo(file)
        super().__init__(file, **options)

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
        raise Refused(f'it needs {module}.{name}; only arrays and plain containers are read')


STAND_INS = (_Array,)


def unwrap(value, stand_ins=STAND_INS, done=None):
    """Replace the stand-ins, which have a method array(), by arrays. Paddle pickles a tensor as the pair (name, array).

    `done` has the results for containers, by id: a small pickle can refer to the same ones very many times.
    """
    done = {} if done is None else done
    if isinstance(value, stand_ins):
        return value.array()
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: unwrap(inner, stand_ins, done) for key, inner in value.items()}
        else:
            inner = [unwrap(item, stand_ins, done) for item in value]
            is_tensor = len(inner) == 2 and isinstance(inner[0], str) and isinstance(inner[1], np.ndarray)
            done[id(value)] = inner[1] if is_tensor else type(value)(inner)
    return done[id(value)]
