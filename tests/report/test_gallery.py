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


def test_images_are_chosen_by_confidence():
    chosen = gallery.choose(LABELS, PROBABILITIES, count=3)
    assert chosen == {'mistakes': [3, 2, 5], 'uncertain': [5, 4, 0], 'right': [1]}


def test_without_mistakes_none_is_chosen():
    chosen = gallery.choose(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert chosen == {'mistakes': [], 'uncertain': [1, 0], 'right': [0, 1]}


def test_a_thumbnail_shows_the_whole_image_in_its_aspect_ratio():
    image = decoded(gallery.thumbnail(picture(0, (300, 150))))
    assert (image.format, image.size) == ('JPEG', (144, 72))
    assert decoded(gallery.thumbnail(picture(0, (30, 30)))).size == (144, 144)


def test_a_heat_map_is_laid_over_its_place():
    heat = np.zeros((2, 2))
    heat[0, 1] = 1
    grey = Image.new('RGB', (64, 64), (128, 128, 128))
    pixels = np.asarray(decoded(gallery.thumbnail(grey, heat)).convert('L'), int)
    assert pixels[10, -10] > pixels[10, 10] + 60 and abs(pixels[-10, 10] - pixels[-10, -10]) < 20


def decoded(address):
    kind, _, content = address.partition(';base64,')
    assert kind.startswith('data:image/')
    return Image.open(io.BytesIO(base64.b64decode(content)))
