"""Decoded pictures on disk, mapped into memory and shared by all processes, so that an epoch decodes no file.

A folder for each set of files and way to read them: whole or absent, each picture checked, safe to delete at any time. Nothing
depends on what is in it: a picture that is missing or damaged is read from its file, to the same pixels.
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

from zodiac.base import device, files, sources
from zodiac.base.errors import UserError
from zodiac.images import decoding, transforms

ENTRY = np.dtype([('offset', '<i8'), ('height', '<u4'), ('width', '<u4'), ('crc', '<u4')])
ABSENT = -1  # offset of a picture that is not kept
SPARE = 1 << 30  # bytes of the disk that are left free
AHEAD = 64  # pictures that are decoded before they are written
STARTED = time.time()


class Pictures:
    """The kept pictures of a list of files, by their number.

    Args:
        folder: what `open_or_make` has written.
    Raises: OSError, ValueError or KeyError where it is not whole.
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
        self._sound = np.frombuffer(
            mmap.mmap(-1, max(1, len(self.entries))), np.uint8
        )  # checked by any of the processes

    def __len__(self):
        return int((self.entries['offset'] != ABSENT).sum())

    def get(self, number):
        """uint8 [height, width, 3], not to be written to; None where it is not kept or damaged."""
        offset, height, width, crc = self.entries[number].item()
        if offset == ABSENT:
            return None
        pixels = self._pixels[offset : offset + height * width * 3]
        if not self._sound[number]:  # once is enough
            if zlib.crc32(pixels) != crc:
                return None
            self._sound[number] = 1
        return pixels.reshape(height, width, 3)

    def __getstate__(self):  # where processes are not forked
        return self.folder

    def __setstate__(self, folder):
        self.__init__(folder)


def open_or_make(folder, paths, steps, limit, say=lambda text: None):
    """The pictures of `paths`, each as `transforms.read(steps, path)` gives it; decoded now, unless that was done before.

    Args:
        folder: holds caches of all kinds; the oldest make room for a new one.
        steps: data alone, without random operations.
        limit: bytes that the folder may take; pictures that do not fit are not kept.
        say: takes a text for the user.
    Returns: Pictures, or None where the folder cannot be written.
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
            f'WARNING: {folder}: no cache can be kept there ({reason}); every image is decoded each time. See data.cache'
        )
        return None
    say(f'cache: {len(pictures)} of {len(paths)} pictures, {pictures.bytes / 2**30:.2f} GB in {place}')
    return pictures


def key(paths, how, *modules):
    """A name that changes with the files, by name, size and time, with how they are used, a JSON-ready value, and with the code that
    does so: `modules` beside this one, see `sources.code_hash`."""
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
    """What `load(place)` makes of the folder `place` of a cache; where there is none or it raises, `make()` writes it first.

    Of several processes one writes, the others wait. Raises: OSError, UserError where it cannot be written.
    """
    folder = os.path.dirname(place)
    os.makedirs(folder, exist_ok=True)
    with _locked(f'{folder}/lock'):
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
        say(f'{place}: the cache is damaged ({error}); it is made again')
        files.remove_folder(place)
        return None


def _wanted(paths, steps):
    """Bytes that the pictures may need, at most, to judge by some of them."""
    some = [paths[int(number)] for number in np.linspace(0, len(paths) - 1, min(16, len(paths)))]
    return len(paths) * max((_read(steps, path).nbytes for path in some), default=0)


def make_room(folder, wanted, limit):
    """Bytes that a new cache may take, after the least recently used ones have gone where it needs their room.

    Args:
        wanted: bytes that it would like to take; limit: that the folder may take.
    """
    others = sorted((item for item in os.scandir(folder) if item.is_dir()), key=lambda item: item.stat().st_mtime)
    taken = {item.path: sum(file.stat().st_size for file in os.scandir(item)) for item in others}
    for item in others:
        if sum(taken.values()) + wanted > limit and item.stat().st_mtime < STARTED:  # not those of this very run
            files.remove_folder(item.path)
            del taken[item.path]
    return min(limit - sum(taken.values()), shutil.disk_usage(folder).free - SPARE)


def _make(place, paths, steps, room, say):
    from tqdm import tqdm

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
    """The picture of a file; of size 0 where it cannot be read, which whoever asks for it will hear of."""
    try:
        return np.ascontiguousarray(transforms.read(steps, path))
    except decoding.ImageError:
        return np.zeros((0, 0, 3), np.uint8)


@contextlib.contextmanager
def _locked(path):
    """Hold a file alone among all processes, where the system can."""
    with open(path, 'w') as file:
        with contextlib.suppress(ImportError):  # Windows
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
