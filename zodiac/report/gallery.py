"""The images that a page shows: which ones, and as thumbnails inside the HTML."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageOps

from zodiac.images import decoding

THUMBNAIL = 144  # pixels per side
MOST_RIGHT = 40  # correct predictions that are shown


def choose(labels, probabilities, count=12):
    """Numbers of the images to show.

    Returns: dict of lists: mistakes, the most confident first; uncertain, by the margin between the two most probable classes, the
        smallest first; right, the most confident correct prediction of each class.
    """
    probabilities = np.asarray(probabilities)
    guesses, highest = probabilities.argmax(1), probabilities.max(1)
    second = np.sort(probabilities, axis=1)[:, -2]
    wrong = guesses != labels
    mistakes = [i for i in np.argsort(-highest, kind='stable') if wrong[i]]
    uncertain = np.argsort(highest - second, kind='stable')
    right = [np.flatnonzero(~wrong & (labels == number)) for number in range(probabilities.shape[1])]
    return {
        'mistakes': [int(i) for i in mistakes[:count]],
        'uncertain': [int(i) for i in uncertain[:count]],
        'right': [int(numbers[highest[numbers].argmax()]) for numbers in right if len(numbers)][:MOST_RIGHT],
    }


def cards(numbers, dataset, probabilities, class_names, pictures=None):
    """A dict per image, for the template. `pictures` replace the thumbnails of the files."""
    pictures = pictures or [thumbnail(decoding.decode(dataset.paths[i])) for i in numbers]
    return [
        {
            'picture': picture,
            'path': dataset.paths[i],
            'prediction': class_names[probabilities[i].argmax()],
            'probability': float(probabilities[i].max()),
            'label': class_names[dataset.labels[i]],
            'probability_of_label': float(probabilities[i][dataset.labels[i]]),
            'right': bool(probabilities[i].argmax() == dataset.labels[i]),
        }
        for i, picture in zip(numbers, pictures)
    ]


def thumbnail(image, heat=None):
    """A PIL image, scaled to fit a square, as a data: URL.

    Args:
        heat: float [H, W], 0 to 1, a heat map to lay over the image.
    """
    small = ImageOps.contain(image.convert('RGB'), (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if heat is not None:
        layer = Image.fromarray(np.uint8(255 * colormaps['inferno'](heat)[..., :3]))
        small = Image.blend(small, layer.resize(small.size, Image.Resampling.BILINEAR), 0.5)
    buffer = io.BytesIO()
    small.save(buffer, 'JPEG', quality=85)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def thumbnail_of(path):
    """The thumbnail of a file; None if it can no longer be read."""
    try:
        return thumbnail(decoding.decode(path))
    except decoding.ImageError:
        return None


def png(path):
    """A PNG file as a data: URL; None if there is no such file."""
    try:
        with open(path, 'rb') as file:
            return f'data:image/png;base64,{base64.b64encode(file.read()).decode()}'
    except FileNotFoundError:
        return None
