"""Load an exported model and run it: `load(folder).predict(batch)` gives probabilities.

Only load models that you trust: a static graph can contain operators that write files.
"""

from dataclasses import dataclass
from typing import Callable, List, Optional

import numpy as np

from zodiac.inference import engines, export_folder


@dataclass
class ExportedModel:
    """An exported model, ready to run."""

    name: str
    labels: List[str]  # in class order
    transform: list  # the steps that turn an image into an input, see zodiac/images/transforms.py
    origin: dict  # arch, image_size, flip_average, epoch, pretrained, precision, temperature; None where not recorded
    predict: Callable  # batch of transformed images [N, ...] -> probabilities, float32 [N, classes]
    engine: str = 'paddle'  # a key of engines.ENGINES
    outputs: Optional[Callable] = (
        None  # the same batch -> {'probabilities': ..., 'logits': ...}, what the graph returns
    )


def load(folder, place='auto', engine='paddle', compared=True):
    """Check the files that export.py wrote to `folder` and load them as an `ExportedModel`.

    Args:
        folder: the exported folder, or a run, see `export_folder.find`.
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'; with 'auto', onnxruntime and openvino run on the CPU.
        engine: a key of engines.ENGINES, or 'auto', see engines.fastest.
        compared: whether export.py has already compared the engines with the network, see engines.runs_in_bf16.
    Raises: UserError when the folder is not an export, a file is missing or changed, or the engine is not installed.
    """
    folder = export_folder.find(folder)
    manifest = export_folder.read_manifest(folder)
    if engine == 'auto':
        engine = engines.fastest(manifest, place)
    onnx = export_folder.read_verified(folder, manifest, None if engine == 'paddle' else engines.onnx_name(manifest))
    bf16 = engines.runs_in_bf16(manifest, engine, compared)
    run = engines.ENGINES[engine](engines.Source(folder, manifest, onnx, bf16), place)
    dtype = manifest['input'].get('dtype', 'float32')
    names = export_folder.output_names(manifest)

    def outputs(batch):
        return dict(zip(names, run(np.ascontiguousarray(batch, dtype))))

    def predict(batch):
        found = outputs(batch)
        return softmax(found['logits']) if 'logits' in found else found['probabilities']

    labels = [str(label) for label in manifest['labels']]
    return ExportedModel(manifest['name'], labels, manifest['transform'], _origin(manifest), predict, engine, outputs)


def softmax(logits):
    """Probabilities, float32 [N, classes]. Computed here rather than in the graph, so that no engine's precision affects it."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _origin(manifest):
    trained = manifest.get('trained', {})
    return {
        **{key: trained.get(key) for key in ('arch', 'flip_average', 'epoch', 'pretrained')},
        'image_size': manifest['input']['shape'][2],  # the same position in NCHW and NHWC
        **{key: manifest.get(key) for key in ('precision', 'temperature')},
    }


def top_labels(probabilities, labels, count):
    """[(label, probability), ...]: the `count` most probable classes, highest first; probabilities: float [classes]."""
    order = (-probabilities).argsort(kind='stable')[:count]
    return [(labels[number], float(probabilities[number])) for number in order]


def as_dict(guesses):
    """The result of `top_labels` as a JSON-ready dict: label and probability of the first, and `top`, all of them."""
    top = [{'label': label, 'probability': probability} for label, probability in guesses]
    return {**top[0], 'top': top}
