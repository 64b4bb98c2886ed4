"""Class names that come from the data (data.labels=auto), and how two lists of them differ."""

import dataclasses
import os

from zodiac.base import files
from zodiac.base.errors import UserError


def source(cfg):
    """The file in which annotate.py keeps the class names of the data."""
    return f'{cfg.data.root}/annotation.json'


def resolve(cfg):
    """A `config.Config` whose data.labels is a list: itself, or with data.labels=auto a copy with the names that annotate.py found.

    Raises: UserError if annotate.py has not run.
    """
    if cfg.data.labels != 'auto':
        return cfg
    labels = annotated(cfg)
    if labels is None:
        problem = 'has no class names' if os.path.isfile(source(cfg)) else 'no such file'
        raise UserError(f'{source(cfg)}: {problem}, which data.labels = auto takes from there; run annotate.py first')
    return dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, labels=labels))


def annotated(cfg):
    """The class names with which annotate.py numbered the classes; None if they are unknown."""
    found = files.read_json(source(cfg))
    labels = found.get('labels') if isinstance(found, dict) else None
    known = isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels)
    return labels if known else None


def require_unchanged(cfg, labels, run):
    """Raise UserError, which names the difference, if annotate.py has found other classes than a run was trained with.

    Args:
        labels: the class names of the run; run: its folder.
    """
    now = annotated(cfg)
    if now and now != labels:
        raise UserError(
            f'{source(cfg)}: the classes are not those of {run} any more ({difference(labels, now)}); train again on '
            f'{cfg.data.root}, or restore the folders as they were and run annotate.py'
        )


def difference(before, now):
    """How a list of class names has changed, in words."""
    parts = {
        'new': [label for label in now if label not in before],
        'gone': [label for label in before if label not in now],
    }
    listed = [f'{what}: {", ".join(labels)}' for what, labels in parts.items() if labels]
    return '; '.join(listed) or 'the same classes in another order'
