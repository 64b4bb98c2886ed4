"""Read Paddle's weight files (.pdparams, .pdopt) without running code from them."""

import collections
import io
import pickle

import numpy as np

from zodiac.errors import UserError

# A weight file is a pickle. These are the only names it may call for: what numpy arrays and plain containers need.
_ALLOWED = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('builtins', 'tuple'): tuple,
    ('__builtin__', 'tuple'): tuple,
    ('builtins', 'set'): set,
    ('__builtin__', 'set'): set,
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name in ('_reconstruct', 'scalar'):
            return getattr(_numpy_core('multiarray'), name)
        if module in ('numpy.core.numeric', 'numpy._core.numeric') and name == '_frombuffer':
            return getattr(_numpy_core('numeric'), name)
        if (module, name) == ('_codecs', 'encode'):
            return _latin1
        raise pickle.UnpicklingError(f'it calls for {module}.{name}; only arrays and plain containers are read')


def _numpy_core(module):
    """numpy._core was numpy.core before numpy 2."""
    import importlib

    package = 'numpy._core' if hasattr(np, '_core') else 'numpy.core'
    return importlib.import_module(f'{package}.{module}')


def _latin1(text, encoding='latin1'):
    """How Python 2 pickles hold bytes."""
    return str(text).encode('latin1')


def read(path):
    """The content of a .pdparams or .pdopt file: a dict of name to numpy array (and plain values).

    Raises UserError when the file is missing, damaged, no dict of arrays, or asks for any code.
    """
    try:
        with open(path, 'rb') as file:
            content = _ArraysOnly(file, encoding='latin1').load()
    except FileNotFoundError:
        raise UserError(f'{path}: no such weight file; check the path') from None
    except IsADirectoryError:
        raise UserError(f'{path}: is a folder; name the .pdparams file in it') from None
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
    except Exception as error:  # an unpickler can raise anything on hostile or damaged bytes
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(
            f'{path}: not a Paddle weight file, or a damaged one ({reason}); save or download it again'
        ) from None
    if not isinstance(content, dict):
        raise UserError(f'{path}: holds no dict of tensors; save it with paddle.save(network.state_dict(), ...)')
    return {str(name): _array(value) for name, value in content.items() if name != 'StructuredToParameterName@@'}


def _array(value):
    """Paddle pickles a tensor as the pair (name, array)."""
    pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray)
    return value[1] if pair else value


def dump(state_dict):
    """bytes: a state dict in Paddle's own file format, which `read`, `paddle.load` and `Model.load` accept."""
    import paddle

    buffer = io.BytesIO()
    paddle.save(state_dict, buffer)
    return buffer.getvalue()
