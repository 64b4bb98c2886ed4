"""Find the photos of an export's evidence again, by their content, and compare the index files with it."""

import os

from zodiac.base import device, files, walk
from zodiac.base.errors import UserError
from zodiac.data import index

AHEAD = 64  # files that are hashed ahead


class Photos:
    """The files below a folder, found by their content.

    Args:
        root: the folder.
        sealed: list of photos with the attributes path (below the root, or as in the index), digest (SHA-256) and label.

    Attributes:
        paths: {digest: path of a file with this content} of the photos that were found.
        moved: list of the photos whose content was only found under another path.
        wrong: {path of a photo that was not found: what is wrong with it}.
    """

    def __init__(self, root, sealed):
        self.root, self._digests = root, {}
        self.paths, self.wrong = {}, {}
        expected = {photo.path: self._place(photo.path) for photo in sealed}
        self._hash(expected.values())
        lost = []
        for photo in sealed:
            if self.digest(photo.path) == photo.digest:
                self.paths.setdefault(photo.digest, expected[photo.path])
            else:
                lost.append(photo)
        if lost:
            self._hash(walk.walk(root, lambda path, why: None))
        by_content = {digest: path for path, digest in self._digests.items() if digest}
        self.moved = [photo for photo in lost if photo.digest in by_content]
        self.paths.update((photo.digest, by_content[photo.digest]) for photo in self.moved)
        for photo in lost:
            if photo.digest not in by_content:
                there = os.path.isfile(expected[photo.path])
                self.wrong[photo.path] = 'has other content now' if there else 'is missing'

    def digest(self, path):
        """SHA-256 of the photo at a path of the evidence or the index; None where there is no file that can be read."""
        place = self._place(path)
        if place not in self._digests:
            self._hash([place])
        return self._digests[place]

    def _place(self, path):
        """Where a photo of the evidence lies: below the root, or at its own path."""
        inside = os.path.join(self.root, path)
        return inside if os.path.isfile(inside) or not os.path.isfile(path) else path

    def _hash(self, paths):
        new = [path for path in dict.fromkeys(paths) if path not in self._digests]
        self._digests.update(zip(new, device.in_threads(_digest, new, AHEAD)))


def _digest(path):
    try:
        return files.sha256(path) if os.path.isfile(path) else None  # a pipe or a device could block forever
    except OSError:
        return None


def index_differences(split, sealed, found, below, class_names):
    """What the index of a split says otherwise than the evidence: a list of texts, each with the path of a photo; empty if nothing.

    A photo that was moved counts as the same one.

    Args:
        split: its name; sealed: its photos in the evidence; found: the `Photos` below data.root.
        below: function, path of the index -> path below data.root.
    Returns: None if there is no index file.
    """
    path = os.path.join(found.root, f'{split}.txt')
    if not os.path.isfile(path):
        return None
    try:
        paths, numbers = index.read(path, len(class_names))
    except UserError as error:
        return [str(error)]
    then = {photo.path: photo for photo in sealed}
    now = {below(each): int(number) for each, number in zip(paths, numbers)}
    gone = {}  # several photos may have the same content
    for photo in sealed:
        if photo.path not in now:
            gone.setdefault(photo.digest, []).append(photo)
    differences = []
    for each, label in now.items():
        photo = then.get(each) or _take(gone.get(found.digest(each)), label)
        if photo is None:
            differences.append(f'{each}: was not in {split}')
        elif photo.label != label:
            differences.append(f'{each}: is {class_names[label]} now, was {class_names[photo.label]}')
    return differences + [f'{photo.path}: is not in {split} any more' for photos in gone.values() for photo in photos]


def _take(photos, label):
    """Remove a photo from a list, one with this label if there is one; None without any."""
    if not photos:
        return None
    place = next((place for place, photo in enumerate(photos) if photo.label == label), 0)
    return photos.pop(place)
