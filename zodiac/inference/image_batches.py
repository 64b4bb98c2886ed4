"""Read image files into batches, in threads, a few batches ahead of the model."""

import itertools

import numpy as np

from zodiac.base import device, files
from zodiac.base.errors import UserError
from zodiac.images import decoding, transforms


def read(paths, transform, size):
    """Yield (paths, batch, errors) for each group of up to `size` files.

    Args:
        paths: iterable of paths; a UserError in place of a path is passed on among the errors.
        transform: list of steps, see zodiac/images/transforms.py.
    Yields: paths of the images that could be read; what the transform returns for them, [n, ...], or [] without any; errors of
        the others.
    """

    def read_one(path):
        if isinstance(path, UserError):
            return None, None, path
        try:
            return path, transforms.read(transform, path), None
        except decoding.ImageError as error:
            return path, None, error

    results = device.in_threads(read_one, paths, 2 * size)
    while group := list(itertools.islice(results, size)):
        good = [(path, image) for path, image, error in group if error is None]
        yield (
            [path for path, _ in good],
            np.stack([image for _, image in good]) if good else [],
            [error for *_, error in group if error],
        )


def read_indexed(paths, transform, size):
    """Yield batches [n, ...] of images listed in an index file. Raises UserError for the first one that cannot be read."""
    for _, batch, errors in read(paths, transform, size):
        if errors:
            raise UserError(f'{errors[0]}; {files.advice(errors[0])}')
        yield batch
