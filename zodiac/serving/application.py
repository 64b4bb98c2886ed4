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
import io
import os
import re
import threading
import time
from typing import Annotated, List, Optional, Union

from fastapi import Depends, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from prometheus_client import generate_latest
from pydantic import BaseModel

from zodiac.base import device
from zodiac.base.errors import UserError, one_line
from zodiac.images import decoding, transforms
from zodiac.inference import runtime
from zodiac.serving import uploads
from zodiac.serving.batcher import Batcher, NetworkError
from zodiac.serving.metrics import Metrics, Watch
from zodiac.serving.uploads import busy

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')


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
    415: 'The body is neither a multipart form nor an image, or has a Content-Encoding.',
    422: 'A file is no image that can be read, or a parameter is wrong.',
    500: 'The model failed on an image.',
    503: 'Too many requests at a time, or the server has no answer for now; try again.',
}
RETRY = {'Retry-After': {'description': 'Seconds after which to try again.', 'schema': {'type': 'integer'}}}

NO_TOKEN = {  # beside an answer that is text
    'description': PROBLEMS[401],
    'content': {'application/json': {'schema': {'$ref': '#/components/schemas/Problem'}}},
}


def _problems(*statuses):
    """What OpenAPI says of answers other than 200."""
    return {
        status: {'model': Problem, 'description': PROBLEMS[status], **({'headers': RETRY} if status == 503 else {})}
        for status in statuses
    }


def create(model, limits, batch=8, delay=0.002, token=None, warm_up=False):
    """The FastAPI application that answers with `model`.

    Args:
        model: zodiac.inference.runtime.Exported.
        limits: zodiac.serving.uploads.Limits.
        batch: most images a run of the network.
        delay: seconds that an image may wait for others to share its batch.
        warm_up: run the network once for each size of a batch, here and now.
        token: what clients must send as `Authorization: Bearer TOKEN`; None lets everybody in.
    Raises: UserError when the model fails to warm up.
    """
    metrics = Metrics()
    batcher = Batcher(model.predict, batch, delay, metrics.batches.observe)
    blank = transforms.apply(model.transform, Image.new('RGB', (64, 64)))
    if warm_up:
        _warm_up(batcher, blank, model)
    decoders = Decoders(model.transform, limits.pixels, device.cores())
    allowed = [Depends(_token_check(token))] if token else []
    admitted, memory = set(), uploads.Memory(limits.total)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.places = asyncio.Semaphore(4 * batch)  # for decoded images; the others wait as they came
        async with decoders, batcher:
            yield

    app = FastAPIOffline(
        title=model.name,
        description=f'Image classification. The {len(model.labels)} classes: {", ".join(model.labels[:100])}.',
        version='1',
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # it would send whoever asks to the host that their own header names
    )
    app.add_middleware(Watch, metrics=metrics)

    async def classify(name, file, top, turn):
        async with contextlib.AsyncExitStack() as held:
            async with turn:
                await held.enter_async_context(app.state.places)
                try:
                    with batcher.announced():
                        image = await decoders.read(file)
                except decoding.ImageError as error:
                    status = 413 if error.reason == decoding.TOO_MANY_PIXELS else 422
                    raise HTTPException(status, str(error).replace('image', name, 1)) from None
            try:
                probabilities = await batcher.predict(image)
            except NetworkError as error:
                raise HTTPException(500, f'{name}: {error}') from None
        metrics.images.inc()
        return runtime.as_dict(runtime.best(probabilities, model.labels, top))

    async def classify_all(files, top, seconds):
        turn = asyncio.Semaphore(
            device.cores()
        )  # so that the images of other requests need not wait for all of this one
        tasks = [asyncio.ensure_future(classify(name, file, top, turn)) for name, file in files]
        try:
            return await asyncio.wait_for(asyncio.gather(*tasks), seconds)
        except asyncio.TimeoutError:
            raise busy(f'no answer within {limits.seconds:g} seconds') from None
        finally:
            for task in tasks:  # once one has failed nobody waits for the others
                task.cancel()

    async def answer(request, top):
        """The predictions of the images of a request, all within the time limit."""
        end = time.monotonic() + limits.seconds
        with memory.upload() as upload:
            files = await uploads.read(request, limits, memory, upload)
            if len(admitted) >= limits.requests:
                raise busy(f'{limits.requests} requests are in progress')
            admitted.add(request)
            try:
                return await classify_all(files, top, end - time.monotonic())
            finally:
                admitted.remove(request)

    @app.post(
        '/predict',
        summary='Classify an image, or several',
        dependencies=allowed,
        openapi_extra=BODY,
        responses=_problems(*PROBLEMS),
    )
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, le=1000, description='How many labels an image.')] = 5
    ) -> Union[Prediction, Predictions]:
        """Send one image as the body, or one or more in the field `file` of a multipart form. The answer to one image is its
        prediction; to several, `predictions`, in their order."""
        predictions = await answer(request, top)
        return predictions[0] if len(predictions) == 1 else {'predictions': predictions}

    @app.get('/healthz', response_class=PlainTextResponse, summary='Whether the process answers')
    async def healthz():
        return PlainTextResponse('ok')

    @app.get('/readyz', responses=_problems(503), summary='Whether the model answers')
    async def readyz() -> Ready:
        trouble = decoders.trouble(limits.seconds) or batcher.trouble(limits.seconds)
        if trouble == batcher.FAILED:  # where nobody asks a server that is not ready, only this finds it ready again
            with contextlib.suppress(NetworkError, asyncio.TimeoutError):
                await asyncio.wait_for(batcher.predict(blank), limits.seconds)
            trouble = batcher.trouble(limits.seconds)
        if trouble:
            raise busy(trouble)
        return Ready(model=model.name, classes=len(model.labels))

    @app.get(
        '/metrics',
        dependencies=allowed,
        response_class=PlainTextResponse,
        responses={401: NO_TOKEN} if token else {},
        summary='Numbers for Prometheus',
    )
    async def show_metrics():
        return PlainTextResponse(generate_latest(metrics.registry), media_type='text/plain; version=0.0.4')

    @app.exception_handler(405)
    async def tell_methods(request, error):
        """405, but OPTIONS is answered by the methods that there are (RFC 9110, 9.3.7)."""
        methods = {method.strip() for method in (error.headers or {}).get('Allow', 'GET').split(',')} | {'OPTIONS'}
        allow = {'Allow': ', '.join(sorted(methods | {'HEAD'} if 'GET' in methods else methods))}
        return (
            Response(headers=allow)
            if request.method == 'OPTIONS'
            else JSONResponse({'detail': error.detail}, 405, allow)
        )

    @app.exception_handler(RequestValidationError)
    async def explain(request, error):
        text = '; '.join(f'{problem["loc"][-1]}: {problem["msg"]}' for problem in error.errors())
        return JSONResponse({'detail': text}, 422)

    page, headers = _page(model)

    @app.get('/', response_class=HTMLResponse, include_in_schema=False)
    async def show_page():
        return HTMLResponse(page, headers=headers)

    return app


def _warm_up(batcher, image, model):
    try:
        batcher.warm_up(image)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(
            f'{model.name}: {model.engine} cannot run it ({one_line(error)}); try another --engine, or export the model again'
        ) from error


class Decoders:
    """Threads that decode images."""

    def __init__(self, transform, max_pixels, count):
        self._transform, self._max_pixels, self._count = transform, max_pixels, count
        self._threads, self._started = None, {}  # since when each busy thread is at its image

    async def __aenter__(self):
        self._threads = concurrent.futures.ThreadPoolExecutor(self._count, 'decode')

    async def __aexit__(self, *_):
        self._threads.shutdown(wait=False, cancel_futures=True)  # one may be at an image for long

    async def read(self, content):
        """What the transform gives of an image; `content` is a function that gives the bytes of its file. Raises ImageError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, content)

    def trouble(self, seconds):
        """Why no image is decoded, a line, or None; an image may take `seconds`."""
        now = time.monotonic()
        stuck = [start for start in list(self._started.values()) if now - start > seconds]
        return f'images take more than {seconds:g} seconds to decode' if len(stuck) >= self._count else None

    def _read(self, content):
        thread = threading.get_ident()
        self._started[thread] = time.monotonic()
        try:
            return transforms.read(self._transform, io.BytesIO(content()), max_pixels=self._max_pixels)
        finally:
            del self._started[thread]


def _token_check(token):
    """A dependency that lets a request with the token pass."""

    async def check(given: Annotated[Optional[HTTPAuthorizationCredentials], Depends(HTTPBearer(auto_error=False))]):
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            raise HTTPException(401, 'send the header Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'})

    return check


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
        'Referrer-Policy': 'no-referrer',
    }
