"""Names of the original notebook: for settings, and for values that follow from the settings."""

import warnings

from zodiac.base import provenance
from zodiac.base.errors import UsageError

SETTINGS = {
    'LABEL_MAP': 'data.labels',
    'epochs': 'train.epochs',
    'batch_size': 'train.batch_size',
    'LEARNING_RATE.params.lr': 'optim.lr',
    'OPTIMIZER.params.momentum': 'optim.momentum',
    'OPTIMIZER.regularizer.factor': 'optim.weight_decay',
}
DERIVED = {
    'num_classes': lambda cfg: len(cfg.data.labels),
    'image_shape': lambda cfg: [3, cfg.image.size, cfg.image.size],
    'total_images': lambda cfg: _count_lines(f'{cfg.data.root}/train.txt'),
    'model_save_dir': lambda cfg: _model_save_dir(cfg),
}
TOTAL_IMAGES = 7096  # in signs/train of the notebook, for `total_images` if there is no index yet


def check(key, where):
    """Raise UsageError, naming `where`, for a name of the notebook, which cannot be set."""
    if key in SETTINGS:
        raise UsageError(f"{where}: {key} is the notebook's name; set {SETTINGS[key]}")
    if key in DERIVED:
        raise UsageError(f'{where}: {key} follows from other settings and the index files; it cannot be set')


def _model_save_dir(cfg):
    """The folder of the run. Warns if the weights that `model.load` would read from it are for other classes."""
    path = f'{cfg.run_dir}.pdparams'
    trained = provenance.labels(provenance.read(path))
    if trained and trained != cfg.data.labels:
        warnings.warn(
            f'{path}: was trained with data.labels = {trained}, now it is {cfg.data.labels}: predictions would get wrong names; '
            f"call config.use('{cfg.run_dir}/config.yaml') first, or train again",
            stacklevel=4,
        )
    return cfg.run_dir


def _count_lines(path):
    try:
        with open(path, 'rb') as file:
            return sum(1 for line in file if line.strip())
    except FileNotFoundError:
        return TOTAL_IMAGES
