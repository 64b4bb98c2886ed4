"""Read weight files without running code from them: Paddle's (.pdparams, .pdopt), PyTorch's (.pth, .pt) and .safetensors.

Paddle's and PyTorch's files contain pickles, and a pickle can call any function. The reader here (unpickling.py) gives them
only `tuple` and `OrderedDict`, and rebuilds arrays of numbers from plain bytes itself. Files are written in Paddle's format.
"""

import hashlib
import io
import os
import warnings

import numpy as np

from zodiac.base import provenance
from zodiac.base.errors import UserError, one_line
from zodiac.base.paddle_setup import paddle
from zodiac.models import foreign_weights, torch_files, unpickling


def read(path):
    """Read a .pdparams, .pdopt, .pth, .pt or .safetensors file.

    Returns: dict of name to read-only numpy array or plain value; bfloat16 is converted to float32.
    Raises: UserError when the file is missing, damaged, not a dict of arrays, or needs code to run; it says what the file is instead.
    """
    try:
        with open(path, 'rb') as file:
            if foreign_weights.is_safetensors(file.peek(9)):
                return foreign_weights.read_safetensors(file)
            if torch_files.is_torch(file.peek(16)):
                content = torch_files.read(path, file)
            else:
                content = unpickling.unwrap(unpickling.ArraysOnly(file, encoding='latin1').load())
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
    refused = isinstance(error, unpickling.Refused)  # so it contains a pickle, whatever its first bytes look like
    with open(path, 'rb') as file:
        of_torch = torch_files.is_torch(file.read(16)) or 'needs torch.' in str(error)
    if refused and of_torch:
        return f'is a PyTorch file of more than weights ({one_line(error)}); {foreign_weights.SAVE_WEIGHTS}'
    ended = isinstance(error, EOFError) or any(
        word in str(error) for word in ('truncated', 'exhausted', 'ran out of', 'a buffer of')
    )
    known = not refused and not (ended and of_torch) and foreign_weights.what_is(path, one_line(error))
    if known:
        return f'is {known[0]}; {known[1]}'
    if ended:
        return f'is cut off after {os.path.getsize(path):,} bytes; download or copy it again'
    if error is None:
        return 'does not contain a dict of tensors; save it with paddle.save(network.state_dict(), ...)'
    return f'not a Paddle weight file, or damaged ({one_line(error)}); save or download it again'


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


def digest(values):
    """SHA-256, in hexadecimal, of what `read` returns: equal for equal weights, whatever else the file holds."""
    found = hashlib.sha256()
    for name, value in sorted(values.items()):
        array = np.ascontiguousarray(value)
        found.update(f'{name} {array.shape} {array.dtype}\n'.encode())
        found.update(array.tobytes())
    return found.hexdigest()
