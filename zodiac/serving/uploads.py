"""Read the images of a request from its body into memory, within the limits."""

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

WAIT_SECONDS = 10  # longest pause while a body arrives
MAX_OTHER_FIELDS = 100  # of a form, besides the images
MAX_HEADER = 4096  # bytes of the Content-Type, and of a part's headers: old parsers take a second for 16 KB
MAX_BOUNDARY = 200  # bytes; RFC 2046 allows 70

logging.getLogger('python_multipart').setLevel(logging.ERROR)  # it warns about each damaged form


@dataclass
class Limits:
    """Limits of a request. Beyond them it is refused: 413 for size, 503 with Retry-After for load, 408 for time."""

    requests: int  # in progress at the same time, counted once the body has arrived
    images: int  # per request
    body: int  # bytes per request
    total: int  # bytes of all requests together, arriving or in progress
    pixels: int  # per image, checked before it is decoded
    seconds: float  # from the first byte of a request to its answer


def busy(reason):
    """HTTPException 503, for a request that may succeed a moment later."""
    return HTTPException(503, f'{reason}; try again', {'Retry-After': '1'})


def short(text):
    """Text sent by a client, cut to 100 characters for a message."""
    return text if len(text) <= 100 else f'{text[:99]}…'


class Upload:
    """The body of one request, as far as it has arrived.

    Its images are in a memory map, whose memory returns to the system with the end of the request; malloc would fragment it.
    """

    def __init__(self):
        self.size = 0  # bytes received
        self.task = None  # reads the body while it arrives
        self.last = time.monotonic()  # time of the last bytes
        self.evicted = False
        self._map = None

    def open(self, most):
        """Reserve `most` bytes for images; they take memory as they are written."""
        try:
            self._map = mmap.mmap(-1, max(1, most))
        except OSError:
            raise busy('the machine has no memory for the upload') from None
        self.write, self.tell = self._map.write, self._map.tell

    def part(self, start, end):
        """The bytes written at these positions. Raises ValueError once the request is over."""
        return self._map[start:end]

    def close(self):
        if self._map is not None:
            self._map.close()


class Memory:
    """The memory for the bodies of all requests, at most `size` bytes.

    When it is full, the largest body that is still arriving is refused, so that a few large uploads do not block the others.
    """

    def __init__(self, size):
        self._size, self._uploads = size, set()

    @contextlib.contextmanager
    def upload(self):
        """An Upload that is counted until the block ends."""
        upload = Upload()
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            self._uploads.discard(upload)
            upload.close()

    def take(self, upload, count):
        """Count `count` more bytes of `upload`. Raises HTTPException if it is the one to be refused."""
        upload.size += count
        while sum(one.size for one in self._uploads) > self._size:
            largest = max((one for one in self._uploads if one.task), key=lambda one: one.size)
            self._uploads.discard(largest)
            largest.evicted = True
            if largest is upload:
                raise self.full()
            largest.task.cancel()

    def full(self):
        return busy(f'the memory for uploads ({self._size / (1 << 20):g} MB) is full')


async def read(request, limits, memory, upload, take):
    """The body of a request, as `take` returns it. Raises HTTPException.

    Args:
        limits: Limits.
        memory: Memory, which `upload` belongs to.
        take: `images` or `whole`.
    """
    start = upload.last
    task = upload.task = asyncio.ensure_future(_read(request, limits, memory, upload, take))
    try:
        while not task.done():
            now = time.monotonic()
            if now >= start + limits.seconds:
                raise HTTPException(408, f'the request did not arrive within {limits.seconds:g} seconds')
            if now >= upload.last + WAIT_SECONDS:
                text = f'nothing of the request arrived for {WAIT_SECONDS:g} seconds'
                raise HTTPException(408, text, {'Connection': 'close'})
            await asyncio.wait([task], timeout=min(start + limits.seconds, upload.last + WAIT_SECONDS) - now)
        if upload.evicted:
            raise memory.full()
        return task.result()
    except ClientDisconnect:
        raise HTTPException(400, 'the request ended before its body was complete') from None
    finally:
        upload.task = None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)  # wait until it has ended


async def _read(request, limits, memory, upload, take):
    headers = request.headers
    coding = headers.get('content-encoding', 'identity').strip().lower()
    if coding not in ('', 'identity'):
        text = f'Content-Encoding {short(coding)}: send the body without one'
        raise HTTPException(415, text, {'Accept-Encoding': 'identity'})
    return await take(headers, _chunks(request, limits, memory, upload), limits, upload)


async def whole(headers, chunks, limits, upload):
    """The Upload itself, with a body of any kind."""
    async for chunk in chunks:
        upload.write(chunk)
    return upload


async def images(headers, chunks, limits, upload):
    """The images of a form, or the one that is the body, as [(name, function that returns the bytes)]."""
    kind = headers.get('content-type', '').partition(';')[0].strip().lower()
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
    """Yield the chunks of a body as they arrive. Raises HTTPException when it is too large."""
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
            await asyncio.to_thread(form.write, chunk)  # some forms take a second per megabyte
        return form.close()
    except ValueError as error:  # FormParserError, or in some versions one of the header parser
        raise HTTPException(400, f'the multipart form is damaged: {short(str(error))}') from None


class _Form:
    """The files in the field `file` of a multipart form; its other parts are skipped.

    Args:
        content_type: the header; only its boundary is used. Names are UTF-8 (RFC 7578, 5.1.2).
        most: number of images.
        upload: Upload that stores the files.
    Raises: FormParserError when the form is damaged; HTTPException for more than `most` images.
    """

    def __init__(self, content_type, most, upload):
        if len(content_type) > MAX_HEADER:
            raise FormParserError(f'its Content-Type has more than {MAX_HEADER} characters')
        boundary = parse_options_header(content_type)[1].get(b'boundary')
        if not boundary or len(boundary) > MAX_BOUNDARY:
            raise FormParserError(f'its Content-Type must name a boundary of 1 to {MAX_BOUNDARY} characters')
        self._most, self._upload = most, upload
        self._files, self._others, self._complete = [], 0, False
        self._start_part()
        callbacks = {
            'on_part_begin': self._start_part,
            'on_header_field': functools.partial(self._add_to_header, 0),
            'on_header_value': functools.partial(self._add_to_header, 1),
            'on_header_end': self._end_header,
            'on_headers_finished': self._open_file,
            'on_part_data': self._add_to_file,
            'on_part_end': self._end_part,
            'on_end': self._end,
        }
        self.write = MultipartParser(boundary, callbacks).write

    def close(self):
        """[(name, function that returns the bytes)] of the files, once the whole form has been written."""
        if not self._complete:
            raise FormParserError('its end is missing')
        if not self._files:
            raise HTTPException(400, 'no image in the field file of the form')
        return [(name, functools.partial(self._upload.part, start, end)) for name, start, end in self._files]

    def _start_part(self):
        self._header, self._disposition, self._header_size = [b'', b''], None, 0
        self._name = None  # set while the part is a file

    def _add_to_header(self, which, data, start, end):
        self._header_size += end - start
        if self._header_size > MAX_HEADER:
            raise FormParserError(f'the header of a part has more than {MAX_HEADER} bytes')
        self._header[which] += data[start:end]

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
                raise FormParserError(f'it has more than {MAX_OTHER_FIELDS} fields besides the images')
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
        self._complete = True
