"""The images of a request, read from its body within the limits."""

import asyncio
import tempfile
import time
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

IN_MEMORY = 1 << 20  # bytes of a file, beyond which it waits on disk
WAIT_SECONDS = 10  # in which more of a body must come


@dataclass
class Limits:
    """What a client may ask for. Beyond it a request is refused: 413 for size, 503 with Retry-After for load, 408 for time."""

    requests: int  # whose body has arrived, in progress at a time
    images: int  # of a request
    body: int  # bytes of a request
    pixels: int  # of an image, before it is decoded
    seconds: float  # from the first byte of a request to its answer


def busy(reason):
    """The HTTPException of a server that may do better in a moment."""
    return HTTPException(503, f'{reason}; try again', {'Retry-After': '1'})


def short(text):
    """What a client sent, for a message: at most 100 characters of it."""
    return text if len(text) <= 100 else f'{text[:99]}…'


async def read(request, limits, opened):
    """The images of a request as [(name, binary file)]; `opened`, an AsyncExitStack, closes them.

    Raises: HTTPException; OSError when the folder for temporary files is full.
    """
    start = time.monotonic()
    came = [start]  # when the last part did
    task = asyncio.ensure_future(_read(request, limits, opened, came))
    try:
        while not task.done():
            now = time.monotonic()
            if now >= start + limits.seconds:
                raise HTTPException(408, f'the request did not arrive within {limits.seconds:g} seconds')
            if now >= came[0] + WAIT_SECONDS:
                text = f'nothing of the request arrived for {WAIT_SECONDS:g} seconds'
                raise HTTPException(408, text, {'Connection': 'close'})
            await asyncio.wait([task], timeout=min(start + limits.seconds, came[0] + WAIT_SECONDS) - now)
        return task.result()
    except ClientDisconnect:
        raise HTTPException(400, 'the request ended before it was whole') from None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # until it has left its files alone


async def _read(request, limits, opened, came):
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    chunks = _chunks(request, limits, came)
    if kind == 'multipart/form-data':
        return await _read_form(request.headers, chunks, limits, opened)
    if not kind.startswith('image/') and kind != 'application/octet-stream':
        raise HTTPException(
            415,
            f'{short(kind) or "no Content-Type"}: send multipart/form-data with the field file, or an image as the body',
        )
    file = opened.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115
    async for chunk in chunks:
        file.write(chunk)
    file.seek(0)
    return [('the body', file)]


async def _chunks(request, limits, came):
    """The parts of a body as they come. Raises HTTPException when it is too large."""
    too_large = HTTPException(413, f'the request is larger than {limits.body / (1 << 20):g} MB')
    if int(request.headers.get('content-length', 0)) > limits.body:
        raise too_large
    size = 0
    async for chunk in request.stream():
        came[0] = time.monotonic()
        size += len(chunk)
        if size > limits.body:
            raise too_large
        yield chunk


async def _read_form(headers, chunks, limits, opened):
    try:
        form = await MultiPartParser(headers, chunks, max_files=limits.images, max_fields=100).parse()
    except MultiPartException as error:
        if error.message.startswith('Too many files'):
            raise HTTPException(413, f'more than {limits.images} images in a request') from None
        raise HTTPException(400, f'the multipart form is damaged: {error.message}') from None
    opened.push_async_callback(form.close)
    files = [(short(part.filename), part.file) for part in form.getlist('file') if not isinstance(part, str)]
    if not files:
        raise HTTPException(400, 'no image in the field file of the form')
    return files
