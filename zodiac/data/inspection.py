"""What one file is: decoded to its end, with its mode, size, sketch and a hash of its pixels, or the reason why it cannot be used."""

import concurrent.futures
import functools
import hashlib
import io
import itertools
import os

import numpy as np

from zodiac.base import stops
from zodiac.base.errors import UserError, fault
from zodiac.data import file_facts, near_duplicates
from zodiac.data.file_facts import NEVER, Inspection, Verdict
from zodiac.images import bombs, decoding

DRAFTS = ('JPEG', 'MPO')  # can be decoded at a fraction of their size

APP0, START_OF_SCAN = 0xE0, 0xDA
BLOCK = 1 << 16  # bytes
READ = os.O_RDONLY | getattr(os, 'O_BINARY', 0)  # which Windows has; for a small file os.open is faster than open
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
TABLES = (0xC4, 0xDB, 0xDD)  # Huffman and quantization tables, restart interval
SMALL = 1 << 13  # pixels; decoding fewer at reduced size saves next to nothing
SIDE = 27  # pixels of a reduced image at least: 3 in a cell of the sketch


def inspect(path, convert, reduce=True):
    """Read one file as `Inspection`. Without `convert` only images of mode RGB are usable.

    Args:
        reduce: decode a large JPEG at a fraction of its size, where all of its data is read but most of the work is saved.
    """
    return Inspection(*(column[0] for column in _inspect_together([path], convert, reduce)))


def _inspect_together(paths, convert, reduce):
    """The same for several files, whose sketches are made at once: lists of their verdicts, pictures and stamps."""
    found = [_inspect_or_name(path, convert, reduce) for path in paths]
    sketches = iter(near_duplicates.sketches([sample for _, (_, _, sample), _ in found if sample is not None]))
    pictures = [
        b'' if sample is None else file_facts.pack(size, digest, next(sketches))
        for _, (size, digest, sample), _ in found
    ]
    return [verdict for verdict, _, _ in found], pictures, [stamp for _, _, stamp in found]


def inspect_all(paths, convert, workers, reduce=True):
    """Yield the `Inspection` of each path, in order, decoded by `workers` processes.

    Raises UserError when a process dies, as it does when memory runs out.
    """
    work = functools.partial(_inspect_together, convert=convert, reduce=reduce)
    size = max(1, min(256, len(paths) // (32 * workers)))
    parts = (paths[start : start + size] for start in range(0, len(paths), size))
    if workers == 1:
        yield from _one_by_one(map(work, parts))
        return
    pool = concurrent.futures.ProcessPoolExecutor(workers, initializer=stops.work_for_parent)
    try:
        with stops.held():  # until the processes, which are forked now, leave signals to this one
            found = pool.map(work, parts)
        yield from _one_by_one(found)
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            'a decoding process was killed, most often because memory ran out; set annotate.workers=1'
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_by_one(parts):
    return itertools.chain.from_iterable(map(Inspection, *columns) for columns in parts)


@functools.cache
def fast_decoder():
    """The module simplejpeg, which decodes small JPEGs 3 times as fast as Pillow and to the same pixels, or None."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _inspect_or_name(path, convert, reduce):
    """The same as `_inspect`; the UserError for an exception that it does not foresee names the file, and can be sent."""
    try:
        return _inspect(path, convert, reduce)
    except Exception as error:
        raise fault(path, error) from None


NOTHING = (None, None, None)  # in the place of size, hash and sample of an image


def _inspect(path, convert, reduce):
    """Verdict, (size, hash, sample of the pixels) and stamp of one file."""
    stamp = NEVER
    try:
        file = os.open(path, READ)
        try:
            stamp = file_facts.stamp_when_read(os.fstat(file))
            data = os.read(file, BLOCK)
            is_jpeg, is_whole = data[:2] == b'\xff\xd8', len(data) < BLOCK
            if is_jpeg and not is_whole:
                with open(file, 'rb', closefd=False) as rest:
                    data += rest.read()
        finally:
            os.close(file)
        picture = _decode_plain_jpeg(data, reduce) if is_jpeg else None
        if picture:
            return (*picture, stamp)
        with io.BytesIO(data) if is_jpeg or is_whole else open(path, 'rb') as source:
            return (*_inspect_any(source, path, convert, reduce), stamp)
    except decoding.ImageError as error:
        cause = error.__context__  # where memory or the disk has failed, the file may be sound
        passing = isinstance(cause, MemoryError) or isinstance(cause, OSError) and cause.errno is not None
        return Verdict(error.reason, error.detail), NOTHING, NEVER if passing else stamp
    except OSError as error:
        return Verdict('cannot be read', error.strerror or str(error)), NOTHING, NEVER


def _decode_plain_jpeg(data, reduce):
    """The quick way for a sound, plain colour JPEG; None for any other file, which `_inspect_any` then judges."""
    size = _plain_size(data)
    simplejpeg = fast_decoder() if size else None
    if simplejpeg is None or size[0] * size[1] > decoding.MAX_PIXELS or bombs.in_jpeg(data):
        return None
    fraction = _fraction(size) if reduce else 1
    wanted = {} if fraction == 1 else {'min_width': -(-size[0] // fraction), 'min_height': -(-size[1] // fraction)}
    try:
        pixels = simplejpeg.decode_jpeg(data, strict=True, **wanted)
    except ValueError:
        return None
    return _usable(pixels, size, reduced=fraction > 1)


def _fraction(size):
    """By how much a JPEG can be decoded smaller with enough left to tell it from others: 1, 2, 4 or 8."""
    if size[0] * size[1] < SMALL:
        return 1
    return next((fraction for fraction in (8, 4, 2) if min(size) // fraction >= SIDE), 1)


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


def _inspect_any(file, path, convert, reduce):
    with decoding.open_image(file) as image:
        mode = image.mode
        if mode != 'RGB' and not convert:
            return Verdict(f'mode {mode}', mode=mode), NOTHING
        size, fraction = image.size, _fraction(image.size) if reduce and image.format in DRAFTS else 1
        if fraction > 1:
            image.draft(None, (size[0] // fraction, size[1] // fraction))
        reduced = image.size != size
        picture = decoding.to_rgb(image, path)
        if not reduced:
            size = picture.size
        elif decoding.turn(image) in decoding.SIDEWAYS:
            size = size[::-1]
        return _usable(np.asarray(picture), size, mode, _is_animated(image), reduced)


def _is_animated(image):
    """Whether there is a second frame; of a GIF it is looked for, and one that is damaged is none."""
    try:
        return getattr(image, 'is_animated', False)
    except Exception:
        return False


def _usable(pixels, size, mode='RGB', animated=False, reduced=False):
    """Verdict and picture of uint8 [H, W, 3]."""
    digest = hashlib.sha256(pixels).digest()[: file_facts.HASH_BYTES]  # processors have instructions for SHA-256
    return _accepted(mode, animated, reduced), (size, digest, near_duplicates.sample(pixels))


@functools.cache
def _accepted(mode, animated, reduced):
    return Verdict(mode=mode, animated=animated, reduced=reduced)
