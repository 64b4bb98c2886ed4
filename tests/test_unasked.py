"""What no script does unasked: call a host, keep an identifier of the user, let a library of C++ talk on the terminal."""

import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from zodiac import device

device.import_paddle()

LABELS = ['cat', 'dog']
SETTINGS = (
    '-o name=small data.root=photos data.labels=[cat,dog] image.size=32 model.arch=resnet18 model.pretrained=false data.num_workers=0 '
    'train.epochs=1 train.batch_size=4 optim.lr=0.0005 export.agreement=0.01 export.logit_tolerance=10 export.loss_tolerance=10'
)
SERVE = """
serve.py output/small/infer --port 8123 & server=$!
for attempt in $(seq 300); do exec 3<>/dev/tcp/127.0.0.1/8123 && break; sleep 0.2; done 2>/dev/null
kill -TERM $server; wait $server; [ $? = 143 ]
"""
WATCHED = ['unshare', '--net', '--mount', sys.executable, str(ROOT / 'tests' / 'watched.py')]


def watched(*command, **options):
    """Run a command where it can reach no host; returns its CompletedProcess, and the hosts that it tried."""
    done = subprocess.run([*WATCHED, *map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done, done.stdout.split()


def can_watch():
    if not shutil.which('unshare') or not shutil.which('ip'):
        return False
    return subprocess.run([*WATCHED, 'true'], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    not can_watch(), reason='needs unshare and ip, and the right to make a network namespace'
)
