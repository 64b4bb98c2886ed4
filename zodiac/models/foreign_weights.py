"""Weight files of other programs: what a file is, and its tensors under the names of our networks."""

import json
import struct
import zipfile

import numpy as np

PYTORCH = (
    'a PyTorch file',
    'convert it to .safetensors where PyTorch is installed, and name that file; see docs/troubleshooting.md#other-weights',
)
ARCHIVE = 'a compressed archive', 'unpack it, and name the weight file in it'
EXPORTED = (
    'a part of an exported model, whose tensors have no names',
    'name the .pdparams file that it was exported from',
)
BEGINNINGS = {  # of a file: (what it is, what to do)
    b'': ('empty', 'download or copy it again'),
    b'version https://git-lfs': (
        'a Git LFS pointer, which stands in for the weights',
        'run `git lfs pull` in the repository that it came from, and copy the file again',
    ),
    b'\x89HDF\r\n\x1a\n': ('an HDF5 file, as Keras writes', 'find weights of this network for Paddle or PyTorch'),
    b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.': PYTORCH,  # its magic number; before PyTorch 1.6
    bytes(16): EXPORTED,
    b'{"base_code"': EXPORTED,
    b'\x1f\x8b': ARCHIVE,
    b'BZh': ARCHIVE,
    b'\xfd7zXZ': ARCHIVE,
    b'7z\xbc\xaf': ARCHIVE,
    b'Rar!': ARCHIVE,
    b'(\xb5/\xfd': ARCHIVE,
}
SAFETENSORS = {  # its types as numpy reads them; BF16 is the upper half of a float32
    **{'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': '<u2', 'BOOL': '|b1'},
    **{f'I{8 * size}': f'<i{size}' for size in (1, 2, 4, 8)},
    **{f'U{8 * size}': f'<u{size}' for size in (1, 2, 4, 8)},
}
ONNX_FIELDS = (b'\x12', b'\x1a', b'\x22', b'\x2a', b'\x32', b'\x3a', b'\x42')  # what follows its version
DEEPEST = 4  # dicts within dicts that are looked at
PYTORCH_NAMES = {'running_mean': '_mean', 'running_var': '_variance'}


def what_is(path, reason):
    """(what a file is, what to do), for what is no weight file of Paddle and, for `reason`, cannot be read; None where nothing tells."""
    with open(path, 'rb') as file:
        head = file.read(1 << 16)
    if head and not any(head):
        return 'empty space: its bytes are zeros', 'download or copy it again'
    for beginning, found in BEGINNINGS.items():
        if head.startswith(beginning) if beginning else not head:
            return found
    if str(path).endswith(('.pdmodel', '.pdiparams')):
        return EXPORTED
    if head.startswith(b'PK\x03\x04'):
        return _zip(path)
    if head[257:262] == b'ustar':
        return ARCHIVE
    if head[:1] == b'\x08' and b'\x03' <= head[1:2] < b'\x20' and head[2:3] in ONNX_FIELDS:
        return 'an ONNX model', 'find the weights that it was made from'
    if is_safetensors(head):
        return f'a safetensors file that cannot be read ({reason})', 'save it again as float32, or download it again'
    return _text(head)


def _zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return 'a ZIP archive that is damaged or cut off (PyTorch files are ZIP archives)', 'download or copy it again'
    if any(name.endswith('/data.pkl') for name in names):
        return PYTORCH
    if any(name.endswith('.npy') for name in names):
        return 'an archive of NumPy arrays', 'save its arrays as a .safetensors file, and name that file'
    return ARCHIVE


def _text(head):
    try:
        text = head[:400].decode('utf-8', 'strict' if len(head) <= 400 else 'ignore').lstrip('\ufeff \t\r\n')
    except UnicodeDecodeError:
        return None
    if not text or any(ord(letter) < 32 and letter not in '\t\r\n\f' for letter in text):
        return None
    if text.startswith('<'):
        return 'a web page', 'the site has sent a login or error page: download the weights again, in a browser perhaps'
    return f'text ("{" ".join(text.split())[:40]}…")', 'download the weights themselves'


def is_safetensors(head):
    """Whether a file that begins with these bytes is one: the length of a header, which is JSON."""
    return head[8:9] == b'{' and 2 <= int.from_bytes(head[:8], 'little') <= 100_000_000


def read_safetensors(file):
    """{name: array} of a binary file in that format, bfloat16 as float32. Raises ValueError where it is damaged."""
    (length,) = struct.unpack('<Q', file.read(8))
    header, data = json.loads(file.read(length)), file.read()
    tensors = {}
    for name, entry in header.items():
        if name == '__metadata__':
            continue
        if entry['dtype'] not in SAFETENSORS:
            raise ValueError(f'{name} is of type {entry["dtype"]}; of these numbers Paddle has none')
        start, end = entry['data_offsets']
        kind = np.dtype(SAFETENSORS[entry['dtype']])
        if not 0 <= start <= end <= len(data):
            raise ValueError(f'{name} is not in it whole')
        values = np.frombuffer(data[start:end], kind).reshape(entry['shape'])
        tensors[name] = from_bfloat16(values) if entry['dtype'] == 'BF16' else values
    return tensors


def from_bfloat16(bits):
    """float32 array of the same shape: what bfloat16 numbers are, of which numpy has the bits only, as uint16."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)


def fitting(content, own):
    """The tensors of a file that are a network's, under the names of the network.

    Others keep them under a key, beside those of an optimizer; with a prefix, as DataParallel does; with the names of PyTorch, whose
    linear layers are transposed.

    Args:
        content: what the file holds, dicts of arrays in dicts perhaps.
        own: {name: Tensor} of the network.
    Returns: {name: array}, str: what has been done to find them, '' for nothing. Where no set holds half of the network, that is the
        one that comes closest to it, as it is.
    Raises: ValueError where several sets fit.
    """
    found = []
    for key, values in _sets(content):
        named, of_pytorch = _paddle_names(values)
        for prefix in _prefixes(named, own):
            part = {name[len(prefix) :]: value for name, value in named.items() if name.startswith(prefix)}
            score = sum(np.shape(part.get(name)) == tuple(tensor.shape) for name, tensor in own.items())
            how = [f'found under {key!r}'] if key else []
            how += [f'the prefix {prefix!r} left out'] if prefix else []
            how += ["PyTorch's names and layouts changed to Paddle's"] if of_pytorch else []
            found.append((score, f'{key} {prefix}'.strip(), part, ', '.join(how)))
    best = max((score for score, *_ in found), default=0)
    if 2 * best < len(own):
        return max((values for _, values in _sets(content)), key=len, default={}), ''
    first, *others = [item for item in found if item[0] == best]
    if others:
        names = ', '.join(repr(item[1]) for item in (first, *others))
        raise ValueError(f'it holds several sets of weights of this network, under {names}; save one of them alone')
    return first[2:]


def _sets(content, key=''):
    """Yield (where, {name: array}) for each dict of arrays within dicts."""
    arrays = {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}
    if arrays:
        yield key, arrays
    for name, value in content.items():
        if isinstance(value, dict) and key.count('.') < DEEPEST:
            yield from _sets(value, f'{key}.{name}' if key else str(name))


def _prefixes(values, own):
    """'' and what stands before the names of the network in the names of a file."""
    return {'', *(theirs[: -len(name)] for name in own for theirs in values if theirs.endswith(f'.{name}'))}


def _paddle_names(values):
    """The same tensors with Paddle's names and layouts, and whether they had PyTorch's."""
    if not any(name.endswith('running_mean') for name in values):
        return values, False
    named = {}
    for name, value in values.items():
        start, dot, last = name.rpartition('.')
        if last != 'num_batches_tracked':
            named[start + dot + PYTORCH_NAMES.get(last, last)] = value.T if value.ndim == 2 else value
    return named, True
