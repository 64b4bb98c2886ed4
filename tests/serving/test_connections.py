"""Timeouts and limits of connections, over real sockets, in this process."""

import asyncio
import contextlib
import inspect
import re
import socket
import threading
import time

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from small_server import limits, picture_of, receive_to, received_of, served

httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
uvicorn = pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle  # noqa: E402

from zodiac.serving import application, connections, uploads  # noqa: E402

ATTRIBUTES = {'conn', 'flow', 'cycle', 'client', 'loop', 'transport', 'timeout_keep_alive', 'timeout_keep_alive_task'}
ASK = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
BROKEN = b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
HEAD = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n'


def parameters(function):
    return [*inspect.signature(function).parameters]


def test_uvicorn_is_within_its_pin_and_has_what_the_subclasses_rely_on():
    lines = (ROOT / 'requirements-serve.txt').read_text(encoding='utf-8').splitlines()
    pins = [Requirement(line.partition('#')[0]) for line in lines if line.startswith('uvicorn')]
    for pin in pins:
        high, low = re.fullmatch(r'<0\.(\d+),>=0\.(\d+)', str(pin.specifier)).groups()
        assert int(high) == int(low) + 1, 'one minor version'
    (pin,) = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert uvicorn.__version__ in pin.specifier
    for ours, theirs in ((connections.Protocol, H11Protocol), (connections.Server, uvicorn.Server)):
        overridden = [name for name in vars(ours) if not name.startswith('_') and name != 'idle']
        assert len(overridden) >= 2
        for name in overridden:
            assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name)), name
    assert set(H11Protocol.__init__.__code__.co_names) >= ATTRIBUTES
    assert {*RequestResponseCycle.__init__.__code__.co_names} >= {'body', 'disconnected', 'message_event'}
    assert parameters(H11Protocol.timeout_keep_alive_handler) == ['self']
    assert inspect.iscoroutinefunction(uvicorn.Server.on_tick)


async def hello(scope, receive, send):
    """An ASGI application that answers at once without reading the request."""
    if scope['type'] == 'lifespan':
        return
    await send({'type': 'http.response.start', 'status': 413, 'headers': [(b'content-length', b'2')]})
    await send({'type': 'http.response.body', 'body': b'hi'})


@contextlib.contextmanager
def answering_with(app, most=100, **others):
    """The port of a server of an ASGI application, with at most `most` connections."""
    server = connections.Server(app, connections.Settings(connections=most, **others))
    with connections.bind('127.0.0.1', 0) as listener:
        connections.listen(listener)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def answering():
    """The port of a server of `hello`."""
    with answering_with(hello) as port:
        yield port


@pytest.mark.parametrize('start', [b'', b'POST / HTTP/1.1\r\nHost: x\r\nX: '])
def test_a_connection_without_a_whole_header_is_closed(answering, monkeypatch, start):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.5)
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        begin = time.monotonic()
        link.sendall(start)
        assert link.recv(100) == b''
        assert 0.3 < time.monotonic() - begin < 5


def test_a_client_that_is_still_sending_receives_the_answer(answering):
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        link.sendall(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n')
        for _ in range(20):
            link.sendall(b'x' * 1_000_000)  # as long as it takes: no reset in between
        receive_to(link, b'hi')


def test_a_client_that_never_ends_is_cut_off(answering, monkeypatch):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.3)
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        link.sendall(b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n')
        begin = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - begin < 10:
                link.sendall(b'5\r\nhello\r\n')
        assert time.monotonic() - begin < 8


async def long(scope, receive, send):
    """An ASGI application with an answer that exceeds the buffers of a connection."""
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': bytes(30_000_000)})


@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('half_closed', [False, True])
def test_a_client_that_never_reads_is_cut_off_and_others_are_answered(monkeypatch, last, half_closed):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.3)
    with answering_with(long, most=1) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(ASK.replace(b'x', b'x\r\nConnection: close') if last else ASK)
        if half_closed:
            link.shutdown(socket.SHUT_WR)
        status, end = 503, time.monotonic() + 10
        while status == 503 and time.monotonic() < end:  # until the first connection is cut off
            time.sleep(0.1)
            with httpx.stream('GET', f'http://127.0.0.1:{port}/') as answer:
                status = answer.status_code
        assert status == 200


def test_a_client_that_reads_slowly_receives_everything(monkeypatch):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.5)

    async def app(scope, receive, send):
        if scope['type'] == 'http':
            await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'connection', b'close')]})
            for number in range(100):
                await send({'type': 'http.response.body', 'body': bytes(200_000), 'more_body': number < 99})

    with answering_with(app) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(ASK)
        received, begin = 0, time.monotonic()
        while got := link.recv(200_000):
            received += len(got)
            time.sleep(0.01)
    assert received > 20_000_000 and time.monotonic() - begin > 0.5


def test_an_idle_connection_stays_open_until_its_next_header_takes_too_long(answering, monkeypatch):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.2)
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        for _ in range(2):  # a proxy may send the next request at any time until its own timeout
            link.sendall(ASK)
            receive_to(link, b'hi')
            time.sleep(0.6)
        link.sendall(b'GET / HTTP')
        assert link.recv(100) == b''


def test_an_idle_connection_is_closed_after_keep_alive():
    with (
        answering_with(hello, keep_alive=0.3) as port,
        socket.create_connection(('127.0.0.1', port), timeout=10) as link,
    ):
        link.sendall(ASK)
        receive_to(link, b'hi')
        assert link.recv(100) == b''


def test_the_longest_idle_connections_are_closed_when_there_are_too_many():
    with answering_with(hello, most=2) as port, contextlib.ExitStack() as opened:
        kept = [opened.enter_context(socket.create_connection(('127.0.0.1', port), timeout=10)) for _ in range(2)]
        for link in kept:
            link.sendall(ASK)
            receive_to(link, b'hi')
        time.sleep(1.2)
        assert httpx.get(f'http://127.0.0.1:{port}/').status_code == 413  # of `hello`
        assert kept[0].recv(100) == b''
        kept[1].sendall(ASK)
        receive_to(kept[1], b'hi')


def test_a_body_in_tiny_chunks_is_refused(answering):
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        link.sendall(BROKEN + b'40\r\n' + b'x' * 64 + b'\r\n')
        receive_to(link, b'hi')
        with pytest.raises(OSError):
            for _ in range(1000):
                link.sendall(b'1\r\nx\r\n' * 1000)


def test_a_body_in_chunks_is_read():
    picture = picture_of('blue')
    chunks = [picture[start : start + 2] for start in range(0, len(picture), 2)]
    assert 50 < len(chunks) < 100
    with (
        answering_with(colours_service()) as port,
        httpx.Client(base_url=f'http://127.0.0.1:{port}', headers={'Content-Type': 'image/png'}) as client,
    ):
        for _ in range(3):  # chunks are counted per request, not per connection
            assert client.post('/predict', content=iter(chunks)).json()['label'] == 'blue'


def test_too_many_connections_get_503_except_for_health_checks():
    with answering_with(hello, most=3) as port, contextlib.ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(socket.create_connection(('127.0.0.1', port), timeout=10))
        time.sleep(0.2)
        answer = httpx.post(f'http://127.0.0.1:{port}/predict', content=b'x')
        assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
        assert 'connections' in answer.json()['detail']
        for path in ('/healthz', '/readyz'):
            assert httpx.get(f'http://127.0.0.1:{port}{path}').status_code == 413  # of `hello`


def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(answering):
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        two = b'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n'
        link.sendall(b'POST / HTTP/1.1\r\nHost: x\r\n' + two + b'5\r\nhello\r\n0\r\n\r\n' + ASK)
        received = received_of(link)
    assert received.startswith(b'HTTP/1.1 400') and received.count(b'HTTP/1.1') == 1


@pytest.mark.parametrize('parts', [[BROKEN + b'zz\r\n'], [BROKEN, b'zz\r\n']], ids=['at once', 'after the answer'])
def test_a_broken_body_is_not_an_error_of_the_server(answering, caplog, parts):
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        for part in parts:
            link.sendall(part)
            time.sleep(0.2)
        assert received_of(link).count(b'HTTP/1.1 4') == 1
    time.sleep(0.1)
    assert caplog.records == []


def colours_service(**others):
    return application.create(served(), limits(**others))


def test_a_body_that_stops_arriving_gets_408_and_its_connection_is_closed(monkeypatch):
    monkeypatch.setattr(uploads, 'WAIT_SECONDS', 0.3)
    with answering_with(colours_service()) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(HEAD + b'half')
        received = received_of(link)
    assert received.startswith(b'HTTP/1.1 408') and b'nothing of the request arrived for 0.3 seconds' in received


def test_a_refusal_has_the_form_of_the_protocol_that_it_was_for(monkeypatch):
    monkeypatch.setattr(uploads, 'WAIT_SECONDS', 0.3)
    with answering_with(colours_service()) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(HEAD.replace(b'/predict', b'/v2/models/colours/infer') + b'half')
        received = received_of(link)
        assert received.startswith(b'HTTP/1.1 408') and b'{"error":"nothing of the request arrived' in received


def test_a_body_that_arrives_too_slowly_gets_408_at_the_time_limit():
    slow = colours_service(seconds=0.5)
    with answering_with(slow) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(HEAD)
        for _ in range(20):
            link.sendall(b'x')
            time.sleep(0.05)
        receive_to(link, b'did not arrive within 0.5 seconds')


def test_uploads_in_progress_do_not_count_as_requests():
    with answering_with(colours_service(requests=2)) as port, contextlib.ExitStack() as opened:
        for _ in range(10):
            opened.enter_context(socket.create_connection(('127.0.0.1', port), timeout=10)).sendall(HEAD)
        time.sleep(0.2)
        answer = httpx.post(f'http://127.0.0.1:{port}/predict', files={'file': picture_of('blue')})
        assert answer.status_code == 200
