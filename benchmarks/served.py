"""A small exported model, and serve.py running with it: for the benchmarks and the tests of serving."""

import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from zodiac.base.errors import UserError  # noqa: E402

COLOURS = {'红': (230, 30, 30), 'green': (30, 200, 30), 'blue': (30, 30, 230)}  # a picture of each, by its mean


def export_colours(folder):
    """Write an export that tells red, green and blue pictures apart; returns its folder."""
    import config
    import export
    from zodiac.base import paddle_setup

    paddle = paddle_setup.import_paddle()
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
    """serve.py with a model, as (address, process, file of its stderr); ended afterwards, whatever happens."""
    command = [sys.executable, str(ROOT / 'serve.py'), str(infer_dir), '--port', '0', *map(str, arguments)]
    with tempfile.TemporaryFile('w+') as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=env)
        try:
            line = process.stdout.readline()
            if not line:
                said.seek(0)
                raise UserError(f'serve.py did not start; {said.read().strip()}')
            yield re.search(r'http://\S+', line)[0], process, said
        finally:
            process.kill()
            process.communicate()
