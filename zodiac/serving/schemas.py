"""The API as /openapi.json describes it: bodies of requests and answers, and the error statuses."""

from typing import List

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
    model: str
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
RETRY = {'Retry-After': {'description': 'Seconds to wait before trying again.', 'schema': {'type': 'integer'}}}
NO_TOKEN = {  # 401 of a route whose other answers are text
    'description': PROBLEMS[401],
    'content': {'application/json': {'schema': {'$ref': '#/components/schemas/Problem'}}},
}


def problems(*statuses):
    """The OpenAPI responses for error statuses."""
    return {
        status: {'model': Problem, 'description': PROBLEMS[status], **({'headers': RETRY} if status == 503 else {})}
        for status in statuses
    }
