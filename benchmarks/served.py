"""Export a small model and run serve.py with it, for the benchmarks and the tests of serving."""

import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ratios import ROOT

from zodiac.base.errors import UserError

COLOURS = {'红': (230, 30, 30), 'green': (30, 200, 30), 'blue': (30, 30, 230)}  # by the mean of an image


def export_colours(folder):
    """Export a model that classifies images as red, green or blue; returns the folder."""
    import config  # these need Paddle, and a benchmark with --infer does not
    import export
    from zodiac.base.paddle_setup import paddle
    from zodiac.models import wrappers

    class Colours(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            identity = paddle.nn.initializer.Assign(20 * np.eye(3, dtype=np.float32))
            self.pool = paddle.nn.AdaptiveAvgPool2D(1)
            self.mix = paddle.nn.Linear(3, 3, weight_attr=identity)

        def forward(self, x):
            return self.mix(self.pool(x).flatten(1))

    overrides = ['name=colours', f'data.labels={list(COLOURS)}', 'image.size=32', 'image.resize=squash']
    cfg = config.load(overrides=[*overrides, 'image.mean=[0,0,0]', 'image.std=[1,1,1]'])
    layer = wrappers.Deployed(Colours(), cfg.image.mean, cfg.image.std)
    layer.eval()
    Path(folder).mkdir(parents=True, exist_ok=True)
    export.write_models(layer, export.describe(cfg, {}, 1.0, False), str(folder), False)
    return folder


@contextlib.contextmanager
def serving(infer_dir, *arguments, env=None):
    """Run serve.py with a model for the block: yields (address, process, file of its stderr)."""
    command = [sys.executable, str(ROOT / 'serve.py'), str(infer_dir), '--port', '0', *map(str, arguments)]
    with tempfile.TemporaryFile('w+') as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise UserError(f'serve.py did not start; {log.read().strip()}')
            yield re.search(r'http://\S+', line)[0], process, log
        finally:
            process.kill()
            process.communicate()
