"""The HTTP server: uvicorn, with an end to what slow or hostile clients would draw out."""

import os
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from zodiac.errors import UserError

WAIT_SECONDS = 10  # for the whole header of a request, and for what is left of a body once it is answered


class Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection which does not come to an end with a header, or with a body that nobody reads.

    The time for a body that is read is the application's to limit.
    """

    _deadline = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._watch()

    def data_received(self, data):
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc):
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self):
        theirs, answered = self.conn.their_state, self.conn.our_state is h11.DONE
        if theirs is not h11.IDLE and not (theirs is h11.SEND_BODY and answered):
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(WAIT_SECONDS, self.transport.close)

    def _stop_watching(self):
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def listen(host, port):
    """A listening socket. Raises UserError when the address cannot be had."""
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
        listener.listen(1024)
        return listener
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        raise UserError(
            f'{host}:{port}: cannot listen there ({getattr(error, "strerror", None) or error}); choose another --host or --port'
        ) from None


def serve(app, listener, connections, stop_seconds):
    """Answer requests until SIGINT or SIGTERM; those in progress then have `stop_seconds` to end.

    Args:
        app: ASGI application.
        listener: socket of `listen`.
        connections: most open ones; more get 503.
    """
    settings = uvicorn.Config(
        app,
        http=Protocol,
        ws='none',
        lifespan='on',
        log_level='warning',
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=stop_seconds,
    )
    uvicorn.Server(settings).run(sockets=[listener])
