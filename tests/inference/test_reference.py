"""The sealed pictures are the same on every machine; from them and the margins follows the share of answers that could change."""

import hashlib

import numpy as np
import pytest

from zodiac.images import transforms
from zodiac.inference import reference

STEP = {'op': 'normalize', 'mean': [0.5, 0.4, 0.3], 'std': [0.2, 0.3, 0.4]}


@pytest.mark.parametrize(
    ('size', 'digest'),
    [
        (32, '39a03e7f033a0299ad8842ec279a77c40380950e3fb7bdc5e274c40df6c44f3f'),
        (224, '7c49fce002e9db2bde441a4f3de6afefae07b90188d78b57d4b6d37246ea2151'),
    ],
)
def test_the_pictures_are_the_same_bytes_everywhere(size, digest):
    assert hashlib.sha256(reference.pictures(size)).hexdigest() == digest


def test_the_pictures_differ_and_use_the_range_of_pixels():
    pictures = reference.pictures(50)
    assert pictures.shape == (64, 50, 50, 3) and pictures.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures}) == 64
    assert pictures.min() == 0 and pictures.max() == 255 and pictures.std((1, 2, 3)).min() > 3
    values = pictures.astype(int)
    near, far = (np.abs(values[:, distance:] - values[:, :-distance]).mean() for distance in (1, 20))
    assert near < 0.8 * far  # as in photos


def test_the_inputs_are_those_of_the_transform():
    pixels = reference.pictures(32)[:3]
    takes_floats = {'input': {'shape': [-1, 3, 32, 32], 'dtype': 'float32'}, 'transform': [STEP]}
    expected = np.stack([transforms.apply([STEP], image) for image in pixels])
    np.testing.assert_array_equal(reference.inputs(takes_floats, pixels), expected)
    assert reference.inputs({'input': {'dtype': 'uint8'}, 'transform': [STEP]}, pixels) is pixels


def test_what_is_packed_is_unpacked():
    logits, margins = np.random.default_rng(0).random((64, 3), np.float32), np.float32([1, 2])
    pixels, more = np.full((2, 32, 32, 3), 7, np.uint8), np.zeros((2, 3), np.float32)
    got = reference.unpack(reference.pack(logits, margins, pixels, more), 32)
    np.testing.assert_array_equal(got[0], np.concatenate([reference.pictures(32), pixels]))
    np.testing.assert_array_equal(got[1], np.concatenate([logits, more]))
    np.testing.assert_array_equal(got[2], margins)


def test_margins_are_between_the_first_and_the_second_logit():
    assert reference.margins(np.float32([[1, 5, 3], [2, 2, 0]])).tolist() == [2, 0]
    assert reference.margins(np.float32([[1]])).tolist() == [np.inf]


LOGITS = np.random.default_rng(0).normal(0, 3, (64, 5)).astype('float32')
MARGINS = np.linspace(0.1, 10, 100)


def share(logits, margins=MARGINS):
    return reference.changed_share(reference.differences(LOGITS, logits), margins)


def test_the_same_logits_or_all_higher_by_the_same_change_nothing():
    assert share(LOGITS) == 0 and share(LOGITS + np.float32(1)) < 1e-6


def test_the_share_is_that_of_the_margins_below_the_difference():
    moved = LOGITS.copy()
    moved[np.arange(64), LOGITS.argmax(1)] -= 2
    assert share(moved) == pytest.approx(0.2, abs=0.01)  # a fifth of the margins are below 2


def test_one_wrong_picture_is_more_than_the_limit():
    moved = LOGITS.copy()
    moved[7] = moved[7, ::-1]
    assert share(moved) > 0.005


@pytest.mark.parametrize('wrong', [LOGITS * 1.5, -LOGITS, np.zeros_like(LOGITS), LOGITS * np.nan, LOGITS + np.inf])
def test_wrong_logits_could_change_many_answers(wrong):
    assert share(wrong) > 0.1


def test_no_answer_that_does_change_is_missed():
    """Random logits, errors of the engine independent of them: the share that changes is never above the share that could."""
    rng = np.random.default_rng(1)
    for scale in (0.01, 0.1, 0.5):
        photos = rng.normal(0, 2, (20000, 5))
        changed = (photos.argmax(1) != (photos + rng.normal(0, scale, photos.shape)).argmax(1)).mean()
        could = share(LOGITS + rng.normal(0, scale, LOGITS.shape), reference.margins(photos))
        assert changed < could < 5 * changed + 0.001


def test_one_close_case_among_few_is_not_a_share_of_their_number():
    few = np.linspace(0.4, 8, 20)
    moved = LOGITS + np.random.default_rng(2).normal(0, 0.02, LOGITS.shape)
    assert 0 < share(moved, few) < 0.005 < 1 / 20
    assert share(moved, few[:0]) == 1.0  # nothing is known
