"""Every mistake of an evaluation as the report lists it: the first with their photos and heat maps, all with a link to the file."""

import os
import time
import urllib.parse

import numpy as np
from matplotlib import colormaps
from PIL import Image

from zodiac.images import decoding, transforms
from zodiac.report import gallery, gradcam

PICTURED = 240  # mistakes with a photo
PICTURE_BYTES = 2_800_000  # of all photos and heat maps of mistakes; with the rest of the page, less than 5 MB
LISTED = 12_000  # mistakes in the page; predictions.csv has all
HEAT_SECONDS = 30  # for heat maps; those that are not done by then are left out
HEAT_BATCH = 8
STRONGEST = 0.7  # opacity of the heat map where it is 1


def found(paths, labels, probabilities, over_folds=False):
    """Rows of the wrong predictions: path, label, guess, probability (of the guess), probability_of_label, over_folds.

    Args:
        labels: int [n]; probabilities: float [n, classes].
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    guesses = probabilities.argmax(1)
    return [
        {
            'path': paths[i],
            'label': int(labels[i]),
            'guess': int(guesses[i]),
            'probability': float(probabilities[i, guesses[i]]),
            'probability_of_label': float(probabilities[i, labels[i]]),
            'over_folds': over_folds,
        }
        for i in np.flatnonzero(guesses != labels)
    ]


def all_of(dataset, probabilities, folds=None):
    """Rows of all mistakes, see `found`, the most confident first: those of the evaluated images, and over folds those of
    images that are not among them."""
    rows = found(dataset.paths, dataset.labels, probabilities)
    known = {row['path'] for row in rows}
    if folds:
        rows += [row for row in found(*folds, over_folds=True) if row['path'] not in known]
    return sorted(rows, key=lambda row: -row['probability'])


def with_pictures(rows, folder, transform, network=None, seconds=HEAT_SECONDS):
    """Add `address`, a link relative to `folder`, to each row, and `picture` and `heat`, data: URLs or None, to the first ones.

    Args:
        transform: of the evaluation, as data.
        network: Layer in eval mode for the heat maps; None for none.
        seconds: after which no more heat maps are computed.
    Returns: (rows, {'pictured', 'heated': how many have them, 'size': (height, width) of a heat map, or None}).
    """
    room, end, size = PICTURE_BYTES, time.monotonic() + seconds, None
    rows = [{**row, 'address': address(row['path'], folder), 'picture': None, 'heat': None} for row in rows[:LISTED]]
    for start in range(0, min(PICTURED, len(rows)), HEAT_BATCH):
        batch = rows[start : start + HEAT_BATCH]
        images = [_decoded(row['path']) for row in batch]
        for row, image in zip(batch, images):
            if image is not None:
                row['picture'] = gallery.thumbnail(image)
        readable = [(row, image) for row, image in zip(batch, images) if image is not None]
        if network is not None and readable and time.monotonic() < end:
            heats, size = heat_maps(
                [image for _, image in readable], [row['guess'] for row, _ in readable], transform, network
            )
            for (row, _), heat in zip(readable, heats):
                row['heat'] = heat
        room -= sum(len(row[kind] or '') for row in batch for kind in ('picture', 'heat'))
        if room < 0:
            for row in batch:
                row['picture'] = row['heat'] = None
            break
    counts = {
        f'{name}': sum(row[kind] is not None for row in rows)
        for name, kind in (('pictured', 'picture'), ('heated', 'heat'))
    }
    return rows, {**counts, 'size': size}


def compact(rows, folder):
    """The rows of `with_pictures` that have no picture, for the script of the page in `folder`: a dict of folder, the part that their paths
    have in common; address, that of this folder; rows, [path below it, label, guess, probability, probability_of_label]."""
    common = os.path.dirname(os.path.commonprefix([row['path'] for row in rows]))
    keys = ('label', 'guess', 'probability', 'probability_of_label')
    below = [[row['path'][len(common) :].lstrip('/'), *(round(row[key], 4) for key in keys)] for row in rows]
    return {'folder': common, 'address': address(common or '.', folder), 'rows': below}


def heat_maps(images, classes, transform, network):
    """What speaks for a class in PIL images: data: URLs of the part that the network sees under its Grad-CAM map; (height, width) of the
    map."""
    inputs = np.stack([transforms.apply(transform, image) for image in images])
    heats = gradcam.heat(getattr(network, 'network', network), inputs, classes)
    last = transform[-1]
    seen = [transforms.denormalize(image, last['mean'], last['std']) for image in inputs]
    return [overlaid(*pair) for pair in zip(seen, heats)], heats.shape[1:]


def overlaid(pixels, heat):
    """data: URL of an image, uint8 [H, W, 3], under a heat map, float [h, w] from 0 to 1, that is enlarged smoothly. It is the stronger the
    larger its value; where that is 0, the image is unchanged."""
    small = Image.fromarray(pixels).resize((gallery.THUMBNAIL, gallery.THUMBNAIL), Image.Resampling.LANCZOS)
    smooth = Image.fromarray(np.float32(heat)).resize(small.size, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(smooth), 0, 1)
    opacity = STRONGEST * values[..., None] ** 0.75
    coloured = 255 * colormaps['inferno'](values)[..., :3]
    return gallery.data_url(Image.fromarray(np.uint8((1 - opacity) * np.asarray(small) + opacity * coloured)))


def address(path, folder):
    """The address of a file as seen from a page in `folder`."""
    try:
        relative = os.path.relpath(path, folder).replace(os.sep, '/')
    except ValueError:  # another drive of Windows
        return 'file:///' + urllib.parse.quote(os.path.abspath(path).replace(os.sep, '/'), safe='/:')
    return urllib.parse.quote(relative)


def _decoded(path):
    try:
        return decoding.decode(path)
    except decoding.ImageError:
        return None
