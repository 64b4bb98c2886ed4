"""Draw small data sets, and run the scripts as a user does."""

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.pop(
    'PYTHONDONTWRITEBYTECODE', None
)  # compile the scripts and the tests once, not in each of the many processes
sys.dont_write_bytecode = False
os.environ.setdefault('OMP_NUM_THREADS', '1')  # tests that run in parallel share the cores
os.environ.setdefault('MPLCONFIGDIR', os.path.expanduser('~/.cache/matplotlib'))  # keeps its list of fonts

SIZES = [  # width, height: landscape, portrait, square, odd, very long, tiny
    (48, 40),
    (40, 48),
    (300, 200),
    (200, 300),
    (64, 64),
    (255, 257),
    (333, 97),
    (97, 333),
    (98, 147),
    (196, 98),
    (1, 1),
    (3, 2),
    (2, 3),
    (5, 1),
    (1, 3000),
    (3000, 1),
]

ENGLISH = ['ox', 'tiger', 'rabbit']
CHINESE = ['牛', '老虎', '兔子']
AWKWARD = ['$5$', '$_$ & x^', 'a,"b"\'c']  # special characters of plotting and table programs


def pytest_unconfigure(config):
    """Remove the cache of the tests."""
    if not hasattr(config, 'workerinput'):
        shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


LONGEST = (
    'serve',
    'pipeline',
    'resume',
    'processes',
    'export',
    'unasked',
    'training',
    'features',
    'survive',
    'cache',
    'trainer',
    'notebook',
    'doctor',
    'dataset',
)


def pytest_configure(config):
    if not hasattr(config, 'workerinput'):  # else the environment is that of the process that started this one
        os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='zodiac-tests-')
    if hasattr(config.option, 'loadscopereorder'):  # pytest-xdist would start with the files with most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Start with the slowest files, so that parallel processes end at about the same time."""
    first = {f'test_{name}.py': place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.name, len(first)))


def shape_name(size):
    return f'{size[0]}x{size[1]}' if isinstance(size, tuple) else None


def picture(seed, size=(48, 40), mode='RGB'):
    """A PIL image of random blocks, which depends on the seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR).convert(mode)


def make_tree(root, labels, counts, suffix='.jpg'):
    """Draw `counts[split]` images per class into root/<split>/<label>/, or root/<label>/ for the split ''."""
    seed = 0
    for split, count in counts.items():
        for label in labels:
            folder = Path(root) / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                picture(seed).save(folder / f'{label}_{number}{suffix}')
                seed += 1


def everything_below(folder):
    """{relative path: bytes, or None for a folder}, including hidden ones."""
    found = {}
    for base, folders, names in os.walk(folder):
        for name in folders:
            found[os.path.relpath(os.path.join(base, name), folder)] = None
        for name in names:
            path = os.path.join(base, name)
            with open(path, 'rb') as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def files_below(folder):
    return {path: content for path, content in everything_below(folder).items() if content is not None}


def run_script(name, *arguments, cwd, env=None, timeout=240):
    """Run a script of the project in `cwd`; returns the CompletedProcess with text output."""
    return subprocess.run(
        [sys.executable, str(ROOT / name), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def call_script(monkeypatch, capsys):
    """As `run_script`, but in this process, which has Paddle imported."""
    import config
    from zodiac.base import paddle_setup

    paddle_setup.import_paddle()

    def call(name, *arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        monkeypatch.setattr(config, '_active', None)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / name), run_name='__main__')
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        output = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=output.out, stderr=output.err)

    return call


def assert_message(result, status, *words):
    """Assert that the script ended with `status` and no traceback, and that its stderr contains all `words`."""
    assert result.returncode == status, result.stderr + result.stdout
    assert 'Traceback' not in result.stderr, result.stderr
    for word in words:
        assert word in result.stderr, f'{word!r} is not in: {result.stderr}'


def without_pictures(page):
    """An HTML page without base64 images, which may contain any word."""
    return re.sub(r'data:image/[^"]*', '', page)


def read_page(page):
    """The texts of an HTML page, and the addresses that it loads or links."""
    texts, addresses = [], []

    class Reader(HTMLParser):
        def handle_data(self, data):
            texts.append(data)

        def handle_starttag(self, tag, attributes):
            addresses.extend(value for name, value in attributes if name in ('src', 'href') and value)

    Reader().feed(page)
    return texts, addresses


def clock_of(seed=0, steps=4, epochs=3, parts=1):
    """A `Clock` over a loader of `steps` batches of two images, which remembers what it was set to."""
    from zodiac.data.sampler import BatchSampler
    from zodiac.training import callbacks

    class Loader:
        images = SimpleNamespace(seed=seed)
        batch_sampler = BatchSampler(2 * steps, 2, accumulate=parts)
        set_to = None

        def set_epoch(self, epoch, skip=0):
            self.set_to = (epoch, skip)
            self.batch_sampler.skip = skip

        def __len__(self):
            return len(self.batch_sampler)

    clock = callbacks.Clock(Loader(), epochs)
    clock.set_model(SimpleNamespace(waiting=False))
    return clock


@pytest.fixture(params=['simplejpeg', 'pillow only'])
def decoder(request, monkeypatch):
    """Run a test with both JPEG decoders."""
    from zodiac.data import inspection

    if request.param == 'simplejpeg':
        pytest.importorskip('simplejpeg')
    else:
        monkeypatch.setattr(inspection, 'simplejpeg', None)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty working directory, with no active configuration."""
    import config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, '_active', None)
    return tmp_path


CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
THEMES = ('light', 'dark')


@pytest.fixture(scope='module')  # while it runs, asyncio.run cannot
def browser():
    if CHROMIUM is None:
        pytest.skip('there is no Chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='requirements-dev.txt is not installed')
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def page_of(browser):
    """Opens an address in a new window; fails when it contacts another host, or its script raises."""
    contexts, faults = [], []

    def open_page(address, **settings):
        contexts.append(browser.new_context(**{'locale': 'en-GB', **settings}))
        page = contexts[-1].new_page()
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on(
            'request',
            lambda request: request.url.startswith((address, 'blob:', 'data:', 'file:')) or faults.append(request.url),
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def require_accessible(page):
    """Fail with the rules of axe-core that a page breaks, WCAG 2.2 A and AA, and the elements that break them."""
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='requirements-dev.txt is not installed')
    tags = [f'wcag{version}{level}' for version in ('2', '21', '22') for level in ('a', 'aa')]
    found = axe.Axe().run(page, options={'runOnly': {'type': 'tag', 'values': [*tags, 'best-practice']}}).response
    assert [(rule['id'], [node['html'][:200] for node in rule['nodes'][:4]]) for rule in found['violations']] == []
    assert len(found['passes']) > 10
