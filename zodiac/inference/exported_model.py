"""Load an exported model and run it: `load(folder)` has `predict(batch)`, probabilities, and `answers(batch)`, all it says of each image.

Only load models that you trust: a static graph can contain operators that write files.
"""

import os
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence

import numpy as np

from zodiac.base import calls, runs
from zodiac.base.errors import UserError
from zodiac.inference import choice, engines, export_folder, reference, unknown


@dataclass(frozen=True)
class Answer:
    """What a model says about one image."""

    probabilities: np.ndarray  # float32 [classes]
    features: Optional[np.ndarray] = None  # float32 [D]; None where the export has none
    score: Optional[float] = (
        None  # unknown.Rejection.score; None, as `labels`, where the export was made with reject.keep=0
    )
    labels: Optional[np.ndarray] = None  # int: the classes in its set, the most probable one first
    logits: Optional[np.ndarray] = None  # float32 [classes]; None where the export has none

    @property
    def known(self):
        """Whether the photo is like those that the model was trained on; None where that is not known."""
        return None if self.score is None else self.score >= 0

    @property
    def finite(self):
        return bool(np.isfinite(self.probabilities).all()) and (self.score is None or bool(np.isfinite(self.score)))


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
        None  # the same batch -> {'probabilities': ..., 'logits': ..., 'features': ...}, what the graph returns
    )
    precision: str = 'fp32'  # fp32, bf16 or int8
    has_features: bool = False  # whether the graph returns them
    folder: str = ''
    rejection: Optional[unknown.Rejection] = None  # of an export with reject.keep
    measured: Optional[dict] = None  # n, top1, interval_95, guess, folds: see export.measured; None where not recorded
    examples: Sequence[np.ndarray] = ()  # uint8 [size, size, 3]: the photos of export.examples
    has_logits: bool = False  # whether the graph returns them

    def answers(self, batch):
        """list of `Answer`, one per image of a batch of transformed images [N, ...]."""
        if not self.has_logits:
            return list(map(Answer, self.predict(batch)))
        found = self.outputs(batch)
        logits, features = found['logits'], found.get('features', [None] * len(batch))
        probabilities = softmax(logits)
        scores = sets = [None] * len(batch)
        if self.rejection is not None:
            order = np.argsort(-probabilities, axis=1, kind='stable')
            inside = np.take_along_axis(self.rejection.sets(probabilities), order, 1)
            sets = [classes[chosen] for classes, chosen in zip(order, inside)]
            scores = self.rejection.score(features).tolist()
        return list(map(Answer, probabilities, features, scores, sets, logits))

    def require_features(self, asked):
        """Raise UserError, with the command to export again, if the export has no features.

        Args:
            asked: what needs them, for the message.
        """
        if not self.has_features:
            parent, name = os.path.split(self.folder.rstrip('/'))
            run = runs.shortest(parent) if name == export_folder.INFER else self.name
            again = calls.command('export', run, '-o', 'export.features=true')
            raise UserError(f'{asked}: the model in {self.folder} does not return features; export it again: {again}')


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
        'features' in names,
        folder,
        unknown.unpack(contents[unknown.file_name(manifest)]) if unknown.file_name(manifest) in contents else None,
        manifest.get('measured'),
        reference.examples(contents[reference.file_name(manifest)])
        if reference.file_name(manifest) in contents
        else (),
        'logits' in names,
    )


def explain(folder, place='auto', engine='auto', precision='auto'):
    """The table of choice.explain, as text. Raises as `load` does."""
    folder = export_folder.find(folder)
    manifest, contents = _read(folder)
    return choice.explain(folder, manifest, contents, place, engine, precision)


def _read(folder):
    """The manifest, and the contents of the ONNX files, the reference, and what finds unknown photos."""
    manifest = export_folder.read_manifest(folder)
    own = (reference.file_name(manifest), unknown.file_name(manifest))
    wanted = (engines.onnx_name(manifest), engines.onnx_name(manifest, 'int8'), *own)
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


def as_dict(guesses, answer, model):
    """The result of `top_labels` as a JSON-ready dict: label and probability of the first; with reject.keep `known`, `score` and `set` of
    the `Answer`; `top`, all of the guesses; and the `engine` and `precision` of the ExportedModel."""
    top = [{'label': label, 'probability': probability} for label, probability in guesses]
    return {
        **top[0],
        **judgement(answer, model.labels),
        'top': top,
        'engine': model.engine,
        'precision': model.precision,
    }


def judgement(answer, labels):
    """known (bool), score (float) and set (list of labels) of an `Answer`; {} where the export was made with reject.keep=0."""
    if answer.known is None:
        return {}
    return {'known': answer.known, 'score': answer.score, 'set': [labels[number] for number in answer.labels]}
