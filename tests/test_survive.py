"""Runs survive being stopped and damaged: a quick part of benchmarks/survive.py."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='the benchmark forks')
def test_nothing_is_lost_in_some_kills_and_damaged_checkpoints():
    counts = {'kills': 1, 'ints': 1, 'flips': 20, 'cuts': 5}
    parts = [argument for part in counts for argument in ('--only', part, f'--{part}', str(counts[part]))]
    command = [sys.executable, str(ROOT / 'benchmarks/survive.py'), '--epochs', '3', *parts]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found['lost'] == 0
    assert [row['tried'] for row in found['parts'].values()] == [*counts.values()]
