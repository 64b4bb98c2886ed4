"""What one file is: decoded to its end, with its mode, size, sketch and a hash of its pixels, or the reason why it cannot be used."""

import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import os
import signal
import struct
from typing import NamedTuple

import numpy as np

from zodiac import images, near_duplicates
from zodiac.errors import UserError

# For these formats the header alone tells the mode, so a file refused for its mode need not be decoded.
MODE_IN_HEADER = ('JPEG', 'MPO', 'PNG', 'GIF', 'WEBP', 'BMP')

APP0, START_OF_SCAN = 0xE0, 0xDA
BLOCK = 1 << 16  # bytes
READ = os.O_RDONLY | getattr(
    os, 'O_BINARY', 0
)  # on Windows; for small files os.open takes two thirds of the time of open
MANY = 2000  # files; for fewer, importing the quick decoder takes longer than it saves
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
TABLES = (0xC4, 0xDB, 0xDD)  # Huffman and quantization tables, restart interval


class Inspection(NamedTuple):
    """`reason` is '' for a usable image. `size` is (width, height), upright. `pixels` is a hash of the decoded pixels, equal for the same
    picture in another file; `sketch` is alike for a picture that looks alike, see `near_duplicates`."""

    reason: str
    detail: str = ''
    mode: str = ''
    size: tuple = ()
    pixels: bytes = b''
    animated: bool = False
    sketch: bytes = b''


def inspect(path, convert, quick=True):
    """Read one file as `Inspection`. Without `convert` only images of mode RGB are usable; `quick` changes the time only."""
    return _inspect_together([path], convert, quick)[0]


def _inspect_together(paths, convert, quick):
    """The same for several files, whose sketches are made at once."""
    found = [_inspect(path, convert, quick) for path in paths]
    usable = [number for number, inspection in enumerate(found) if not inspection.reason]
    sketches = near_duplicates.sketches([found[number].sketch for number in usable])
    for number, sketch in zip(usable, sketches):
        found[number] = Inspection(*found[number][:-1], sketch)
    return found


def _inspect(path, convert, quick):
    """One file, with a sample of its pixels in the place of the sketch."""
    try:
        found = _inspect_jpeg(path) if quick else None
        if found:
            return found
        with open(path, 'rb') as file:
            return _inspect_any(file, path, convert)
    except images.ImageError as error:
        return Inspection(error.reason, error.detail)
    except OSError as error:
        return Inspection('cannot be read', error.strerror or str(error))


def inspect_all(paths, convert, workers):
    """Yield the `Inspection` of each path, in order, decoded by `workers` processes.

    Raises UserError when a process dies, as it does when memory runs out.
    """
    work = functools.partial(_inspect_together, convert=convert, quick=len(paths) >= MANY)
    size = max(1, min(64, len(paths) // (32 * workers)))
    parts = [paths[start : start + size] for start in range(0, len(paths), size)]
    if workers == 1:
        yield from itertools.chain.from_iterable(map(work, parts))
        return
    pool = concurrent.futures.ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_parent)
    try:
        with _interrupts_held():  # one that came while the processes are forked would be lost
            found = pool.map(work, parts)
        yield from itertools.chain.from_iterable(found)
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            'a decoding process was killed, most often because memory ran out; set annotate.workers=1'
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held():
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_parent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@functools.cache
def fast_decoder():
    """The module simplejpeg, which decodes small JPEGs 3 times as fast as Pillow and to the same pixels, or None."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _inspect_jpeg(path):
    """The quick way for a sound, plain colour JPEG; None for any other file, which `_inspect_any` then judges."""
    file = os.open(path, READ)
    try:
        data = os.read(file, BLOCK)
        if data[:2] != b'\xff\xd8':
            return None
        if len(data) == BLOCK:
            with open(file, 'rb', closefd=False) as rest:
                data += rest.read()
    finally:
        os.close(file)
    size = _plain_size(data)
    simplejpeg = fast_decoder() if size else None
    if simplejpeg is None or size[0] * size[1] > images.MAX_PIXELS:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return None
    return _usable(pixels)


def _plain_size(data):
    """(width, height) of a colour JPEG that has nothing before its image data but JFIF and the tables: no EXIF, no profile,
    no second picture. None for any other."""
    at, size = 2, None
    try:
        while data[at] == 0xFF:
            marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
            if marker == START_OF_SCAN:
                return size
            if marker in FRAMES:
                size = (data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6])
                if data[at + 9] != 3:  # colour components
                    return None
            elif marker == APP0:
                if data[at + 4 : at + 9] != b'JFIF\0' or length < 16:
                    return None
            elif marker not in TABLES:
                return None
            at += 2 + length
    except IndexError:
        pass
    return None


def _inspect_any(file, path, convert):
    with images.open_image(file) as image:
        if image.mode != 'RGB' and not convert and image.format in MODE_IN_HEADER:
            return Inspection(f'mode {image.mode}', mode=image.mode)
        animated = getattr(image, 'is_animated', False)
        images.load_pixels(image, path)
        mode = image.mode
        if mode != 'RGB' and not convert:
            return Inspection(f'mode {mode}', mode=mode)
        return _usable(np.asarray(images.to_rgb(image, path)), mode, animated)


def _usable(pixels, mode='RGB', animated=False):
    """The `Inspection` of uint8 [H, W, 3]."""
    size = pixels.shape[1::-1]
    digest = struct.pack('<II', *size) + hashlib.sha256(pixels).digest()  # processors have instructions for SHA-256
    return Inspection('', '', mode, size, digest, animated, near_duplicates.sample(pixels))
