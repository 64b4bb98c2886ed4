"""Small files that would keep a decoder busy for minutes, told by their headers before Pillow reads them.

Pillow itself bounds what a file may unpack to; the number of its parts it does not.
"""

import os
import re

MAX_SCANS = 100  # of a JPEG; each costs a pass over all pixels, and encoders write about ten
MAX_SEGMENTS = 1000  # of a JPEG, 64 KB each at most
MAX_CHUNKS = 100_000  # of a PNG; 90 megapixels in chunks of 8 KB are a third of that
MAX_STRIPS = 100_000  # or tiles, of a TIFF

HEAD = 1 << 16  # bytes; the headers of most JPEGs end within
# of the markers those that data follows, and the end; no stuffed byte and no restart, which are part of the pixels' data
MARKER = re.compile(b'\xff[\xc0-\xcf\xd9-\xfe]')
TABLES = {0xC4, 0xC8, 0xCC}  # the others up to 0xCF begin a frame
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LAST_FRAME, END_OF_IMAGE, START_OF_SCAN = 0xCF, 0xD9, 0xDA


def look(source):
    """What a file, a path or binary file, has too many of, as (reason, detail); None for nothing. Its position is lost."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, 'rb') as file:
            return look(file)
    source.seek(0)
    head = source.read(HEAD)
    if head.startswith(b'\xff\xd8'):
        found = in_jpeg(head)
        return in_jpeg(head + source.read()) if found == () else found
    if head.startswith(b'\x89PNG'):
        return _in_png(source)
    return None


def in_jpeg(data):
    """What bytes of a JPEG have too many of, as (reason, detail); None for nothing, () where they end before it is known.

    The markers are those that libjpeg finds: bytes in an EXIF thumbnail, or after the end of the image, are none.
    """
    at, scans, progressive, components = 2, 0, False, None
    try:
        for _ in range(MAX_SEGMENTS):
            found = MARKER.search(data, at)
            if found is None:
                return ()
            at = found.end()
            marker = data[at - 1]
            if marker == START_OF_SCAN:
                if not progressive and data[at + 2] == components:
                    return None  # all is in this scan: libjpeg reads no other
                scans += 1
                if scans > MAX_SCANS:
                    return 'too many scans', f'more than {MAX_SCANS}'
            elif marker == END_OF_IMAGE:
                return None
            elif marker <= LAST_FRAME and marker not in TABLES:
                progressive, components = marker in PROGRESSIVE, data[at + 7]
            at += data[at] << 8 | data[at + 1]
    except IndexError:
        return ()
    return 'too many segments', f'more than {MAX_SEGMENTS}'


def _in_png(file):
    file.seek(0, os.SEEK_END)
    if file.tell() < 12 * MAX_CHUNKS:  # the length, name and checksum of each
        return None
    at = 8
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head.endswith(b'IEND'):
            return None
        at += 12 + int.from_bytes(head[:4], 'big')
    return 'too many chunks', f'more than {MAX_CHUNKS}'
