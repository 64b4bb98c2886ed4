"""deploy/: the container has what serve.py needs, and its files agree with each other and with the server."""

import fnmatch
import re
import subprocess

import pytest
import yaml
from conftest import ROOT

import serve
from zodiac.serving import connections

DOCKERFILE = (ROOT / 'deploy/Dockerfile').read_text(encoding='utf-8')
COMPOSE = yaml.safe_load((ROOT / 'deploy/compose.yaml').read_text(encoding='utf-8'))
SERVICE = COMPOSE['services']['zodiac']
INSTALLED = re.compile(
    r'\w+\.py|requirements[\w-]*\.txt|configs/.*|docs/\w+\.md|zodiac/.*|pyproject\.toml|README\.md|LICENSE|NOTICE'
)


def test_the_server_in_a_container_is_not_root_and_has_no_privileges():
    assert re.search(r'^USER 10001', DOCKERFILE, re.M)
    assert SERVICE['read_only'] is True and SERVICE['cap_drop'] == ['ALL']
    assert all(port.startswith('127.0.0.1:') for port in SERVICE['ports'])
    assert '?' in SERVICE['environment']['ZODIAC_TOKEN']  # Compose refuses to start without one


def test_the_command_of_the_container_is_one_of_the_server():
    parser = serve.make_parser()
    args = parser.parse_args(SERVICE['command'])
    (models,) = [volume for volume in SERVICE['volumes'] if volume.endswith(':ro')]
    assert args.models[0].startswith(models.split(':')[1] + '/')
    assert f'EXPOSE {args.port}\n' in DOCKERFILE
    assert int(SERVICE['stop_grace_period'].rstrip('s')) > args.timeout + args.drain
    assert connections.ALWAYS.fullmatch(re.search(r'127\.0\.0\.1:\d+(/\w+)', DOCKERFILE)[1])


def test_the_image_is_built_from_all_files_that_setup_py_installs():
    if not (ROOT / '.git').exists():
        pytest.skip('not a checkout')
    ignore = (ROOT / '.dockerignore').read_text(encoding='utf-8').splitlines()
    taken = [line[1:] for line in ignore if line.startswith('!')]
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    installed = [path for path in listed if INSTALLED.fullmatch(path)]
    assert len(installed) > 100
    assert [path for path in installed if not any(fnmatch.fnmatch(path, f'{name}*') for name in taken)] == []
