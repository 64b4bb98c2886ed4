"""docs/deployment.md: its commands run as printed, its tables match the code, nginx and systemd accept its files."""

import contextlib
import dataclasses
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
import small_export
import yaml
from conftest import ROOT

import config
import predict
import serve
from zodiac.inference import parity
from zodiac.models import convert

httpx = pytest.importorskip('httpx', reason='requirements-dev.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
sys.path.append(str(ROOT / 'benchmarks'))
from served import export_colours, serving  # noqa: E402
from uploads import COLOURS, png  # noqa: E402

PAGE = (ROOT / 'docs/deployment.md').read_text(encoding='utf-8')
PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'  # nginx is in sbin


def needs(*programs):
    missing = [program for program in programs if not shutil.which(program, path=PATH)]
    return pytest.mark.skipif(bool(missing), reason=f'{", ".join(missing)}: not installed')


def block(language, word):
    """The first block of code of the page in a language that contains a word."""
    return next(text for text in re.findall(f'```{language}\n(.*?)```', PAGE, re.S) if word in text)


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope='module')
def infer(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


@pytest.fixture
def printed(infer, tmp_path):
    """A function that runs a block of the page as printed, beside some images; returns its stdout."""
    (tmp_path / 'output/zodiac').mkdir(parents=True)
    (tmp_path / 'output/zodiac/infer').symlink_to(infer)
    (tmp_path / 'photos').mkdir()
    for name, colour in (('cat.jpg', 'blue'), ('dog.png', 'green'), ('photos/a.png', 'blue')):
        (tmp_path / name).write_bytes(png(COLOURS[colour], (64, 48)))
    for name in ('serve.py', 'predict.py', 'zodiac'):
        (tmp_path / name).symlink_to(ROOT / name)

    def run(program, text, port=0):
        environment = {**os.environ, 'PATH': f'{os.path.dirname(sys.executable)}:{PATH}'}
        text = text.replace('serve.py', f'serve.py --port {port}').replace(':8000', f':{port}')
        command = [program, '-c', text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@needs('bash', 'curl', 'openssl')
def test_the_commands_with_a_token_start_a_server_and_call_it(printed):
    text = block('bash', 'export ZODIAC_TOKEN') + 'kill $!\nwait $!\ntrue\n'
    assert '"label":"blue"' in printed('bash', text, free_port())


@needs('bash', 'curl')
def test_the_commands_that_call_the_server(infer, printed):
    with serving(infer) as (address, _, _):
        answers = printed('bash', 'set -e\n' + block('bash', 'curl'), urllib.parse.urlsplit(address).port)
    assert re.findall(r'"label":"(\w+)","probability":[\d.]+,"top"', answers) == ['blue', 'blue', 'blue', 'green']


@needs('bash', 'curl', 'base64')
def test_the_commands_and_lines_of_standard_clients(infer, printed):
    pytest.importorskip('tritonclient.http', reason='requirements-dev.txt is not installed')
    with serving(infer) as (address, _, _):
        port = urllib.parse.urlsplit(address).port
        answers = printed('bash', 'set -e\n' + block('bash', '/v2/').replace('zodiac', 'colours'), port)
        line = printed(sys.executable, block('python', 'tritonclient').replace("'zodiac'", "'colours'"), port)
    assert '"platform":"zodiac_' in answers and '"data": ["blue"]' in answers
    assert line.startswith('blue 0.9')


@needs('bash')
def test_the_commands_that_predict(printed, tmp_path):
    lines = printed('bash', 'set -e\n' + block('bash', 'cat.jpg photos/')).splitlines()
    assert [line.split('\t')[:2] for line in lines[:2]] == [['cat.jpg', 'blue'], ['photos/a.png', 'blue']]
    assert '"label": "blue"' in lines[2]
    titles = (tmp_path / 'result.csv').read_text(encoding='utf-8').splitlines()[0]
    assert titles == 'path,label,probability,label2,probability2,label3,probability3'
    assert '`path,label,probability`' in PAGE and '`label2,probability2,label3,probability3`' in PAGE


def test_the_lines_that_predict_from_python(printed):
    lines = printed(sys.executable, block('python', 'zodiac.load')).splitlines()
    assert [line.rpartition(' ')[0] for line in lines] == ['cat.jpg blue', 'dog.png green']


@pytest.mark.skipif(not convert.can_save_onnx(), reason='requirements-deploy.txt is not installed')
def test_the_lines_that_run_the_onnx_file_without_this_project(printed, tmp_path):
    small_export.write(
        tmp_path / 'infer',
        small_export.network_of('small'),
        small_export.settings('name=zodiac', 'export.preprocess=true'),
    )
    assert printed(sys.executable, block('python', 'InferenceSession')).strip() in small_export.LABELS


def options_of(parser):
    """The table of a command's options, as the page has it."""
    for action in parser._actions:
        if action.option_strings and action.dest != 'help':
            name = ' '.join(filter(None, [action.option_strings[-1], action.metavar]))
            default = f'`{action.default}`' if action.default else '–'
            meaning = action.help.partition(' (default: ')[0]
            yield f'| `{name}` | {default} | {meaning} |'


def test_the_options_of_the_page_are_those_of_the_commands():
    tables = re.findall(r'\| option \| default \| meaning \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)', PAGE)
    expected = [[*options_of(parser)] for parser in (predict.make_parser(), serve.make_parser())]
    assert [table.splitlines() for table in tables] == expected


def test_the_settings_of_the_page_are_those_of_the_schema():
    table = re.search(r'\| setting \| default \| meaning \|\n.*\n((?:\|.*\n)+)', PAGE)[1]
    found = {}
    for names, defaults in re.findall(r'^\| ([^|]*) \| ([^|]*) \|', table, re.M):
        found.update(zip(re.findall(r'`(?:export\.)?(\w+)`', names), yaml.safe_load(f'[{defaults.replace("`", "")}]')))
    assert found == dataclasses.asdict(config.Export())
    for name, limits in (('LOGITS', parity.LOGITS), ('LOSS', parity.LOSS)):
        row = f'| {limits["fp32"]:g} | {limits["int8"]:g} |'
        assert row in PAGE, name


@pytest.fixture(scope='module')
def proxied(infer, tmp_path_factory):
    """nginx with the configuration of the page in front of a server: (address and port of nginx, stderr of the server)."""
    if not all(shutil.which(program, path=PATH) for program in ('nginx', 'openssl')):
        pytest.skip('nginx, openssl: not installed')
    folder, port = tmp_path_factory.mktemp('nginx'), free_port()
    names = ['-keyout', f'{folder}/zodiac.key', '-out', f'{folder}/zodiac.pem', '-subj', '/CN=localhost']
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', *names]
    subprocess.run(command, check=True, capture_output=True)
    with serving(infer, '--proxy', '127.0.0.1', '--max-mb', 16) as (address, _, said), contextlib.ExitStack() as opened:
        text = block('nginx', 'upstream zodiac')
        for written, here in {
            'listen 443 ssl': f'listen 127.0.0.1:{port} ssl',
            '127.0.0.1:8000': urllib.parse.urlsplit(address).netloc,
            '/etc/ssl/': f'{folder}/',
        }.items():
            assert written in text
            text = text.replace(written, here)
        (folder / 'zodiac.conf').write_text(text)
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
        opened.callback(process.kill)  # with no worker process, it may miss SIGTERM until its next connection
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None and time.monotonic() < end
            with socket.socket() as link:
                if link.connect_ex(('127.0.0.1', port)) == 0:
                    break
            time.sleep(0.05)
        yield f'https://127.0.0.1:{port}', port, said


def test_nginx_passes_requests_on_with_the_address_of_the_client(proxied):
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


METRICS = ['/metrics', '/metrics/', '/metrics?a=b', '//metrics', '/./metrics', '/docs/../metrics', '/%6detrics']
METRICS += ['/metrics%0a', '/docs%2f..%2fmetrics', '/metrics%23', '/metrics%3f', '/metrics;a', '/METRICS']


def test_nginx_refuses_metrics_under_any_prefix(proxied):
    _, port, _ = proxied
    context = ssl._create_unverified_context()
    for target in [prefix + target for prefix in ('', '/zodiac', 'https://any.example') for target in METRICS]:
        with context.wrap_socket(socket.create_connection(('127.0.0.1', port), timeout=20)) as link:
            link.sendall(f'GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
            received = b''.join(iter(lambda: link.recv(4096), b''))
        assert re.match(rb'HTTP/1.1 4(03|04|00)', received) and b'zodiac_' not in received, target


def test_nginx_closes_idle_connections_before_the_server_does():
    ours = serve.make_parser().get_default('keep_alive')
    assert int(re.search(r'keepalive_timeout (\d+)s;', block('nginx', 'upstream'))[1]) < ours


@needs('systemd-analyze')
def test_systemd_accepts_the_unit(tmp_path):
    (tmp_path / '.venv/bin').mkdir(parents=True)
    (tmp_path / '.venv/bin/python').symlink_to(sys.executable)
    unit = tmp_path / 'zodiac.service'
    text = block('ini', '[Service]')
    assert '/srv/zodiac' in text and 'SuccessExitStatus=143' in text
    unit.write_text(text.replace('/srv/zodiac', str(tmp_path)))
    done = subprocess.run(['systemd-analyze', 'verify', str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, '')
