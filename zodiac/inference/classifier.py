"""What `zodiac.load` returns: an exported model with the images in any form, `load(run).predict(images)`. Needs no Paddle where ONNX
Runtime or OpenVINO is installed and the export has an ONNX file."""

from __future__ import annotations

import collections.abc
import os
import sys
import threading
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, List, Optional, Tuple, Union

import numpy as np
from PIL import Image

from zodiac.base.errors import UserError
from zodiac.inference import engines, exported_model, image_batches

Picture = Union[str, 'os.PathLike[str]', bytes, Image.Image, np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """The classes of one image."""

    label: str  # of the most probable class
    probability: float
    top: List[Tuple[str, float]]  # (label, probability), the most probable first
    path: Optional[str]  # of the file; None for an image in memory
    features: Optional[np.ndarray] = None  # float32 [D], what enters the last layer; None unless asked for
    known: Optional[bool] = (
        None  # whether it is like the training photos; None, as score and set, if exported with reject.keep=0
    )
    score: Optional[float] = None  # how much like them: known from 0 on; in standard deviations of known photos
    set: Optional[List[str]] = (
        None  # labels that hold the right one of a known photo with reject.coverage, most probable first
    )


class Classifier:
    """An exported model. Several threads may call `predict`: images are decoded in parallel, the network runs for one of them at a time."""

    def __init__(self, model: exported_model.ExportedModel) -> None:
        self.name: str = model.name
        self.labels: List[str] = model.labels  # in the order of the class numbers
        self.engine: str = model.engine
        self.precision: str = model.precision
        self._model = model
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f'<Classifier {self.name}: {len(self.labels)} classes, {self.engine}>'

    def predict(
        self,
        images: Union[Picture, Iterable[Picture]],
        top: int = 5,
        batch_size: int = 16,
        on_error: Optional[Callable[[UserError], None]] = None,
        features: bool = False,
    ) -> List[Prediction]:
        """Classify images.

        Args:
            images: one image or several: paths; folders, of which all images are taken; the bytes of files; PIL images; arrays, uint8
                [height, width, 3] in RGB order, or [n, height, width, 3].
            top: number of labels in `Prediction.top`.
            batch_size: images per run of the network.
            on_error: called with the error of each image that cannot be read, which is then left out; None: the first one is raised.
            features: also return the features of each image, which an export with export.features=true has.
        Returns: a Prediction per image, in their order.
        Raises: UserError for an image that cannot be read, which it names: an image in memory by its number, from 0; and where the
            export has no features.
        """
        if features:
            self._model.require_features('features=True')
        found, labels = [], self.labels
        batches = image_batches.read(_sources(images), self._model.transform, batch_size)
        for sources, batch, errors in batches:
            for error in errors:
                if on_error is None:
                    raise error
                on_error(error)
            if not sources:
                continue
            with self._lock:
                answers = self._model.answers(batch)
            for source, answer in zip(sources, answers):
                guesses = exported_model.top_labels(answer.probabilities, labels, top)
                path = source if isinstance(source, str) else None
                judged = exported_model.judgement(answer, labels)
                found.append(Prediction(*guesses[0], guesses, path, answer.features if features else None, **judged))
        return found


def load(
    run: Union[str, os.PathLike[str]], engine: str = 'auto', device: str = 'auto', precision: str = 'auto'
) -> Classifier:
    """Load the exported model of a run.

    Args:
        run: name of a run in ./output, its folder, or an exported folder.
        engine: auto (the fastest that agrees with the network, see choice.choose), paddle, onnxruntime or openvino.
        device: auto, cpu, gpu or gpu:N.
        precision: auto, fp32, bf16 or int8.
    Raises: UserError when there is no export, a file of it is missing or changed, or the engine is not installed.
    """
    if engine not in ('auto', *engines.ENGINES):
        raise UserError(f'engine {engine!r}: must be auto, {", ".join(engines.ENGINES)}')
    return Classifier(exported_model.load(os.fspath(run), device, engine, precision))


def _sources(images: Union[Picture, Iterable[Picture]]) -> Iterator:
    """Yield what `image_batches.read` takes, for each image."""
    single = isinstance(images, (str, os.PathLike, bytes)) or getattr(images, 'ndim', 0) in (2, 3)
    single = single or not isinstance(images, collections.abc.Iterable)
    for number, image in enumerate([images] if single else images):
        if isinstance(image, (str, os.PathLike)):
            yield from image_batches.find([os.fspath(image)], lambda text: print(text, file=sys.stderr))
        elif isinstance(image, (bytes, Image.Image)):
            yield image_batches.InMemory(f'image {number}', image)
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            yield image_batches.InMemory(f'image {number}', Image.fromarray(image))
        elif isinstance(image, np.ndarray):
            what = f'an array of {image.dtype} {list(image.shape)}'
            yield UserError(f'image {number}: {what}; it must be uint8 [height, width, 3], in RGB order')
        else:
            what = f'{type(image).__name__} is not an image'
            yield UserError(f'image {number}: {what}; give a path, bytes, a PIL image or a uint8 array')
