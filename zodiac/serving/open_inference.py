"""The Open Inference Protocol (KServe v2) over HTTP, with Triton's binary data and classification: routes below /v2.

What the bodies hold is in tensors.py.
"""

from typing import Optional

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

import zodiac
from zodiac.serving import schemas, tensors
from zodiac.serving.uploads import busy

EXTENSIONS = ['binary_tensor_data', 'classification']
VERSIONS = ('/v2/models/{name}', '/v2/models/{name}/versions/{version}')


def router(models, classifier, trouble, authorized):
    """The routes.

    Args:
        models: models.Models.
        classifier: Classifier.
        trouble: coroutine function, a models.Served or None for all -> why it does not answer, or None.
        authorized: dependencies of the routes that need the token.
    """
    routes = APIRouter(tags=['Open Inference Protocol'])

    @routes.get('/v2', summary='Name, version and extensions of the server')
    async def server() -> schemas.Server:
        return schemas.Server(name='zodiac', version=zodiac.__version__, extensions=EXTENSIONS)

    @routes.get('/v2/health/live', summary='Whether the process answers')
    async def live() -> schemas.Live:
        return schemas.Live(live=True)

    @routes.get('/v2/health/ready', responses=schemas.errors(503), summary='Whether all models answer')
    async def ready() -> schemas.ServerReady:
        await require(None)
        return schemas.ServerReady(ready=True)

    @routes.get('/v2/models', summary='The names of the models')
    async def names() -> schemas.Names:
        return schemas.Names(models=models.names)

    async def model(name: str, version: Optional[str] = None) -> schemas.Model:
        return describe(models, models.get(name, version))

    async def model_ready(name: str, version: Optional[str] = None) -> schemas.ModelReady:
        await require(models.get(name, version))
        return schemas.ModelReady(name=name, ready=True)

    async def infer(request: Request, name: str, version: Optional[str] = None):
        """The input `image` is BYTES [N], image files, which are base64 text in JSON; or a tensor as the network takes it."""
        with models.use(name, version) as served:
            request.state.served = served
            asked, answers = await classifier.infer(request, served)
            content, start = tensors.answer(asked, answers, served)
        if start == len(content):
            return Response(content, media_type='application/json')
        return Response(content, headers={tensors.HEADER: str(start)}, media_type='application/octet-stream')

    async def require(served):
        reason = await trouble(served)
        if reason:
            raise busy(reason)

    for path in VERSIONS:
        routes.get(
            path,
            responses=schemas.errors(404),
            response_model_exclude_none=True,
            summary='Inputs and outputs of a model',
        )(model)
        routes.get(f'{path}/ready', responses=schemas.errors(404, 503), summary='Whether a model answers')(model_ready)
        routes.post(
            f'{path}/infer',
            dependencies=authorized,
            openapi_extra=schemas.INFER,
            responses=schemas.ANSWER | schemas.errors(400, 401, 404, 408, 413, 415, 500, 503),
            response_class=JSONResponse,
            summary='Classify images',
        )(infer)
    return routes


def describe(models, served):
    """The metadata of a model."""
    tensor = {'datatype': tensors.DATATYPES[served.blank.dtype.name], 'shape': [-1, *served.blank.shape]}
    outputs = [
        {
            'name': name,
            'datatype': kind,
            'shape': shape,
            **({'parameters': {'labels': served.model.labels}} if shape[1:] else {}),
        }
        for name, kind, shape in tensors.outputs(served.model)
    ]
    return schemas.Model(
        name=served.name,
        versions=models.versions(served.name),
        platform=f'zodiac_{served.model.engine}',
        inputs=[{'name': tensors.INPUT, 'datatype': 'BYTES', 'shape': [-1], 'parameters': {'tensor': tensor}}],
        outputs=outputs,
    )
