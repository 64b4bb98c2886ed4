"""The local page on which people decide: one user, this machine only. Each decision is on the disk before it is answered.

Other pages in the same browser must neither read nor write here. So every address begins with a random token, which only the printed
address has; requests for another host name (DNS rebinding) or from another origin are refused; there is no CORS. No request names a file:
photos have numbers.
"""

import hmac
import io
import json
import os
import secrets
from dataclasses import dataclass

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image, ImageOps
from starlette.concurrency import run_in_threadpool

from zodiac.base.errors import UserError
from zodiac.data import corrections
from zodiac.images import decoding
from zodiac.pages import render
from zodiac.review import listing
from zodiac.serving import connections, page

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'decide.html')
LARGE, SMALL = 1600, 320  # most pixels per side of a photo
BODY = 1 << 14  # bytes of a request
CONNECTIONS = 64


@dataclass(frozen=True)
class Review:
    """What the page shows.

    `items`: list of dicts: number (of a photo), path, kind (see listing), label ('' for a new photo), suggested, top ([class,
    probability] pairs), near ([class, numbers of photos] pairs), twin (number of a photo, or None).
    """

    name: str  # of the run
    root: str  # data.root, in which the decisions are kept
    classes: list  # of names
    items: list
    paths: list  # of all photos that are shown, by number

    def state(self):
        """JSON-ready: classes, items with the newest decision on each: {action, label, reason, line}, or None."""
        decided = corrections.read(self.root)
        items = [{**item, 'decision': _as_dict(decided.get(item['path']))} for item in self.items]
        return {'name': self.name, 'classes': self.classes, 'items': items}

    def decide(self, wanted):
        """Add a decision; returns it as a dict. Raises ValueError for one that makes no sense, Conflict and UserError as
        `corrections.append`.

        Args:
            wanted: dict of number, action, label, reason, seen (line of the newest decision that the page knows, 0 for none).
        """
        item = next((item for item in self.items if item['number'] == wanted.get('number')), None)
        action, label, reason, seen = (wanted.get(name) for name in ('action', 'label', 'reason', 'seen'))
        if item is None:
            raise ValueError('no such photo')
        if action not in (
            ('label', 'drop', 'undo') if item['kind'] == listing.NEW else ('keep', 'relabel', 'drop', 'undo')
        ):
            raise ValueError('no such action')
        if action in corrections.WITH_LABEL and label not in self.classes:
            raise ValueError('no such class')
        if not isinstance(reason, str) or type(seen) is not int:
            raise ValueError('reason must be a text, seen a number')
        label = label if action in corrections.WITH_LABEL else ''
        return _as_dict(corrections.append(self.root, item['path'], action, label, item['label'], reason, seen))


def _as_dict(decision):
    if decision is None:
        return None
    return {name: getattr(decision, name) for name in ('action', 'label', 'reason', 'line')}


def create(review, token, hosts, language=None):
    """The application.

    Args:
        review: a Review; token: what every address begins with.
        hosts: host:port names by which this server may be called.
        language: as for `render.render`.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    html = render.render(PAGE, language, name=review.name)
    headers = {
        **page.headers(html, "'self'"),
        'Cache-Control': 'no-store',
        'Cross-Origin-Resource-Policy': 'same-origin',
    }

    @app.get('/')
    def show():
        return HTMLResponse(html, headers=headers)

    @app.get('/state')
    def state():
        return JSONResponse(review.state(), headers=headers)

    @app.get('/photo/{number}')
    def photo(number: int, small: bool = False):
        if not 0 <= number < len(review.paths):
            raise HTTPException(404, 'no such photo')
        try:
            content = picture(review.paths[number], SMALL if small else LARGE)
        except decoding.ImageError as error:
            raise HTTPException(404, str(error)) from None
        return Response(content, media_type='image/jpeg', headers={**headers, 'Cache-Control': 'private, max-age=600'})

    @app.post('/decide')
    async def decide(request: Request):
        wanted = await _json(request)
        try:
            return JSONResponse(await run_in_threadpool(review.decide, wanted), headers=headers)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except corrections.Conflict as error:
            return JSONResponse({'decision': _as_dict(error.decision)}, 409, headers)

    @app.exception_handler(UserError)
    async def explain(request, error):
        return JSONResponse({'detail': str(error)}, 500, headers)

    return guarded(app, token, hosts)


async def _json(request):
    """The body of a request, a JSON object of at most BODY bytes. Raises HTTPException."""
    content = b''
    async for part in request.stream():
        content += part
        if len(content) > BODY:
            raise HTTPException(413, 'the request is too large')
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HTTPException(422, 'the request must be a JSON object')
    return found


def guarded(app, token, hosts):
    """`app`, an ASGI application, only for requests that come from its own page; for `hosts` and `token` see `create`."""
    names = {host.encode() for host in hosts}
    origins = {b'http://' + name for name in names}
    start = f'/{token}/'

    async def guard(scope, receive, send):
        if scope['type'] != 'http':
            await app(scope, receive, send)
            return
        refused, path = '', scope['path']
        given = dict(scope['headers'])
        if given.get(b'host') not in names:
            refused = 'this host name is not served'
        elif given.get(b'origin', min(origins)) not in origins or given.get(b'sec-fetch-site') == b'cross-site':
            refused = 'requests of other pages are refused'
        elif scope['method'] == 'POST' and (
            b'origin' not in given or given.get(b'content-type') != b'application/json'
        ):
            refused = 'only the page itself can decide'
        elif not hmac.compare_digest(path[: len(start)].encode(), start.encode()):
            refused = 'open the address that zodiac review has printed'
        if refused:
            await JSONResponse({'detail': refused}, 403)(scope, receive, send)
        else:
            path = path[len(start) - 1 :]
            await app({**scope, 'path': path, 'raw_path': path.encode()}, receive, send)

    return guard


def picture(path, side):
    """A photo as JPEG, upright, at most `side` pixels per side. Raises ImageError."""
    image = decoding.decode(path)
    if max(image.size) > side:
        image = ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=88)
    return buffer.getvalue()


def serve(review, port, language, say):
    """Serve until a signal arrives.

    Args:
        port: 0 picks a free one; say: called with the address. Raises UserError where the port is taken.
    """
    listener = connections.bind('127.0.0.1', port)
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    app = create(review, token, [f'127.0.0.1:{port}', f'localhost:{port}'], language)
    connections.listen(listener)
    say(f'http://127.0.0.1:{port}/{token}/')
    connections.serve(app, listener, connections.Settings(connections=CONNECTIONS, stop=5))
