"""The FastAPI application: its routes, and how it answers /predict.

No route takes a path or a URL: images come in the body of a request.
"""

import asyncio
import contextlib
import hmac
import time
from typing import Annotated, Optional, Union

from fastapi import Depends, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from prometheus_client import generate_latest

from zodiac.base import device
from zodiac.base.errors import UserError, one_line
from zodiac.images import decoding, transforms
from zodiac.inference import exported_model
from zodiac.serving import metrics, page, uploads
from zodiac.serving.batcher import Batcher, NetworkError
from zodiac.serving.decoders import Decoders
from zodiac.serving.schemas import BODY, NO_TOKEN, PROBLEMS, Prediction, Predictions, Ready, problems
from zodiac.serving.uploads import busy


def create(model, limits, batch=8, delay=0.002, token=None, warm_up=False):
    """The application that answers with `model`.

    Args:
        model: zodiac.inference.exported_model.ExportedModel.
        limits: zodiac.serving.uploads.Limits.
        batch: largest number of images per run of the network.
        delay: seconds an image may wait for others to share its batch.
        token: what clients must send as `Authorization: Bearer TOKEN`; None for no check.
        warm_up: run the network once for each batch size before returning.
    Raises: UserError when the model fails to warm up.
    """
    counts = metrics.Metrics()
    batcher = Batcher(model.answers, batch, delay, counts.batches.observe, lambda answer: answer.finite)
    blank = transforms.apply(model.transform, Image.new('RGB', (64, 64)))
    if warm_up:
        _warm_up(batcher, blank, model)
    decoders = Decoders(model.transform, limits.pixels, device.cores(), decoded=4 * batch)
    classifier = Classifier(model, limits, decoders, batcher, counts.images.inc)
    authorized = [Depends(_token_check(token))] if token else []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with decoders, batcher:
            yield

    app = FastAPIOffline(
        title=model.name,
        description=f'Image classification. The {len(model.labels)} classes: {", ".join(model.labels[:100])}.',
        version='1',
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # would redirect to the host in the request's own header
    )
    app.add_middleware(metrics.Middleware, metrics=counts)

    @app.post(
        '/predict',
        summary='Classify an image, or several',
        dependencies=authorized,
        openapi_extra=BODY,
        responses=problems(*PROBLEMS),
        response_model_exclude_unset=True,  # an export with reject.keep=0 does not tell known, score and set
    )
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, le=1000, description='Labels per image.')] = 5
    ) -> Union[Prediction, Predictions]:
        """Send one image as the body, or one or more in the field `file` of a multipart form. The answer to one image is its
        prediction; to several, `predictions` in the order of the request."""
        predictions = await classifier.answer(request, top)
        return predictions[0] if len(predictions) == 1 else {'predictions': predictions}

    @app.get('/healthz', response_class=PlainTextResponse, summary='Whether the process answers')
    async def healthz():
        return PlainTextResponse('ok')

    @app.get('/readyz', responses=problems(503), summary='Whether the model answers')
    async def readyz() -> Ready:
        trouble = decoders.trouble(limits.seconds) or batcher.trouble(limits.seconds)
        if (
            trouble == batcher.FAILED
        ):  # a server that is not ready gets no requests: only this shows that it works again
            with contextlib.suppress(NetworkError, asyncio.TimeoutError):
                await asyncio.wait_for(batcher.predict(blank), limits.seconds)
            trouble = batcher.trouble(limits.seconds)
        if trouble:
            raise busy(trouble)
        return Ready(model=model.name, classes=len(model.labels), engine=model.engine, precision=model.precision)

    @app.get(
        '/metrics',
        dependencies=authorized,
        response_class=PlainTextResponse,
        responses={401: NO_TOKEN} if token else {},
        summary='Prometheus metrics',
    )
    async def show_metrics():
        return PlainTextResponse(generate_latest(counts.registry), media_type='text/plain; version=0.0.4')

    html, headers = page.render(model, private=bool(token))

    @app.get('/', response_class=HTMLResponse, include_in_schema=False)
    async def show_page():
        return HTMLResponse(html, headers=headers)

    @app.exception_handler(405)
    async def list_methods(request, error):
        """405, but OPTIONS is answered with the allowed methods (RFC 9110, 9.3.7)."""
        methods = {method.strip() for method in (error.headers or {}).get('Allow', 'GET').split(',')} | {'OPTIONS'}
        allow = {'Allow': ', '.join(sorted(methods | {'HEAD'} if 'GET' in methods else methods))}
        if request.method == 'OPTIONS':
            return Response(headers=allow)
        return JSONResponse({'detail': error.detail}, 405, allow)

    @app.exception_handler(RequestValidationError)
    async def explain(request, error):
        text = '; '.join(f'{problem["loc"][-1]}: {problem["msg"]}' for problem in error.errors())
        return JSONResponse({'detail': text}, 422)

    return app


class Classifier:
    """Answers requests to /predict: reads the upload, decodes its images and classifies them, within the limits.

    `on_image` is called for each image that was classified.
    """

    def __init__(self, model, limits, decoders, batcher, on_image):
        self._model, self._limits, self._decoders, self._batcher = model, limits, decoders, batcher
        self._on_image = on_image
        self._memory, self._in_progress = uploads.Memory(limits.total), set()

    async def answer(self, request, top):
        """One dict per image, as `exported_model.as_dict` returns it, within the time limit. Raises HTTPException."""
        end = time.monotonic() + self._limits.seconds
        with self._memory.upload() as upload:
            files = await uploads.read(request, self._limits, self._memory, upload)
            if len(self._in_progress) >= self._limits.requests:
                raise busy(f'{self._limits.requests} requests are in progress')
            self._in_progress.add(request)
            try:
                return await self._classify_all(files, top, end - time.monotonic())
            finally:
                self._in_progress.remove(request)

    async def _classify_all(self, files, top, seconds):
        turn = asyncio.Semaphore(device.cores())  # leaves room for the images of other requests
        tasks = [asyncio.ensure_future(self._classify(name, file, top, turn)) for name, file in files]
        try:
            return await asyncio.wait_for(asyncio.gather(*tasks), seconds)
        except asyncio.TimeoutError:
            raise busy(f'no answer within {self._limits.seconds:g} seconds') from None
        finally:
            for task in tasks:  # if one has failed, the others are of no use
                task.cancel()

    async def _classify(self, name, file, top, turn):
        async with contextlib.AsyncExitStack() as held:
            async with turn:
                await held.enter_async_context(self._decoders.places)
                try:
                    with self._batcher.announced():
                        image = await self._decoders.read(file)
                except decoding.ImageError as error:
                    status = 413 if error.reason == decoding.TOO_MANY_PIXELS else 422
                    raise HTTPException(status, str(error).replace('image', name, 1)) from None
            try:
                answer = await self._batcher.predict(image)
            except NetworkError as error:
                raise HTTPException(500, f'{name}: {error}') from None
        self._on_image()
        guesses = exported_model.top_labels(answer.probabilities, self._model.labels, top)
        return exported_model.as_dict(guesses, answer, self._model)


def _warm_up(batcher, image, model):
    try:
        batcher.warm_up(image)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(
            f'{model.name}: {model.engine} cannot run it ({one_line(error)}); try another --engine, or export the model again'
        ) from error


def _token_check(token):
    """A dependency that raises HTTPException for a request without the token."""

    async def check(given: Annotated[Optional[HTTPAuthorizationCredentials], Depends(HTTPBearer(auto_error=False))]):
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            raise HTTPException(401, 'send the header Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'})

    return check
