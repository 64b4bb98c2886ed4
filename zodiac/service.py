"""An exported model over HTTP: the FastAPI application, its limits, its metrics and its page.

No address takes a path or a URL: an image comes in the body of a request or not at all.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import html
import os
import re
import tempfile
import time
from dataclasses import dataclass
from typing import Annotated, List, Optional, Union

from fastapi import Depends, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from pydantic import BaseModel
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from zodiac import device, images, inference, transforms
from zodiac.batching import Batcher

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'service.html')
IN_MEMORY = 1 << 20  # bytes of a file, beyond which it waits on disk


@dataclass
class Limits:
    """What a client may ask for. Beyond it a request is refused: 413 for size, 503 with Retry-After for load, 408 for time."""

    requests: int  # in progress at a time
    images: int  # of a request
    body: int  # bytes of a request
    pixels: int  # of an image, before it is decoded
    seconds: float  # from the first byte of a request to its answer


class Guess(BaseModel):
    label: str
    probability: float


class Prediction(Guess):
    """One image: its most probable label, and the first few of all."""

    top: List[Guess]


class Predictions(BaseModel):
    """Several images, in the order of the request."""

    predictions: List[Prediction]


class Problem(BaseModel):
    detail: str


class Ready(BaseModel):
    model: str
    classes: int


BODY = {
    'requestBody': {
        'required': True,
        'content': {
            'multipart/form-data': {
                'schema': {
                    'type': 'object',
                    'required': ['file'],
                    'properties': {
                        'file': {'type': 'array', 'minItems': 1, 'items': {'type': 'string', 'format': 'binary'}}
                    },
                }
            },
            **{
                kind: {'schema': {'type': 'string', 'format': 'binary'}}
                for kind in ('image/*', 'application/octet-stream')
            },
        },
    }
}
PROBLEMS = {
    400: 'The body is no valid multipart form, or has no image in the field `file`.',
    401: 'The token is missing or wrong.',
    408: 'The request took too long to arrive.',
    413: 'The body, the number of images or an image is beyond the limit.',
    415: 'The body is neither a multipart form nor an image.',
    422: 'A file is no image that can be read, or a parameter is wrong.',
    503: 'Too many requests at a time; try again after the seconds in Retry-After.',
}


def create(model, limits, batch=8, delay=0.002, token=None, warm_up=False):
    """The FastAPI application that answers with `model`.

    Args:
        model: zodiac.inference.Exported.
        batch: most images a run of the network.
        delay: seconds that an image may wait for others to share its batch.
        warm_up: run the network once for each size of a batch before the first request.
        token: what clients must send as `Authorization: Bearer TOKEN`; None lets everybody in.
    """
    metrics = Metrics()
    batcher = Batcher(model.predict, batch, delay, metrics.batches.observe)
    allowed = [Depends(_token_check(token))] if token else []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.places = asyncio.Semaphore(4 * batch)  # for decoded images; the others wait as files
        with concurrent.futures.ThreadPoolExecutor(device.cores(), 'decode') as app.state.decoders:
            async with batcher:
                if warm_up:
                    await batcher.warm_up(transforms.apply(model.transform, Image.new('RGB', (64, 64))))
                yield

    app = FastAPIOffline(
        title=model.name,
        description=f'Image classification. The {len(model.labels)} classes: {", ".join(model.labels[:100])}.',
        version='1',
        lifespan=lifespan,
        redoc_url=None,
    )
    app.add_middleware(Watch, metrics=metrics)

    async def classify(name, file, top):
        async with app.state.places:
            try:
                with batcher.announced():
                    image = await asyncio.get_running_loop().run_in_executor(
                        app.state.decoders,
                        lambda: transforms.read(model.transform, file, max_pixels=limits.pixels),
                    )
            except images.ImageError as error:
                status = 413 if error.reason == images.TOO_MANY_PIXELS else 422
                raise HTTPException(status, str(error).replace('image', name, 1)) from None
            probabilities = await batcher.predict(image)
        metrics.images.inc()
        return inference.as_dict(inference.best(probabilities, model.labels, top))

    async def answer(request, top):
        """The predictions of the images of a request, all within the time limit."""
        end = time.monotonic() + limits.seconds
        async with contextlib.AsyncExitStack() as opened:
            try:
                files = await asyncio.wait_for(read_files(request, limits, opened), limits.seconds)
            except asyncio.TimeoutError:
                raise HTTPException(408, f'the request did not arrive within {limits.seconds:g} seconds') from None
            try:
                work = asyncio.gather(*(classify(name, file, top) for name, file in files))
                return await asyncio.wait_for(work, end - time.monotonic())
            except asyncio.TimeoutError:
                raise _busy(f'no answer within {limits.seconds:g} seconds') from None

    @app.post(
        '/predict',
        summary='Classify an image, or several',
        dependencies=allowed,
        openapi_extra=BODY,
        responses={status: {'model': Problem, 'description': text} for status, text in PROBLEMS.items()},
    )
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, le=1000, description='How many labels an image.')] = 5
    ) -> Union[Prediction, Predictions]:
        """Send one image as the body, or one or more in the field `file` of a multipart form. The answer to one image is its
        prediction; to several, `predictions`, in their order."""
        with metrics.admit(limits.requests):
            predictions = await answer(request, top)
        return predictions[0] if len(predictions) == 1 else {'predictions': predictions}

    @app.get('/healthz', response_class=PlainTextResponse, summary='Whether the process answers')
    async def healthz():
        return 'ok'

    @app.get('/readyz', responses={503: {'model': Problem}}, summary='Whether the model answers')
    async def readyz() -> Ready:
        if not batcher.running():
            raise _busy('the model is not running')
        return Ready(model=model.name, classes=len(model.labels))

    @app.get('/metrics', dependencies=allowed, response_class=PlainTextResponse, summary='Numbers for Prometheus')
    async def show_metrics():
        return PlainTextResponse(generate_latest(metrics.registry), media_type='text/plain; version=0.0.4')

    @app.exception_handler(RequestValidationError)
    async def explain(request, error):
        text = '; '.join(f'{problem["loc"][-1]}: {problem["msg"]}' for problem in error.errors())
        return JSONResponse({'detail': text}, 422)

    page, headers = _page(model)

    @app.get('/', response_class=HTMLResponse, include_in_schema=False)
    async def show_page():
        return HTMLResponse(page, headers=headers)

    return app


async def read_files(request, limits, opened):
    """The images of a request as [(name, binary file)]; `opened`, an AsyncExitStack, closes them. Raises HTTPException."""
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    too_large = HTTPException(413, f'the request is larger than {limits.body / (1 << 20):g} MB')
    if int(request.headers.get('content-length', 0)) > limits.body:
        raise too_large

    async def chunks():
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limits.body:
                raise too_large
            yield chunk

    try:
        if kind == 'multipart/form-data':
            return await _read_form(request.headers, chunks(), limits, opened)
        if not kind.startswith('image/') and kind != 'application/octet-stream':
            raise HTTPException(
                415,
                f'{kind or "no Content-Type"}: send multipart/form-data with the field file, or an image as the body',
            )
        file = opened.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115
        async for chunk in chunks():
            file.write(chunk)
        file.seek(0)
        return [('the body', file)]
    except ClientDisconnect:
        raise HTTPException(400, 'the request ended before it was whole') from None


async def _read_form(headers, chunks, limits, opened):
    try:
        form = await MultiPartParser(headers, chunks, max_files=limits.images, max_fields=100).parse()
    except MultiPartException as error:
        if error.message.startswith('Too many files'):
            raise HTTPException(413, f'more than {limits.images} images in a request') from None
        raise HTTPException(400, f'the multipart form is damaged: {error.message}') from None
    opened.push_async_callback(form.close)
    files = [(_short(part.filename), part.file) for part in form.getlist('file') if not isinstance(part, str)]
    if not files:
        raise HTTPException(400, 'no image in the field file of the form')
    return files


def _short(name):
    return name if len(name) <= 100 else f'{name[:99]}…'


def _busy(reason):
    return HTTPException(503, f'{reason}; try again', {'Retry-After': '1'})


def _token_check(token):
    """A dependency that lets a request with the token pass."""

    async def check(given: Annotated[Optional[HTTPAuthorizationCredentials], Depends(HTTPBearer(auto_error=False))]):
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            raise HTTPException(401, 'send the header Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'})

    return check


class Metrics:
    """What Prometheus asks for, and how many requests are in progress."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter('zodiac_requests', 'Requests to /predict', ['status'], registry=self.registry)
        self.seconds = Histogram('zodiac_request_seconds', 'Time of a request to /predict', registry=self.registry)
        self.images = Counter('zodiac_images', 'Images classified', registry=self.registry)
        self.batches = Histogram(
            'zodiac_batch_images',
            'Images a run of the network',
            buckets=[1, 2, 4, 8, 16, 32, 64],
            registry=self.registry,
        )
        self.progress = Gauge('zodiac_requests_in_progress', 'Requests not answered yet', registry=self.registry)
        self._admitted = 0

    @contextlib.contextmanager
    def admit(self, limit):
        """Count a request in and out. Raises HTTPException while there are `limit` of them."""
        if self._admitted >= limit:
            raise _busy(f'{limit} requests are in progress')
        self._admitted += 1
        self.progress.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= 1
            self.progress.set(self._admitted)


class Watch:
    """ASGI middleware: counts and times the requests to /predict."""

    def __init__(self, app, metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        if scope['type'] != 'http' or scope['path'] != '/predict':
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def note(message):
            nonlocal status
            status = message.get('status', status)
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            self.metrics.requests.labels(status).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)


def _page(model):
    """The page and its headers: nothing runs, and nothing is loaded, but what it holds itself."""
    with open(PAGE, encoding='utf-8') as file:
        page = (
            file.read().replace('{{ name }}', html.escape(model.name)).replace('{{ classes }}', str(len(model.labels)))
        )
    allowed = {
        kind: base64.b64encode(
            hashlib.sha256(re.search(f'<{tag}>(.*?)</{tag}>', page, re.S)[1].encode()).digest()
        ).decode()
        for kind, tag in (('script-src', 'script'), ('style-src', 'style'))
    }
    policy = [
        "default-src 'none'",
        'img-src blob: data:',
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    policy += [f"{kind} 'sha256-{digest}'" for kind, digest in allowed.items()]
    return page, {
        'Content-Security-Policy': '; '.join(policy),
        'X-Content-Type-Options': 'nosniff',
        'Referrer-Policy': 'no-referrer',
    }
