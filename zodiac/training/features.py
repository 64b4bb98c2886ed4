"""Features of a frozen backbone, computed once and cached on disk, so that each epoch runs only the head.

View v of an image is its augmentation in epoch v; epoch e trains on view e modulo the number of views. The cache has a folder per view
of a list of images, written atomically and verified when opened; it can be deleted between runs.
"""

import functools
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

from zodiac.base import files, stops
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle
from zodiac.data import cache
from zodiac.inference import paddle_engine
from zodiac.models import builder, convert

BATCH = 32  # images per run of the backbone
CHECKED = 4  # images on which head and features are compared with the network
TOLERANCE = 1e-3  # of their logits, relative to the largest
BLOCK = 1 << 24  # bytes


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

    def _run_network(self, images):
        with paddle.no_grad():
            return self.layer(images).numpy()

    def check(self, images):
        """Raise UserError unless head and features give the logits of the network."""
        before = [parameter.clone() for parameter in self.rest.parameters()]
        self.network.eval()
        with paddle.no_grad():
            for parameter in self.rest.parameters():  # a bias of zero would hide a factor behind the head
                parameter.set_value(parameter + 0.1)
            expected, found = self.network(images).numpy(), self.rest(paddle.to_tensor(self.run(images))).numpy()
            for parameter, value in zip(self.rest.parameters(), before):
                parameter.set_value(value)
        self.network.train()
        difference = np.abs(expected - found).max() / max(1, np.abs(expected).max())
        if not difference <= TOLERANCE:
            raise UserError(
                'train.views: the head gives other logits on the features than the network on the images (relative difference '
                f'{difference:.1e}); set train.views=0'
            )


def keep(backbone, images, views, loader, folder, limit, say):
    """The features of the images, from the cache or computed now.

    Args:
        images: a dataset.ZodiacDataset of n images.
        views: number of views.
        loader: yields the images in batches, in order; `set_epoch(view)` chooses the augmentation.
        folder: the cache, which also holds other things; limit: its largest size in bytes, for which the oldest are deleted.
        say: called with messages for the user.
    Returns: list of float32 [n, ...], memory-mapped, one per view.
    Raises: UserError where an image cannot be read, or the features cannot be written.
    """
    drawn = [['view', images.seed, view] if images.augment else [] for view in range(views)]
    how = [*backbone.identity, repr(images.transform), repr(images.stored)]
    made_by = __name__, type(images).__module__
    places = [f'{folder}/{cache.key(images.paths, ["features", *how, *draw], *made_by)}' for draw in drawn]
    found, computed, started = [], [], time.monotonic()
    for view, place in enumerate(places):
        missing = sum(not os.path.isdir(other) for other in places[view:]) or 1

        def make(view=view, place=place, missing=missing):
            computed.append(view)
            loader.set_epoch(view)
            _make(place, backbone, loader, f'view {view + 1} of {views}', missing, limit, say)

        try:
            found.append(cache.find_or_make(place, lambda place: _load(place, len(images)), make, say))
        except OSError as error:
            raise UserError(
                f'{folder}: the features cannot be written there ({error.strerror}); set data.cache=FOLDER, or train.views=0'
            ) from None
    size = sum(values.nbytes for values in found)
    say(
        f'features in {folder}: images {len(images)}, views {views}, {size / 1e9:.2f} GB; '
        f'{len(computed)} computed now, in {time.monotonic() - started:.0f} s'
    )
    return found


def _load(place, count):
    with open(f'{place}/about.json', encoding='utf-8') as file:
        about = json.load(file)
    values = np.memmap(f'{place}/values', np.float32, 'r', shape=tuple(about['shape']))
    whole = values.nbytes == os.path.getsize(f'{place}/values') and len(values) == count
    if not whole or _crc(values.reshape(-1)) != about['crc']:
        raise ValueError('values has another size or checksum than was written')
    return values.view(np.ndarray)


def _crc(values):
    crc, step = 0, BLOCK // values.itemsize
    for start in range(0, len(values), step):
        crc = zlib.crc32(values[start : start + step], crc)
    return crc


def _make(place, backbone, loader, title, missing, limit, say):
    """Compute one view; there must be room for `missing` views, this one included."""
    count, about = len(loader.images), None
    bar = tqdm(total=count, desc=f'features, {title}', unit='image', leave=False, disable=None)
    with files.atomic_folder(place) as folder, open(f'{folder}/values', 'wb') as file, bar:
        for images, _ in loader:
            if about is None:
                backbone.check(images[:CHECKED])
            values = np.ascontiguousarray(backbone.run(images), np.float32)
            if about is None:
                about = {'shape': [count, *values.shape[1:]], 'crc': 0}
                _require_room(os.path.dirname(place), count * values[0].nbytes * missing, limit)
                if bar.disable:
                    say(f'features, {title}: computing (images: {count})')
            file.write(values)
            about['crc'] = zlib.crc32(values, about['crc'])
            bar.update(len(values))
        with open(f'{folder}/about.json', 'w', encoding='utf-8') as facts:
            json.dump(about, facts)


def _require_room(folder, wanted, limit):
    room = cache.make_room(folder, wanted, limit) if wanted <= limit else limit  # else delete nothing
    if wanted > room:
        raise UserError(
            f'train.views: the features need {wanted / 1e9:.3g} GB, {folder} has room for {max(0, room) / 1e9:.3g} GB '
            f'(data.cache_gb = {limit / 1e9:g}, and the free space of the disk); raise data.cache_gb, set data.cache to a folder on '
            'another disk, lower train.views, or set train.views=0'
        )
