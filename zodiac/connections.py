"""The HTTP server: uvicorn, with an end to what slow or hostile clients would draw out."""

import logging
import os
import socket

import h11
import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from zodiac.errors import UserError

WAIT_SECONDS = 10  # for the whole header of a request, for what is left of a body once it is answered, and for a reader
ALWAYS = ('/healthz', '/readyz')  # answered however many connections are open


class Protocol(H11Protocol):
    """HTTP/1.1 that cuts a connection off which does not come to an end with a header, with a body that nobody reads, or with
    reading its answer.

    The time for a body that is read is the application's to limit.
    """

    _deadline = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._watch()

    def data_received(self, data):
        super().data_received(data)
        self._watch()

    def eof_received(self):
        self._start_watching()  # it is closed as soon as the rest of the answer has been read

    def send_400_response(self, msg):
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()  # the answer has begun: another would be an error of ours
        if self.cycle is not None:
            self.cycle.disconnected = True  # and so would be that of the application now
            self.cycle.message_event.set()

    def on_response_complete(self):
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
        if unread or theirs is h11.IDLE or (theirs is h11.SEND_BODY and answered):
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


def guarded(app, is_full):
    """An ASGI application that answers as `app`; with 503 while `is_full()`, but for ALWAYS; with 400 where a header leaves open
    how long the body is (RFC 9112, 6.1)."""

    async def guard(scope, receive, send):
        if scope['type'] == 'http':
            names = {name for name, _ in scope['headers']}
            if b'content-length' in names and b'transfer-encoding' in names:
                refusal = _refusal(400, 'Content-Length and Transfer-Encoding in one request')
                await refusal(scope, receive, send)
                return
            if scope['path'] not in ALWAYS and is_full():
                refusal = _refusal(503, 'too many connections are open; try again', {'Retry-After': '1'})
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return guard


def _refusal(status, detail, headers=None):
    return JSONResponse(
        {'detail': detail}, status, {'Connection': 'close', 'X-Content-Type-Options': 'nosniff', **(headers or {})}
    )


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


def serve(app, listener, connections, stop_seconds):
    """Answer requests until SIGINT or SIGTERM; those in progress then have `stop_seconds` to end.

    Args:
        app: ASGI application.
        listener: socket that listens.
        connections: most open ones; with more, requests get 503.
    """
    settings = uvicorn.Config(
        guarded(app, lambda: len(server.server_state.connections) > connections),
        http=Protocol,
        ws='none',
        lifespan='on',
        log_level='error',  # it warns of each request that is no HTTP
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_seconds,
    )
    logging.getLogger('python_multipart').setLevel(logging.ERROR)  # it warns of each damaged form
    server = uvicorn.Server(settings)
    server.run(sockets=[listener])
