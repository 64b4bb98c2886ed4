"""The report of a run: its tables as CSV, and report.html, one file that shows everything and needs no network."""

import base64
import io
import os

import numpy as np
from PIL import Image, ImageOps

from zodiac.base import files
from zodiac.images import decoding, transforms

THUMBNAIL = 144  # pixels a side
MOST_RIGHT = 40  # images that are right


def write_predictions(path, paths, labels, probabilities, class_names):
    """CSV with a row an image: id, path, label, prediction, probability of the prediction, correct (1 or 0)."""
    predictions = np.asarray(probabilities).argmax(1)
    rows = (
        [i, image, class_names[true], class_names[guess], f'{probabilities[i][guess]:.6f}', int(true == guess)]
        for i, (image, true, guess) in enumerate(zip(paths, labels, predictions))
    )
    _write_table(path, ['id', 'path', 'label', 'prediction', 'probability', 'correct'], rows)


def write_scores(folder, result):
    """The numbers of metrics.json as tables: metrics.csv (name, value; the ends of an interval as <name>_low and <name>_high),
    per_class.csv (a row a class) and confusion_matrix.csv (a row a true class, a column a prediction).

    Args:
        result: the content of metrics.json.
    """
    parts = {part: result[part] or {} for part in ('calibration', 'near_duplicates')}
    inner = {f'{part}_{name}': value for part, values in parts.items() for name, value in values.items()}
    _write_table(f'{folder}/metrics.csv', ['name', 'value'], _flat({**result, **inner}).items())
    classes = [{'class': name, **_flat(row)} for name, row in result['per_class'].items()]
    _write_table(f'{folder}/per_class.csv', classes[0], (row.values() for row in classes))
    counts = ([name, *row] for name, row in zip(result['labels'], result['confusion_matrix']))
    _write_table(f'{folder}/confusion_matrix.csv', ['true class', *result['labels']], counts)


def _flat(values):
    """Of a dict, what fits a cell of a table; an interval becomes two cells."""
    flat = {}
    for name, value in values.items():
        if '_interval_' in name:
            flat[f'{name}_low'], flat[f'{name}_high'] = value or (None, None)
        elif not isinstance(value, (dict, list)):
            flat[name] = value
    return flat


def _write_table(path, titles, rows):
    with files.atomic_write(path) as file:
        write = files.csv_table(file)
        for row in (list(titles), *map(list, rows)):
            write(row)


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
    small = ImageOps.contain(image.convert('RGB'), (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    if heat is not None:
        from matplotlib import colormaps

        layer = Image.fromarray(np.uint8(255 * colormaps['inferno'](heat)[..., :3]))
        small = Image.blend(small, layer.resize(small.size, Image.Resampling.BILINEAR), 0.5)
    buffer = io.BytesIO()
    small.save(buffer, 'JPEG', quality=85)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def thumbnail_of(path):
    """The same of a file; None where it cannot be read any more."""
    try:
        return thumbnail(decoding.decode(path))
    except decoding.ImageError:
        return None


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
        'right': [int(numbers[highest[numbers].argmax()]) for numbers in best if len(numbers)][:MOST_RIGHT],
    }


def cards(numbers, dataset, probabilities, names, pictures=None):
    """What the page shows of some images: a dict each."""
    pictures = pictures or [thumbnail(decoding.decode(dataset.paths[i])) for i in numbers]
    return [
        {
            'picture': picture,
            'path': dataset.paths[i],
            'prediction': names[probabilities[i].argmax()],
            'probability': float(probabilities[i].max()),
            'label': names[dataset.labels[i]],
            'probability_of_label': float(probabilities[i][dataset.labels[i]]),
            'right': bool(probabilities[i].argmax() == dataset.labels[i]),
        }
        for i, picture in zip(numbers, pictures)
    ]


def heat_pictures(numbers, dataset, network):
    """The images as the network sees them, with Grad-CAM laid over, as data: addresses; and the size of its map, (height, width)."""
    from zodiac.report import gradcam

    seen = np.stack([dataset[i][0] for i in numbers])
    heats = gradcam.heat(getattr(network, 'network', network), seen)
    last = dataset.transform[-1]
    pictures = [Image.fromarray(transforms.denormalize(image, last['mean'], last['std'])) for image in seen]
    return list(map(thumbnail, pictures, heats)), heats.shape[1:]
