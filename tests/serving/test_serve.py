"""serve.py as a process: over real connections, in a real browser."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest
from conftest import ROOT, assert_message, run_script
from small_server import picture_of, receive_to, received_of

httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
sys.path.append(str(ROOT / 'benchmarks'))
import uploads  # noqa: E402
from served import export_colours, serving  # noqa: E402


@pytest.fixture(scope='module')
def infer(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


@pytest.fixture(scope='module')
def server(infer):
    with serving(infer, '--max-mb', '2') as (address, _, _):
        yield address


def test_the_answer_is_the_output_of_predict(server, infer, tmp_path):
    (tmp_path / 'a.png').write_bytes(picture_of('green'))
    line = run_script('predict.py', infer, 'a.png', '--json', '--top', '3', cwd=tmp_path).stdout

    answer = httpx.post(f'{server}/predict', files={'file': picture_of('green')}).json()

    assert {'path': 'a.png', **answer} == json.loads(line)


def test_hostile_clients_do_no_harm():
    """The quick part of benchmarks/uploads.py: each kind of malformed request twice, beside slow clients."""
    command = [sys.executable, str(ROOT / 'benchmarks/uploads.py')]
    sizes = ['--malformed', str(2 * len(uploads.MALFORMED)), '--good', '200', '--slow', '10', '--flood', '0']
    result = subprocess.run([*command, *sizes], capture_output=True, text=True, timeout=240)

    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found['lost'], found['malformed']) == (0, 2 * len(uploads.MALFORMED))
    assert found['good_between'] > 10


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='reads resident memory from /proc')
def test_uploads_stay_within_their_memory_and_good_requests_are_answered(infer):
    """The quick part of the flood of benchmarks/uploads.py: 16 clients with 4 MB each, 16 MB in all."""
    found = uploads.fill(infer, 16, 4, 16, 3)
    assert found['grown_mb'] <= 16
    assert found['bad'] == 0 and found['good'] > 0


@pytest.mark.skipif(os.name == 'nt', reason='signals')
@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (getattr(signal, 'SIGHUP', None), 143)]
)
def test_a_request_in_progress_is_answered_before_the_server_ends(infer, number, status):
    """After SIGTERM and SIGHUP, requests are accepted for --drain seconds, while /readyz is 503."""
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


def test_a_server_reachable_from_other_machines_warns_without_a_token(infer):
    with serving(infer, '--host', '0.0.0.0') as (_, _, said):
        said.seek(0)
        assert 'ZODIAC_TOKEN' in said.read()


WRONG = {
    'no export': (['.'], 1, ['not an exported model', 'export.py']),
    'port': (['INFER', '--port', '70000'], 2, ['--port', '65535']),
    'host': (['INFER', '--host', 'no.such.host.invalid'], 1, ['no.such.host.invalid', '--host']),
    'batch': (['INFER', '--batch-size', '257'], 2, ['--batch-size', '256']),
    'total': (['INFER', '--max-mb', '600'], 2, ['--max-total-mb', '792', '--max-requests']),
    'proxy': (['INFER', '--proxy', 'localhost'], 2, ['--proxy', '127.0.0.1']),
    'origin': (['INFER', '--cors-origin', 'https://a.example/'], 2, ['--cors-origin', 'https://example.org']),
    'root': (['INFER', '--root-path', 'zodiac'], 2, ['--root-path', '/zodiac']),
    'engine': (['INFER', '--engine', 'magic'], 2, ['--engine', 'onnxruntime']),
}


@pytest.mark.parametrize('case', WRONG)
def test_startup_errors_end_in_a_message(infer, tmp_path, case):
    arguments, status, words = WRONG[case]
    arguments = [str(infer) if argument == 'INFER' else argument for argument in arguments]
    assert_message(run_script('serve.py', *arguments, cwd=tmp_path), status, *words)


def test_a_port_that_is_taken_ends_in_a_message(infer, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_message(run_script('serve.py', infer, '--port', port, cwd=tmp_path), 1, port, 'in use', '--port')


@pytest.mark.parametrize('token', ['', 'two words', 'ключ', 'a\nb'])
def test_a_token_that_no_header_can_carry_ends_in_a_message(infer, tmp_path, token):
    result = run_script('serve.py', infer, cwd=tmp_path, env={'ZODIAC_TOKEN': token})
    assert_message(result, 2, 'ZODIAC_TOKEN')


def test_an_answer_does_not_wait_for_an_acknowledgement(server):
    times = []
    with httpx.Client() as client:
        for _ in range(20):
            start = time.perf_counter()
            client.get(f'{server}/healthz')
            times.append(time.perf_counter() - start)
    assert min(times) < 0.03  # with Nagle's algorithm and delayed acknowledgements it is 0.04


def test_head_works_wherever_get_does(server):
    with httpx.Client(base_url=server) as client:
        for path in ('', 'docs', 'openapi.json', 'healthz', 'readyz', 'metrics', 'static-offline-docs/swagger-ui.css'):
            answer = client.head(f'/{path}')
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
def test_the_request_target_may_be_a_url(server, target, status):
    where = urllib.parse.urlsplit(server)
    with socket.create_connection((where.hostname, where.port), timeout=10) as link:
        link.sendall(f'GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
        assert received_of(link).startswith(b'HTTP/1.1 %d' % status)


def test_every_answer_has_the_security_headers(server):
    answers = [httpx.get(server + path) for path in ('/', '/docs', '/healthz', '/no', '/predict')]
    answers += [httpx.post(f'{server}/predict'), httpx.options(f'{server}/predict')]
    for answer in answers:
        assert answer.headers['X-Content-Type-Options'] == 'nosniff'
        assert "frame-ancestors 'none'" in answer.headers['Content-Security-Policy']


def test_a_request_that_is_not_http_gets_400_in_json(server):
    where = urllib.parse.urlsplit(server)
    with socket.create_connection((where.hostname, where.port), timeout=10) as link:
        link.sendall(b'no HTTP\r\n\r\n')
        head, _, body = received_of(link).partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 400') and b'nosniff' in head
    assert 'detail' in json.loads(body)


def test_only_pages_of_named_origins_may_call_the_server(infer):
    ours, other = 'https://a.example', 'https://b.example'
    asked = {'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization'}
    with serving(infer, '--cors-origin', ours, env={**os.environ, 'ZODIAC_TOKEN': 'secret'}) as (address, _, _):
        answer = httpx.options(f'{address}/predict', headers={'Origin': ours, **asked})
        assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (200, ours)
        assert 'authorization' in answer.headers['Access-Control-Allow-Headers'].lower()
        answer = httpx.options(f'{address}/predict', headers={'Origin': other, **asked})
        assert (answer.status_code, 'Access-Control-Allow-Origin' in answer.headers) == (400, False)
        answer = httpx.post(f'{address}/predict', headers={'Origin': ours})  # the page can read the reason
        assert (answer.status_code, answer.headers['Access-Control-Allow-Origin']) == (401, ours)


def test_without_cors_origin_no_other_page_may_call_the_server(server):
    headers = {'Origin': 'https://a.example', 'Access-Control-Request-Method': 'POST'}
    answer = httpx.options(f'{server}/predict', headers=headers)
    assert (answer.status_code, answer.headers['Allow']) == (200, 'OPTIONS, POST')
    assert not [name for name in answer.headers if name.startswith('access-control')]


def test_a_proxy_under_a_prefix_may_remove_it_or_not(infer):
    root = '/bd-gpu-01/user/7/api_serving/8080'
    with serving(infer, '--root-path', f'{root}/') as (address, _, _):
        for prefix in ('', root):  # removed; kept
            answer = httpx.post(f'{address}{prefix}/predict', files={'file': picture_of('green')})
            assert answer.json()['label'] == 'green'
            assert "fetch('predict'" in httpx.get(f'{address}{prefix}/').text  # relative to the address of the page
            assert httpx.get(f'{address}{prefix}/healthz').text == 'ok'
            page = httpx.get(f'{address}{prefix}/docs').text
            links = re.findall(r"""(?:href|src|url)\W+(/[^'"]+)""", page)
            assert len(links) >= 3 and all(link.startswith(f'{root}/') for link in links), links
            for link in links:
                assert httpx.get(address + prefix + link[len(root) :]).status_code == 200, link
            api = httpx.get(f'{address}{prefix}/openapi.json').json()
            assert api['servers'] == [{'url': root}] and '/predict' in api['paths']
        assert re.search('zodiac_requests_total{.*status="200".*} 2.0', httpx.get(f'{address}/metrics').text)
        assert httpx.get(f'{address}{root}1/healthz').status_code == 404


def lines_of(said):
    """The access log, after a wait for the last line."""
    time.sleep(0.3)
    said.seek(0)
    return [json.loads(line) for line in said.read().splitlines() if line.startswith('{')]


def test_each_request_has_one_line_in_the_log_without_private_data(infer):
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


def test_forwarded_addresses_are_ignored_without_a_trusted_proxy(infer):
    environment = {**os.environ, 'FORWARDED_ALLOW_IPS': '*'}  # uvicorn would use it
    with serving(infer, env=environment) as (address, _, said):
        httpx.get(f'{address}/healthz', headers={'X-Forwarded-For': '6.6.6.6', 'Forwarded': 'for=6.6.6.6'})
        assert [line['client'] for line in lines_of(said)] == ['127.0.0.1']


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_a_log_that_is_not_read_does_not_block_the_server(infer):
    with patched_server(infer, 'pass') as (process, line):  # whose stderr is a pipe
        address = re.search(r'http://\S+', line)[0]
        with httpx.Client() as client:
            for _ in range(200):
                assert client.get(f'{address}/healthz/{"x" * 1000}').status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


PATCHED = """
import sys, time
from zodiac.base import errors; from zodiac.inference import exported_model
load, turns = exported_model.load, []

def patched(*args):
    model = load(*args)
    run = model.outputs
    def outputs(batch):
        turns.append(1)
        {body}
        return run(batch)
    model.outputs = outputs
    return model

exported_model.load = patched
import serve
sys.exit(errors.run(serve.main))
"""


@contextlib.contextmanager
def patched_server(infer, body, *arguments):
    """serve.py with batches of one and a line of code before the network runs; (process, first line of its stdout)."""
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
def test_a_network_that_hangs_does_not_delay_the_shutdown(infer, number, status):
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
