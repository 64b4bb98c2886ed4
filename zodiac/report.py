"""The report of a run: predictions.csv, and report.html, one file that shows everything and needs no network."""

import base64
import csv
import io
import os

import numpy as np

from zodiac import files

THUMBNAIL = 144  # pixels a side


def write_predictions(path, paths, labels, probabilities, class_names):
    """CSV with a row an image: id, path, label, prediction, probability of the prediction, correct (1 or 0)."""
    predictions = np.asarray(probabilities).argmax(1)
    with files.atomic_write(path) as file:
        table = csv.writer(file, lineterminator='\n')
        table.writerow(['id', 'path', 'label', 'prediction', 'probability', 'correct'])
        for i, (image, true, guess) in enumerate(zip(paths, labels, predictions)):
            table.writerow(
                [i, image, class_names[true], class_names[guess], f'{probabilities[i][guess]:.6f}', int(true == guess)]
            )


def write_page(path, template='report.html', **content):
    """A page from a template of this folder and the numbers and pictures that it names; a part without content is left out."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters['percent'] = lambda share: f'{share:.1%}'
    environment.filters['decimals'] = lambda value: '–' if value is None else f'{value:.4f}'
    with files.atomic_write(path) as file:
        file.write(environment.get_template(template).render(**content))


def picture(path):
    """A PNG file as a data: address."""
    with open(path, 'rb') as file:
        return f'data:image/png;base64,{base64.b64encode(file.read()).decode()}'


def thumbnail(image, heat=None):
    """A PIL image, scaled to fit a square, as a data: address.

    Args:
        heat: float [H, W], 0 to 1, of the image's aspect: how much each part of it counts, laid over it in colour.
    """
    from PIL import Image, ImageOps

    small = ImageOps.contain(image.convert('RGB'), (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if heat is not None:
        from matplotlib import colormaps

        layer = Image.fromarray(np.uint8(255 * colormaps['inferno'](heat)[..., :3]))
        small = Image.blend(small, layer.resize(small.size, Image.Resampling.BILINEAR), 0.5)
    buffer = io.BytesIO()
    small.save(buffer, 'JPEG', quality=85)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def choose(labels, probabilities, count=12):
    """Numbers of the images to look at.

    Returns: dict of lists: mistakes, the most probable wrong predictions first; uncertain, the smallest differences between the two
        most probable classes first; right, of each class the right prediction that is most probable.
    """
    probabilities = np.asarray(probabilities)
    guesses, highest = probabilities.argmax(1), probabilities.max(1)
    second = np.sort(probabilities, axis=1)[:, -2]
    wrong = guesses != labels
    mistakes = [i for i in np.argsort(-highest, kind='stable') if wrong[i]]
    uncertain = np.argsort(highest - second, kind='stable')
    best = [np.flatnonzero(~wrong & (labels == number)) for number in range(probabilities.shape[1])]
    return {
        'mistakes': [int(i) for i in mistakes[:count]],
        'uncertain': [int(i) for i in uncertain[:count]],
        'right': [int(numbers[highest[numbers].argmax()]) for numbers in best if len(numbers)],
    }
