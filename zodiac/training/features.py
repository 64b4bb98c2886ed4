"""Features of a frozen backbone, computed once and cached on disk, so that each epoch runs only the head.

View v of an image is its augmentation in epoch v; epoch e trains on view e modulo the number of views. The cache finds the features of an
image by the content of its file: of a longer list only the new images are computed. They go into a folder of their own, written
atomically and verified when opened, which can be deleted between runs.
"""

import functools
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
import weakref
import zlib

import numpy as np
from tqdm import tqdm

from zodiac.base import device, files, stops
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.data import cache
from zodiac.inference import engines, paddle_engine
from zodiac.models import builder, convert

BATCH = 32  # images per run of the backbone
FASTER = 'openvino'  # 1.3 times as fast as Paddle on EfficientNet-Lite0 and two cores; ONNX Runtime 0.9 times
MANY = 2000  # images from which it is worth the conversion to ONNX, a few seconds
CHECKED = 4  # images on which head and features are compared with the network
TOLERANCE = 1e-3  # of their logits, relative to the largest
BLOCK = 1 << 24  # bytes
AHEAD = 64  # files that are hashed ahead


class Backbone:
    """The part of a network that does not change in training: its backbone, and the head up to the first layer that learns or is
    random.

    Args:
        network: as builder.build returns it, with its final weights.

    Attributes:
        layer: float32 [N, 3, H, W] -> features float32 [N, ...], a copy of that part in eval mode.
        rest: features -> logits, the layers of the network behind it, not copied.
    """

    def __init__(self, network):
        self.network = network
        self.layer, self.rest = builder.split(network)

    @functools.cached_property
    def identity(self):
        """JSON-ready: what the features depend on besides the images."""
        digest = hashlib.sha256(f'{type(self.network).__name__} {self.layer!r}'.encode())
        for name, value in sorted(self.layer.state_dict().items()):
            digest.update(f'{name} {value.shape} {value.dtype}'.encode())
            digest.update(np.ascontiguousarray(value.numpy()))
        return [digest.hexdigest(), paddle.device.get_device().partition(':')[0], paddle.__version__]

    @functools.cached_property
    def run(self):
        """A function, Tensor [N, 3, H, W] -> features as float32 array; on the CPU it uses Paddle Inference."""
        if paddle.device.get_device() != 'cpu':
            return self._run_network
        folder = tempfile.mkdtemp(prefix='backbone')
        stops.before_leaving.append(functools.partial(shutil.rmtree, folder, ignore_errors=True))
        path = f'{folder}/backbone'
        with paddle.utils.unique_name.guard():
            convert.save_static(self.layer, path, [-1, 3, -1, -1], 'float32')
        graph = next(path + suffix for suffix in ('.json', '.pdmodel') if os.path.isfile(path + suffix))
        run = paddle_engine.runner(graph, f'{path}.pdiparams', 'cpu')

        def run_on(images):
            return run(images.numpy())[0]

        # not earlier: where oneDNN fails, the files are read again
        weakref.finalize(run_on, shutil.rmtree, folder, ignore_errors=True)
        return run_on

    def fastest(self, count):
        """`run` for `count` images: with many of them OpenVINO, where it is installed, else Paddle."""
        many = count >= MANY and paddle.device.get_device() == 'cpu'
        if many and engines.installed(FASTER) and convert.can_save_onnx():
            return self._run_onnx or self.run
        return self.run

    @functools.cached_property
    def _run_onnx(self):
        """`run` by OpenVINO; None if it cannot run the backbone."""
        try:
            with files.temporary_folder() as folder, paddle.utils.unique_name.guard():
                path = f'{folder}/backbone'
                convert.save_static(self.layer, path, [-1, 3, -1, -1], 'float32')
                convert.save_onnx(path, ['features'])
                with open(f'{path}.onnx', 'rb') as file:
                    content = file.read()
            manifest = {'name': 'backbone', 'sha256': {'backbone.onnx': hashlib.sha256(content).hexdigest()}}
            run = engines.ENGINES[FASTER](engines.Source(folder, manifest, content, False), 'cpu')
        except UserError:
            return None  # Paddle runs every network
        return lambda images: run(images.numpy())[0]

    def _run_network(self, images):
        with paddle.no_grad():
            return self.layer(images).numpy()

    def checked(self, images, run):
        """`run`, or that of Paddle where another engine fails on these images. Raises UserError as `check` does."""
        try:
            self.check(images, run)
        except UserError:
            if run is self.run:
                raise
            run = self.run
            self.check(images, run)
        return run

    def check(self, images, run):
        """Raise UserError unless head and features, by `run`, give the logits of the network."""
        before, training = [parameter.clone() for parameter in self.rest.parameters()], self.network.training
        self.network.eval()
        with paddle.no_grad():
            for parameter in self.rest.parameters():  # a bias of zero would hide a factor behind the head
                parameter.set_value(parameter + 0.1)
            expected, found = self.network(images).numpy(), self.rest(paddle.to_tensor(run(images))).numpy()
            for parameter, value in zip(self.rest.parameters(), before):
                parameter.set_value(value)
        if training:
            self.network.train()
        difference = np.abs(expected - found).max() / max(1, np.abs(expected).max())
        if not difference <= TOLERANCE:
            raise UserError(
                'train.views: the head gives other logits on the features than the network on the images (relative difference '
                f'{difference:.1e}); set train.views=0 and train.head=sgd'
            )


class Rows:
    """float32 [n, ...]: the features of a list of images, which lie in several arrays. `numpy.asarray` gathers them in memory.

    Args:
        parts: list of arrays [m, ...]; part, row: int [n], where the features of each image are.
    """

    def __init__(self, parts, part, row):
        self.parts, self.part, self.row = parts, part, row
        self.shape = (len(row), *parts[0].shape[1:])
        self.nbytes = 4 * int(np.prod(self.shape, dtype=np.int64))

    def __len__(self):
        return len(self.row)

    def __getitem__(self, number):
        return self.parts[self.part[number]][self.row[number]]

    def __array__(self, dtype=None, copy=None):
        gathered = np.empty(self.shape, np.float32)
        for number, values in enumerate(self.parts):
            chosen = np.flatnonzero(self.part == number)
            gathered[chosen] = values[self.row[chosen]]
        return gathered if dtype is None else gathered.astype(dtype)


def keep(backbone, images, views, read, folder, limit, say, mirror=False, by_content=False):
    """The features of the images, from the cache or computed now: only those that are not in the cache.

    Args:
        images: a dataset.ZodiacDataset of n images.
        views: number of views.
        read: part of the images -> loader, which yields them in batches, in order; its `set_epoch(view)` chooses the augmentation.
        folder: the cache, which also holds other things; limit: its largest size in bytes, for which the oldest are deleted.
        say: called with messages for the user.
        mirror: compute the features of the mirror images.
        by_content: draw the augmentation by the content of a file instead of its place in the list, so that files that come or go
            change no features of others.
    Returns: list of `Rows`, one per view.
    Raises: UserError where an image cannot be read, or the features cannot be written.
    """
    started, found, computed = time.monotonic(), [], 0
    keys = content_keys(images.paths)
    draws = np.arange(len(images))
    if by_content:
        draws = keys.view('<u4').reshape(len(keys), -1)[:, 0]
    elif images.augment:
        keys = _keys([key.tobytes() + b'%d' % place for place, key in enumerate(keys)])
    how = [*backbone.identity, repr(images.transform), repr(images.stored), mirror]
    try:
        os.makedirs(folder, exist_ok=True)
        for view in range(views):
            drawn = ['view', images.seed, view] if images.augment else []
            store = f'{folder}/{cache.key([], ["features", *how, *drawn], __name__, type(images).__module__)}'

            def make(numbers, place, view=view):
                part = images.part(numbers, draws[numbers])
                loader = read(part)
                loader.set_epoch(view)
                title = f'view {view + 1} of {views}'
                _make(place, keys[numbers], backbone, loader, mirror, title, views - view, limit, say)

            with cache.locked(f'{folder}/lock'):
                rows, count = _find_or_make(store, keys, make, say)
            found.append(rows)
            computed += count
    except OSError as error:
        raise UserError(
            f'{folder}: the features cannot be written there ({error.strerror}); set data.cache=FOLDER, or train.views=0 and '
            'train.head=sgd'
        ) from None
    size = sum(rows.nbytes for rows in found)
    say(
        f'features in {folder}: images {len(images)}, views {views}, {size / 1e9:.2f} GB; '
        f'{computed} computed now, in {time.monotonic() - started:.0f} s'
    )
    return found


def content_keys(paths):
    """uint8 [n, 32]: the SHA-256 of each file; of its path where it cannot be read."""
    return _keys(device.in_threads(_content, paths, AHEAD), hashed=True)


def groups(paths):
    """int [n]: equal for files of equal content."""
    return np.unique(content_keys(paths), axis=0, return_inverse=True)[1].reshape(-1)


def _content(path):
    try:
        return bytes.fromhex(files.sha256(path))
    except OSError:
        return hashlib.sha256(path.encode()).digest()  # reading it for the backbone will report it


def _keys(contents, hashed=False):
    digests = contents if hashed else (hashlib.sha256(content).digest() for content in contents)
    return np.frombuffer(b''.join(digests), np.uint8).reshape(-1, 32)


def averaged(views):
    """list of one float32 [n, ...]: the mean of the views, as of an image and its mirror image."""
    return [np.mean([np.asarray(view) for view in views], 0)]


def _find_or_make(store, keys, make, say):
    """(`Rows` of the images with these keys, number of images computed now). A store is the folders <store>-*, each whole or absent."""
    parts, places = [], {}

    def add(place):
        values, there = _load(place)
        places.update((key.tobytes(), (len(parts), row)) for row, key in enumerate(there))
        parts.append(values)
        os.utime(place)

    for place in sorted(glob.glob(f'{glob.escape(store)}-*')):
        try:
            add(place)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            say(f'{place}: the cache is damaged ({error}) and is created again')
            files.remove_folder(place)
    missing = {}
    for number, key in enumerate(keys):
        if key.tobytes() not in places:
            missing.setdefault(key.tobytes(), number)
    if missing:
        place = f'{store}-{hashlib.sha256(b"".join(missing)).hexdigest()[:16]}'
        make(np.array(list(missing.values())), place)
        add(place)
    part, row = np.array([places[key.tobytes()] for key in keys]).T
    return Rows(parts, part, row), len(missing)


def _load(place):
    """(float32 [n, ...], keys uint8 [n, 32]) of a folder of the cache. Raises OSError, ValueError or KeyError where it is damaged."""
    with open(f'{place}/about.json', encoding='utf-8') as file:
        about = json.load(file)
    values = np.memmap(f'{place}/values', np.float32, 'r', shape=tuple(about['shape']))
    keys = np.fromfile(f'{place}/keys', np.uint8).reshape(-1, 32)
    whole = values.nbytes == os.path.getsize(f'{place}/values') and len(values) == len(keys)
    if not whole or _crc(values.reshape(-1)) != about['crc'] or zlib.crc32(keys) != about['keys_crc']:
        raise ValueError('it has another size or checksum than was written')
    return values.view(np.ndarray), keys


def _crc(values):
    crc, step = 0, BLOCK // values.itemsize
    for start in range(0, len(values), step):
        crc = zlib.crc32(values[start : start + step], crc)
    return crc


def _make(place, keys, backbone, loader, mirror, title, missing, limit, say):
    """Compute features of a view; there must be room for `missing` views, this one included."""
    count, about = len(loader.images), None
    run = backbone.fastest(count)
    bar = tqdm(total=count, desc=f'features, {title}', unit='image', leave=False, disable=None)
    with files.atomic_folder(place) as folder, open(f'{folder}/values', 'wb') as file, bar:
        for images, _ in loader:
            if about is None:
                run = backbone.checked(images[:CHECKED], run)
            values = np.ascontiguousarray(run(images.flip(3) if mirror else images), np.float32)
            if about is None:
                about = {'shape': [count, *values.shape[1:]], 'crc': 0, 'keys_crc': zlib.crc32(keys)}
                _require_room(os.path.dirname(place), count * values[0].nbytes * missing, limit)
                if bar.disable:
                    say(f'features, {title}: computing (images: {count})')
            file.write(values)
            about['crc'] = zlib.crc32(values, about['crc'])
            bar.update(len(values))
        keys.tofile(f'{folder}/keys')
        with open(f'{folder}/about.json', 'w', encoding='utf-8') as facts:
            json.dump(about, facts)


def _require_room(folder, wanted, limit):
    room = cache.make_room(folder, wanted, limit) if wanted <= limit else limit  # else delete nothing
    if wanted > room:
        raise UserError(
            f'train.views: the features need {wanted / 1e9:.3g} GB, {folder} has room for {max(0, room) / 1e9:.3g} GB '
            f'(data.cache_gb = {limit / 1e9:g}, and the free space of the disk); raise data.cache_gb, set data.cache to a folder on '
            'another disk, lower train.views, or set train.views=0 and train.head=sgd'
        )
