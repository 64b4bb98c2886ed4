"""serve.py as a process: over real connections, in a real browser."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
from conftest import ROOT, assert_message, run_script
from small_server import limits, model_of

httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
sys.path.append(str(ROOT / 'benchmarks'))
import uploads  # noqa: E402
from served import export_colours, serving  # noqa: E402

from zodiac.serving import application, connections  # noqa: E402
from zodiac.serving import uploads as uploads_room  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@pytest.fixture(scope='module')
def infer(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


@pytest.fixture(scope='module')
def server(infer):
    with serving(infer, '--max-mb', '2') as (address, _, _):
        yield address


def picture_of(label, size=(64, 48)):
    return uploads.png(uploads.COLOURS[label], size)


def test_an_image_is_classified(server):
    for label in uploads.COLOURS:
        answer = httpx.post(f'{server}/predict', files={'file': picture_of(label)})
        assert answer.json()['label'] == label


def test_the_answer_is_that_of_predict(server, infer, tmp_path):
    (tmp_path / 'a.png').write_bytes(picture_of('green'))
    line = run_script('predict.py', infer, 'a.png', '--json', '--top', '3', cwd=tmp_path).stdout

    answer = httpx.post(f'{server}/predict', files={'file': picture_of('green')}).json()

    assert {'path': 'a.png', **answer} == json.loads(line)


def test_hostile_clients_harm_nobody():
    """The quick part of benchmarks/uploads.py: each kind of malformed request three times, beside slow clients."""
    command = [sys.executable, str(ROOT / 'benchmarks/uploads.py')]
    sizes = ['--malformed', str(3 * len(uploads.MALFORMED)), '--good', '200', '--slow', '20', '--flood', '0']
    result = subprocess.run([*command, *sizes], capture_output=True, text=True, timeout=240)

    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found['lost'], found['malformed']) == (0, 3 * len(uploads.MALFORMED))
    assert found['good_between'] > 10


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='tells resident memory')
def test_uploads_take_no_more_memory_than_all_of_them_may_and_keep_nobody_out(infer):
    """The quick part of the flood of benchmarks/uploads.py: 40 clients with 8 MB each, three times, where 48 MB are for all."""
    found = uploads.fill(infer, 40, 8, 48, 4)
    assert found['grown_mb'] <= 48
    assert found['bad'] == 0 and found['good'] > 3


@pytest.mark.skipif(os.name == 'nt', reason='signals')
@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (getattr(signal, 'SIGHUP', None), 143)]
)
def test_a_request_in_progress_is_answered_before_the_server_ends(infer, number, status):
    """After SIGTERM and SIGHUP others are answered for --drain seconds, too, but /readyz says that the server leaves."""
    with serving(infer, '--drain', 1) as (address, process, said):
        where = urllib.parse.urlsplit(address)
        whole = uploads.image(picture_of('blue'))
        with socket.create_connection((where.hostname, where.port), timeout=20) as link:
            link.sendall(whole[:-10])
            while 'in_progress 1.0' not in httpx.get(f'{address}/metrics').text:
                time.sleep(0.02)
            process.send_signal(number)
            if number == signal.SIGINT:
                time.sleep(0.5)
            else:
                while httpx.get(f'{address}/readyz').status_code != 503:
                    time.sleep(0.05)
                answer = httpx.post(f'{address}/predict', files={'file': picture_of('green')})
                assert (answer.status_code, answer.headers['Connection']) == (200, 'close')
                time.sleep(1.5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f'{address}/healthz')
            link.sendall(whole[-10:])
            receive_to(link, b'"label":"blue"')
        assert process.wait(20) == status
        said.seek(0)
        assert 'Traceback' not in said.read()


def test_a_server_with_a_token_asks_for_it(infer):
    with serving(infer, env={**os.environ, 'ZODIAC_TOKEN': 'secret'}) as (address, _, _):
        files = {'file': picture_of('blue')}
        assert httpx.post(f'{address}/predict', files=files).status_code == 401
        headers = {'Authorization': 'Bearer secret'}
        assert httpx.post(f'{address}/predict', files=files, headers=headers).json()['label'] == 'blue'


def test_a_server_that_others_can_reach_warns_when_it_has_no_token(infer):
    with serving(infer, '--host', '0.0.0.0') as (_, _, said):
        said.seek(0)
        assert 'ZODIAC_TOKEN' in said.read()


WRONG = {
    'no export': (['.'], 1, ['no exported model', 'export.py']),
    'not there': (['nowhere'], 1, ['nowhere', 'export.py']),
    'port': (['INFER', '--port', '70000'], 2, ['--port', '65535']),
    'host': (['INFER', '--host', 'no.such.host.invalid'], 1, ['no.such.host.invalid', '--host']),
    'limit': (['INFER', '--max-mb', '0'], 2, ['--max-mb']),
    'word': (['INFER', '--batch-size', 'many'], 2, ['--batch-size']),
    'batch': (['INFER', '--batch-size', '257'], 2, ['--batch-size', '256']),
    'total': (['INFER', '--max-mb', '600'], 2, ['--max-total-mb', '792', '--max-requests']),
    'proxy': (['INFER', '--proxy', 'localhost'], 2, ['--proxy', '127.0.0.1']),
    'origin': (['INFER', '--cors-origin', 'https://a.example/'], 2, ['--cors-origin', 'https://example.org']),
    'engine': (['INFER', '--engine', 'magic'], 2, ['--engine', 'onnxruntime']),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_cannot_be_served_ends_in_a_message(infer, tmp_path, case):
    arguments, status, words = WRONG[case]
    arguments = [str(infer) if argument == 'INFER' else argument for argument in arguments]
    assert_message(run_script('serve.py', *arguments, cwd=tmp_path), status, *words)


def test_a_package_that_fails_at_its_import_is_told_in_its_own_words(infer, tmp_path):
    (tmp_path / 'fastapi.py').write_text("raise ImportError('not here', name='fastapi')", encoding='utf-8')
    result = run_script('serve.py', infer, cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)})
    assert_message(result, 1, 'fastapi', 'cannot be imported (ImportError: not here)', f'rename {tmp_path}/fastapi.py')


def test_a_port_that_is_taken_ends_in_a_message(infer, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_message(run_script('serve.py', infer, '--port', port, cwd=tmp_path), 1, port, 'in use', '--port')


@pytest.mark.parametrize('token', ['', 'two words', 'ключ', 'a\nb'])
def test_a_token_that_no_header_can_carry_ends_in_a_message(infer, tmp_path, token):
    result = run_script('serve.py', infer, cwd=tmp_path, env={'ZODIAC_TOKEN': token})
    assert_message(result, 2, 'ZODIAC_TOKEN')


def receive_to(link, end):
    """Read what comes, until it holds `end`."""
    received = b''
    while end not in received:
        got = link.recv(4096)
        assert got, f'closed after {received}'
        received += got


def test_an_answer_does_not_wait_for_an_acknowledgement(server):
    times = []
    with httpx.Client() as client:
        for _ in range(20):
            start = time.perf_counter()
            client.get(f'{server}/healthz')
            times.append(time.perf_counter() - start)
    assert min(times) < 0.03  # Nagle's algorithm and delayed acknowledgements make it 0.04 each time


async def hello(scope, receive, send):
    """An ASGI application that answers at once, whatever is sent."""
    if scope['type'] == 'lifespan':
        return
    await send({'type': 'http.response.start', 'status': 413, 'headers': [(b'content-length', b'2')]})
    await send({'type': 'http.response.body', 'body': b'hi'})


@contextlib.contextmanager
def answering_with(app, most=100, **others):
    """A port where an ASGI application answers, with our connections, `most` of them."""
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
    """A port where `hello` answers."""
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


def test_a_connection_that_is_kept_has_the_same_time_for_the_next_header(answering, monkeypatch):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.5)
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        for _ in range(4):  # longer than the limit altogether
            link.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
            receive_to(link, b'hi')
            time.sleep(0.2)
        link.sendall(b'GET / HTTP')
        assert link.recv(100) == b''


def test_a_client_that_still_sends_sees_the_answer(answering):
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


async def endless(scope, receive, send):
    """An ASGI application whose answer has no end."""
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        for _ in range(10_000):
            await send({'type': 'http.response.body', 'body': bytes(100_000), 'more_body': True})


async def long(scope, receive, send):
    """An ASGI application with an answer that no buffer of a connection holds."""
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        await send({'type': 'http.response.body', 'body': bytes(30_000_000)})


ASK = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'


@pytest.mark.parametrize(
    ('app', 'request_'),
    [(endless, ASK), (long, ASK), (long, ASK.replace(b'\r\n\r\n', b'\r\nConnection: close\r\n\r\n'))],
    ids=['endless', 'long', 'long and last'],
)
@pytest.mark.parametrize('half_closed', [False, True])
def test_a_client_that_never_reads_is_cut_off_and_others_are_answered(monkeypatch, app, request_, half_closed):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.3)
    with answering_with(app, most=1) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(request_)
        if half_closed:
            link.shutdown(socket.SHUT_WR)
        time.sleep(0.6)
        with httpx.stream('GET', f'http://127.0.0.1:{port}/') as answer:  # the other one is none of the two any more
            assert answer.status_code == 200


def test_a_client_that_reads_slowly_gets_all(monkeypatch):
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


def test_a_kept_connection_outlives_the_time_for_a_header(answering, monkeypatch):
    monkeypatch.setattr(connections, 'WAIT_SECONDS', 0.2)
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        for _ in range(2):  # a proxy may send the next request at any time until its own timeout
            link.sendall(ASK)
            receive_to(link, b'hi')
            time.sleep(0.6)


def test_a_kept_connection_is_closed_at_its_time():
    with (
        answering_with(hello, keep_alive=0.3) as port,
        socket.create_connection(('127.0.0.1', port), timeout=10) as link,
    ):
        link.sendall(ASK)
        receive_to(link, b'hi')
        assert link.recv(100) == b''


def test_kept_connections_give_way_when_there_are_too_many():
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
    chunks = [picture_of('blue')[start : start + 5] for start in range(0, 400, 5)]
    chunks.append(picture_of('blue')[400:])
    with answering_with(colours_service()) as port:
        for _ in range(3):  # on one connection, too, they are counted for each request
            with httpx.Client(base_url=f'http://127.0.0.1:{port}', headers={'Content-Type': 'image/png'}) as client:
                assert client.post('/predict', content=iter(chunks)).json()['label'] == 'blue'


def test_head_is_answered_wherever_get_is(server):
    with httpx.Client(base_url=server) as client:
        for path in (
            '/',
            '/docs',
            '/openapi.json',
            '/healthz',
            '/readyz',
            '/metrics',
            '/static-offline-docs/swagger-ui.css',
        ):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b''), path
            assert int(answer.headers['Content-Length']) > 0
        assert client.head('/predict').status_code == 405


@pytest.mark.parametrize(
    ('target', 'status'),
    [
        ('http://any.example/healthz', 200),
        ('HTTPS://any.example:444/healthz?x=http://b', 200),
        ('http://any.example', 200),
        ('http://any.example/no', 404),
        ('http://[/healthz', 200),
        ('any.example:80', 404),
        ('*', 404),
        ('//healthz', 404),
    ],
)
def test_a_target_may_have_a_host_in_front(server, target, status):
    where = urllib.parse.urlsplit(server)
    with socket.create_connection((where.hostname, where.port), timeout=10) as link:
        link.sendall(f'GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
        assert received_of(link).startswith(b'HTTP/1.1 %d' % status)


def test_every_answer_says_not_to_guess_its_type_and_not_to_frame_it(server):
    answers = [httpx.get(server + path) for path in ('/', '/docs', '/healthz', '/no', '/predict')]
    answers += [httpx.post(f'{server}/predict'), httpx.options(f'{server}/predict')]
    for answer in answers:
        assert answer.headers['X-Content-Type-Options'] == 'nosniff'
        assert "frame-ancestors 'none'" in answer.headers['Content-Security-Policy']


def test_what_is_no_http_is_answered_as_any_other_fault(server):
    where = urllib.parse.urlsplit(server)
    with socket.create_connection((where.hostname, where.port), timeout=10) as link:
        link.sendall(b'no HTTP\r\n\r\n')
        head, _, body = received_of(link).partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 400') and b'nosniff' in head
    assert 'detail' in json.loads(body)


def test_only_pages_of_the_origins_that_are_named_may_ask(infer):
    ours, other = 'https://a.example', 'https://b.example'
    asked = {'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization'}
    with serving(infer, '--cors-origin', ours, env={**os.environ, 'ZODIAC_TOKEN': 'secret'}) as (address, _, _):
        answer = httpx.options(f'{address}/predict', headers={'Origin': ours, **asked})
        assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (200, ours)
        assert 'authorization' in answer.headers['Access-Control-Allow-Headers'].lower()
        answer = httpx.options(f'{address}/predict', headers={'Origin': other, **asked})
        assert (answer.status_code, 'Access-Control-Allow-Origin' in answer.headers) == (400, False)
        answer = httpx.post(f'{address}/predict', headers={'Origin': ours})  # whose page learns why
        assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (401, ours)


def test_without_an_origin_that_is_named_no_other_page_may_ask(server):
    headers = {'Origin': 'https://a.example', 'Access-Control-Request-Method': 'POST'}
    answer = httpx.options(f'{server}/predict', headers=headers)
    assert (answer.status_code, answer.headers['Allow']) == (200, 'OPTIONS, POST')
    assert not [name for name in answer.headers if name.startswith('access-control')]


def lines_of(said):
    """The access log, as it is once all requests that were answered are in it."""
    time.sleep(0.3)
    said.seek(0)
    return [json.loads(line) for line in said.read().splitlines() if line.startswith('{')]


def test_each_request_has_a_line_in_the_log_and_none_has_more(infer):
    with serving(infer, '--proxy', '127.0.0.0/8') as (address, process, said):
        where = urllib.parse.urlsplit(address)
        headers = {'X-Forwarded-For': '6.6.6.6, 7.7.7.7'}
        picture = picture_of('blue')
        httpx.post(f'{address}/predict?top=secret', files={'file': ('private.png', picture)}, headers=headers)
        httpx.post(f'{address}/predict', content=picture, headers={'Content-Type': 'image/png'})
        httpx.get(f'{address}/{"%0a" * 20}{"x" * 5000}')
        with socket.create_connection((where.hostname, where.port), timeout=10) as link:
            link.sendall(b'no HTTP\r\n\r\n')
            received_of(link)
        lines = lines_of(said)
        said.seek(0)
        text = said.read()
    assert [(line['client'], line['method'], line['status']) for line in lines] == [
        ('7.7.7.7', 'POST', 422),
        ('127.0.0.1', 'POST', 200),
        ('127.0.0.1', 'GET', 404),
        ('127.0.0.1', None, 400),
    ]
    assert [line['path'] for line in lines[:2]] == ['/predict', '/predict']
    assert lines[1]['received'] == len(picture) and lines[1]['sent'] > 20 and 0 < lines[1]['seconds'] < 20
    assert max(map(len, text.splitlines())) < 1000 and text.isascii()
    assert 'private' not in text and 'secret' not in text


def test_the_address_of_a_client_is_not_taken_from_anybody(infer):
    environment = {**os.environ, 'FORWARDED_ALLOW_IPS': '*'}  # which uvicorn would follow
    with serving(infer, env=environment) as (address, _, said):
        httpx.get(f'{address}/healthz', headers={'X-Forwarded-For': '6.6.6.6', 'Forwarded': 'for=6.6.6.6'})
        assert [line['client'] for line in lines_of(said)] == ['127.0.0.1']


def test_the_log_of_requests_can_be_left_out(infer):
    with serving(infer, '--no-access-log') as (address, _, said):
        httpx.get(f'{address}/healthz')
        assert lines_of(said) == []


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_a_log_that_nobody_reads_does_not_stop_the_server(infer):
    with patched_server(infer, 'pass') as (process, line):  # whose stderr is a pipe
        address = re.search(r'http://\S+', line)[0]
        with httpx.Client() as client:
            for _ in range(200):
                assert client.get(f'{address}/healthz/{"x" * 1000}').status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_more_connections_than_the_limit_are_told_to_come_again_but_health_is_answered():
    with answering_with(hello, most=3) as port, contextlib.ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(socket.create_connection(('127.0.0.1', port), timeout=10))
        time.sleep(0.2)
        answer = httpx.post(f'http://127.0.0.1:{port}/predict', content=b'x')
        assert (answer.status_code, answer.headers['Retry-After']) == (503, '1')
        assert 'connections' in answer.json()['detail']
        for path in ('/healthz', '/readyz'):
            assert httpx.get(f'http://127.0.0.1:{port}{path}').status_code == 413  # of `hello`


def test_a_request_of_two_lengths_is_refused_and_its_connection_closed(answering):
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        two = b'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n'
        link.sendall(b'POST / HTTP/1.1\r\nHost: x\r\n' + two + b'5\r\nhello\r\n0\r\n\r\n' + ASK)
        received = b''
        with contextlib.suppress(ConnectionResetError):
            while got := link.recv(4096):
                received += got
    assert received.startswith(b'HTTP/1.1 400') and received.count(b'HTTP/1.1') == 1


BROKEN = b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'


@pytest.mark.parametrize('parts', [[BROKEN + b'zz\r\n'], [BROKEN, b'zz\r\n']], ids=['at once', 'after the answer'])
def test_a_broken_body_is_no_error_of_the_server(answering, caplog, parts):
    with socket.create_connection(('127.0.0.1', answering), timeout=10) as link:
        for part in parts:
            link.sendall(part)
            time.sleep(0.2)
        assert received_of(link).count(b'HTTP/1.1 4') == 1
    time.sleep(0.1)
    assert caplog.records == []


def colours_service(**others):
    return application.create(model_of(), limits(**others))


HEAD = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n'


def received_of(link):
    with contextlib.suppress(ConnectionResetError):
        return b''.join(iter(lambda: link.recv(4096), b''))


def test_a_body_of_which_nothing_more_comes_is_answered_and_its_connection_closed(monkeypatch):
    monkeypatch.setattr(uploads_room, 'WAIT_SECONDS', 0.3)
    with answering_with(colours_service()) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(HEAD + b'half')
        received = received_of(link)
    assert received.startswith(b'HTTP/1.1 408') and b'nothing of the request arrived for 0.3 seconds' in received


def test_a_body_that_comes_too_slowly_is_answered_at_the_limit():
    slow = colours_service(seconds=0.5)
    with answering_with(slow) as port, socket.create_connection(('127.0.0.1', port), timeout=10) as link:
        link.sendall(HEAD)
        for _ in range(20):
            link.sendall(b'x')
            time.sleep(0.05)
        receive_to(link, b'did not arrive within 0.5 seconds')


def test_uploads_that_still_arrive_keep_nobody_out():
    with answering_with(colours_service(requests=2)) as port, contextlib.ExitStack() as opened:
        for _ in range(10):
            opened.enter_context(socket.create_connection(('127.0.0.1', port), timeout=10)).sendall(HEAD)
        time.sleep(0.2)
        answer = httpx.post(f'http://127.0.0.1:{port}/predict', files={'file': picture_of('blue')})
        assert answer.status_code == 200


PATCHED = """
import sys, time
from zodiac.base import errors; from zodiac.inference import exported_model
load, turns = exported_model.load, []

def patched(*args):
    model = load(*args)
    run = model.predict
    def predict(batch):
        turns.append(1)
        {body}
        return run(batch)
    model.predict = predict
    return model

exported_model.load = patched
import serve
sys.exit(errors.run(serve.main))
"""


@contextlib.contextmanager
def patched_server(infer, body, *arguments):
    """serve.py with a line before the network, batches of one; as (process, its first line)."""
    command = [sys.executable, '-c', PATCHED.format(body=body), str(infer), '--port', '0', '--batch-size', '1']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def test_a_model_that_fails_to_warm_up_is_not_served(infer):
    with patched_server(infer, "raise RuntimeError('of the engine')") as (process, line):
        said = process.communicate(timeout=30)[1]
    assert line == ''
    assert process.returncode == 1
    assert re.fullmatch(r'error: colours: \w+ cannot run it \(of the engine\); .*--engine.*\n', said)


@pytest.mark.skipif(os.name == 'nt', reason='signals')
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_network_that_hangs_does_not_hold_up_the_end(infer, number, status):
    with patched_server(infer, 'len(turns) > 1 and time.sleep(100)', '--timeout', '1', '--no-access-log') as (
        process,
        line,
    ):
        address = re.search(r'http://\S+', line)[0]
        assert httpx.post(f'{address}/predict', files={'file': picture_of('blue')}).status_code == 503
        assert httpx.get(f'{address}/readyz').status_code == 503
        process.send_signal(number)
        assert process.wait(10) == status
        assert process.stderr.read() == 'interrupted\n'


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_a_signal_ends_a_warm_up_that_hangs(infer):
    with patched_server(infer, "print('begun', flush=True); time.sleep(100)") as (process, line):
        assert line == 'begun\n'
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stderr.read() == 'interrupted\n'


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_all_requests_in_progress_are_answered_before_the_server_ends(infer):
    labels = [*uploads.COLOURS]
    with patched_server(infer, 'len(turns) == 2 and time.sleep(3)') as (process, line):
        address = re.search(r'http://\S+', line)[0]
        with concurrent.futures.ThreadPoolExecutor(len(labels)) as pool:
            answers = [
                pool.submit(httpx.post, f'{address}/predict', files={'file': picture_of(label)}, timeout=30)
                for label in labels
            ]
            while f'in_progress {len(labels)}.0' not in httpx.get(f'{address}/metrics').text:
                assert not any(answer.done() for answer in answers)
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert [answer.result().json()['label'] for answer in answers] == labels
        assert process.wait(20) == 143


@pytest.fixture(scope='module')
def browser():
    if CHROMIUM is None:
        pytest.skip('there is no Chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='requirements-dev.txt is not installed')
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def page_of(browser):
    """Opens the page of a server in a window of its own; fails when the page asks any other host, or its script fails."""
    contexts, faults = [], []

    def open_page(address, **settings):
        contexts.append(browser.new_context(**{'locale': 'en-GB', **settings}))
        page = contexts[-1].new_page()
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on(
            'request', lambda request: request.url.startswith((address, 'blob:', 'data:')) or faults.append(request.url)
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def choose(page, content, name='photo.png', kind='image/png'):
    page.set_input_files('#file', {'name': name, 'mimeType': kind, 'buffer': content})


def test_the_page_shows_the_photo_and_the_most_probable_classes(server, page_of):
    page = page_of(server)
    assert page.title() == 'colours'
    assert not page.is_visible('#result')

    choose(page, picture_of('红'))
    page.wait_for_selector('#guesses li')

    assert page.locator('#guesses .name').all_inner_texts()[0] == '红'
    shares = [float(text.split()[0]) for text in page.locator('#guesses .number').all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.2)
    widths = [box['width'] for box in (row.bounding_box() for row in page.locator('#guesses .bar').all())]
    assert widths[0] > 10 * widths[1]
    assert page.evaluate('document.getElementById("photo").naturalWidth') == 64
    assert re.fullmatch(r'红, (99\.\d|100\.0) %, in \d+ ms\.', page.inner_text('#message'))


def test_the_page_says_what_is_wrong_with_a_text_file_and_takes_the_next(server, page_of):
    page = page_of(server)
    choose(page, b'hello', 'note.txt', 'text/plain')
    page.wait_for_selector('#message.bad')

    assert page.inner_text('[role=status]') == 'This file is no image that can be read.'
    assert not page.is_visible('#result')

    choose(page, picture_of('blue'))
    page.wait_for_selector('#guesses li')
    assert not page.is_visible('#message.bad')


def test_the_page_says_when_a_photo_is_too_large(server, page_of):
    page = page_of(server)
    choose(page, b'x' * 5_000_000)
    page.wait_for_selector('#message.bad')
    assert page.inner_text('#message') == 'This image is too large for the server.'


@pytest.mark.parametrize(
    ('status', 'body', 'words'),
    [
        *((status, '<html>', 'busy') for status in (429, 502, 503, 504)),  # a proxy's
        (500, '{"detail": ""}', '(500)'),
        (408, '{"detail": ""}', 'too long'),
        *(
            (200, body, 'Load the page again')
            for body in ('<html>', 'null', '{"top": []}', '{"top": [{"label": "a"}]}')
        ),
    ],
)
def test_the_page_says_so_when_it_is_not_the_model_that_answers(server, page_of, status, body, words):
    page = page_of(server)
    page.route('**/predict', lambda route: route.fulfill(status=status, body=body))
    choose(page, picture_of('blue'))
    page.wait_for_selector('#message.bad')
    assert words in page.inner_text('#message')
    assert not page.is_visible('#result')


@pytest.mark.parametrize(
    'event', ['DragEvent("drop", {dataTransfer: files,', 'ClipboardEvent("paste", {clipboardData: files,']
)
def test_a_photo_can_be_dropped_and_pasted_anywhere_and_of_several_the_first_counts(server, page_of, event):
    page = page_of(server)
    page.evaluate(
        """async () => {
            const files = new DataTransfer();
            for (const colour of ['rgb(30, 200, 30)', 'rgb(30, 30, 230)']) {
                const canvas = new OffscreenCanvas(20, 20);
                const ink = canvas.getContext('2d');
                ink.fillStyle = colour;
                ink.fillRect(0, 0, 20, 20);
                files.items.add(new File([await canvas.convertToBlob()], 'a.png', {type: 'image/png'}));
            }
            document.querySelector('h1').dispatchEvent(new EVENT bubbles: true}));
        }""".replace('EVENT', event)
    )
    page.wait_for_selector('#guesses li')
    assert page.inner_text('#guesses li:first-child .name') == 'green'
    assert page.inner_text('#message').endswith(' ms. One photo at a time. This is the first.')


def test_what_the_browser_cannot_show_is_classified_all_the_same(server, page_of):
    page = page_of(server)
    choose(
        page, uploads.encode(uploads.Image.new('RGB', (64, 48), uploads.COLOURS['blue']), 'TIFF'), 'a.tif', 'image/tiff'
    )
    page.wait_for_selector('#guesses li')
    page.wait_for_selector('#unseen')
    assert not page.is_visible('#photo')

    choose(page, picture_of('green'))
    page.wait_for_selector('#photo')
    assert not page.is_visible('#unseen')


def test_without_scripts_the_page_says_what_to_do(server, page_of):
    page = page_of(server, java_script_enabled=False)
    assert 'curl -F file=@photo.jpg' in page.inner_text('body')
    assert not page.is_visible('#drop') and not page.is_visible('#language')


def test_the_page_speaks_chinese_to_those_who_do_and_to_those_who_ask(server, page_of):
    page = page_of(server, locale='zh-CN')
    assert page.get_attribute('html', 'lang') == 'zh-Hans'
    assert '选择照片' in page.inner_text('#drop')
    choose(page, b'hello')
    page.wait_for_selector('#message.bad')
    assert page.inner_text('#message') == '无法读取此文件，它不是有效的图片。'

    page.click('#language')

    assert page.get_attribute('html', 'lang') == 'en'
    assert page.inner_text('#message') == 'This file is no image that can be read.'


def test_the_page_works_with_the_keyboard_alone(server, page_of):
    page = page_of(server)
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'language'
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'file'
    assert page.evaluate('getComputedStyle(document.getElementById("drop")).outlineStyle') == 'solid'
    page.on('filechooser', lambda chooser: None)  # from here on the browser tells of it instead of opening it
    page.wait_for_timeout(300)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press('Enter')
    chooser.value.set_files({'name': 'a.png', 'mimeType': 'image/png', 'buffer': picture_of('blue')})
    page.wait_for_selector('#guesses li')


@pytest.mark.parametrize('width', [320, 390, 1200])
def test_the_page_fits_a_window(server, page_of, width):
    page = page_of(server, viewport={'width': width, 'height': 700})
    top = [{'label': label, 'probability': 0.5} for label in ('Donaudampfschiff' * 20, '鼠' * 100)]
    page.route('**/predict', lambda route: route.fulfill(json={**top[0], 'top': top}))
    choose(page, picture_of('blue', (900, 300)))
    page.wait_for_selector('#guesses li')
    assert page.evaluate('document.documentElement.scrollWidth') <= width


CONTRAST = """parts => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(part => part / 255).map(
            part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const contrast = (one, other) => Math.max(light(one) / light(other), light(other) / light(one));
    const style = part => getComputedStyle(document.querySelector(part));
    return parts.map(([part, behind]) =>
        parseFloat(style(part).borderBottomWidth) && contrast(style(part).borderBottomColor, style(behind).backgroundColor));
}"""


@pytest.mark.parametrize('colours', [{'color_scheme': 'light'}, {'color_scheme': 'dark'}, {'forced_colors': 'active'}])
def test_borders_and_bars_stand_out(server, page_of, colours):
    page = page_of(server, **colours)
    choose(page, picture_of('blue'))
    page.wait_for_selector('#guesses li')
    parts = [['.bar', 'li'], *([part, behind] for part in ('#drop', '#token') for behind in ('body', part))]
    assert min(page.evaluate(CONTRAST, parts)) >= 3  # WCAG 2.2, 1.4.11


def test_the_page_asks_for_the_token_until_it_is_right(infer, page_of):
    with serving(infer, env={**os.environ, 'ZODIAC_TOKEN': 'secret'}) as (address, _, _):
        page = page_of(address)
        choose(page, picture_of('blue'))
        page.wait_for_selector('#message.bad')
        assert page.inner_text('#message') == 'The server asks for a token. Write it above.'
        for wrong in ('wrong', 'ключ'):
            assert page.evaluate('document.activeElement.id') == 'token'
            page.keyboard.type(wrong)
            page.keyboard.press('Enter')
            page.wait_for_selector('#message.bad >> text=not the token')
            page.evaluate('tell(() => "")')
        page.fill('#token', 'secret')
        page.click('#token-part button')
        page.wait_for_selector('#guesses li')
        assert not page.is_visible('#token-part')
        assert page.evaluate('document.activeElement.id') == 'file'  # from where the next photo is chosen


def test_the_page_says_when_the_server_is_gone(infer, page_of):
    with serving(infer) as (address, process, _):
        page = page_of(address)
        process.kill()
        process.wait()
        choose(page, picture_of('blue'))
        page.wait_for_selector('#message.bad')
        assert page.inner_text('#message') == 'The server cannot be reached.'
