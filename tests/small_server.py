"""A model that needs no engine, limits for a server of it, pictures to send, and reading from sockets."""

import contextlib
import io

from PIL import Image

from zodiac.images import transforms
from zodiac.inference import exported_model
from zodiac.serving import models, uploads

COLOURS = {'红': 'red', 'green': 'lime', 'blue': 'blue'}
LABELS = [*COLOURS]
TRANSFORM = transforms.eval_transform(8, [0, 0, 0], [1, 1, 1], 'squash')


def shares(batch):
    """[N, 3, H, W] -> [N, 3]: how much of each colour there is."""
    means = batch.mean((2, 3)) + 0.01
    return means / means.sum(1, keepdims=True)


def model_of(predict=shares, name='colours', **others):
    return exported_model.ExportedModel(name, LABELS, TRANSFORM, {}, predict, **others)


def served(*found, size=8, delay=0.002):
    """Models in version 1."""
    all_of = models.Models([], None, size, delay)
    for model in found or [model_of()]:
        all_of.add(models.Served(model, '1', size, delay, all_of.counts))
    return all_of


def limits(**others):
    return uploads.Limits(
        **{'requests': 50, 'images': 16, 'body': 1 << 20, 'total': 50 << 20, 'pixels': 10**6, 'seconds': 20, **others}
    )


def encoded(image, kind='PNG'):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def filled(colour, size=(20, 10)):
    """A PNG file of one colour."""
    return encoded(Image.new('RGB', size, colour))


def picture_of(label, size=(64, 48)):
    """A PNG file that the model gives this label."""
    return filled(COLOURS[label], size)


def receive_to(link, end):
    """Read from a socket until `end` arrives."""
    received = b''
    while end not in received:
        got = link.recv(4096)
        assert got, f'closed after {received}'
        received += got


def received_of(link):
    """Read from a socket until it is closed."""
    received = b''
    with contextlib.suppress(ConnectionResetError):
        while got := link.recv(4096):
            received += got
    return received
