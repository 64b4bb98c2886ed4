"""Inspect image files: decode each in full, and note its mode, size, sketch and a hash of its pixels, or why it cannot be used."""

import concurrent.futures
import functools
import hashlib
import io
import itertools
import os
import sys

import numpy as np
from tqdm import tqdm

from zodiac.base import stops
from zodiac.base.errors import UserError, fault
from zodiac.data import exact_duplicates, near_duplicates
from zodiac.data.entry import (
    HASH_BYTES,
    NEVER,
    UNKNOWN,
    Inspection,
    Verdict,
    exact,
    pack,
    pixels,
    stamp_when_read,
    with_exact,
)
from zodiac.images import bombs, decoding

try:
    import simplejpeg  # optional: decodes small JPEGs 3 times as fast as Pillow, to the same pixels
except ImportError:
    simplejpeg = None

DRAFTS = ('JPEG', 'MPO')  # can be decoded at a fraction of their size
APP0, START_OF_SCAN = 0xE0, 0xDA
BLOCK = 1 << 16  # bytes
READ = os.O_RDONLY | getattr(os, 'O_BINARY', 0)  # of Windows; os.open is faster than open for a small file
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
TABLES = (0xC4, 0xDB, 0xDD)  # Huffman and quantization tables, restart interval
SMALL = 1 << 13  # pixels; a smaller image is not worth decoding at reduced size
SIDE = 27  # fewest pixels per side of a reduced image: 3 per cell of the sketch


def inspect_entries(entries, unread, stamps, convert, workers):
    """Set the verdict and fingerprint of entries, and their stamps.

    Entries that were decoded at reduced size and may have a duplicate are then read again in full.

    Args:
        entries: all of them, also those with a cached result.
        unread: numbers of those to read.
        stamps: bytearray, updated in place.
        convert, workers: see `inspect_all`.
    """
    verdicts = {}  # one object for all equal ones
    for number, found in zip(unread, _with_progress([entries[number] for number in unread], convert, workers)):
        entry = entries[number]
        entry.verdict, entry.fingerprint = verdicts.setdefault(found.verdict, found.verdict), found.fingerprint
        stamps[number * len(found.stamp) : (number + 1) * len(found.stamp)] = found.stamp
    undecided = exact_duplicates.need_exact_hash([entry for entry in entries if entry.fingerprint])
    undecided = [entry for entry in undecided if exact(entry.fingerprint) == UNKNOWN]
    for entry, found in zip(undecided, _with_progress(undecided, convert, workers, reduce=False)):
        if found.fingerprint:  # else the file has changed meanwhile
            entry.fingerprint = with_exact(entry.fingerprint, pixels(found.fingerprint))


def _with_progress(entries, convert, workers, reduce=True):
    if not entries:
        return []
    workers = min(workers, max(1, len(entries) // 32))
    found = inspect_all([entry.path for entry in entries], convert, workers, reduce)
    what = 'checking images' if reduce else 'comparing images'
    return tqdm(found, what, total=len(entries), unit='') if sys.stderr.isatty() else found


def inspect(path, convert, reduce=True):
    """The `Inspection` of one file. Without `convert` only images of mode RGB are usable.

    Args:
        reduce: decode a large JPEG at a fraction of its size; all of its data is still read.
    """
    return Inspection(*(column[0] for column in _inspect_together([path], convert, reduce)))


def _inspect_together(paths, convert, reduce):
    """Lists of the verdicts, fingerprints and stamps of files, whose sketches are computed together."""
    found = [_inspect_or_name(path, convert, reduce) for path in paths]
    sketches = iter(near_duplicates.sketches([sample for _, (_, _, sample), _ in found if sample is not None]))
    fingerprints = [
        b'' if sample is None else pack(size, digest, next(sketches)) for _, (size, digest, sample), _ in found
    ]
    return [verdict for verdict, _, _ in found], fingerprints, [stamp for _, _, stamp in found]


def inspect_all(paths, convert, workers, reduce=True):
    """Yield the `Inspection` of each path, in order, from `workers` processes.

    Raises UserError if a process is killed, as when memory runs out.
    """
    work = functools.partial(_inspect_together, convert=convert, reduce=reduce)
    size = max(1, min(256, len(paths) // (32 * workers)))
    parts = (paths[start : start + size] for start in range(0, len(paths), size))
    if workers == 1:
        yield from _one_by_one(map(work, parts))
        return
    pool = concurrent.futures.ProcessPoolExecutor(workers, initializer=stops.work_for_parent)
    try:
        with stops.held():  # until the processes, which are forked here, leave signals to this one
            found = pool.map(work, parts)
        yield from _one_by_one(found)
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            'a decoding process was killed, usually because memory ran out; set annotate.workers=1'
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_by_one(parts):
    return itertools.chain.from_iterable(map(Inspection, *columns) for columns in parts)


def _inspect_or_name(path, convert, reduce):
    """`_inspect`, with a UserError that names the file for an unexpected exception: one that can be pickled."""
    try:
        return _inspect(path, convert, reduce)
    except Exception as error:
        raise fault(path, error) from None


NOTHING = (None, None, None)  # in place of the size, hash and sample of an image


def _inspect(path, convert, reduce):
    """Verdict, (size, hash, sample of the pixels) and stamp of one file."""
    stamp = NEVER
    try:
        file = os.open(path, READ)
        try:
            stamp = stamp_when_read(os.fstat(file))
            data = os.read(file, BLOCK)
            is_jpeg, is_whole = data[:2] == b'\xff\xd8', len(data) < BLOCK
            if is_jpeg and not is_whole:
                with open(file, 'rb', closefd=False) as rest:
                    data += rest.read()
        finally:
            os.close(file)
        decoded = _decode_plain_jpeg(data, reduce) if is_jpeg else None
        if decoded:
            return (*decoded, stamp)
        with io.BytesIO(data) if is_jpeg or is_whole else open(path, 'rb') as source:
            return (*_inspect_any(source, path, convert, reduce), stamp)
    except decoding.ImageError as error:
        cause = error.__context__  # if memory or the disk failed, the file may be sound
        temporary = isinstance(cause, MemoryError) or isinstance(cause, OSError) and cause.errno is not None
        return Verdict(error.reason, error.detail), NOTHING, NEVER if temporary else stamp
    except OSError as error:
        return Verdict('cannot be read', error.strerror or str(error)), NOTHING, NEVER


def _decode_plain_jpeg(data, reduce):
    """Verdict and image of a sound, plain colour JPEG, decoded fast; None for any other file, which is left to `_inspect_any`."""
    size = _plain_size(data) if simplejpeg else None
    if not size or size[0] * size[1] > decoding.MAX_PIXELS or bombs.in_jpeg(data):
        return None
    fraction = _fraction(size) if reduce else 1
    reduced = {} if fraction == 1 else {'min_width': -(-size[0] // fraction), 'min_height': -(-size[1] // fraction)}
    try:
        image = simplejpeg.decode_jpeg(data, strict=True, **reduced)
    except ValueError:
        return None
    return _usable(image, size, reduced=fraction > 1)


def _fraction(size):
    """The divisor of a JPEG's size, 1, 2, 4 or 8, that leaves enough pixels for the sketch."""
    if size[0] * size[1] < SMALL:
        return 1
    return next((fraction for fraction in (8, 4, 2) if min(size) // fraction >= SIDE), 1)


def _plain_size(data):
    """(width, height) of a colour JPEG with only JFIF and tables before its image data: no EXIF, no profile, no second image.
    None for any other."""
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
        upright = decoding.to_rgb(image, path)
        if not reduced:
            size = upright.size
        elif decoding.turn(image) in decoding.SIDEWAYS:
            size = size[::-1]
        return _usable(np.asarray(upright), size, mode, _is_animated(image), reduced)


def _is_animated(image):
    """Whether there is a second frame. Pillow looks for it in a GIF, whose second frame may be damaged."""
    try:
        return getattr(image, 'is_animated', False)
    except Exception:
        return False


def _usable(image, size, mode='RGB', animated=False, reduced=False):
    """Verdict, and (size, hash, sample) of uint8 [H, W, 3]."""
    digest = hashlib.sha256(image).digest()[:HASH_BYTES]  # processors have instructions for SHA-256
    return _accepted(mode, animated, reduced), (size, digest, near_duplicates.sample(image))


@functools.cache
def _accepted(mode, animated, reduced):
    return Verdict(mode=mode, animated=animated, reduced=reduced)
