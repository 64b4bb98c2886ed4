"""The HTTP server: uvicorn, with an end to what slow or hostile clients would draw out."""

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
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from zodiac.base.errors import UserError
from zodiac.serving import access_log

WAIT_SECONDS = 10  # for the whole header of a request, for what is left of a body once it is answered, and for a reader
READ_SIZE = 1 << 15  # bytes at a time; asyncio's 256 KB, and the copies of them, would make BUFFERS four times as large
BUFFERS = 3 << 17  # bytes that a connection takes at most, beside the body that is kept of it
ALWAYS = ('/healthz', '/readyz')  # answered however many connections are open
HEADERS = [  # of every answer
    ('X-Content-Type-Options', 'nosniff'),
    ('Content-Security-Policy', "frame-ancestors 'none'"),
]


class Chunks(h11.Connection):
    """h11's side of a connection, which refuses a body in many tiny chunks: it spends as long on each as on 64 KB in one piece."""

    FREE, LEAST = 100, 64  # so many chunks may be of any size; with more their mean must have so many bytes
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
    """HTTP/1.1 that cuts a connection off which does not come to an end with a header, with a body that nobody reads, or with
    reading its answer.

    The time for a body that is read is the application's to limit, that between two requests uvicorn's timeout_keep_alive.
    """

    _deadline = None

    def __init__(self, *args, **others):
        super().__init__(*args, **others)
        self.conn = Chunks(h11.SERVER)

    def idle(self):
        """For how many seconds this connection has been kept for another request; 0 while there is one."""
        timer = self.timeout_keep_alive_task
        waits = timer is not None and not self.transport.is_closing()
        return self.loop.time() - (timer.when() - self.timeout_keep_alive) if waits else 0

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.max_size = READ_SIZE
        self._watch()

    def data_received(self, data):
        super().data_received(data)
        self._watch()

    def eof_received(self):
        self._start_watching()  # it is closed as soon as the rest of the answer has been read

    def send_400_response(self, msg):
        # in other states the answer has begun: another would be an error of ours
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps({'detail': msg}).encode()
            headers = [*HEADERS, ('Content-Type', 'application/json'), ('Content-Length', str(len(content)))]
            headers.append(('Connection', 'close'))
            answer = h11.Response(status_code=400, headers=headers, reason=HTTPStatus(400).phrase)
            for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            access_log.write(self.client, None, None, 400)
        self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the application answers now would be an error of ours, too
            self.cycle.message_event.set()

    def on_response_complete(self):
        self.cycle.body = bytearray()  # nobody reads it any more
        super().on_response_complete()
        self._watch()

    def pause_writing(self):
        super().pause_writing()
        self._watch()

    def resume_writing(self):
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc):
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self):
        theirs, answered = self.conn.their_state, self.conn.our_state is h11.DONE
        unread = self.flow.write_paused or self.transport.is_closing()
        # for the first header, or the rest of one
        awaited = theirs is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0])
        if unread or awaited or (theirs is h11.SEND_BODY and answered):
            self._start_watching()
        else:
            self._stop_watching()

    def _start_watching(self):
        if self._deadline is None:
            self._deadline = self.loop.call_later(WAIT_SECONDS, self.transport.abort)

    def _stop_watching(self):
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def guarded(app, is_full=lambda: False, is_leaving=lambda: False):
    """An ASGI application that answers as `app`, to all forms of a request that RFC 9110 and 9112 ask for.

    HEAD is answered as GET is, without the body (uvicorn leaves it out); a target may have a host in front; a header that leaves
    open how long the body is gets 400.
    While `is_full()` requests get 503, but for ALWAYS; while `is_leaving()` each connection ends with its answer, and /readyz is 503.
    """

    async def guard(scope, receive, send):
        if scope['type'] != 'http':
            await app(scope, receive, send)
            return
        path = _without_host(scope)
        scope = {**scope, 'path': path, 'method': 'GET' if scope['method'] == 'HEAD' else scope['method']}
        names = {name for name, _ in scope['headers']}
        answer = app
        if b'content-length' in names and b'transfer-encoding' in names:
            answer = _refusal(400, 'Content-Length and Transfer-Encoding in one request')
        elif is_leaving() and path == '/readyz':
            answer = _refusal(503, 'the server stops', {'Retry-After': '1'})
        elif path not in ALWAYS and is_full():
            answer = _refusal(503, 'too many connections are open; try again', {'Retry-After': '1'})
        await answer(scope, receive, _closing(send) if is_leaving() else send)

    return guard


def _without_host(scope):
    """The path of a request, also of one with a host (`GET http://host/path`; RFC 9112, 3.2.2)."""
    with_host = re.match(rb'https?://[^/]*', scope['raw_path'], re.IGNORECASE)
    if not with_host:
        return scope['path']
    return unquote(scope['raw_path'][with_host.end() :].decode('ascii')) or '/'


def _refusal(status, detail, headers=None):
    return JSONResponse({'detail': detail}, status, {'Connection': 'close', **(headers or {})})


def _closing(send):
    async def close(message):
        if message['type'] == 'http.response.start':
            headers = [header for header in message['headers'] if header[0] != b'connection']
            message = {**message, 'headers': [*headers, (b'connection', b'close')]}
        await send(message)

    return close


def bind(host, port):
    """A socket at an address, which does not listen yet. Raises UserError when the address cannot be had."""
    listener = None
    try:
        # the protocol is named: without it asyncio leaves out TCP_NODELAY, and each answer waits 40 ms for an acknowledgement
        known = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = known[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == 'posix':  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        raise _unavailable(host, port, error) from None


def listen(listener):
    """Let clients connect to a socket of `bind`. Raises UserError when another program was quicker."""
    try:
        listener.listen(1024)
    except OSError as error:
        raise _unavailable(*listener.getsockname()[:2], error) from None


def _unavailable(host, port, error):
    reason = getattr(error, 'strerror', None) or error
    return UserError(f'{host}:{port}: cannot listen there ({reason}); choose another --host or --port')


@dataclass
class Settings:
    """What `Server` does beside answering."""

    connections: int  # most open ones; with more, requests get 503
    keep_alive: float = 75  # seconds that a connection stays open for another request; more than a proxy in front has
    drain: float = 0  # seconds after SIGTERM in which all is answered still, but /readyz, which is 503
    stop: int = 30  # seconds that requests in progress then have to end
    proxies: Sequence[str] = ()  # addresses and networks, whose X-Forwarded-For is believed
    origins: Sequence[str] = ()  # of pages whose scripts may ask (CORS); '*' is all
    log: bool = False  # a line on stderr for each request


class Server(uvicorn.Server):
    """uvicorn with an ASGI application and our Settings."""

    def __init__(self, app, settings):
        app = guarded(app, self._is_full, lambda: self.should_exit)
        if settings.origins:
            methods, headers = ['GET', 'HEAD', 'POST'], ['Authorization', 'Content-Type']
            app = CORSMiddleware(app, settings.origins, methods, headers, expose_headers=['Retry-After'])
        config = uvicorn.Config(
            access_log.watch(app),
            http=Protocol,
            ws='none',
            lifespan='on',
            log_config=None,
            log_level='error',  # it warns of each request that is no HTTP
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
        """Whether there are too many connections, even once those that wait for another request are closed."""
        connections = self.server_state.connections
        excess = len(connections) - self._settings.connections
        if excess <= 0:
            return False
        kept = sorted((one for one in connections if one.idle() > 1), key=lambda one: one.idle(), reverse=True)
        for one in kept[:excess]:
            one.timeout_keep_alive_handler()
        return excess > len(kept)

    def handle_exit(self, sig, frame):
        self._at_once = sig == signal.SIGINT or self.should_exit
        super().handle_exit(sig, frame)

    async def on_tick(self, counter):
        """Whether to stop listening, asked ten times a second: `drain` seconds after SIGTERM, at once on Ctrl-C or a second one."""
        leaving = await super().on_tick(counter)
        if leaving and self._leaves is None:
            self._leaves = time.monotonic() + self._settings.drain
        return leaving and (self._at_once or time.monotonic() >= self._leaves)


def serve(app, listener, settings):
    """Answer requests until SIGINT or SIGTERM, with `Settings`, at a socket that listens. SIGHUP counts as SIGTERM."""
    if hasattr(signal, 'SIGHUP') and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    with access_log.to_stderr(settings.log):
        Server(app, settings).run(sockets=[listener])
