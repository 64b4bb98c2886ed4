"""The evidence of an export: <name>.evidence.json, from which zodiac/commands/verify.py measures its numbers again.

It lists the photos of each split by the SHA-256 of their content, what the network said of each test photo, the numbers that follow from
that, and the settings. The model runs without it: predict.py and serve.py read neither this file nor README.md.
"""

import hashlib
import json
import os
from collections import namedtuple

from zodiac.base import device, files, sources
from zodiac.base.errors import UserError
from zodiac.inference import export_folder

FORMAT = 1
CARD = 'README.md'
GONE = '-'  # in place of the SHA-256 of a photo that could not be read when it was exported
MEASURING = (
    'zodiac.images.transforms',
    'zodiac.report.metrics',
    'zodiac.training.trainer',
    'zodiac.training.solved_run',
)
AHEAD = 64  # files that are hashed ahead

Photo = namedtuple(
    'Photo', 'path digest label'
)  # path below data.root, or as in the index; SHA-256 or GONE; class number


def file_name(manifest):
    """Name of the file in the exported folder."""
    return f'{manifest["name"]}.evidence.json'


def code():
    """Hash of the code that trains and measures, in hexadecimal."""
    return sources.code_hash(*MEASURING)


def photos(paths, labels, root):
    """list of `Photo`, in the order of an index.

    Args:
        paths: those of the index; labels: int [n], class numbers; root: data.root.
    """
    found = zip(paths, device.in_threads(_digest, paths, AHEAD), labels)
    return [Photo(below(path, root), digest, int(label)) for path, digest, label in found]


def _digest(path):
    try:
        return files.sha256(path)
    except OSError:
        return GONE


def below(path, root):
    """A path relative to `root`; one that is not below it stays as it is."""
    start = f'{root.rstrip("/")}/'
    return path[len(start) :] if path.startswith(start) else path


def pack(about, splits, predictions=None):
    """The content of the file, bytes; a line for each photo, 130 bytes or so.

    Args:
        about: JSON-ready dict of settings, code, versions, weights and metrics.
        splits: {split: list of `Photo`}; predictions: [(class number, probability of that class)] for the photos of the test split, or
            None.
    """
    content = {
        'format': FORMAT,
        **about,
        'photos': {split: [f'{one.digest} {one.label} {one.path}' for one in each] for split, each in splits.items()},
        'predictions': predictions and [f'{label} {probability:.6f}' for label, probability in predictions],
    }
    return (json.dumps(content, ensure_ascii=False, indent=1) + '\n').encode('utf-8', 'backslashreplace')


def read(folder, manifest):
    """What `pack` has written: (about, {split: list of Photo}, predictions). The hash is not checked here.

    Raises: UserError if the file is missing, damaged or of a later version.
    """
    path = os.path.join(folder, file_name(manifest))
    try:
        with open(path, 'rb') as file:
            about = json.loads(file.read())
        if about['format'] != FORMAT:
            raise UserError(f'{path}: was written by another version of Zodiac; verify it with that version')
        classes = len(manifest['labels'])
        splits = {split: [_photo(line, classes) for line in lines] for split, lines in about.pop('photos').items()}
        lines = about.pop('predictions')
        predictions = lines and [_prediction(line, classes) for line in lines]
        _require_whole(about, splits, predictions)
        return about, splits, predictions
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror}); copy it again, or export again') from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UserError(f'{path}: is damaged; copy it again, or export the model again') from None


def _photo(line, classes):
    digest, label, path = line.split(' ', 2)
    return Photo(path, digest, range(classes)[int(label)])


def _prediction(line, classes):
    label, probability = line.split(' ')
    return range(classes)[int(label)], float(probability)


def _require_whole(about, splits, predictions):
    """Raise ValueError or KeyError if a part is missing that a check needs."""
    settings, metrics = about['config'], about['metrics']
    parts = [settings['data']['root'], settings['evaluate']['weights'], settings['name'], about['code'], about['card']]
    parts += [about['weights']['path'], about['weights']['values']]
    whole = all(isinstance(part, str) for part in parts) and (metrics is None) == (predictions is None)
    if metrics is not None:
        folds = metrics.get('folds')
        whole = whole and len(predictions) == len(splits['test']) == metrics['n'] > 0
        whole = whole and all(isinstance(metrics[key], dict) for key in ('per_class', 'calibration'))
        for each in [
            metrics['top1'],
            *metrics['top1_interval_95'],
            *([folds['top1'], *folds['interval_95']] if folds else []),
        ]:
            whole = whole and isinstance(each, (int, float))
    if not whole:
        raise ValueError('a part is missing, or of another type')


def fingerprint(folder):
    """SHA-256 of inference.yaml, in hexadecimal: as that file holds the hash of each other file, it stands for the whole export."""
    return files.sha256(os.path.join(folder, export_folder.MANIFEST))


def write(folder, manifest, name, content):
    """Write a file that the model runs without, and add its hash to `documents` of the manifest.

    Args:
        content: bytes.
    """
    with open(os.path.join(folder, name), 'wb') as file:
        file.write(content)
    manifest.setdefault('documents', {})[name] = hashlib.sha256(content).hexdigest()


def changed(folder, manifest):
    """{name: what is wrong with it} of the files in an export whose SHA-256 is not that in inference.yaml, or which are missing."""
    wrong = {}
    for name, digest in sealed(manifest).items():
        path = os.path.join(folder, name)
        try:
            if not os.path.isfile(path):
                wrong[name] = 'is missing'
            elif files.sha256(path) != digest:
                wrong[name] = 'was changed after the export (its SHA-256 differs)'
        except OSError as error:
            wrong[name] = f'cannot be read ({error.strerror})'
    return wrong


def sealed(manifest):
    """{name: SHA-256} of every file whose hash is in inference.yaml."""
    return {**manifest['sha256'], **manifest.get('documents', {})}
