"""Which images a page shows, and how."""

import base64
import io

import numpy as np
from conftest import picture
from PIL import Image

from zodiac.report import gallery

LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [
        [0.6, 0.3, 0.1],  # right
        [0.9, 0.05, 0.05],  # right, more confident
        [0.7, 0.2, 0.1],  # wrong
        [0.96, 0.02, 0.02],  # wrong, more confident
        [0.34, 0.36, 0.3],  # wrong, nearly undecided
        [0.45, 0.1, 0.45],  # a tie: the lower class number wins
    ]
)


def test_correct_images_are_chosen_by_confidence_and_none_twice():
    assert gallery.choose(LABELS, PROBABILITIES) == {'uncertain': [0], 'right': {0: 1, 1: None, 2: None}}
    assert gallery.choose(LABELS, PROBABILITIES, count=0)['uncertain'] == []


def test_the_least_certain_of_the_correct_ones_come_first():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.55, 0.45], [0.7, 0.3]])
    assert gallery.choose(np.zeros(4, int), probabilities) == {'uncertain': [2, 0, 3], 'right': {0: 1}}


def test_a_thumbnail_shows_the_whole_image_in_its_aspect_ratio():
    image = decoded(gallery.thumbnail(picture(0, (300, 150))))
    assert image.format in ('WEBP', 'JPEG') and image.size == (160, 80)
    assert decoded(gallery.thumbnail(picture(0, (30, 30)))).size == (160, 160)


def test_without_webp_a_thumbnail_is_a_jpeg(monkeypatch):
    monkeypatch.setattr(gallery.features, 'check', lambda name: False)
    assert decoded(gallery.thumbnail(picture(0, (300, 150)))).format == 'JPEG'


def decoded(address):
    kind, _, content = address.partition(';base64,')
    assert kind.startswith('data:image/')
    return Image.open(io.BytesIO(base64.b64decode(content)))
