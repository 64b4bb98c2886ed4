"""Load an exported folder, after checking its hashes, and run it: `predict(batch) -> probabilities`.

Nothing of training is imported here. Only load models that you trust: a static graph can hold operators that write files.
"""

import concurrent.futures
import hashlib
import itertools
import os
from dataclasses import dataclass
from typing import Callable, List, Optional

import numpy as np

from zodiac.base import device, files
from zodiac.base.errors import UserError
from zodiac.images import decoding, transforms
from zodiac.inference.engines import ENGINES, Model, fastest, network_file, runs_in_bf16

MANIFEST = 'inference.yaml'
SEAL = b'# SHA-256 of the lines above: '


@dataclass
class Exported:
    """An exported model, ready to run."""

    name: str
    labels: List[str]  # in the order of the classes
    transform: list  # see zodiac.transforms
    origin: dict  # arch, image_size, flip_average, epoch, pretrained, precision, temperature; None where an older export.py did not say
    predict: Callable  # a batch of what the transform gives, [N, ...] -> float32 [N, classes], probabilities
    engine: str = 'paddle'  # one of ENGINES
    outputs: Optional[Callable] = (
        None  # the same batch -> {'probabilities': ..., 'logits': ...} as far as the graph gives them
    )


def is_export(path):
    """Whether a path names a folder that export.py wrote."""
    return os.path.isfile(os.path.join(path, MANIFEST))


def write_manifest(folder, manifest):
    """Write inference.yaml; its last line, a comment, is the SHA-256 of those before."""
    import yaml

    content = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).encode()
    with open(os.path.join(folder, MANIFEST), 'wb') as file:
        file.write(content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'\n')


def read_manifest(folder):
    """inference.yaml of an export as a dict. Raises UserError when the folder is no export or the file is not as it was written."""
    import yaml

    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        raise UserError(
            f'{folder}: no exported model ({MANIFEST} is missing); name the infer/ folder that export.py wrote'
        )
    with open(path, 'rb') as file:
        content, _, digest = file.read().rpartition(SEAL)
    try:
        manifest = yaml.safe_load(content) if digest == hashlib.sha256(content).hexdigest().encode() + b'\n' else None
        whole = _is_whole(manifest)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f'{path}: is not as export.py wrote it; copy it again, or export the model again')
    transforms.check(manifest['transform'], path, manifest['input']['shape'][1:])
    return manifest


def _is_whole(manifest):
    """Whether the parts of a manifest are of the types that export.py gives them, and go together; may raise what such code raises."""
    name, labels, digests = (manifest[key] for key in ('name', 'labels', 'sha256'))
    takes, gives = manifest['input'], manifest['output']
    parity = manifest.get('parity', {})
    return (
        isinstance(name, str)
        and isinstance(labels, list)
        and all(isinstance(label, (str, int, float)) for label in labels)
        and gives['name'] in ('probabilities', 'logits')
        and _output_names(manifest) in ([gives['name']], ['probabilities', 'logits'])
        and gives['shape'] == [-1, len(labels)]
        and takes.get('dtype', 'float32') in ('float32', 'uint8')
        and len(takes['shape']) == 4
        and isinstance(digests, dict)
        and all(os.path.basename(file) == file for file in digests)
        and f'{name}.pdiparams' in digests
        and network_file(manifest) is not None
        and isinstance(manifest.get('trained', {}), dict)
        and all(isinstance(parity[engine], dict) for engine in ENGINES if engine in parity)
    )


def load(folder, place='auto', engine='paddle', compared=True):
    """The model in `folder` (written by export.py), as `Exported`.

    Args:
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'; on 'auto', onnxruntime and openvino take the CPU.
        engine: one of ENGINES, or 'auto' for the fastest that is safe, see engines.fastest.
        compared: whether export.py has compared the engines with the network already, see engines.runs_in_bf16.
    Raises: UserError when the folder is no export, a file is missing or not as it was exported, or the engine is not installed.
    """
    manifest = read_manifest(folder)
    if engine == 'auto':
        engine = fastest(manifest, place)
    onnx = _check(folder, manifest, None if engine == 'paddle' else f'{manifest["name"]}.onnx')
    bf16 = runs_in_bf16(manifest, engine, compared)
    run = ENGINES[engine](Model(folder, manifest, onnx, bf16, lambda: _check(folder, manifest)), place)
    dtype = manifest['input'].get('dtype', 'float32')
    names = _output_names(manifest)

    def outputs(batch):
        return dict(zip(names, run(np.ascontiguousarray(batch, dtype))))

    def predict(batch):
        found = outputs(batch)
        return softmax(found['logits']) if 'logits' in found else found['probabilities']

    labels = [str(label) for label in manifest['labels']]
    return Exported(manifest['name'], labels, manifest['transform'], _origin(manifest), predict, engine, outputs)


def softmax(logits):
    """Probabilities, float [N, classes], of logits: here, so that each engine and precision gives them in float32."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _output_names(manifest):
    """Names of what the graph gives, in its order; older exports have one output and no list of them."""
    return manifest.get('outputs', [manifest['output']['name']])


def _origin(manifest):
    trained = manifest.get('trained', {})
    return {
        **{key: trained.get(key) for key in ('arch', 'flip_average', 'epoch', 'pretrained')},
        'image_size': manifest['input']['shape'][2],  # of NCHW and of NHWC
        **{key: manifest.get(key) for key in ('precision', 'temperature')},
    }


def _check(folder, manifest, keep=None):
    """The content of the file `keep`, or None; what is hashed is what an engine then gets. Files are read side by side.

    Raises: UserError unless each file is there and has its digest.
    """
    content = None

    def digest(name):
        nonlocal content
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise UserError(f'{path}: is missing; export the model again')
        if name != keep:
            return files.sha256(path)
        with open(path, 'rb') as file:
            content = file.read()
        return hashlib.sha256(content).hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            found = dict(zip(manifest['sha256'], pool.map(digest, manifest['sha256'])))
        except OSError as error:
            raise UserError(
                f'{error.filename}: cannot be read ({error.strerror}); copy it again, or export again'
            ) from None
    for name, expected in manifest['sha256'].items():
        if found[name] != expected:
            path = os.path.join(folder, name)
            if read_manifest(folder) != manifest:
                raise UserError(f'{folder}: was exported again while it was being read; start again')
            raise UserError(
                f'{path}: is not the file that was exported (its SHA-256 differs); copy it again, or export again'
            )
    return content


def best(probabilities, labels, top):
    """[(label, probability), ...] of the `top` most probable classes, the first one first; probabilities: [classes]."""
    order = (-probabilities).argsort(kind='stable')[:top]
    return [(labels[number], float(probabilities[number])) for number in order]


def as_dict(guesses):
    """What `best` gives, ready for JSON."""
    top = [{'label': label, 'probability': probability} for label, probability in guesses]
    return {**top[0], 'top': top}


def batches(paths, transform, size):
    """Yield (paths, float32 [n, 3, height, width] or [], errors) for groups of up to `size` files, decoded in threads.

    A UserError among the paths, of what was found in the place of a file, comes out among the errors.
    """

    def read(path):
        if isinstance(path, UserError):
            return None, None, path
        try:
            return path, transforms.read(transform, path), None
        except decoding.ImageError as error:
            return path, None, error

    found = device.in_threads(read, paths, 2 * size)
    while group := list(itertools.islice(found, size)):
        good = [(path, image) for path, image, error in group if error is None]
        yield (
            [path for path, _ in good],
            np.stack([image for _, image in good]) if good else [],
            [error for *_, error in group if error],
        )


def sound_batches(paths, transform, size):
    """Yield what the transform gives of groups of `size` files of an index, [n, ...]. Raises UserError for the first that cannot be
    read."""
    for _, batch, errors in batches(paths, transform, size):
        if errors:
            raise UserError(f'{errors[0]}; {files.advice(errors[0])}')
        yield batch
