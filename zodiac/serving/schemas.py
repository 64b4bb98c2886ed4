"""The APIs as /openapi.json describes them: bodies of requests and answers, and the error statuses."""

from typing import Any, Dict, List, Optional

from pydantic import BaseModel, Field


class Guess(BaseModel):
    label: str
    probability: float


class Prediction(Guess):
    """The most probable label of an image; `top`, the most probable ones in order; and what ran the model. Models that were exported with
    reject.keep also tell whether the image is like those they were trained on, and a set of labels."""

    known: bool = Field(None, description='Whether the image is like the training photos; false: none of the classes.')
    score: float = Field(None, description='How much it is like them: known from 0 on.')
    set: List[str] = Field(
        None, description='Labels that hold the right one of a known image, the most probable first.'
    )
    top: List[Guess]
    engine: str
    precision: str


class Predictions(BaseModel):
    """Several images, in the order of the request."""

    predictions: List[Prediction]


class Problem(BaseModel):
    detail: str


class Ready(BaseModel):
    """The first model of the server."""

    model: str
    version: str
    classes: int
    engine: str
    precision: str


BINARY = {'type': 'string', 'format': 'binary'}
FORM = {
    'type': 'object',
    'required': ['file'],
    'properties': {'file': {'type': 'array', 'minItems': 1, 'items': BINARY}},
}
BODY = {
    'requestBody': {
        'required': True,
        'content': {
            'multipart/form-data': {'schema': FORM},
            **{kind: {'schema': BINARY} for kind in ('image/*', 'application/octet-stream')},
        },
    }
}
PROBLEMS = {
    400: 'The body is not a valid multipart form, or has no image in the field `file`.',
    401: 'The token is missing or wrong.',
    408: 'The request took too long to arrive.',
    413: 'The body, the number of images or an image exceeds the limit.',
    415: 'The body is neither a multipart form nor an image, or has a Content-Encoding.',
    422: 'A file is not a readable image, or a parameter is wrong.',
    500: 'The model failed on an image.',
    503: 'Too many requests, or no answer in time; try again.',
}
NO_MODEL = 'There is no such model, or version of it.'
RETRY = {'Retry-After': {'description': 'Seconds to wait before trying again.', 'schema': {'type': 'integer'}}}
NO_TOKEN = {  # 401 of a route whose other answers are text
    'description': PROBLEMS[401],
    'content': {'application/json': {'schema': {'$ref': '#/components/schemas/Problem'}}},
}


def problems(*statuses):
    """The OpenAPI responses for error statuses."""
    return {
        status: {
            'model': Problem,
            'description': PROBLEMS.get(status, NO_MODEL),
            **({'headers': RETRY} if status == 503 else {}),
        }
        for status in statuses
    }


class Server(BaseModel):
    name: str
    version: str
    extensions: List[str]


class Live(BaseModel):
    live: bool


class ServerReady(BaseModel):
    ready: bool


class ModelReady(ServerReady):
    name: str


class Names(BaseModel):
    models: List[str]


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: List[int]
    parameters: Optional[Dict[str, Any]] = None


class Model(BaseModel):
    """A model; `inputs` may also be a tensor of the shape in `parameters`, which also hold the labels in the order of the classes."""

    name: str
    versions: List[str]
    platform: str
    inputs: List[Tensor]
    outputs: List[Tensor]


class Error(BaseModel):
    error: str


REFUSED = {
    **PROBLEMS,
    400: 'The body is not a request of the protocol, or a file is not a readable image.',
    413: 'The body, the number of images or values, or an image exceeds the limit.',
    415: 'The body has a Content-Encoding.',
}
PARAMETERS = {'type': 'object'}
TENSOR = {
    'type': 'object',
    'required': ['name', 'shape', 'datatype'],
    'properties': {
        'name': {'type': 'string'},
        'shape': {'type': 'array', 'items': {'type': 'integer'}},
        'datatype': {'type': 'string'},
        'parameters': PARAMETERS,
        'data': {'type': 'array'},
    },
}
WANTED = {
    'type': 'object',
    'required': ['name'],
    'properties': {'name': {'type': 'string'}, 'parameters': PARAMETERS},
}
INFER = {
    'requestBody': {
        'required': True,
        'content': {
            'application/json': {
                'schema': {
                    'type': 'object',
                    'required': ['inputs'],
                    'properties': {
                        'id': {'type': 'string'},
                        'parameters': PARAMETERS,
                        'inputs': {'type': 'array', 'minItems': 1, 'maxItems': 1, 'items': TENSOR},
                        'outputs': {'type': 'array', 'items': WANTED},
                    },
                }
            },
            'application/octet-stream': {'schema': BINARY},
        },
    }
}
ANSWER = {
    200: {
        'description': "The outputs; with binary data, in Triton's binary form.",
        'content': {
            'application/json': {
                'schema': {
                    'type': 'object',
                    'required': ['model_name', 'model_version', 'outputs'],
                    'properties': {
                        'id': {'type': 'string'},
                        'model_name': {'type': 'string'},
                        'model_version': {'type': 'string'},
                        'outputs': {'type': 'array', 'items': TENSOR},
                    },
                }
            },
            'application/octet-stream': {'schema': BINARY},
        },
    }
}


def errors(*statuses):
    """As `problems`, for the routes of the Open Inference Protocol."""
    return {
        status: {**about, 'model': Error, 'description': REFUSED.get(status, NO_MODEL)}
        for status, about in problems(*statuses).items()
    }
