"""What an export seals for the machines that will run it: the logits of pictures that every machine can draw, and validation margins.

A machine runs an engine on the same pictures and sees how far its logits are from the network's (`changed_share`). The pictures are
drawn from integers alone, so no photo is shipped and every machine and version of numpy draws the same bytes.
"""

import io
import math

import numpy as np

from zodiac.images import transforms

COUNT, GROUP = 64, 16  # pictures; and how many are drawn at a time
CONSTANTS = [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB]


def file_name(manifest):
    """Name of the file in the exported folder."""
    return f'{manifest["name"]}.reference.npz'


def pictures(size):
    """The pictures, uint8 [COUNT, size, size, 3]: coloured noise at every scale, with the strength of each scale, the mean colour and
    the contrast drawn for each picture. The finest scales are weaker, as in photos (Field 1987, doi:10.1364/JOSAA.4.002379)."""
    return np.concatenate([_drawn(group, size) for group in range(COUNT // GROUP)])


def _drawn(group, size):
    traits = _noise(group, 0, (GROUP, 16))
    canvas, level = np.zeros((GROUP, 2, 2, 3), np.int16), 0
    while canvas.shape[1] < size:
        canvas, level = _doubled(canvas), level + 1
        side, strength = canvas.shape[1], traits[:, level % 10, None, None, None] % 16
        light = _noise(group, 2 * level, (GROUP, side, side, 1)) - 128
        colour = _noise(group, 2 * level + 1, (GROUP, side // 2, side // 2, 3)) - 128
        weaker = max(0, level - 5)
        canvas += light * strength >> 4 + weaker
        canvas += (colour * strength >> 6 + weaker).repeat(2, 1).repeat(2, 2)
    canvas = canvas[:, :size, :size]
    mean, contrast = traits[:, None, None, 10:13], traits[:, 13, None, None, None]
    return np.clip(64 + mean // 2 + (canvas * (1 + contrast % 4) >> 2), 0, 255).astype(np.uint8)


def _noise(group, stream, shape):
    """Pseudo-random numbers from 0 to 255, int16: the bytes of splitmix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    count = int(np.prod(shape))
    state = np.arange(1, -(-count // 8) + 1, dtype=np.uint64) + np.uint64((group << 8 | stream) << 32)
    state *= np.uint64(CONSTANTS[0])
    for shift, factor in ((30, CONSTANTS[1]), (27, CONSTANTS[2])):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    state ^= state >> np.uint64(31)
    return state.astype('<u8').view(np.uint8)[:count].reshape(shape).astype(np.int16)


def _doubled(canvas):
    """Twice the side, each pixel halfway between its neighbours: int16 [N, side, side, 3]."""
    canvas = canvas.repeat(2, 1).repeat(2, 2)
    canvas[:, 1:] = (canvas[:, 1:] + canvas[:, :-1]) >> 1
    canvas[:, :, 1:] = (canvas[:, :, 1:] + canvas[:, :, :-1]) >> 1
    return canvas


def inputs(manifest, pixels):
    """What the exported network takes for pixels, uint8 [N, size, size, 3]: the same, or normalised float32 [N, 3, size, size]."""
    if manifest['input'].get('dtype') == 'uint8':
        return pixels
    return normalised(pixels, manifest['transform'][-1])


def normalised(pixels, step):
    """uint8 [N, size, size, 3] -> float32 [N, 3, size, size], by the last step of a transform."""
    return transforms.normalize(pixels, step['mean'], step['std'])


def pack(logits, margins, pixels, example_logits, scores=None, score_margins=None):
    """The content of the file.

    Args:
        logits: of the network for `pictures`, float32 [COUNT, classes], divided by the temperature.
        margins: first minus second logit of each validation image, float32 [n].
        pixels, example_logits: real validation images, uint8 [m, size, size, 3], and their logits; m may be 0.
        scores, score_margins: with reject.keep, the scores of an unknown.Rejection for pictures and examples, float32 [COUNT + m], and
            the absolute scores of the validation images, float32 [n].
    """
    file, more = io.BytesIO(), {} if scores is None else {'scores': scores, 'score_margins': score_margins}
    np.savez(file, logits=logits, margins=margins, pixels=pixels, example_logits=example_logits, **more)
    return file.getvalue()


def unpack(content, size):
    """(pixels uint8 [N, size, size, 3], logits float32 [N, classes], margins float32 [n]) of the file's content."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        pixels = np.concatenate([pictures(size), found['pixels']])
        return pixels, np.concatenate([found['logits'], found['example_logits']]), found['margins']


def examples(content):
    """The real validation images in the file's content, uint8 [m, size, size, 3]; m may be 0."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return found['pixels']


def unpack_scores(content):
    """(scores float32 [N], score_margins float32 [n]) of the file's content."""
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return found['scores'], found['score_margins']


def margins(logits):
    """First minus second logit, float32 [N], of logits [N, classes]; infinite with a single class."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf, np.float32)
    ordered = np.partition(logits, -2, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def differences(expected, logits):
    """By how much an engine moves the first class of each picture against each other class: float [N, classes - 1], not negative.

    A shift of all logits of a picture by the same amount changes no probability, and does not count. NaN counts as infinite.
    """
    first = expected.argmax(1)[:, None]
    with np.errstate(invalid='ignore'):  # infinite logits
        error = logits.astype(np.float64) - expected
        moved = np.abs(error - np.take_along_axis(error, first, 1))
    others = np.arange(expected.shape[1]) != first
    return np.nan_to_num(moved, nan=np.inf, posinf=np.inf)[others].reshape(len(expected), -1)


def changed_known_share(expected, scores, known_margins):
    """`changed_share` for the question whether a photo is known, which changes where a score passes 0.

    Args:
        expected, scores: float [N], of the network and of an engine; known_margins: absolute scores of validation images, [n].
    """
    moved = np.abs(scores.astype(np.float64) - expected)
    return changed_share(np.nan_to_num(moved, nan=np.inf, posinf=np.inf)[:, None], known_margins)


def changed_share(found, known_margins):
    """The share of answers that could change, from 0 to 1.

    The first class a stays ahead of a class b unless the engine moves the two logits against each other by at least their distance:
    (y_a + e_a) - (y_b + e_b) = (y_a - y_b) - (e_b - e_a) > 0 unless |e_b - e_a| >= y_a - y_b (Tsuzuku et al. 2018, "Lipschitz-Margin
    Training", use the same bound). Each difference on the pictures is therefore compared with each validation margin: the share is that
    of the pairs in which the difference is not smaller. Fewer answers do change: a difference in the other direction does no harm, and
    most classes are further behind than the second.

    The smallest of few margins is a matter of chance. Below the k-th of n, k the root of n, their density is therefore taken as constant
    (the nearest-neighbour estimate, Loftsgaarden and Quesenberry 1965); above, the i-th margin is at i / (n + 1).

    Args:
        found: the result of `differences`.
        known_margins: validation margins, [n]; without any, each difference could change an answer.
    """
    if not found.size:  # a single class
        return 0.0
    ordered = np.sort(known_margins.astype(np.float64))
    first = math.ceil(math.sqrt(len(ordered)))
    places = np.concatenate([[0], np.arange(max(1, first), len(ordered) + 1)])
    shares = np.interp(found, [0, *ordered[max(0, first - 1) :]], places / (len(ordered) + 1), right=1.0)
    return float(np.where(found > 0, shares, 0.0).mean())
