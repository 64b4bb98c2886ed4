"""Find image files, and read them into batches, in threads, a few batches ahead of the model."""

import io
import itertools
import os
from dataclasses import dataclass

import numpy as np

from zodiac.base import device, files, walk
from zodiac.base.errors import UserError
from zodiac.images import decoding, transforms


def find(paths, warn):
    """Yield the named files, and the images in named folders, sorted. Links are followed; each folder is visited once.

    A UserError is yielded for a pipe or a device in a folder, a folder that cannot be read, and a folder without images.
    `warn` is called with a text about files of a folder that are skipped.
    """
    for path in paths:
        yield from _images_in(path, warn) if os.path.isdir(path) else [path]


def _images_in(folder, warn):
    found, other, example, errors = 0, 0, None, []

    def skip(path):
        nonlocal other, example
        other, example = other + 1, example or path

    def note(path, why):
        if isinstance(why, OSError):
            errors.append(UserError(f'{path}: cannot be read ({why.strerror})'))
        elif why == 'no file' and path.lower().endswith(decoding.IMAGE_SUFFIXES):
            # a pipe that the user names is read; one found in a folder could block forever
            errors.append(UserError(f'{path}: not a file but a pipe or a device'))
        elif why == 'no file':
            skip(path)

    for path in walk.walk(folder, note):
        if _is_image(path):
            found += 1
            yield path
        else:
            skip(path)
    yield from errors
    number = f'{other} other file{"" if other == 1 else "s"}'
    if found and other:
        warn(f'{folder}: skipped {number}, not images, for example {example}')
    if not found and not errors:
        yield UserError(f'{folder}: no images in this folder ({number})')


def _is_image(path):
    """Whether to classify a file of a folder: its name has an image suffix, or its content is an image."""
    if path.lower().endswith(decoding.IMAGE_SUFFIXES):
        return True
    try:
        with decoding.open_image(path):
            return True
    except decoding.ImageError as error:
        return error.reason not in ('not an image', 'no such file')


@dataclass(frozen=True)
class InMemory:
    """An image that is not a file: its name for messages, and the bytes of a file or a PIL image."""

    name: str
    image: object

    def read(self, transform):
        """As `transforms.read`."""
        try:
            if isinstance(self.image, bytes):
                return transforms.read(transform, io.BytesIO(self.image))
            return transforms.apply(transform, decoding.to_rgb(_opened(self.image)))
        except decoding.ImageError as error:
            message = str(error).replace('image', self.name, 1)
            raise decoding.ImageError(message, error.reason, error.detail) from None


def _opened(image):
    """A PIL image as Pillow opens a file: one that was made in memory lacks what it knows of the file."""
    if not hasattr(image, 'fp'):
        image = image.copy()
        image.fp = None
    return image


def read(paths, transform, size):
    """Yield (paths, batch, errors) for each group of up to `size` files.

    Args:
        paths: iterable of paths, or of `InMemory`; a UserError in place of a path is passed on among the errors.
        transform: list of steps, see zodiac/images/transforms.py.
    Yields: paths of the images that could be read; what the transform returns for them, [n, ...], or [] without any; errors of
        the others.
    """

    def read_one(path):
        if isinstance(path, UserError):
            return None, None, path
        try:
            return path, path.read(transform) if isinstance(path, InMemory) else transforms.read(transform, path), None
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
