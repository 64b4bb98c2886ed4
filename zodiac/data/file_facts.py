"""What is known of one file: a verdict, and of a usable image its `picture`, some bytes that tell it from others.

A million entries are kept in memory, and beside the index files for the next run: hence one short row of bytes each, and one
`Verdict` object for all that have the same.
"""

import struct
import time
from typing import NamedTuple

SKETCH_BYTES = 243  # see near_duplicates
HASH_BYTES = 10  # of a SHA-256: among a million pictures two are taken for one with a probability below 1e-12
PICTURE = struct.Struct(f'<II{HASH_BYTES}s{HASH_BYTES}s{SKETCH_BYTES}s')
PIXELS, EXACT = slice(8, 8 + HASH_BYTES), slice(8 + HASH_BYTES, 8 + 2 * HASH_BYTES)
UNKNOWN = bytes(HASH_BYTES)  # in the place of a hash
STAMP = struct.Struct('<QQQ')
NEVER = bytes(STAMP.size)  # the stamp of a file that is read anew each time
SETTLED = 2 * 10**9  # ns; a file changed less than this before it was read may change again and show the same time


class Verdict(NamedTuple):
    """`reason` is '' for a usable image. `reduced`: it was decoded at a fraction of its size."""

    reason: str = ''
    detail: str = ''
    mode: str = ''
    animated: bool = False
    reduced: bool = False


class Inspection(NamedTuple):
    """`picture` is b'' unless the image is usable, `stamp` tells whether the file is still the same."""

    verdict: Verdict
    picture: bytes = b''
    stamp: bytes = NEVER

    @property
    def reason(self):
        return self.verdict.reason


def pack(size, pixels, sketch):
    """A picture: (width, height), upright and in full; a hash of the pixels as they were decoded; see `near_duplicates`."""
    return PICTURE.pack(*size, pixels, UNKNOWN, sketch)


def size(picture):
    """(width, height)"""
    return PICTURE.unpack_from(picture)[:2]


def pixels(picture):
    """The hash of the pixels as they were decoded, at reduced size perhaps."""
    return picture[PIXELS]


def exact(picture):
    """The hash of all pixels of an image that was decoded at reduced size first; UNKNOWN unless it was asked for."""
    return picture[EXACT]


def with_exact(picture, digest):
    return picture[: EXACT.start] + digest + picture[EXACT.stop :]


def same_as(picture):
    """What is equal for files that hold the same picture."""
    return picture[:8] + (pixels(picture) if exact(picture) == UNKNOWN else exact(picture))


def stamp(status, now=None):
    """Of an os.stat_result: its size and times, or NEVER for a file that was changed just now (`now`, ns, is None: trust it)."""
    modified, changed = status.st_mtime_ns, status.st_ctime_ns
    if now is not None and max(modified, changed) > now - SETTLED:
        return NEVER
    return STAMP.pack(status.st_size, modified % 2**64, changed % 2**64)


def stamp_when_read(status):
    """The stamp of a file that is opened and about to be read."""
    return stamp(status, time.time_ns())
