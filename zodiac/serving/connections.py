"""The HTTP server: uvicorn, with timeouts and limits for slow or hostile clients.

`Protocol` subclasses uvicorn's own class, so requirements-serve.txt pins uvicorn's minor version; see
tests/serving/test_connections.py before raising it.
"""

import functools
import json
import os
import re
import signal
import socket
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Sequence
from urllib.parse import unquote

import h11
import uvicorn
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from zodiac.base.errors import UserError
from zodiac.serving import logs, tensors
from zodiac.serving.refusals import refusal

WAIT_SECONDS = 10  # to send a whole header, to send the rest of a body already answered, or to read an answer
READ_SIZE = 1 << 15  # bytes per read; with asyncio's 256 KB, BUFFERS would be four times as large
BUFFERS = 3 << 17  # bytes of memory per connection at most, besides the stored body
ALWAYS = re.compile('/healthz|/readyz|/v2/health/(live|ready)')  # answered even when too many connections are open
READY = re.compile('/readyz|/v2/health/ready|/v2/models/.*/ready')  # 503 once the server stops
HEADERS = [  # in every answer
    ('X-Content-Type-Options', 'nosniff'),
    ('Content-Security-Policy', "frame-ancestors 'none'"),
]


class Chunks(h11.Connection):
    """An h11 connection that refuses bodies in many tiny chunks: each costs h11 as much time as 64 KB in one piece."""

    FREE, LEAST = 100, 64  # chunks of any size; beyond that number, least mean size in bytes
    _count = _bytes = 0

    def next_event(self):
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._count = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._count += event.chunk_start
            self._bytes += len(event.data)
            if self._count > self.FREE + self._bytes // self.LEAST:
                raise h11.RemoteProtocolError('the chunks of the body are too small')
        return event


class Protocol(H11Protocol):
    """HTTP/1.1 that aborts connections which take too long to send a header or an unread body, or to read an answer.

    The application limits the time for a body that it reads; uvicorn's timeout_keep_alive that between two requests.
    """

    _deadline = None

    def __init__(self, *args, **others):
        super().__init__(*args, **others)
        self.conn = Chunks(h11.SERVER)

    def idle(self):
        """Seconds this connection has been idle; 0 while it has a request."""
        timer = self.timeout_keep_alive_task
        waits = timer is not None and not self.transport.is_closing()
        return self.loop.time() - (timer.when() - self.timeout_keep_alive) if waits else 0

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.max_size = READ_SIZE
        self._update_deadline()

    def data_received(self, data):
        super().data_received(data)
        self._update_deadline()

    def eof_received(self):
        self._start_deadline()  # asyncio closes it once the client has read the rest of the answer

    def send_400_response(self, msg):
        # in other states an answer has begun, and a second one would raise
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps({'detail': msg}).encode()
            headers = [*HEADERS, ('Content-Type', 'application/json'), ('Content-Length', str(len(content)))]
            headers.append(('Connection', 'close'))
            answer = h11.Response(status_code=400, headers=headers, reason=HTTPStatus(400).phrase)
            for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            logs.log_request(self.client, None, None, 400)
        self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True  # an answer of the application would raise, too
            self.cycle.message_event.set()

    def on_response_complete(self):
        self.cycle.body = bytearray()  # no longer needed
        super().on_response_complete()
        self._update_deadline()

    def pause_writing(self):
        super().pause_writing()
        self._update_deadline()

    def resume_writing(self):
        super().resume_writing()
        self._update_deadline()

    def connection_lost(self, exc):
        self._cancel_deadline()
        super().connection_lost(exc)

    def _update_deadline(self):
        theirs, answered = self.conn.their_state, self.conn.our_state is h11.DONE
        unread = self.flow.write_paused or self.transport.is_closing()
        # the first header, or the rest of one
        awaited = theirs is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0])
        if unread or awaited or (theirs is h11.SEND_BODY and answered):
            self._start_deadline()
        else:
            self._cancel_deadline()

    def _start_deadline(self):
        if self._deadline is None:
            self._deadline = self.loop.call_later(WAIT_SECONDS, self.transport.abort)

    def _cancel_deadline(self):
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def guarded(app, is_full=lambda: False, is_leaving=lambda: False, root=''):
    """`app`, an ASGI application, with the checks of RFC 9110 and 9112 and of the server's state.

    HEAD is answered like GET (uvicorn omits the body), a request target may be an absolute URL, and a request with both
    Content-Length and Transfer-Encoding gets 400. While `is_full()`, requests get 503, except for ALWAYS. While `is_leaving()`,
    each connection closes after its answer, and READY is 503. `root` is the path under which a proxy shows the server, which it
    may remove from a request or not; `app` gets it as ASGI's root_path.
    """

    async def guard(scope, receive, send):
        if scope['type'] != 'http':
            await app(scope, receive, send)
            return
        path = _without_host(scope)
        path = path[len(root) :] if path.startswith(f'{root}/') else path
        method = 'GET' if scope['method'] == 'HEAD' else scope['method']
        scope = {**scope, 'root_path': root, 'path': root + path, 'method': method}
        names = {name for name, _ in scope['headers']}
        answer, refused = app, functools.partial(_refused, scope)
        if b'content-length' in names and b'transfer-encoding' in names:
            answer = refused(400, 'Content-Length and Transfer-Encoding in one request')
        elif is_leaving() and READY.fullmatch(path):
            answer = refused(503, 'the server stops', {'Retry-After': '1'})
        elif not ALWAYS.fullmatch(path) and is_full():
            answer = refused(503, 'too many connections are open; try again', {'Retry-After': '1'})
        await answer(scope, receive, _closing(send) if is_leaving() else send)

    return guard


def _without_host(scope):
    """The path of a request, whose target may be a URL (`GET http://host/path`; RFC 9112, 3.2.2)."""
    with_host = re.match(rb'https?://[^/]*', scope['raw_path'], re.IGNORECASE)
    if not with_host:
        return scope['path']
    return unquote(scope['raw_path'][with_host.end() :].decode('ascii')) or '/'


def _refused(scope, status, reason, headers=None):
    return refusal(scope, status, reason, {'Connection': 'close', **(headers or {})})


def _closing(send):
    async def close(message):
        if message['type'] == 'http.response.start':
            headers = [header for header in message['headers'] if header[0] != b'connection']
            message = {**message, 'headers': [*headers, (b'connection', b'close')]}
        await send(message)

    return close


def bind(host, port):
    """A socket bound to an address, not listening yet. Raises UserError when the address is not available."""
    listener = None
    try:
        # with no protocol named, asyncio does not set TCP_NODELAY, and each answer waits 40 ms for an acknowledgement
        known = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = known[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == 'posix':  # on Windows it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        raise _unavailable(host, port, error) from None


def listen(listener):
    """Let clients connect to a socket from `bind`. Raises UserError when another program has taken the address."""
    try:
        listener.listen(1024)
    except OSError as error:
        raise _unavailable(*listener.getsockname()[:2], error) from None


def _unavailable(host, port, error):
    reason = getattr(error, 'strerror', None) or error
    return UserError(f'{host}:{port}: cannot listen there ({reason}); choose another --host or --port')


@dataclass
class Settings:
    """Settings of a `Server`."""

    connections: int  # largest number of open ones; with more, requests get 503
    keep_alive: float = 75  # seconds an idle connection stays open; must exceed that of a proxy in front
    drain: float = 0  # seconds after SIGTERM in which requests are accepted while /readyz is 503
    stop: int = 30  # seconds that requests in progress then have left
    proxies: Sequence[str] = ()  # addresses and networks whose X-Forwarded-For is trusted
    root: str = ''  # path under which a proxy shows the server
    origins: Sequence[str] = ()  # origins whose pages may call the server (CORS); '*' is all
    log: bool = False  # one line per request on stderr


class Server(uvicorn.Server):
    """uvicorn with an ASGI application and `Settings`."""

    def __init__(self, app, settings):
        app = guarded(app, self._is_full, lambda: self.should_exit, settings.root)
        if settings.origins:
            methods, headers = ['GET', 'HEAD', 'POST'], ['Authorization', 'Content-Type', tensors.HEADER]
            exposed = ['Retry-After', tensors.HEADER]
            app = CORSMiddleware(app, settings.origins, methods, headers, expose_headers=exposed)
        config = uvicorn.Config(
            logs.logged(app),
            http=Protocol,
            ws='none',
            lifespan='on',
            log_config=None,
            log_level='error',  # it warns about each request that is not HTTP
            access_log=False,
            server_header=False,
            headers=HEADERS,
            timeout_keep_alive=settings.keep_alive,
            timeout_graceful_shutdown=settings.stop,
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=list(settings.proxies),
        )
        super().__init__(config)
        self._settings, self._leaves, self._at_once = settings, None, False

    def _is_full(self):
        """Whether there are too many connections, even after closing idle ones."""
        connections = self.server_state.connections
        excess = len(connections) - self._settings.connections
        if excess <= 0:
            return False
        idle = sorted((one for one in connections if one.idle() > 1), key=lambda one: one.idle(), reverse=True)
        for one in idle[:excess]:
            one.timeout_keep_alive_handler()
        return excess > len(idle)

    def handle_exit(self, sig, frame):
        self._at_once = sig == signal.SIGINT or self.should_exit
        super().handle_exit(sig, frame)

    async def on_tick(self, counter):
        """Whether to stop listening; called ten times a second. `drain` seconds after SIGTERM; at once on Ctrl-C or a second signal."""
        leaving = await super().on_tick(counter)
        if leaving and self._leaves is None:
            self._leaves = time.monotonic() + self._settings.drain
        return leaving and (self._at_once or time.monotonic() >= self._leaves)


def serve(app, listener, settings):
    """Answer requests on a listening socket until SIGINT or SIGTERM. SIGHUP counts as SIGTERM."""
    if hasattr(signal, 'SIGHUP') and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    with logs.to_stderr(settings.log):
        Server(app, settings).run(sockets=[listener])
