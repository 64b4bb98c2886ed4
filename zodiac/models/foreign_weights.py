"""Weight files of other programs: identify them, read .safetensors."""

import json
import struct
import zipfile

import numpy as np

from zodiac.models import torch_files, unpickling

SAVE_WEIGHTS = (
    'save only its weights, with torch.save(model.state_dict(), FILE); see docs/troubleshooting.md#other-weights'
)
ARCHIVE = 'a compressed archive', 'unpack it, and use the weight file in it'
EXPORTED = (
    'part of an exported model, whose tensors have no names',
    'use the .pdparams file that it was exported from',
)
MAGIC = {  # first bytes of a file: (what it is, what to do)
    b'': ('empty', 'download or copy it again'),
    b'version https://git-lfs': (
        'a Git LFS pointer instead of the weights',
        'run `git lfs pull` in its repository, and copy the file again',
    ),
    b'\x89HDF\r\n\x1a\n': ('an HDF5 file, as written by Keras', 'find weights of this network for Paddle or PyTorch'),
    bytes(16): EXPORTED,
    b'{"base_code"': EXPORTED,
    b'\x1f\x8b': ARCHIVE,
    b'BZh': ARCHIVE,
    b'\xfd7zXZ': ARCHIVE,
    b'7z\xbc\xaf': ARCHIVE,
    b'Rar!': ARCHIVE,
    b'(\xb5/\xfd': ARCHIVE,
}
SAFETENSORS = {  # numpy's names of its types; BF16 is the upper half of a float32
    **{'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': '<u2', 'BOOL': '|b1'},
    **{f'I{8 * size}': f'<i{size}' for size in (1, 2, 4, 8)},
    **{f'U{8 * size}': f'<u{size}' for size in (1, 2, 4, 8)},
}
ONNX_FIELDS = (b'\x12', b'\x1a', b'\x22', b'\x2a', b'\x32', b'\x3a', b'\x42')  # can follow its version


def what_is(path, reason):
    """(what a file is, what to do) for a file that is not Paddle's and, because of `reason`, cannot be read; None if unknown."""
    with open(path, 'rb') as file:
        head = file.read(1 << 16)
    if head and not any(head):
        return 'empty: all bytes are zero', 'download or copy it again'
    if head.startswith(torch_files.MAGIC):
        return _pytorch(reason)
    for magic, found in MAGIC.items():
        if head.startswith(magic) if magic else not head:
            return found
    if str(path).endswith(('.pdmodel', '.pdiparams')):
        return EXPORTED
    if head.startswith(b'PK\x03\x04'):
        return _zip(path, reason)
    if head[257:262] == b'ustar':
        return ARCHIVE
    if head[:1] == b'\x08' and b'\x03' <= head[1:2] < b'\x20' and head[2:3] in ONNX_FIELDS:
        return 'an ONNX model', 'use the weights that it was made from'
    if is_safetensors(head):
        return f'a safetensors file that cannot be read ({reason})', 'save it again as float32, or download it again'
    return _text(head)


def _pytorch(reason):
    return f'a PyTorch file that cannot be read ({reason})', 'download or save it again'


def _zip(path, reason):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises many kinds on damaged files
        return 'a damaged or cut off ZIP archive (PyTorch files are ZIP archives)', 'download or copy it again'
    if any(name.endswith('/constants.pkl') for name in names):
        return 'a TorchScript model', SAVE_WEIGHTS
    if any(name.endswith('/data.pkl') for name in names):
        return _pytorch(reason)
    if any(name.endswith('.npy') for name in names):
        return 'an archive of NumPy arrays', 'save its arrays as a .safetensors file, and use that file'
    return ARCHIVE


def _text(head):
    try:
        text = head[:400].decode('utf-8', 'strict' if len(head) <= 400 else 'ignore').lstrip('\ufeff \t\r\n')
    except UnicodeDecodeError:
        return None
    if not text or any(ord(letter) < 32 and letter not in '\t\r\n\f' for letter in text):
        return None
    if text.startswith('<'):
        return 'a web page', 'the site sent a login or error page: download the weights again, for example in a browser'
    return f'text ("{" ".join(text.split())[:40]}…")', 'download the weights themselves'


def is_safetensors(head):
    """Whether a file with these first bytes is a safetensors file, which begins with the length of a JSON header."""
    return head[8:9] == b'{' and 2 <= int.from_bytes(head[:8], 'little') <= 100_000_000


def read_safetensors(file):
    """Read an open binary file. Returns: {name: array}, bfloat16 as float32. Raises ValueError if it is damaged."""
    (length,) = struct.unpack('<Q', file.read(8))
    header, data = json.loads(file.read(length)), file.read()
    tensors = {}
    for name, entry in header.items():
        if name == '__metadata__':
            continue
        if entry['dtype'] not in SAFETENSORS:
            raise ValueError(f'{name} has the type {entry["dtype"]}, which Paddle does not support')
        start, end = entry['data_offsets']
        kind = np.dtype(SAFETENSORS[entry['dtype']])
        if not 0 <= start <= end <= len(data):
            raise ValueError(f'{name} is incomplete')
        values = np.frombuffer(data[start:end], kind).reshape(entry['shape'])
        tensors[name] = unpickling.from_bfloat16(values) if entry['dtype'] == 'BF16' else values
    return tensors
