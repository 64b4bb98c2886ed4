"""No script contacts a host, stores an identifier of the user, or lets a C++ library print to the terminal."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, make_tree

from zodiac.base import device, paddle_setup
from zodiac.inference import engines
from zodiac.models import convert

paddle_setup.import_paddle()

WATCHED = ['unshare', '--net', '--mount', sys.executable, str(ROOT / 'tests' / 'watched.py')]


def can_watch():
    there = shutil.which('unshare') and shutil.which('ip') and shutil.which('bash')
    return there and not subprocess.run([*WATCHED, 'true'], capture_output=True).returncode


needs_a_namespace = pytest.mark.skipif(
    not can_watch(), reason='needs unshare, ip, bash, and permission to make a network namespace'
)

SETTINGS = [
    *('name=small', 'data.root=photos', 'data.labels=[cat,dog]', 'data.num_workers=0', 'image.size=32'),
    *('model.arch=cifarnet', 'model.pretrained=false', 'train.epochs=1', 'train.batch_size=4', 'optim.lr=0.0005'),
    *('export.agreement=0.01', 'export.logit_tolerance=100', 'export.loss_tolerance=100'),  # whatever it learns
]
SCRIPTS = """
run() {
  local to=printed/"$1.${NUMBER:-1}"
  "$PYTHON" "$ROOT/$@" > "$to.out" 2> "$to.err" || { cat "$to.err" >&2; exit 1; }
}
run annotate.py -o "${SETTINGS[@]}"
run train.py -o "${SETTINGS[@]}"
run evaluate.py -o "${SETTINGS[@]}"
run export.py -o "${SETTINGS[@]}" export.int8=$INT8
for engine in $ENGINES; do NUMBER=$engine run predict.py output/small/infer photos/test --engine $engine; done
run doctor.py --no-self-test -o "${SETTINGS[@]}"
"$PYTHON" "$ROOT/serve.py" output/small/infer --port 8000 > printed/serve.out 2> printed/serve.err & server=$!
for attempt in {1..300}; do (exec 3<>/dev/tcp/127.0.0.1/8000) 2> /dev/null && break; sleep 0.2; done
kill -TERM $server; wait $server || [ $? = 143 ]
"""
OURS = re.compile(r'interrupted|export\.int8 = True .*|small: checked on this machine, once, .*')


@pytest.fixture(scope='module')
def scripts(tmp_path_factory):
    """(what the scripts printed, by file; the hosts that they tried; the home folder afterwards), from a small run."""
    cwd = tmp_path_factory.mktemp('scripts')
    make_tree(cwd / 'photos', ['cat', 'dog'], {'train': 4, 'valid': 2, 'test': 2})
    (cwd / 'printed').mkdir()
    (cwd / 'home').mkdir()
    engines_here = [name for name in ('onnxruntime', 'openvino') if convert.can_save_onnx() and engines.installed(name)]
    values = {
        'PYTHON': sys.executable,
        'ROOT': str(ROOT),
        'ENGINES': ' '.join(['paddle', *engines_here]),
        'INT8': 'true' if engines_here else 'false',
    }
    given = ' '.join(f"'{setting}'" for setting in SETTINGS)
    head = '\n'.join(['set -e', *(f"{name}='{value}'" for name, value in values.items()), f'SETTINGS=({given})'])
    (cwd / 'scripts.sh').write_text(head + SCRIPTS)
    environment = {'HOME': str(cwd / 'home'), 'PATH': '/usr/bin:/bin:/usr/sbin:/sbin', 'LC_ALL': 'C.UTF-8'}
    done = subprocess.run([*WATCHED, 'bash', 'scripts.sh'], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = {path.name: path.read_text(encoding='utf-8') for path in (cwd / 'printed').iterdir()}
    kept = [path.relative_to(cwd / 'home') for path in (cwd / 'home').rglob('*')]
    others = [
        path.name for path in kept if path.parts[:2] != ('.cache', 'zodiac')
    ]  # ours: choices and compiled networks
    return printed, done.stdout.split(), others


@needs_a_namespace
def test_a_lookup_and_a_connection_are_seen():
    code = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo('statistics.example.org', 443)
for address in ('192.0.2.7', '127.0.0.1'):
    with contextlib.suppress(OSError):
        socket.create_connection((address, 443))
"""
    done = subprocess.run([*WATCHED, sys.executable, '-c', code], capture_output=True, text=True)
    assert 'statistics.example.org' in done.stdout and '192.0.2.7' in done.stdout.split()
    assert '127.0.0.1' not in done.stdout.split()


@needs_a_namespace
def test_no_script_contacts_a_host_or_stores_an_identifier(scripts):
    _, hosts, home = scripts
    assert hosts == []
    assert not [name for name in home if re.search('deviceid|onnxruntime|openvino|_cid$|telemetry', name)]


LIBRARIES = re.compile(
    r'^[IWEF]\d{4}|\[[IWE]:|FLAGS|ccache|oneDNN|OneDNN|TelemetryExtension|Warning:|warnings\.warn|\w\.(cc|cpp|h|py):\d+|\x1b'
)


@needs_a_namespace
def test_no_library_prints_to_the_terminal(scripts):
    printed, *_ = scripts
    assert len(printed) >= 2 * 7
    noise = {name: [line for line in text.splitlines() if LIBRARIES.search(line)] for name, text in printed.items()}
    assert not any(noise.values()), noise
    for name in ('annotate.py.1.err', 'evaluate.py.1.err', 'export.py.1.err', 'predict.py.paddle.err', 'serve.err'):
        assert not [line for line in printed[name].splitlines() if not OURS.fullmatch(line)], name


def test_the_output_of_a_library_is_hidden_unless_it_fails(capfd):
    echo = ['sh', '-c', 'echo of C++ >&2']
    with device.quiet():
        subprocess.run(echo)
    assert capfd.readouterr().err == ''
    with pytest.raises(ValueError), device.quiet():
        subprocess.run(echo)
        raise ValueError
    assert capfd.readouterr().err == 'of C++\n'
