"""Index files to samples: `ZodiacDataset(mode='train')`, and the loaders that feed training and evaluation.

from dataset import ZodiacDataset
image, label = ZodiacDataset(mode='valid')[0]      # float32 [3, 224, 224], int64
"""

import functools
import mmap
import os
import shlex

import numpy as np
from PIL import Image

import config
from zodiac.base import device, files, stops
from zodiac.base.errors import KILLED_LOADER, UserError, fault
from zodiac.base.paddle_setup import paddle
from zodiac.data import augment
from zodiac.data.index import read as read_index
from zodiac.images import decoding, transforms

FEWEST = (
    8  # images of a process in a batch that BatchNorm can do with, where a run goes on with batches of another size
)


class ZodiacDataset(paddle.io.Dataset):
    """The images of one index file, `<data.root>/<mode>.txt`.

    An item is (float32 array [3, size, size], int64 label). In mode 'train' images are augmented at random; the draw is
    a function of (seed, epoch, index) alone. Set `epoch` before each pass; left at None, each image counts for itself
    how often it was read. Where `order` is set, item i is image order[i].

    Args:
        mode: 'train', 'valid' or 'test'.
        augment: whether to augment; None means in mode 'train'.
        cfg: a `config.Config`; None means the active one.
    Raises: UserError for a bad index, and on access for an image that is missing, cannot be decoded or cannot be transformed.
    """

    def __init__(self, mode='train', augment=None, cfg=None):
        super().__init__()
        cfg = cfg or config.active()
        self.mode = mode
        self.paths, self.labels = read_index(f'{cfg.data.root}/{mode}.txt', len(cfg.data.labels))
        require_same_order(cfg)
        self.seed = cfg.seed
        self.epoch = None
        self.order = None
        self.augment = mode == 'train' if augment is None else augment
        self.transform = train_transform(cfg) if self.augment else eval_transform(cfg)
        self.stored = self.pictures = None  # see `keep_pictures`
        self.features = (
            None  # or float32 [n, ...] of each view: items are rows of these then, see zodiac/training/features.py
        )
        self._normal_factors = transforms.normal_factors(cfg.image.mean, cfg.image.std)
        self._reads = np.frombuffer(
            mmap.mmap(-1, 4 * len(self.paths)), np.uint32
        )  # anonymous memory, shared with worker processes

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        number = self._number(index)
        return transforms.apply(self.transform[-1:], self._pixels(number, index)), self.labels[number]

    def sample(self, index):
        """The pixels of an item, uint8 [size, size, 3], or its features, before `finish`; its label."""
        number = self._number(index)
        if self.features:
            return self.features[(self.epoch or 0) % len(self.features)][number], self.labels[number]
        return self._pixels(number, index), self.labels[number]

    def use_order(self, order):
        """From now on item i is image order[i], or image i where it is None."""
        self.order = order

    def use_features(self, features):
        """From now on items are features: float32 [n, ...] of each view, see zodiac/training/features.py."""
        self.features = features

    def _number(self, index):
        return index if self.order is None else self.order[index]

    def _pixels(self, number, index):
        path = self.paths[number]
        try:
            return self._read(number, self._generator(index))
        except decoding.ImageError as error:
            raise UserError(f'{error}; {files.advice(error)}') from None
        except Exception as error:
            raise fault(path, error) from error

    def _read(self, number, rng):
        if not self.stored:
            return transforms.read(self.transform[:-1], self.paths[number], rng)
        pixels = self.pictures.get(number) if self.pictures else None
        if pixels is None:
            pixels = transforms.read(self.stored, self.paths[number])
        return transforms.apply(self.rest, Image.fromarray(pixels), rng) if self.rest else pixels

    def keep_pictures(self, cfg, say):
        """Read the images from a cache of decoded pictures, which is made now if there is none; `say` takes texts for the user.

        Kept is what the transform gives before its first random operation; where that is none, the whole picture with a short
        side of data.cache_side at most, for cuts at random to be taken from.
        """
        from zodiac.data import cache

        self.stored, self.rest = before_random(self.transform[:-1], cache_side(cfg))
        self.pictures = cache.open_or_make(cfg.cache_dir, self.paths, self.stored, int(cfg.data.cache_gb * 10**9), say)

    def finish(self, pixels):
        """What the network sees, on the device of `pixels`: Tensor uint8 [N, size, size, 3] -> float32 [N, 3, size, size].

        Features stay as they are.
        """
        if self.features:
            return pixels
        factor, shift = (paddle.to_tensor(part[:, None, None]) for part in self._normal_factors)
        return pixels.transpose([0, 3, 1, 2]).astype('float32') * factor - shift

    def spread(self, count):
        """Numbers of `count` images, or of all there are, spread evenly over the index."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist()

    def _generator(self, index):
        if not self.augment:
            return None
        index = index % len(self)
        epoch = self.epoch
        if epoch is None:
            epoch = int(self._reads[index])
            self._reads[index] += 1
        return np.random.default_rng([self.seed, epoch, index])

    def __getstate__(self):  # where workers are not forked
        return {**self.__dict__, '_reads': self._reads.copy()}


def require_same_order(cfg):
    """Raise UserError where annotate.py has numbered the classes in another order than data.labels has now."""
    path, ours = f'{cfg.data.root}/annotation.json', cfg.data.labels
    found = files.read_json(path)
    theirs = found.get('labels') if isinstance(found, dict) else None
    if isinstance(theirs, list) and theirs != ours and sorted(map(str, theirs)) == sorted(ours):
        of_run = f'{cfg.run_dir}/config.yaml'
        perhaps = f', perhaps -c {shlex.quote(of_run)}' if os.path.isfile(of_run) else ''
        raise UserError(
            f'{path}: the index files were written with data.labels = {theirs}, now it is {ours}, the same classes in another order; use '
            f'the configuration of then{perhaps}, or run annotate.py again; see '
            'docs/troubleshooting.md#class-order'
        )


def train_transform(cfg):
    """The training transform of a configuration: its `augment` list, then the normalisation of evaluation."""
    reduced = [transforms.REDUCED] if cfg.data.reduced_decoding else []
    return [*reduced, *augment.build(cfg.augment, cfg.image.size), eval_transform(cfg)[-1]]


def eval_transform(cfg):
    """The transform of evaluation, export and prediction, as data."""
    image = cfg.image
    return transforms.eval_transform(image.size, image.mean, image.std, image.resize, cfg.data.reduced_decoding)


def cache_side(cfg):
    """Pixels of the short side of a picture that is kept to be cut at random."""
    if cfg.data.cache_side != 'auto':
        return cfg.data.cache_side
    return next((step['resize'] for step in eval_transform(cfg) if 'resize' in step), cfg.image.size)


def before_random(transform, short):
    """A transform in two parts: what comes before its first random operation, as data, and the rest.

    Where it begins with one, the first part scales the short side to `short` pixels.
    """
    steps = [step for step in transform if step != transforms.REDUCED]
    reduced, first = transform[: len(transform) - len(steps)], steps[0]
    if isinstance(first, augment.Resize):
        return [*reduced, {'op': 'resize', 'size': first.size}], steps[1:]
    if not callable(first):
        return [*reduced, first], steps[1:]
    return [*reduced, {'op': 'shrink', 'short': short}], steps


class Loader(paddle.io.DataLoader):
    """A DataLoader over a ZodiacDataset in which a bad file, or any fault at it, ends the run with its name, also from a worker process.

    Batches come from the workers as pixels, a quarter of the bytes, and are normalised on the device.

    With `shuffle` the order is a function of (seed, epoch); call `set_epoch` before each pass. Several processes share
    each batch, see `Batches`.

    Args:
        batch_size: most images of a batch, over all processes.
        mixer: callable (images, labels, numpy Generator) -> (images, labels), see soft_labels.Mixer; None for none.
        balanced: draw each class equally often, with return, instead of each image once.
        workers: processes that read; None for data.num_workers.
        accumulate: batches of a step of the optimizer.
    """

    def __init__(self, dataset, batch_size, cfg, shuffle=False, mixer=None, balanced=False, workers=None, accumulate=1):
        processes = paddle.distributed.get_world_size()
        if workers is None:
            on_gpu = not paddle.device.get_device().startswith('cpu')
            workers = device.loader_workers(cfg.data.num_workers, on_gpu)
        batch_bytes = -(-batch_size // processes) * 3 * cfg.image.size**2
        self.images = dataset
        self.mixer = mixer
        self.balanced = balanced
        self.shuffle = shuffle
        self.epoch = 0
        self.guarded = _Guarded(dataset, cfg.image.size)
        super().__init__(
            self.guarded,
            batch_sampler=Batches(len(dataset), batch_size, processes, device.rank(), accumulate),
            collate_fn=self.guarded.collate,
            num_workers=workers,
            worker_init_fn=stops.work_for_parent,
            use_shared_memory=device.shared_memory_fits(cfg.data.shared_memory, workers * 2 * batch_bytes),
        )

    def set_epoch(self, epoch, skip=0):
        """Choose the order and the augmentation of the next pass, and leave out its first `skip` images."""
        self.epoch = self.images.epoch = epoch
        rng = np.random.default_rng([self.images.seed, epoch])
        if self.shuffle:
            self.batch_sampler.order = rng.permutation(len(self.images))
        if self.balanced:
            self.images.use_order(balanced_order(self.images.labels, rng))
        self.batch_sampler.skip = skip

    def __iter__(self):
        self.guarded.fault[0] = 0
        with stops.held():  # until the processes, which are forked now, leave signals to this one
            batches = super().__iter__()
        # the batches first: asked for one more at the end, Paddle lets its processes go
        for (pixels, labels), bounds in zip(_told(batches), self.batch_sampler.bounds()):
            self.guarded.check()
            batch = [self.images.finish(pixels), labels]
            if self.mixer:
                rng = np.random.default_rng([self.images.seed, self.epoch, bounds[0], device.rank()])
                batch = self.mixer(*batch, rng)
            yield batch


def _told(batches):
    """Yield what Paddle's iterator does, and raise UserError where one of its processes was killed, which Paddle may not say."""
    try:
        yield from batches
    except SystemError:
        workers = getattr(batches, '_workers', ())
        if any((worker.exitcode or 0) < 0 for worker in workers):
            raise UserError(KILLED_LOADER) from None
        raise


class Batches(paddle.io.BatchSampler):
    """The numbers of the images of each batch; of several processes each gets its share.

    Every image comes exactly once a pass. A pass is cut into the fewest steps of at most batch_size * accumulate images, a
    step into the fewest batches of at most batch_size, and a batch into the shares of the processes. All are consecutive
    parts of `order`, and all cuts are even, see `_cut`: there is no small batch at the end of a pass, whose BatchNorm
    statistics would be those of a few images.

    A pass that leaves out its first steps (`skip`) has the others unchanged. If it has to go on where none of its own steps ends,
    since the size of the batches has changed, and hardly any images are left, it begins a little earlier: see `FEWEST`.

    Attributes: order, int [count]; skip, images at the beginning of the pass to leave out.
    """

    def __init__(self, count, batch_size, processes=1, rank=0, accumulate=1):
        self.order = np.arange(count)
        self.skip = 0
        self.batch_size = batch_size
        self.processes = processes
        self.rank = rank
        self.accumulate = accumulate

    def bounds(self):
        """Tuple of (start, stop) of each batch of the pass."""
        return self._plan()[0]

    def ends(self):
        """Set of the `stop` of the batches after which the optimizer takes a step."""
        return self._plan()[1]

    def _plan(self):
        return _plan(len(self.order), self.skip, self.batch_size, self.processes, self.accumulate)

    def share(self, bounds):
        """The numbers of the images of this process in one batch."""
        return np.array_split(self.order[slice(*bounds)], self.processes)[self.rank].tolist()

    def smallest(self):
        """Fewest images of a batch of a whole pass."""
        bounds, _ = _plan(len(self.order), 0, self.batch_size, self.processes, self.accumulate)
        return min(stop - start for start, stop in bounds)

    def __iter__(self):
        return map(self.share, self.bounds())

    def __len__(self):
        return len(self.bounds())


def _least(size, processes):
    """Images that each process should have of a batch: half of its share of `size`, and two where it may have two."""
    return max(-(-size // (2 * processes)), min(2, size // processes))


@functools.lru_cache(maxsize=4)  # Paddle asks for the length at every step
def _plan(count, skip, batch_size, processes, accumulate):
    """(start, stop) of each batch, and where steps of the optimizer end; see `Batches`."""
    fewest = processes * min(FEWEST, _least(batch_size, processes))
    start = min(skip, max(0, count - fewest)) if skip < count else count
    steps = _cut(start, count, batch_size * accumulate, processes)
    bounds = tuple(batch for step in steps for batch in _cut(*step, batch_size, processes))
    return bounds, frozenset(stop for _, stop in steps)


def _cut(start, stop, size, processes):
    """A range in the fewest parts of at most `size`, as list of (start, stop); their lengths differ by one at most, longer ones first.

    Where a process would get less than `_least`, there is one part less, and each is a little longer than `size`.
    """
    count = stop - start
    if not count:
        return []
    parts = max(1, min(-(-count // size), count // (processes * _least(size, processes))))
    length, longer = divmod(count, parts)
    edges = [start + number * length + min(number, longer) for number in range(parts + 1)]
    return list(zip(edges, edges[1:]))


def balanced_order(labels, rng):
    """int array [n]: image numbers drawn with return, each class equally probable, each image within its class too."""
    counts = np.bincount(labels)
    weights = 1 / counts[labels]
    return rng.choice(len(labels), len(labels), p=weights / weights.sum())


class _Guarded(paddle.io.Dataset):
    """A dataset whose errors come out of worker processes and threads as messages: Paddle would lose the file's name, or wait
    for ever.

    The sample handed over in place of a bad file never reaches the network: the loader calls `check` before it hands out
    a batch.
    """

    def __init__(self, dataset, size):
        super().__init__()
        self.dataset = dataset
        self.placeholder = np.zeros([size, size, 3], np.uint8), np.int64(0)
        self.fault = mmap.mmap(-1, 4096)  # anonymous memory, shared with worker processes: a flag, then the message

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        try:
            return self.dataset.sample(index)
        except BaseException as error:  # SystemExit too would end the thread alone
            self.tell(error if isinstance(error, UserError) else fault(f'image {index}', error))
            return self.placeholder

    def collate(self, samples):
        """[(uint8 [size, size, 3], or features; int64 label), ...] -> a batch of each."""
        try:
            return [np.stack(parts) for parts in zip(*samples)]
        except Exception as error:  # also where a placeholder is among features
            self.tell(fault('a batch of images', error))
            return [np.stack(parts) for parts in zip(self.placeholder)]

    def tell(self, error):
        """Keep a UserError for `check`, unless there is one."""
        text = str(error).encode('utf-8', 'replace')[:4000] + b'\0'
        if not self.fault[0]:
            self.fault[1 : 1 + len(text)] = text
            self.fault[0] = 1

    def check(self):
        """Raise UserError if there was any."""
        if self.fault[0]:
            raise UserError(self.fault[1:].split(b'\0', 1)[0].decode('utf-8', 'replace'))
