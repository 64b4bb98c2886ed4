"""The images that a page shows besides the mistakes, and thumbnails inside the HTML."""

import base64
import io

import numpy as np
from PIL import Image, ImageOps, features

from zodiac.images import decoding

THUMBNAIL = 160  # pixels per side
MOST_RIGHT = 40  # classes of which a correct prediction is shown


def choose(labels, probabilities, count=12):
    """Numbers of correctly predicted images to show; none is in both lists.

    Returns: dict: uncertain, by the margin between the two most probable classes, the smallest first; right, for each of the first
        MOST_RIGHT classes that have images the most confident correct prediction, None for a class without one.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    guesses, highest = probabilities.argmax(1), probabilities.max(1)
    second = np.sort(probabilities, axis=1)[:, -2]
    hits = guesses == labels
    best = {}
    for number in np.unique(labels).tolist()[:MOST_RIGHT]:
        own = np.flatnonzero(hits & (labels == number))
        best[number] = int(own[highest[own].argmax()]) if len(own) else None
    shown = set(best.values())
    uncertain = [int(i) for i in np.argsort(highest - second, kind='stable') if hits[i] and int(i) not in shown]
    return {'uncertain': uncertain[:count], 'right': best}


def card(number, dataset, probabilities, class_names):
    """An image for the template: picture, path, prediction, probability, second, probability_of_second."""
    first, second = np.argsort(-np.asarray(probabilities[number]), kind='stable')[:2]
    return {
        'picture': thumbnail_of(dataset.paths[number]),
        'path': dataset.paths[number],
        'prediction': class_names[first],
        'probability': float(probabilities[number][first]),
        'second': class_names[second],
        'probability_of_second': float(probabilities[number][second]),
    }


def thumbnail(image):
    """A PIL image, scaled to fit a square, as a data: URL."""
    return data_url(ImageOps.contain(image.convert('RGB'), (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))


def data_url(image):
    """A PIL image as a data: URL: WEBP where this Pillow has it, else JPEG."""
    kind = 'webp' if features.check('webp') else 'jpeg'
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), quality=72)
    return f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}'


def thumbnail_of(path):
    """The thumbnail of a file; None if it can no longer be read."""
    try:
        return thumbnail(decoding.decode(path))
    except decoding.ImageError:
        return None
