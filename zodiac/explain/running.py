"""Run an export on what other programs would pass to it, each input once; and how much another engine or decoder changes."""

import dataclasses
import hashlib

import numpy as np

from zodiac.base.errors import UserError
from zodiac.explain import programs
from zodiac.inference import engines, exported_model, parity

BATCH = 16
ENGINE_SHARE = 2e-4  # of the spread of the logits: engines on other machines differ by so much
ROUNDING_SHARE = 2e-3  # the same for rounded pixels, where they change less on these photos
FACTOR = 2  # by how much other engines, libraries and decoders may differ more than the one that is measured here
PRECISIONS = {'bf16': ('openvino', 'paddle'), 'int8': ('openvino', 'onnxruntime')}  # and what runs them


class Runner:
    """Logits of the export for programs and photos. Each different input is run once."""

    def __init__(self, model, manifest, photos):
        self.model, self.photos = model, photos
        self.as_pixels = manifest['input'].get('dtype') == 'uint8'
        self.kept = {}  # {(precision, hash of the input): logits}
        self.runs = {'fp32': model.outputs}
        self.passes = 0

    def logits(self, number, some):
        """float32 [len(some), classes]: logits of a list of Programs for the photo of this number."""
        keys, waiting = {}, {}
        for program in sorted(set(some), key=programs.decoding_key):
            keys[program] = []
            for values in self.inputs(number, program):
                key = (program.precision, hashlib.sha256(values.tobytes()).digest())
                keys[program].append(key)
                if key not in self.kept:
                    waiting[key] = values
                if len(waiting) == BATCH:
                    self._run(waiting)
        self._run(waiting)
        return np.stack([np.mean([self.kept[key] for key in keys[program]], 0) for program in some])

    def inputs(self, number, program):
        """The inputs of a program for a photo: one, or two with `mirror`."""
        values = programs.inputs(program, self.photos[number].framed(program), self.as_pixels)
        return [values, np.ascontiguousarray(np.flip(values, -2 if self.as_pixels else -1))][: 1 + program.mirror]

    def same_inputs(self, number, one, other):
        pairs = [self.inputs(number, program) for program in (one, other)]
        return len(pairs[0]) == len(pairs[1]) and all(map(np.array_equal, *pairs)) and one.precision == other.precision

    def _run(self, waiting):
        for precision in {key[0] for key in waiting}:
            some = [key for key in waiting if key[0] == precision]
            for start in range(0, len(some), BATCH):
                part = some[start : start + BATCH]
                self.passes += len(part)
                self.kept.update(zip(part, run(self.runs[precision], np.stack([waiting[key] for key in part]))))
        waiting.clear()

    def precisions(self):
        """Load the other precisions that this machine and the export have; returns their names."""
        for precision, candidates in PRECISIONS.items():
            for engine in candidates:
                found = _other(self.model, engine, precision) if precision not in self.runs else None
                if found:
                    self.runs[precision] = found
        return [precision for precision in self.runs if precision != 'fp32']


def run(outputs, batch):
    """Logits float32 [N, classes] of an export; of one that returns probabilities only, their logarithms."""
    found = outputs(batch)
    with np.errstate(divide='ignore'):
        return found['logits'] if 'logits' in found else np.maximum(np.log(found['probabilities']), -700)


def _other(model, engine, precision='fp32'):
    """`outputs` of the same export in another engine; None if it cannot run here."""
    if engine != 'paddle' and not engines.installed(engine):
        return None
    try:
        return exported_model.load(model.folder, 'cpu', engine, precision, checked=False).outputs
    except UserError:
        return None


@dataclasses.dataclass(frozen=True)
class Noise:
    """How much numbers differ though nobody made a mistake."""

    limits: tuple  # the most that a logit moves, in growing order: by another engine, by rounding of pixels, by another JPEG decoder
    engine: float  # the same of a probability, as measured on these photos
    rounding: float
    decoder: float
    other: str  # the engine that was compared; '' without one


def noise(runner, own):
    """The Noise of these photos, for the Program of the export."""
    numbers = range(len(runner.photos))
    base = np.concatenate([runner.logits(number, [own]) for number in numbers])
    inputs = np.concatenate([runner.inputs(number, own)[:1] for number in numbers])
    halves = [
        run(
            runner.model.outputs,
            np.stack(
                [programs.inputs(own, photo.rounded(own, rows_first), runner.as_pixels) for photo in runner.photos]
            ),
        )
        for rows_first in (True, False)
    ]
    blocks = dataclasses.replace(own, chroma='blocks', reduced=False)
    plain = dataclasses.replace(own, reduced=False)
    decoded = [runner.logits(number, [plain, blocks]) for number in numbers]
    other, name = None, ''
    for engine in ('onnxruntime', 'openvino'):
        if engine != runner.model.engine and other is None:
            other, name = _other(runner.model, engine), engine
    by_engine = _moved(base, run(other, inputs)) if other else (0.0, 0.0)
    by_rounding = _moved(*halves)
    by_decoder = _moved(*(np.stack([pair[i] for pair in decoded]) for i in (0, 1)))
    spread = max(parity.spread(base), parity.LEAST_SPREAD)
    first = max(ENGINE_SHARE * spread, 4 * by_engine[0])
    second = first + ROUNDING_SHARE * spread + FACTOR * by_rounding[0]
    limits = (first, second, second + FACTOR * by_decoder[0])
    return Noise(limits, by_engine[1], by_rounding[1], by_decoder[1], name if other else '')


def _moved(logits, others):
    """The most by which a logit and a probability differ; a shift of all logits of a photo does not count."""
    difference = others.astype(np.float64) - logits
    difference -= difference.mean(1, keepdims=True)
    change = programs.softmax(others.astype(np.float64)) - programs.softmax(logits.astype(np.float64))
    return float(np.abs(difference).max()), float(np.abs(change).max())
