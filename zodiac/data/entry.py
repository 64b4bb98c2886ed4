"""One file of a data set: its split and class, the result of its inspection, and a fingerprint that tells it from other images.

A million entries are kept in memory, and on disk for the next run. So an entry has slots, a fingerprint is one short row of bytes, and
equal results share one `Verdict`.
"""

import struct
import time
from typing import NamedTuple

SKETCH_BYTES = 243  # see near_duplicates
HASH_BYTES = 10  # of a SHA-256: the probability that two of a million images share them is below 1e-12
FINGERPRINT = struct.Struct(f'<II{HASH_BYTES}s{HASH_BYTES}s{SKETCH_BYTES}s')
PIXELS, EXACT = slice(8, 8 + HASH_BYTES), slice(8 + HASH_BYTES, 8 + 2 * HASH_BYTES)
UNKNOWN = bytes(HASH_BYTES)  # in place of a hash
STAMP = struct.Struct('<QQQ')
NEVER = bytes(STAMP.size)  # the stamp of a file that every run reads again
SETTLED = 2 * 10**9  # ns; a file changed less than this before it was read may change again at the same time


class Verdict(NamedTuple):
    """The result of an inspection. `reason` is '' for a usable image; `reduced`: it was decoded at a fraction of its size."""

    reason: str = ''
    detail: str = ''
    mode: str = ''
    animated: bool = False
    reduced: bool = False


UNREAD = Verdict('not read')


def setting_for(reason):
    """The setting that includes images with this reason of a `Verdict`; '' if there is none."""
    return 'annotate.non_rgb=convert' if reason.startswith('mode ') else ''


class Inspection(NamedTuple):
    """`fingerprint` is b'' unless the image is usable; `stamp` changes when the file does."""

    verdict: Verdict
    fingerprint: bytes = b''
    stamp: bytes = NEVER

    @property
    def reason(self):
        return self.verdict.reason


class Entry:
    """One file below a class folder or of a list; `path` as in the index; `group`: see `groups`, '' if it is in none."""

    __slots__ = ('path', 'split', 'label', 'verdict', 'fingerprint', 'group')

    def __init__(self, path, split, label, verdict=UNREAD, group=''):
        self.path = path
        self.split = split
        self.label = label
        self.verdict = verdict
        self.fingerprint = b''
        self.group = group

    @property
    def size(self):
        """(width, height) of a usable image."""
        return size(self.fingerprint)


def pack(size, pixels, sketch):
    """Make a fingerprint.

    Args:
        size: (width, height) of the full, upright image.
        pixels: hash of the pixels as decoded, perhaps at reduced size.
        sketch: see `near_duplicates.sketches`.
    """
    return FINGERPRINT.pack(*size, pixels, UNKNOWN, sketch)


def size(fingerprint):
    """(width, height)"""
    return FINGERPRINT.unpack_from(fingerprint)[:2]


def content(fingerprint):
    """Size and hash of the pixels as decoded: equal for the same file under any name, whatever other files there are."""
    return fingerprint[: PIXELS.stop]


def pixels(fingerprint):
    """The hash of the pixels as decoded, perhaps at reduced size."""
    return fingerprint[PIXELS]


def exact(fingerprint):
    """The hash of all pixels of an image that was first decoded at reduced size; UNKNOWN if it was not needed."""
    return fingerprint[EXACT]


def with_exact(fingerprint, digest):
    return fingerprint[: EXACT.start] + digest + fingerprint[EXACT.stop :]


def identity(fingerprint):
    """Size and hash, equal for files with the same pixels."""
    return fingerprint[:8] + (pixels(fingerprint) if exact(fingerprint) == UNKNOWN else exact(fingerprint))


def stamp(status, now=None):
    """Size and times of an os.stat_result; NEVER for a file that changed just before `now`, in ns (None: accept any)."""
    modified, changed = status.st_mtime_ns, status.st_ctime_ns
    if now is not None and max(modified, changed) > now - SETTLED:
        return NEVER
    return STAMP.pack(status.st_size, modified % 2**64, changed % 2**64)


def stamp_when_read(status):
    """The stamp of a file that is open and about to be read."""
    return stamp(status, time.time_ns())
