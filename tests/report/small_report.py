"""Write the report page of a few drawn photos."""

from types import SimpleNamespace

import numpy as np
from conftest import ENGLISH, picture

from zodiac.images import transforms
from zodiac.report import calibration, metrics, small_data, writer

LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = (
    np.array([[6, 3, 1], [8, 1, 1], [7, 2, 1], [9, 0, 1], [3, 4, 3], [5, 1, 4]]) / 10
)  # right: only the first two
SCORES = {'train_loss': 0.5, 'train_top1': 0.5, 'valid_loss': 0.4, 'valid_top1': 0.6}
LOG = [{'lr': 0.1, **SCORES, 'images_per_second': 9.0, 'epoch': epoch, 'step': epoch} for epoch in (1, 2, 3)]
NOTHING = {'facts': [], 'sides': None, 'bars': {}, 'near_duplicates': None, 'paths': None}


def dataset_of(folder, labels=LABELS, names=ENGLISH, photos=True):
    """A dataset of photos in the folder of their class."""
    paths = [f'{folder}/photos/{names[label]}/{number}.png' for number, label in enumerate(labels)]
    for number, (path, label) in enumerate(zip(paths, labels)):
        if photos:
            (folder / 'photos' / names[label]).mkdir(parents=True, exist_ok=True)
            picture(number, (60 + number, 40)).save(path)
    normal = [0.5] * 3
    return SimpleNamespace(
        paths=paths, labels=np.asarray(labels), transform=transforms.eval_transform(32, normal, normal)
    )


def result_of(labels, probabilities, names, **more):
    return {
        **{
            'split': 'test',
            'arch': 'resnet18',
            'image_size': 32,
            'weights': 'output/a/best/model.pdparams',
            'epoch': 3,
        },
        **{'pretrained': False, 'flip_average': True, 'paddle': '3.3.1', 'near_duplicates': None},
        **metrics.evaluate(labels, probabilities, names),
        'calibration': calibration.evaluate(labels, probabilities),
        'sample': [{'id': 3, 'path': 'a/b.png', 'label': names[1], 'prediction': names[0], 'probability': 0.961}],
        **{'sample_top1': 0.0, 'sample_interval_95': [0.013, 0.987]},
        **more,
    }


def write(
    folder,
    names=ENGLISH,
    labels=LABELS,
    probabilities=PROBABILITIES,
    network=None,
    folds=None,
    log=(),
    photos=True,
    **more,
):
    """Write report.html to `folder`/output/a/report; returns its path. `more`: entries of metrics.json, or `annotated`, `language`."""
    report = folder / 'output/a/report'
    report.mkdir(parents=True, exist_ok=True)
    settings = {key: more.pop(key) for key in ('annotated', 'language') if key in more}
    dataset = dataset_of(folder, labels, names, photos)
    if folds:
        more['folds'] = small_data.over_folds(folds[1], folds[2], 5)
    writer.write_report_page(
        str(report),
        'a',
        result_of(labels, probabilities, names, **more),
        dataset,
        probabilities,
        network,
        counts={'train': np.array([5] * len(names)), 'test': np.bincount(labels, minlength=len(names))},
        log=list(log),
        rates=(),
        folds=folds,
        **{'annotated': NOTHING, **settings},
    )
    return report / 'report.html'
