"""Features of a frozen backbone, computed once and cached on disk, so that each epoch, and evaluate.py, run only the head.

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
from scipy.special import softmax
from tqdm import tqdm

from zodiac.base import device, files, stops
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.data import cache
from zodiac.inference import engines, paddle_engine
from zodiac.models import builder, convert, prediction

BATCH = 32  # images per run of the backbone
# On two cores, for EfficientNet-Lite0 in float32, OpenVINO is 1.2 to 1.7 times as fast as Paddle, ONNX Runtime 0.9 to 1.5 times. bfloat16
# is another 2 to 3 times as fast and as accurate over folds, but gives other features than the network that is kept.
ENGINE = 'openvino'
FEW = 32  # images up to which the network itself is faster than tracing a static graph
MANY = 500  # images from which converting and compiling it as ONNX is worth the time; later runs find it in the cache
CHECKED = 4  # images on which head and features are compared with the network
TOLERANCE = 1e-3  # of their logits, relative to the largest
BLOCK = 1 << 24  # bytes
AHEAD = 64  # files that are hashed ahead


class NoFeatures(UserError):
    """The features cannot be kept, or are not those of the network."""


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
        self._faster = None  # `run` by ENGINE, once it is loaded

    @functools.cached_property
    def identity(self):
        """JSON-ready: what the features depend on besides the images."""
        digest = hashlib.sha256(f'{type(self.network).__name__} {self.layer!r}'.encode())
        for name, value in sorted(self.layer.state_dict().items()):
            digest.update(f'{name} {value.shape} {value.dtype}'.encode())
            digest.update(np.ascontiguousarray(value.numpy()))
        return [digest.hexdigest(), paddle.device.get_device().partition(':')[0], paddle.__version__]

    @functools.cached_property
    def graph(self):
        """Path of the static graph, without suffix, in a folder that is removed with this object."""
        folder = tempfile.mkdtemp(prefix='backbone')
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        stops.before_leaving.append(functools.partial(shutil.rmtree, folder, ignore_errors=True))
        with paddle.utils.unique_name.guard():
            convert.save_static(self.layer, f'{folder}/backbone', [-1, 3, -1, -1], 'float32')
        return f'{folder}/backbone'

    @functools.cached_property
    def run(self):
        """A function, Tensor [N, 3, H, W] -> features as float32 array; on the CPU it uses Paddle Inference."""
        if paddle.device.get_device() != 'cpu':
            return self.run_network
        run = paddle_engine.runner(convert.network_of(self.graph), f'{self.graph}.pdiparams', 'cpu')
        return lambda images: run(images.numpy())[0]

    def fastest(self, count, folder):
        """`run` for `count` images: by OpenVINO, where it is installed and there are many images or the backbone has been converted before;
        else by Paddle, without a static graph for a few images.

        Args:
            folder: the cache, where the converted backbone is kept.
        """
        if self._faster:
            return self._faster
        if paddle.device.get_device() != 'cpu' or not engines.installed(ENGINE):
            return self._by_paddle(count)
        place = f'{folder}/{cache.key([], ["backbone", *self.identity], __name__)}'
        try:
            onnx = _read_verified(f'{place}/onnx')
            if onnx is None:
                if count < MANY or not convert.can_save_onnx():
                    return self._by_paddle(count)
                onnx = self._convert(place)
            manifest = {'name': 'backbone', 'sha256': {'backbone.onnx': hashlib.sha256(onnx).hexdigest()}}
            run = engines.ENGINES[ENGINE](engines.Source(place, manifest, onnx), 'cpu')
        except UserError:
            return self._by_paddle(count)  # Paddle runs every network
        self._faster = lambda images: run(images.numpy())[0]
        return self._faster

    def _by_paddle(self, count):
        return self.run_network if count <= FEW else self.run

    def _convert(self, place):
        """The backbone as ONNX, which is kept in the folder `place`. Raises UserError where it cannot be converted."""
        convert.save_onnx(self.graph, ['features'])
        with open(f'{self.graph}.onnx', 'rb') as file:
            onnx = file.read()
        _write_verified(place, 'onnx', onnx)
        return onnx

    def run_network(self, images):
        """`run` by the network itself."""
        with paddle.no_grad():
            return self.layer(images).numpy()

    def checked(self, images, run):
        """`run`, or that of Paddle where another engine fails on these images. Raises NoFeatures as `check` does."""
        try:
            self.check(images, run)
        except UserError:
            if run is self.run:
                raise
            run = self.run
            self.check(images, run)
        return run

    def check(self, images, run):
        """Raise NoFeatures unless head and features, by `run`, give the logits of the network."""
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
            raise NoFeatures(
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


class Extractor:
    """Gives the features of images under a frozen network: from the cache of a configuration, or computed now, only for those images that
    are not in it.

    Args:
        cfg: a `config.Config`. With train.head=linear the augmentation of an image is drawn by the content of its file, instead of its
            place in the list: files that come or go change no features of others.
        network: as builder.build returns it, with its final weights.
        loader: dataset.Loader; its `set_epoch(view)` chooses the augmentation.
        say: called with messages for the user.

    Attribute `backbone`: a `Backbone`.
    """

    def __init__(self, cfg, network, loader, say):
        self.backbone = Backbone(network)
        self.read = lambda images: loader(images, BATCH, cfg)
        self.folder, self.limit = cfg.cache_dir, int(cfg.data.cache_gb * 10**9)
        self.by_content = cfg.train.head == 'linear'
        self.say = say
        self._keys = {}  # by path
        self._given, self._computed, self._bytes, self._seconds = 0, 0, 0, 0.0  # by `features`, in all

    def keys(self, paths):
        """`content_keys`; each file is read once."""
        new = [path for path in dict.fromkeys(paths) if path not in self._keys]
        self._keys.update(zip(new, content_keys(new)))
        return np.stack([self._keys[path] for path in paths])

    def features(self, images, keys, views=1, mirror=False):
        """list of `Rows`, one per view.

        Args:
            images: a dataset.ZodiacDataset of n images; keys: those of its paths.
            views: number of views.
            mirror: compute the features of the mirror images.
        Raises: UserError where an image cannot be read; NoFeatures where the features cannot be written, or are not those of the
            network.
        """
        started, found = time.monotonic(), []
        images.use_order(None)  # in the order of the index
        draws = np.arange(len(images))
        if self.by_content:
            draws = keys.view('<u4').reshape(len(keys), -1)[:, 0]
        elif images.augment:
            keys = _joined(_sha256(key.tobytes() + b'%d' % place) for place, key in enumerate(keys))
        how = [*self.backbone.identity, repr(images.transform), repr(images.stored), mirror]
        try:
            os.makedirs(self.folder, exist_ok=True)
            for view in range(views):
                drawn = ['view', images.seed, view] if images.augment else []
                store = f'{self.folder}/{cache.key([], ["features", *how, *drawn], __name__, type(images).__module__)}'

                def make(numbers, place, view=view):
                    loader = self.read(images.part(numbers, draws[numbers]))
                    loader.set_epoch(view)
                    title = f'view {view + 1} of {views}'
                    _make(
                        place, keys[numbers], self.backbone, loader, mirror, title, views - view, self.limit, self.say
                    )

                with cache.locked(f'{self.folder}/lock'):
                    rows, count = _find_or_make(store, keys, make, self.say)
                found.append(rows)
                self._given += len(rows)
                self._computed += count
                self._bytes += count * rows.nbytes // max(1, len(rows))
        except OSError as error:
            raise NoFeatures(
                f'{self.folder}: the features cannot be written there ({error.strerror}); set data.cache=FOLDER, or train.views=0 and '
                'train.head=sgd'
            ) from None
        self._seconds += time.monotonic() - started
        return found

    def say_total(self):
        """Say how many features `features` has computed so far, and where they are kept; nothing where it could give none."""
        if self._computed:
            size = f'{self._bytes / 1e6:,.0f} MB'
            self.say(f'features: {self._computed:,} computed in {self._seconds:.0f} s, {size}, kept in {self.folder}')
        elif self._given:
            self.say(f'features: none computed, all found in {self.folder}')

    def logits(self, images, flip_average=False):
        """float32 [n, classes] of the network in eval mode; see `features`.

        Args:
            images: without augmentation; flip_average: the mean over each image and its mirror image, as of a wrappers.FlipAverage.
        """
        keys = self.keys(images.paths)
        views = self.features(images, keys) + (self.features(images, keys, mirror=True) if flip_average else [])
        parts = np.array_split(np.arange(len(images)), -(-len(images) // BATCH))

        def run(rows, numbers):
            return self.backbone.rest(paddle.to_tensor(np.stack([rows[number] for number in numbers]))).numpy()

        with paddle.no_grad():
            return np.mean([np.concatenate([run(rows, numbers) for numbers in parts]) for rows in views], 0)

    def logits_of(self, images, flip_average=False):
        """`logits` for normalised images, float32 [n, 3, H, W], by the network itself. The features of each image are kept."""
        views = [images, np.ascontiguousarray(images[..., ::-1])] if flip_average else [images]
        with paddle.no_grad():
            return np.mean([self.backbone.rest(paddle.to_tensor(self._kept(view))).numpy() for view in views], 0)

    def features_of(self, images, flip_average=False):
        """The features, float32 [n, ...], of such images, also by the network itself."""
        views = [images, np.ascontiguousarray(images[..., ::-1])] if flip_average else [images]
        return np.mean([self._kept(view) for view in views], 0)

    def _kept(self, images):
        keys = _joined(map(_sha256, images))
        store = f'{self.folder}/{cache.key([], ["images", *self.backbone.identity], __name__)}'

        def computed(numbers):
            for part in np.array_split(numbers, -(-len(numbers) // BATCH)):
                yield self.backbone.run_network(paddle.to_tensor(images[part]))

        def make(numbers, place):
            _store(place, keys[numbers], computed(numbers), lambda size: _require_room(self.folder, size, self.limit))

        try:
            os.makedirs(self.folder, exist_ok=True)
            with cache.locked(f'{self.folder}/lock'):
                return np.asarray(_find_or_make(store, keys, make, self.say)[0])
        except (OSError, UserError):  # not kept: computed again next time
            return np.concatenate(list(computed(np.arange(len(images)))))


def predictor(cfg, network, origin, loader, say):
    """What predicts with a run's network: from features, which the training has kept, where the backbone of its weights is frozen.

    Args:
        network, origin: of `checkpoint.load_network`.
        loader, say: as for `Extractor`.
    Returns: (predict, extractor): predict(images) -> float32 [n, classes], probabilities; the `Extractor`, or None for a backbone that
        was fine-tuned.
    """

    def from_images(images):
        return prediction.predict(network, loader(images, cfg.evaluate.batch_size, cfg), len(images))

    tuned = cfg.train.head == 'linear' and (origin['epoch'] or 1) > 1
    if tuned or not cfg.train.on_features:
        return from_images, None
    extractor = Extractor(cfg, getattr(network, 'network', network), loader, say)

    def from_features(images):
        try:
            return softmax(extractor.logits(images, cfg.evaluate.flip_average), axis=1)
        except NoFeatures as error:
            say(f'{error}; this time the network runs on the images')
            return from_images(images)

    return from_features, extractor


def content_keys(paths):
    """uint8 [n, 32]: the SHA-256 of each file; of its path where it cannot be read."""
    return _joined(device.in_threads(_content, paths, AHEAD))


def groups(keys):
    """int [n]: equal for files of equal content; keys: of `content_keys`."""
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _content(path):
    try:
        return bytes.fromhex(files.sha256(path))
    except OSError:
        return _sha256(path.encode())  # reading it for the backbone will report it


def _sha256(content):
    return hashlib.sha256(content).digest()


def _joined(digests):
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


def _read_verified(path):
    """The bytes of a file behind their SHA-256; None where it is missing or damaged."""
    try:
        with open(path, 'rb') as file:
            digest, content = file.read(32), file.read()
        os.utime(os.path.dirname(path))  # the cache removes what has not been used for long
    except OSError:
        return None
    return content if _sha256(content) == digest else None


def _write_verified(place, name, content):
    with files.atomic_folder(place) as folder, open(f'{folder}/{name}', 'wb') as file:
        file.write(_sha256(content) + content)


def _make(place, keys, backbone, loader, mirror, title, missing, limit, say):
    """Compute features of a view; there must be room for `missing` views, this one included."""
    count = len(loader.images)
    run = backbone.fastest(count, os.path.dirname(place))
    bar = tqdm(total=count, desc=f'features, {title}', unit='image', leave=False, disable=None)

    def computed(run):
        checked = False
        for images, _ in loader:
            if not checked:
                run, checked = backbone.checked(images[:CHECKED], run), True
            values = run(images.flip(3) if mirror else images)
            yield values
            bar.update(len(values))

    def require_room(size):
        _require_room(os.path.dirname(place), size * missing, limit)
        if bar.disable:
            say(f'features, {title}: computing (images: {count})')

    with bar:
        _store(place, keys, computed(run), require_room)


def _store(place, keys, batches, require_room):
    """Write features, float [m, ...] in each of `batches`, and their keys, [n, 32], to a folder of the cache.

    Args:
        require_room: called with the bytes that all features need, before the first are written.
    """
    about = None
    with files.atomic_folder(place) as folder, open(f'{folder}/values', 'wb') as file:
        for values in batches:
            values = np.ascontiguousarray(values, np.float32)
            if about is None:
                about = {'shape': [len(keys), *values.shape[1:]], 'crc': 0, 'keys_crc': zlib.crc32(keys)}
                require_room(len(keys) * values[0].nbytes)
            file.write(values)
            about['crc'] = zlib.crc32(values, about['crc'])
        keys.tofile(f'{folder}/keys')
        with open(f'{folder}/about.json', 'w', encoding='utf-8') as facts:
            json.dump(about, facts)


def _require_room(folder, wanted, limit):
    room = cache.make_room(folder, wanted, limit) if wanted <= limit else limit  # else delete nothing
    if wanted > room:
        raise NoFeatures(
            f'train.views: the features need {wanted / 1e9:.3g} GB, {folder} has room for {max(0, room) / 1e9:.3g} GB '
            f'(data.cache_gb = {limit / 1e9:g}, and the free space of the disk); raise data.cache_gb, set data.cache to a folder on '
            'another disk, lower train.views, or set train.views=0 and train.head=sgd'
        )
