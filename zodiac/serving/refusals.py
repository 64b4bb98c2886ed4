"""How a request is refused, in the form of the API that it was for."""

import re

from starlette.responses import JSONResponse

PREDICTIONS = re.compile(r'(/models/[^/]+)?/predict|/v2/models/[^/]+(/versions/[^/]+)?/infer')  # paths of both APIs


def path_of(scope):
    """The path of an ASGI request, below the path under which a proxy shows the server."""
    return scope['path'][len(scope.get('root_path', '')) :]


def refusal(scope, status, reason, headers=None):
    """The answer to an ASGI request that is refused: {"error": reason} below /v2, as the Open Inference Protocol has it, else
    {"detail": reason}."""
    name = 'error' if re.match('/v2(/|$)', path_of(scope)) else 'detail'
    return JSONResponse({name: reason}, status, headers)
