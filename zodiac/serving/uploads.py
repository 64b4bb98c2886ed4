"""The images of a request, read from its body into memory within the limits."""

import asyncio
import contextlib
import functools
import logging
import mmap
import time
from dataclasses import dataclass

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

WAIT_SECONDS = 10  # in which more of a body must come
MAX_OTHER_FIELDS = 100  # of a form, beside the images
MAX_HEADER = 4096  # bytes of the Content-Type, and of the headers of a part: old parsers need a second for 16 KB
MAX_BOUNDARY = 200  # bytes; RFC 2046 allows 70

logging.getLogger('python_multipart').setLevel(logging.ERROR)  # it warns of each damaged form


@dataclass
class Limits:
    """What a client may ask for. Beyond it a request is refused: 413 for size, 503 with Retry-After for load, 408 for time."""

    requests: int  # whose body has arrived, in progress at a time
    images: int  # of a request
    body: int  # bytes of a request
    total: int  # bytes of the bodies of all requests, arriving or in progress, together
    pixels: int  # of an image, before it is decoded
    seconds: float  # from the first byte of a request to its answer


def busy(reason):
    """The HTTPException of a server that may do better in a moment."""
    return HTTPException(503, f'{reason}; try again', {'Retry-After': '1'})


def short(text):
    """What a client sent, for a message: at most 100 characters of it."""
    return text if len(text) <= 100 else f'{text[:99]}…'


class Upload:
    """The body of one request, as far as it has arrived.

    The images of it are in a memory map: its memory goes back to the system with the request, which malloc would keep in pieces.
    """

    def __init__(self):
        self.size = 0  # bytes that have arrived
        self.task = None  # that reads them, while there are more
        self.last = time.monotonic()  # when the last ones came
        self.gave_way = False
        self._map = None

    def open(self, most):
        """Make room for `most` bytes of images; a page of it takes memory once it is written."""
        try:
            self._map = mmap.mmap(-1, max(1, most))
        except OSError:
            raise busy('the machine has no memory for the upload') from None
        self.write, self.tell = self._map.write, self._map.tell

    def part(self, start, end):
        """The bytes that were written there; ValueError once the request is over."""
        return self._map[start:end]

    def close(self):
        if self._map is not None:
            self._map.close()


class Memory:
    """What the bodies of all requests take together, at most `size` bytes.

    When it is full, the largest body that is still arriving gives way: a few large or endless uploads keep nobody else out.
    """

    def __init__(self, size):
        self._size, self._uploads = size, set()

    @contextlib.contextmanager
    def upload(self):
        """An Upload, which counts until the block ends."""
        upload = Upload()
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            self._uploads.discard(upload)
            upload.close()

    def take(self, upload, count):
        """Room for `count` more bytes of `upload`. Raises HTTPException when it is the one that gives way."""
        upload.size += count
        while sum(one.size for one in self._uploads) > self._size:
            largest = max((one for one in self._uploads if one.task), key=lambda one: one.size)
            self._uploads.discard(largest)
            largest.gave_way = True
            if largest is upload:
                raise self.full()
            largest.task.cancel()

    def full(self):
        return busy(f'uploads take the {self._size / (1 << 20):g} MB of memory that there are for them')


async def read(request, limits, memory, upload):
    """The images of a request as [(name, function that gives its bytes)].

    Args:
        limits: Limits.
        memory: Memory, of which `upload` is.
    Raises: HTTPException.
    """
    start = upload.last
    task = upload.task = asyncio.ensure_future(_read(request, limits, memory, upload))
    try:
        while not task.done():
            now = time.monotonic()
            if now >= start + limits.seconds:
                raise HTTPException(408, f'the request did not arrive within {limits.seconds:g} seconds')
            if now >= upload.last + WAIT_SECONDS:
                text = f'nothing of the request arrived for {WAIT_SECONDS:g} seconds'
                raise HTTPException(408, text, {'Connection': 'close'})
            await asyncio.wait([task], timeout=min(start + limits.seconds, upload.last + WAIT_SECONDS) - now)
        if upload.gave_way:
            raise memory.full()
        return task.result()
    except ClientDisconnect:
        raise HTTPException(400, 'the request ended before it was whole') from None
    finally:
        upload.task = None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # until it has ended, however


async def _read(request, limits, memory, upload):
    headers = request.headers
    coding = headers.get('content-encoding', 'identity').strip().lower()
    if coding not in ('', 'identity'):
        text = f'Content-Encoding {short(coding)}: send the body without one'
        raise HTTPException(415, text, {'Accept-Encoding': 'identity'})
    kind = headers.get('content-type', '').partition(';')[0].strip().lower()
    chunks = _chunks(request, limits, memory, upload)
    if kind == 'multipart/form-data':
        return await _read_form(headers['content-type'], chunks, limits, upload)
    if not kind.startswith('image/') and kind != 'application/octet-stream':
        raise HTTPException(
            415,
            f'{short(kind) or "no Content-Type"}: send multipart/form-data with the field file, or an image as the body',
        )
    async for chunk in chunks:
        upload.write(chunk)
    return [('the body', functools.partial(upload.part, 0, upload.tell()))]


async def _chunks(request, limits, memory, upload):
    """The parts of a body as they come. Raises HTTPException when it is too large."""
    too_large = HTTPException(413, f'the request is larger than {limits.body / (1 << 20):g} MB')
    announced = int(request.headers.get('content-length', limits.body))
    if announced > limits.body:
        raise too_large
    upload.open(announced)
    async for chunk in request.stream():
        upload.last = time.monotonic()
        if upload.size + len(chunk) > limits.body:
            raise too_large
        memory.take(upload, len(chunk))
        yield chunk


async def _read_form(content_type, chunks, limits, upload):
    try:
        form = _Form(content_type, limits.images, upload)
        async for chunk in chunks:
            await asyncio.to_thread(
                form.write, chunk
            )  # some forms cost a second per megabyte; others are served meanwhile
        return form.close()
    except ValueError as error:  # FormParserError is one, and some versions let those of their header parser pass
        raise HTTPException(400, f'the multipart form is damaged: {short(str(error))}') from None


class _Form:
    """The files in the field `file` of a multipart form; its other parts are skipped.

    Args:
        content_type: the header; of its parameters only the boundary counts. Names are UTF-8 (RFC 7578, 5.1.2).
        most: images.
        upload: Upload, which keeps the files.
    Raises: FormParserError when the form is damaged; HTTPException for more than `most` images.
    """

    def __init__(self, content_type, most, upload):
        if len(content_type) > MAX_HEADER:
            raise FormParserError(f'its Content-Type has more than {MAX_HEADER} characters')
        boundary = parse_options_header(content_type)[1].get(b'boundary')
        if not boundary or len(boundary) > MAX_BOUNDARY:
            raise FormParserError(f'its Content-Type must name a boundary of 1 to {MAX_BOUNDARY} characters')
        self._most, self._upload = most, upload
        self._files, self._others, self._whole = [], 0, False
        self._start_part()  # what is known of the part that is read
        callbacks = {
            'on_part_begin': self._start_part,
            'on_header_field': self._add_name,
            'on_header_value': self._add_value,
            'on_header_end': self._end_header,
            'on_headers_finished': self._open_file,
            'on_part_data': self._add_to_file,
            'on_part_end': self._end_part,
            'on_end': self._end,
        }
        self.write = MultipartParser(boundary, callbacks).write

    def close(self):
        """[(name, function that gives its bytes)] of the files of a form that has been written to its end."""
        if not self._whole:
            raise FormParserError('its end is missing')
        if not self._files:
            raise HTTPException(400, 'no image in the field file of the form')
        return [(name, functools.partial(self._upload.part, start, end)) for name, start, end in self._files]

    def _start_part(self):
        self._header, self._disposition, self._header_size = [b'', b''], None, 0
        self._name = None  # of a file

    def _add_name(self, data, start, end):
        self._add_to_header(0, data[start:end])

    def _add_value(self, data, start, end):
        self._add_to_header(1, data[start:end])

    def _add_to_header(self, which, data):
        self._header_size += len(data)
        if self._header_size > MAX_HEADER:
            raise FormParserError(f'the header of a part has more than {MAX_HEADER} bytes')
        self._header[which] += data

    def _end_header(self):
        name, value = self._header
        if name.lower() == b'content-disposition':
            self._disposition = value
        self._header = [b'', b'']

    def _open_file(self):
        options = parse_options_header(self._disposition)[1]
        if b'name' not in options:
            raise FormParserError('a part has no name')
        if options[b'name'] != b'file' or b'filename' not in options:
            self._others += 1
            if self._others > MAX_OTHER_FIELDS:
                raise FormParserError(f'it has more than {MAX_OTHER_FIELDS} fields beside the images')
            return
        if len(self._files) == self._most:
            raise HTTPException(413, f'more than {self._most} images in a request')
        self._name = short(options[b'filename'].decode('utf-8', 'replace')) or f'file {len(self._files) + 1}'
        self._start = self._upload.tell()

    def _add_to_file(self, data, start, end):
        if self._name is not None:
            self._upload.write(memoryview(data)[start:end])

    def _end_part(self):
        if self._name is not None:
            self._files.append((self._name, self._start, self._upload.tell()))

    def _end(self):
        self._whole = True
