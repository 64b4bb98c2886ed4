"""Recognise small files that would keep a decoder busy for minutes, by their headers.

Pillow limits the number of pixels of a file, but not the number of its parts.
"""

import os
import re
import struct

MAX_SCANS = 100  # of a JPEG; each costs a pass over all pixels, and encoders write about ten
MAX_SEGMENTS = 1000  # of a JPEG, at most 64 KB each
MAX_CHUNKS = 100_000  # of a PNG; 90 megapixels in chunks of 8 KB need a third of that
MAX_STRIPS = 100_000  # or tiles, of a TIFF
MAX_TAGS = 1000  # per directory of a TIFF or of EXIF data; libtiff compares each with all others
MAX_TEXT_PIXELS = 1 << 20  # of a text PPM, which Pillow reads in Python, a million pixels per second
MAX_COMMENTS = 1000  # of a text PPM; each costs a copy of a megabyte

HEAD = 1 << 16  # bytes; the headers of most JPEGs are shorter
# markers that are followed by data, and the end; not stuffed bytes and restarts, which are part of the pixel data
MARKER = re.compile(b'\xff[\xc0-\xcf\xd9-\xfe]')
TABLES = {0xC4, 0xC8, 0xCC}  # all others up to 0xCF begin a frame
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LAST_FRAME, END_OF_IMAGE, START_OF_SCAN = 0xCF, 0xD9, 0xDA
TIFF = re.compile(rb'(II|MM)(\*\0|\0\*|\+\0|\0\+).{4}', re.S)
PPM = re.compile(rb'P([1-6f]|yP)\s|P(0CMYK|yRGBA|yCMYK)')
SUBDIRECTORIES = (0x8769, 0x8825, 0xA005)  # tags that point to more directories: EXIF, GPS, interoperability
WIDTHS = {3: 2, 4: 4, 8: 2, 9: 4, 13: 4}  # bytes of a number, by its type in a TIFF
MAX_DIRECTORIES = 10
COMMENT = re.compile(b'#[^\r\n]*')  # of a PPM


def check(file):
    """(reason, detail) if a binary file has too many parts of a kind, else None. Moves the position of the file."""
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(b'\xff\xd8'):
        found = in_jpeg(head)
        return in_jpeg(head + file.read()) if found == () else found
    if head.startswith(b'\x89PNG'):
        return _in_png(file)
    if TIFF.match(head):
        return _in_tiff(file, head)
    if PPM.match(head):
        return _in_ppm(file, head)
    return None


def in_jpeg(data):
    """(reason, detail) if a JPEG has too many scans or segments, None if not, () if the bytes end before that is known.

    Follows the markers as libjpeg does, so bytes in an EXIF thumbnail or after the end of the image do not count.
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
                    return None  # this scan has all components: libjpeg reads no other
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


def in_tags(data):
    """(reason, detail) if the first directory of TIFF bytes, such as EXIF data, has too many tags, else None."""
    try:
        order = '<' if data.startswith(b'II') else '>'
        (start,) = struct.unpack_from(order + 'L', data, 4)
        (count,) = struct.unpack_from(order + 'H', data, start)
    except struct.error:
        return None
    return _too_many_tags(count)


def _too_many_tags(count):
    return ('too many tags', f'more than {MAX_TAGS}') if count > MAX_TAGS else None


def _in_tiff(file, head):
    """Counts the tags of the first directory, and of those that Pillow reads with it."""
    order, big = 'little' if head.startswith(b'II') else 'big', head[2:3] == b'+'
    width, size = (8, 20) if big else (4, 12)  # bytes of an offset, of an entry
    places = [int.from_bytes(head[8:16] if big else head[4:8], order)]
    for place in places:
        if place >= 1 << 63:
            continue
        file.seek(place)
        count = int.from_bytes(file.read(8 if big else 2), order)
        if count > MAX_TAGS:
            return _too_many_tags(count)
        entries, more = file.read(count * size), {}
        for at in range(0, len(entries), size):
            tag, kind = int.from_bytes(entries[at : at + 2], order), int.from_bytes(entries[at + 2 : at + 4], order)
            if tag in SUBDIRECTORIES:
                start = at + size - width
                more.setdefault(tag, int.from_bytes(entries[start : start + WIDTHS.get(kind, width)], order))
        if len(places) < MAX_DIRECTORIES:
            places += more.values()
    return None


def _in_ppm(file, head):
    text = head[1:2] in b'123'
    words = COMMENT.sub(b'', head).split(maxsplit=4)
    if len(head) == HEAD and len(words) < 4:
        return 'too long a header', f'more than {HEAD} bytes'
    if not text or len(words) < 3:
        return None
    try:
        width, height = int(words[1]), int(words[2])
    except ValueError:  # which Pillow reports
        return None
    if width * height > MAX_TEXT_PIXELS:
        return 'too many pixels in text', f'{width}x{height}, the limit is {MAX_TEXT_PIXELS}; save it as a PNG'
    file.seek(0)
    if file.read().count(b'#') > MAX_COMMENTS:
        return 'too many comments', f'more than {MAX_COMMENTS}'
    return None
