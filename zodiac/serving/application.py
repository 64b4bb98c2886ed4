"""The FastAPI application: its routes. Those of the Open Inference Protocol are in open_inference.py.

No route takes a path or a URL: images come in the body of a request.
"""

import contextlib
import hmac
from typing import Annotated, Optional, Union

from fastapi import Depends, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException

from zodiac.base import device
from zodiac.serving import metrics, open_inference
from zodiac.serving.classifier import Classifier
from zodiac.serving.decoders import Decoders
from zodiac.serving.refusals import refusal
from zodiac.serving.schemas import BODY, NO_TOKEN, PROBLEMS, Prediction, Predictions, Ready, problems
from zodiac.serving.uploads import busy


def create(models, limits, token=None, watch=0):
    """The application that answers with `models`.

    Args:
        models: zodiac.serving.models.Models.
        limits: zodiac.serving.uploads.Limits.
        token: what clients must send as `Authorization: Bearer TOKEN`; None for no check.
        watch: seconds between two looks for new exports; 0 for none.
    """
    decoders = Decoders(device.cores())
    classifier = Classifier(limits, decoders, models.counts)
    authorized = [Depends(_token_check(token))] if token else []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with decoders:
            await models.start(watch, private=bool(token))
            try:
                yield
            finally:
                await models.stop()

    app = FastAPIOffline(
        title=', '.join(models.names),
        description='Image classification. `/v2/models/NAME` names the classes of a model.',
        version='1',
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # would redirect to the host in the request's own header
    )
    app.add_middleware(metrics.Middleware, metrics=models.counts)

    async def classify(request, name, top):
        with models.use(name) as served:
            request.state.served = served
            predictions = await classifier.predict(request, served, top)
        return predictions[0] if len(predictions) == 1 else {'predictions': predictions}

    about = {
        'dependencies': authorized,
        'openapi_extra': BODY,
        'response_model_exclude_unset': True,  # an export with reject.keep=0 does not tell known, score and set
    }
    Top = Annotated[int, Query(ge=1, le=1000, description='Labels per image.')]

    @app.post('/predict', summary='Classify an image, or several', responses=problems(*PROBLEMS), **about)
    async def predict(request: Request, top: Top = 5) -> Union[Prediction, Predictions]:
        """Send one image as the body, or one or more in the field `file` of a multipart form. The answer to one image is its
        prediction; to several, `predictions` in the order of the request."""
        return await classify(request, None, top)

    @app.post('/models/{name}/predict', summary='The same, by a model', responses=problems(404, *PROBLEMS), **about)
    async def predict_by(request: Request, name: str, top: Top = 5) -> Union[Prediction, Predictions]:
        return await classify(request, name, top)

    async def trouble(served=None):
        return decoders.trouble(limits.seconds) or await (served or models).trouble(limits.seconds)

    @app.get('/healthz', response_class=PlainTextResponse, summary='Whether the process answers')
    async def healthz():
        return PlainTextResponse('ok')

    @app.get('/readyz', responses=problems(503), summary='Whether all models answer')
    async def readyz() -> Ready:
        reason = await trouble()
        if reason:
            raise busy(reason)
        served = models.get()
        model = served.model
        return Ready(
            model=served.name,
            version=served.version,
            classes=len(model.labels),
            engine=model.engine,
            precision=model.precision,
        )

    @app.get(
        '/metrics',
        dependencies=authorized,
        response_class=PlainTextResponse,
        responses={401: NO_TOKEN} if token else {},
        summary='Prometheus metrics',
    )
    async def show_metrics():
        return PlainTextResponse(generate_latest(models.counts.registry), media_type='text/plain; version=0.0.4')

    @app.get('/', response_class=HTMLResponse, include_in_schema=False)
    async def show_page():
        html, headers = models.get().pages['']
        return HTMLResponse(html, headers=headers)

    @app.get('/models/{name}/', response_class=HTMLResponse, include_in_schema=False)
    async def show_page_of(name: str):
        html, headers = models.get(name).pages['../../']
        return HTMLResponse(html, headers=headers)

    app.include_router(open_inference.router(models, classifier, trouble, authorized))
    _explain_refusals(app)
    return app


def _explain_refusals(app):
    @app.exception_handler(StarletteHTTPException)
    async def refuse(request, error):
        return refusal(request.scope, error.status_code, error.detail, error.headers)

    @app.exception_handler(405)
    async def list_methods(request, error):
        """405, but OPTIONS is answered with the allowed methods (RFC 9110, 9.3.7)."""
        methods = {method.strip() for method in (error.headers or {}).get('Allow', 'GET').split(',')} | {'OPTIONS'}
        allow = {'Allow': ', '.join(sorted(methods | {'HEAD'} if 'GET' in methods else methods))}
        if request.method == 'OPTIONS':
            return Response(headers=allow)
        return refusal(request.scope, 405, error.detail, allow)

    @app.exception_handler(RequestValidationError)
    async def explain(request, error):
        text = '; '.join(f'{problem["loc"][-1]}: {problem["msg"]}' for problem in error.errors())
        return refusal(request.scope, 422, text)


def _token_check(token):
    """A dependency that raises HTTPException for a request without the token."""

    async def check(given: Annotated[Optional[HTTPAuthorizationCredentials], Depends(HTTPBearer(auto_error=False))]):
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            raise HTTPException(401, 'send the header Authorization: Bearer TOKEN', {'WWW-Authenticate': 'Bearer'})

    return check
