"""The folder that export.py writes: inference.yaml and the hashes of the model files."""

import concurrent.futures
import hashlib
import os
import shlex
import sys

import yaml

from zodiac.base import files, runs
from zodiac.base.errors import UserError
from zodiac.images import transforms

MANIFEST = 'inference.yaml'
INFER = 'infer'  # of a run
WEB = 'web'  # of an export with export.web: the only folder in it
OUTPUTS = [  # of a graph, in order
    ['probabilities'],
    ['logits'],
    ['logits', 'features'],
    ['probabilities', 'logits'],
    ['probabilities', 'logits', 'features'],
]
SEAL = b'# SHA-256 of the lines above: '


def is_export(path):
    """Whether a path is a folder that export.py wrote."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def find(name):
    """The exported folder that `name` means: that of the run output/<name>, the path, or that of a run there. If it is not the path, this
    is said on stderr. Raises UserError for a run that has not been exported."""
    *_, path = candidates = runs.places(name)
    for place in candidates:
        exported = next(filter(is_export, (os.path.join(place, INFER), place)), None)
        if exported and exported != path:
            print(f'model: {exported}', file=sys.stderr)
        if exported:
            return exported
        if runs.is_run(place):
            raise UserError(f'{place}: has not been exported yet: python export.py {shlex.quote(place)}')
    return path


def write_manifest(folder, manifest):
    """Write inference.yaml. Its last line, a comment, is the SHA-256 of the lines before it."""
    content = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).encode()
    with open(os.path.join(folder, MANIFEST), 'wb') as file:
        file.write(content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'\n')


def read_manifest(folder):
    """The content of inference.yaml as a dict. Raises UserError when the folder is not an export or the file was changed."""
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        raise UserError(
            f'{folder}: not an exported model ({MANIFEST} is missing); name a run, or the infer/ folder that export.py wrote'
        )
    with open(path, 'rb') as file:
        content, _, digest = file.read().rpartition(SEAL)
    try:
        manifest = yaml.safe_load(content) if digest == hashlib.sha256(content).hexdigest().encode() + b'\n' else None
        valid = _is_valid(manifest)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        valid = False
    if not valid:
        raise UserError(f'{path}: was changed after export.py wrote it; copy it again, or export the model again')
    transforms.check(manifest['transform'], path, manifest['input']['shape'][1:])
    return manifest


def _is_valid(manifest):
    """Whether the entries have the types that export.py writes, and fit together. May raise TypeError, KeyError and the like."""
    name, labels, digests = (manifest[key] for key in ('name', 'labels', 'sha256'))
    takes, gives = manifest['input'], manifest['output']
    return (
        isinstance(name, str)
        and isinstance(labels, list)
        and all(isinstance(label, (str, int, float)) for label in labels)
        and gives['name'] in ('probabilities', 'logits')
        and output_names(manifest) in OUTPUTS
        and gives['name'] == output_names(manifest)[0]
        and gives['shape'] == [-1, len(labels)]
        and takes.get('dtype', 'float32') in ('float32', 'uint8')
        and len(takes['shape']) == 4
        and isinstance(digests, dict)
        and all(map(_is_inside, [*digests, *manifest.get('documents', {})]))
        and f'{name}.pdiparams' in digests
        and network_file(manifest) is not None
        and isinstance(manifest.get('trained', {}), dict)
        and isinstance(manifest.get('parity', {}), dict)
    )


def _is_inside(file):
    """Whether a path of the manifest, with slashes, is a file in the folder or in its `WEB`."""
    parts = file.split('/')
    plain = all(part not in ('', '.', '..') and os.path.basename(part) == part for part in parts)
    return plain and (len(parts) == 1 or parts[0] == WEB)


def read_verified(folder, manifest, keep=()):
    """Check each file against its hash, several at a time.

    Args:
        keep: names of files whose content is wanted.
    Returns: {name: bytes} of those that the export has, exactly the bytes that were hashed.
    Raises: UserError when a file is missing, unreadable or changed.
    """
    contents = {}

    def digest(name):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise UserError(f'{path}: is missing; export the model again')
        if name not in keep:
            return files.sha256(path)
        with open(path, 'rb') as file:
            contents[name] = file.read()
        return hashlib.sha256(contents[name]).hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            found = dict(zip(manifest['sha256'], pool.map(digest, manifest['sha256'])))
        except OSError as error:
            raise UserError(
                f'{error.filename}: cannot be read ({error.strerror}); copy it again, or export again'
            ) from None
    for name, expected in manifest['sha256'].items():
        if found[name] != expected:
            if read_manifest(folder) != manifest:
                raise UserError(f'{folder}: was exported again while it was being read; start again')
            path = os.path.join(folder, name)
            raise UserError(
                f'{path}: was changed after the export (its SHA-256 differs); copy it again, or export again'
            )
    return contents


def output_names(manifest):
    """The graph's outputs in order. Exports of older versions have one output and no list."""
    return manifest.get('outputs', [manifest['output']['name']])


def network_file(manifest):
    """File name of the static graph: .json from Paddle 3, .pdmodel from Paddle 2; None without one."""
    names = [f'{manifest["name"]}{suffix}' for suffix in ('.json', '.pdmodel')]
    return next((name for name in names if name in manifest['sha256']), None)
