"""Export a small model and run serve.py with it, and serve a folder as it is, for the benchmarks and tests of both."""

import contextlib
import functools
import http.server
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from ratios import ROOT

from zodiac.base.errors import UserError

COLOURS = {'红': (230, 30, 30), 'green': (30, 200, 30), 'blue': (30, 30, 230)}  # by the mean of an image

ASK = """async path => {
    const file = new File([await (await fetch(path)).blob()], 'photo');
    const {answer, fault, time} = await ask(file);
    return {...answer, fault, time};
}"""  # of the page of export.web=true, about a photo that `static` serves


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


@contextlib.contextmanager
def static(folder):
    """A plain server of a folder for the block: yields (address, {name: path} of more files that it serves, function that stops it)."""
    more = {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            return more.get(path[1:]) or super().translate_path(path)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):  # a browser that is closed breaks connections
            pass

    server = Server(('127.0.0.1', 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    try:
        yield f'http://127.0.0.1:{server.server_port}/', more, stop
    finally:
        stop()
