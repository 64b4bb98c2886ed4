"""docs/deployment.md, as it is printed: the lines with a token, nginx in front, the unit of systemd."""

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse

import pytest
from conftest import ROOT

httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
sys.path.append(str(ROOT / 'benchmarks'))
from served import export_colours, serving  # noqa: E402
from uploads import COLOURS, png  # noqa: E402

PAGE = (ROOT / 'docs/deployment.md').read_text(encoding='utf-8')
PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'  # where nginx is, for root alone


def needs(*programs):
    missing = [program for program in programs if not shutil.which(program, path=PATH)]
    return pytest.mark.skipif(bool(missing), reason=f'{", ".join(missing)}: not installed')


def block(language, word):
    """The first block of code of the page in a language that holds a word."""
    return next(text for text in re.findall(f'```{language}\n(.*?)```', PAGE, re.S) if word in text)


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope='module')
def infer(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


@needs('bash', 'curl', 'openssl')
def test_the_lines_with_a_token_start_a_server_and_ask_it(infer, tmp_path):
    lines, port = block('bash', 'export ZODIAC_TOKEN'), str(free_port())
    (tmp_path / 'output/zodiac').mkdir(parents=True)
    (tmp_path / 'output/zodiac/infer').symlink_to(infer)
    (tmp_path / 'serve.py').symlink_to(ROOT / 'serve.py')
    (tmp_path / 'cat.jpg').write_bytes(png(COLOURS['blue'], (64, 48)))
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/python').write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@" --port {port}\n')
    (tmp_path / 'bin/python').chmod(0o755)
    script = lines.replace(':8000', f':{port}') + 'kill $!\nwait $!\ntrue\n'
    environment = {**os.environ, 'PATH': f'{tmp_path / "bin"}:{PATH}'}
    done = subprocess.run(
        ['bash', '-c', script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert '"label":"blue"' in done.stdout, done.stdout + done.stderr
    assert 'ZODIAC_TOKEN to ask' not in done.stderr


@pytest.fixture(scope='module')
def proxied(infer, tmp_path_factory):
    """nginx with the file of the page, with its server behind: (address, port of nginx, what the server says)."""
    if not all(shutil.which(program, path=PATH) for program in ('nginx', 'openssl')):
        pytest.skip('nginx, openssl: not installed')
    folder, port = tmp_path_factory.mktemp('nginx'), free_port()
    names = ['-keyout', f'{folder}/zodiac.key', '-out', f'{folder}/zodiac.pem', '-subj', '/CN=localhost']
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', *names]
    subprocess.run(command, check=True, capture_output=True)
    with serving(infer, '--proxy', '127.0.0.1', '--max-mb', 16) as (address, _, said), contextlib.ExitStack() as opened:
        printed = block('nginx', 'upstream zodiac')
        for written, here in {
            'listen 443 ssl': f'listen 127.0.0.1:{port} ssl',
            '127.0.0.1:8000': urllib.parse.urlsplit(address).netloc,
            '/etc/ssl/': f'{folder}/',
        }.items():
            assert written in printed
            printed = printed.replace(written, here)
        (folder / 'zodiac.conf').write_text(printed)
        temporary = ''.join(
            f'{kind}_temp_path {folder}/{kind};' for kind in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi')
        )
        head = 'user root;' if os.geteuid() == 0 else ''
        (folder / 'nginx.conf').write_text(
            f'{head} daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}\n'
            f'http {{ access_log off; {temporary} include {folder}/zodiac.conf; }}\n'
        )
        nginx = shutil.which('nginx', path=PATH)
        process = subprocess.Popen([nginx, '-e', 'stderr', '-p', folder, '-c', folder / 'nginx.conf'])
        opened.callback(process.wait, 20)
        opened.callback(process.terminate)
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None and time.monotonic() < end
            with socket.socket() as link:
                if link.connect_ex(('127.0.0.1', port)) == 0:
                    break
            time.sleep(0.05)
        yield f'https://127.0.0.1:{port}', port, said


def test_the_proxy_of_the_page_passes_requests_on_and_says_for_whom(proxied):
    address, _, said = proxied
    transport = httpx.HTTPTransport(verify=False, local_address='127.0.0.3')
    with httpx.Client(transport=transport, base_url=address) as client:
        for prefix in ('', '/zodiac'):
            files = {'file': png(COLOURS['green'], (64, 48))}
            answer = client.post(f'{prefix}/predict', files=files, headers={'X-Forwarded-For': '6.6.6.6'})
            assert answer.json()['label'] == 'green'
            assert client.get(f'{prefix}/').headers['Content-Type'].startswith('text/html')
            assert client.head(f'{prefix}/readyz').status_code == 200
        assert client.post('/predict', content=bytes(17 << 20)).status_code == 413
    time.sleep(0.3)
    said.seek(0)
    assert set(re.findall('"client": "(.*?)"', said.read())) == {'127.0.0.3'}


METRICS = [
    '/metrics',
    '/metrics/',
    '/metrics?a=b',
    '//metrics',
    '/./metrics',
    '/docs/../metrics',
    '/%6detrics',
    '/metrics%0a',
]
METRICS += ['/docs%2f..%2fmetrics', '/metrics%23', '/metrics%3f', '/metrics;a', '/METRICS', '/zodiac/metrics']


def test_the_proxy_of_the_page_tells_no_numbers_below_any_prefix(proxied):
    _, port, _ = proxied
    context = ssl._create_unverified_context()
    for target in [prefix + target for prefix in ('', '/zodiac', 'https://any.example') for target in METRICS]:
        with context.wrap_socket(socket.create_connection(('127.0.0.1', port), timeout=20)) as link:
            link.sendall(f'GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
            received = b''.join(iter(lambda: link.recv(4096), b''))
        assert re.match(rb'HTTP/1.1 4(03|04|00)', received) and b'zodiac_' not in received, target


def test_the_proxy_of_the_page_waits_less_for_the_next_request_than_the_server(call_script, tmp_path):
    described = ' '.join(call_script('serve.py', '--help', cwd=tmp_path).stdout.split())
    ours = int(re.search(r'--keep-alive N .*?default: (\d+)', described)[1])
    assert int(re.search(r'keepalive_timeout (\d+)s;', block('nginx', 'upstream'))[1]) < ours


@needs('systemd-analyze')
def test_the_unit_of_the_page_is_one(tmp_path):
    (tmp_path / '.venv/bin').mkdir(parents=True)
    (tmp_path / '.venv/bin/python').symlink_to(sys.executable)
    unit = tmp_path / 'zodiac.service'
    printed = block('ini', '[Service]')
    assert '/srv/zodiac' in printed and 'SuccessExitStatus=143' in printed
    unit.write_text(printed.replace('/srv/zodiac', str(tmp_path)))
    done = subprocess.run(['systemd-analyze', 'verify', str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, '')
