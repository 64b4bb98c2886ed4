"""Decoded pictures on disk, mapped into memory and shared by all processes, so that an epoch decodes no files.

There is one folder per list of files and way to read them. It is complete or absent, has a checksum for each picture, and may be deleted
at any time. Results never depend on it: a picture that is missing or damaged is read from its file, to the same pixels.
"""

import contextlib
import functools
import hashlib
import json
import mmap
import os
import shutil
import sys
import time
import zlib

import numpy as np
import PIL
from tqdm import tqdm

from zodiac.base import device, files, sources
from zodiac.base.errors import UserError
from zodiac.images import decoding, transforms

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ENTRY = np.dtype([('offset', '<i8'), ('height', '<u4'), ('width', '<u4'), ('crc', '<u4')])
ABSENT = -1  # offset of a picture that is not in the cache
SPARE = 1 << 30  # bytes of the disk to leave free
AHEAD = 64  # pictures decoded ahead of writing
STARTED = time.time()


class Pictures:
    """The cached pictures of a list of files, by number.

    Args:
        folder: as written by `open_or_make`.
    Raises: OSError, ValueError or KeyError if it is damaged.
    """

    def __init__(self, folder):
        self.folder = folder
        with open(f'{folder}/about.json', encoding='utf-8') as file:
            about = json.load(file)
        self.entries = np.load(f'{folder}/index.npy', allow_pickle=False)
        if self.entries.dtype != ENTRY or zlib.crc32(self.entries) != about['index_crc']:
            raise ValueError('index.npy is damaged')
        if os.path.getsize(f'{folder}/pixels') != about['bytes']:
            raise ValueError('pixels is cut off')
        self.bytes = about['bytes']
        self._pixels = np.zeros(0, np.uint8)
        if self.bytes:
            self._pixels = np.memmap(f'{folder}/pixels', np.uint8, 'r').view(np.ndarray)
        self._verified = np.frombuffer(mmap.mmap(-1, max(1, len(self.entries))), np.uint8)  # shared by all processes

    def __len__(self):
        return int((self.entries['offset'] != ABSENT).sum())

    def get(self, number):
        """uint8 [height, width, 3], read-only; None if the picture is not in the cache or damaged."""
        offset, height, width, crc = self.entries[number].item()
        if offset == ABSENT:
            return None
        pixels = self._pixels[offset : offset + height * width * 3]
        if not self._verified[number]:
            if zlib.crc32(pixels) != crc:
                return None
            self._verified[number] = 1
        return pixels.reshape(height, width, 3)

    def __getstate__(self):  # for processes that are not forked
        return self.folder

    def __setstate__(self, folder):
        self.__init__(folder)


def open_or_make(folder, paths, steps, limit, say=lambda text: None):
    """The pictures of `paths`, each the result of `transforms.read(steps, path)`, decoded now unless they are in the cache.

    Args:
        folder: holds caches of all kinds; the least recently used are removed to make room.
        steps: a transform without random operations.
        limit: most bytes for the folder; pictures that do not fit are left out.
        say: takes a message for the user.
    Returns: Pictures, or None if the folder cannot be written.
    """
    place = f'{folder}/{key(paths, steps)}'
    try:
        pictures = find_or_make(
            place,
            Pictures,
            lambda: _make(place, paths, steps, make_room(folder, _wanted(paths, steps), limit), say),
            say,
        )
    except (OSError, UserError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        say(
            f'WARNING: {folder}: the cache cannot be written ({reason}); every epoch decodes all images. See data.cache'
        )
        return None
    say(f'cache: {len(pictures)} of {len(paths)} pictures, {pictures.bytes / 2**30:.2f} GB in {place}')
    return pictures


def key(paths, how, *modules):
    """A cache key: a hash of the files' names, sizes and times, of `how`, and of the code.

    Args:
        how: a JSON-ready value, how the files are used.
        modules: names of the modules that use them, see `sources.code_hash`.
    """
    made_by = [sources.code_hash(__name__, *modules), PIL.__version__, np.__version__]
    digest = hashlib.sha256(json.dumps([made_by, how]).encode())
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(f'{path}\t{status.st_size}\t{status.st_mtime_ns}\n'.encode())
        except OSError:
            digest.update(f'{path}\n'.encode())
    return digest.hexdigest()[:16]


def find_or_make(place, load, make, say):
    """The result of `load(place)`, for the folder `place` of a cache; if it is missing or damaged, `make()` writes it first.

    Of several processes one writes and the others wait. Raises OSError or UserError if it cannot be written.
    """
    folder = os.path.dirname(place)
    os.makedirs(folder, exist_ok=True)
    with locked(f'{folder}/lock'):
        found = _open(place, load, say)
        if found is None:
            make()
            found = load(place)
        os.utime(place)
    return found


def _open(place, load, say):
    if not os.path.isdir(place):
        return None
    try:
        return load(place)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        say(f'{place}: the cache is damaged ({error}) and is created again')
        files.remove_folder(place)
        return None


def _wanted(paths, steps):
    """Estimated bytes of all pictures, from the largest of a sample."""
    some = [paths[int(number)] for number in np.linspace(0, len(paths) - 1, min(16, len(paths)))]
    return len(paths) * max((_read(steps, path).nbytes for path in some), default=0)


def make_room(folder, wanted, limit):
    """Remove the least recently used caches that are in the way of a new one; returns the bytes that it may take.

    Args:
        wanted: bytes that it needs; limit: most bytes for the folder.
    """
    others = sorted((item for item in os.scandir(folder) if item.is_dir()), key=lambda item: item.stat().st_mtime)
    taken = {item.path: sum(file.stat().st_size for file in os.scandir(item)) for item in others}
    for item in others:
        if sum(taken.values()) + wanted > limit and item.stat().st_mtime < STARTED:  # not those of this run
            files.remove_folder(item.path)
            del taken[item.path]
    return min(limit - sum(taken.values()), shutil.disk_usage(folder).free - SPARE)


def _make(place, paths, steps, room, say):
    entries = np.zeros(len(paths), ENTRY)
    entries['offset'] = ABSENT
    at = 0
    if not sys.stderr.isatty():
        say(f'decoding {len(paths)} pictures into {place}')
    with files.atomic_folder(place) as folder:
        with open(f'{folder}/pixels', 'wb') as file, tqdm(total=len(paths), desc='decoding', disable=None) as bar:
            for number, pixels in enumerate(device.in_threads(functools.partial(_read, steps), paths, AHEAD)):
                bar.update()
                if not pixels.size:
                    continue
                if at + pixels.nbytes > room:
                    break
                file.write(pixels)
                height, width = pixels.shape[:2]
                entries[number] = at, height, width, zlib.crc32(pixels)
                at += pixels.nbytes
        np.save(f'{folder}/index.npy', entries)
        with open(f'{folder}/about.json', 'w', encoding='utf-8') as file:
            json.dump({'bytes': at, 'index_crc': zlib.crc32(entries), 'steps': steps}, file)


def _read(steps, path):
    """The picture of a file; an empty one if it cannot be read, which is reported when it is needed."""
    try:
        return np.ascontiguousarray(transforms.read(steps, path))
    except decoding.ImageError:
        return np.zeros((0, 0, 3), np.uint8)


@contextlib.contextmanager
def locked(path):
    """Hold an exclusive lock on a file, where the system has them."""
    with open(path, 'w') as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
