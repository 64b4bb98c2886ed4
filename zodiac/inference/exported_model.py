"""Load an exported model and run it: `load(folder).predict(batch)` gives probabilities.

Only load models that you trust: a static graph can contain operators that write files.
"""

from dataclasses import dataclass
from typing import Callable, List, Optional

import numpy as np

from zodiac.inference import choice, engines, export_folder, reference


@dataclass
class ExportedModel:
    """An exported model, ready to run."""

    name: str
    labels: List[str]  # in class order
    transform: list  # the steps that turn an image into an input, see zodiac/images/transforms.py
    origin: dict  # arch, image_size, flip_average, epoch, pretrained, temperature; None where not recorded
    predict: Callable  # batch of transformed images [N, ...] -> probabilities, float32 [N, classes]
    engine: str = 'paddle'  # a key of engines.ENGINES
    outputs: Optional[Callable] = (
        None  # the same batch -> {'probabilities': ..., 'logits': ...}, what the graph returns
    )
    precision: str = 'fp32'  # fp32, bf16 or int8
    measured: Optional[dict] = None  # n, top1, interval_95, guess, folds: see export.measured; None where not recorded


def load(folder, place='auto', engine='auto', precision='auto', checked=True):
    """Check the files that export.py wrote to `folder` and load them as an `ExportedModel`.

    Args:
        folder: the exported folder, or a run, see `export_folder.find`.
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'; with 'auto', onnxruntime and openvino run on the CPU.
        engine: a key of engines.ENGINES, precision: one of choice.PRECISIONS, or 'auto' for the fastest that gives the logits of the
            network on this machine, see choice.choose.
        checked: false to run a named engine in a named precision without comparing it with these logits.
    Raises: UserError when the folder is not an export, a file is missing or changed, the engine is not installed, or nothing that was
        asked for gives these logits; UsageError for a precision that cannot run.
    """
    folder = export_folder.find(folder)
    manifest, contents = _read(folder)
    asked = choice.choose(folder, manifest, contents, place, engine, precision, checked)
    onnx = contents.get(engines.onnx_name(manifest, asked.precision))
    source = engines.Source(folder, manifest, onnx, asked.precision, choice.compiled_path(manifest, asked))
    run = engines.ENGINES[asked.engine](source, place)
    dtype = manifest['input'].get('dtype', 'float32')
    names = export_folder.output_names(manifest)

    def outputs(batch):
        return dict(zip(names, run(np.ascontiguousarray(batch, dtype))))

    def predict(batch):
        found = outputs(batch)
        return softmax(found['logits']) if 'logits' in found else found['probabilities']

    return ExportedModel(
        manifest['name'],
        [str(label) for label in manifest['labels']],
        manifest['transform'],
        _origin(manifest),
        predict,
        asked.engine,
        outputs,
        asked.precision,
        manifest.get('measured'),
    )


def explain(folder, place='auto', engine='auto', precision='auto'):
    """The table of choice.explain, as text. Raises as `load` does."""
    folder = export_folder.find(folder)
    manifest, contents = _read(folder)
    return choice.explain(folder, manifest, contents, place, engine, precision)


def _read(folder):
    """The manifest, and the contents of the ONNX files and the reference."""
    manifest = export_folder.read_manifest(folder)
    wanted = (engines.onnx_name(manifest), engines.onnx_name(manifest, 'int8'), reference.file_name(manifest))
    return manifest, export_folder.read_verified(folder, manifest, wanted)


def softmax(logits):
    """Probabilities, float32 [N, classes]. Computed here rather than in the graph, so that no engine's precision affects it."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _origin(manifest):
    trained = manifest.get('trained', {})
    return {
        **{key: trained.get(key) for key in ('arch', 'flip_average', 'epoch', 'pretrained')},
        'image_size': manifest['input']['shape'][2],  # the same position in NCHW and NHWC
        'temperature': manifest.get('temperature'),
    }


def top_labels(probabilities, labels, count):
    """[(label, probability), ...]: the `count` most probable classes, highest first; probabilities: float [classes]."""
    order = (-probabilities).argsort(kind='stable')[:count]
    return [(labels[number], float(probabilities[number])) for number in order]


def as_dict(guesses, model):
    """The result of `top_labels` as a JSON-ready dict: label and probability of the first; `top`, all of them; and the `engine` and
    `precision` of the ExportedModel."""
    top = [{'label': label, 'probability': probability} for label, probability in guesses]
    return {**top[0], 'top': top, 'engine': model.engine, 'precision': model.precision}
