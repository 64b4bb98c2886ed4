"""`ZodiacDataset`, the images of an index file, and `Loader`, which feeds them to training and evaluation.

from dataset import ZodiacDataset
image, label = ZodiacDataset(mode='valid')[0]      # float32 [3, 224, 224], int64
"""

import copy
import mmap
import os
import shlex

import numpy as np
from PIL import Image

import config
from zodiac.base import class_names, device, files, stops
from zodiac.base.errors import KILLED_LOADER, UserError, fault
from zodiac.base.paddle_setup import paddle
from zodiac.data import augment, cache
from zodiac.data.index import read as read_index
from zodiac.data.sampler import BatchSampler, balanced_order
from zodiac.images import decoding, transforms


class ZodiacDataset(paddle.io.Dataset):
    """The images of one index file, `<data.root>/<mode>.txt`.

    An item is (float32 array [3, size, size], int64 label). In mode 'train' images are augmented at random, as a function of (seed,
    epoch, index) alone. Set `epoch` before each pass; if it is None, every read of an image is a new draw.

    Args:
        mode: 'train', 'valid' or 'test'.
        augment: whether to augment; None: only in mode 'train'.
        cfg: a `config.Config`; None: the active one.
    Raises: UserError for a bad index, and on access for an image that is missing, cannot be decoded or cannot be transformed.
    """

    def __init__(self, mode='train', augment=None, cfg=None):
        super().__init__()
        cfg = class_names.resolve(cfg or config.active())
        self.mode = mode
        require_same_numbers(cfg)
        self.paths, self.labels = read_index(f'{cfg.data.root}/{mode}.txt', len(cfg.data.labels))
        self.seed = cfg.seed
        self.epoch = None
        self.order = None
        self.numbers = self.draws = None  # see `part`
        self.augment = mode == 'train' if augment is None else augment
        self.transform = train_transform(cfg) if self.augment else eval_transform(cfg)
        self.stored = self.pictures = None  # see `keep_pictures`
        self.features = None  # see `use_features`
        self._normal_factors = transforms.normal_factors(cfg.image.mean, cfg.image.std)
        self._reads = np.frombuffer(mmap.mmap(-1, 4 * len(self.paths)), np.uint32)  # shared with worker processes

    def __len__(self):
        return len(self.paths if self.numbers is None else self.numbers)

    def __getitem__(self, index):
        number = self._number(index)
        return transforms.apply(self.transform[-1:], self._pixels(number, index)), self.labels[number]

    def use_order(self, order):
        """Let item i be image order[i], for a sequence of image numbers; None: image i."""
        self.order = order

    def part(self, numbers, draws):
        """These images only, int [m]; image i is augmented as number draws[i], int [m], of the whole."""
        part = copy.copy(self)
        part.numbers, part.draws, part.order, part.features = numbers, draws, None, None
        return part

    def use_features(self, features):
        """Let `sample` give rows of `features`: float32 [n, ...] of each view, see zodiac/training/features.py; None: the pixels."""
        self.features = features

    def sample(self, index):
        """The pixels of an item, uint8 [size, size, 3], or its features, before `finish`; and its label."""
        number = self._number(index)
        if self.features:
            return self.features[(self.epoch or 0) % len(self.features)][number], self.labels[number]
        return self._pixels(number, index), self.labels[number]

    def _number(self, index):
        if self.numbers is not None:
            return int(self.numbers[index])
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
        """Read the images from a cache of decoded pictures, which is created if there is none.

        The cache holds the output of the transform before its first random operation. If the transform starts with one, it holds the
        whole picture, its short side scaled down to that of evaluation, and the random crops are taken from that.

        Args:
            say: takes a message for the user.
        """
        evaluation = eval_transform(cfg)
        side = next((step['resize'] for step in evaluation if 'resize' in step), cfg.image.size)
        self.stored, self.rest = before_random(self.transform[:-1], side)
        self.pictures = cache.open_or_make(cfg.cache_dir, self.paths, self.stored, int(cfg.data.cache_gb * 10**9), say)

    def finish(self, pixels):
        """Normalise a batch on its device: Tensor uint8 [N, size, size, 3] -> float32 [N, 3, size, size]. Features are returned as is."""
        if self.features:
            return pixels
        if pixels.place.is_cpu_place():  # NumPy is faster
            return paddle.to_tensor(transforms.apply(self.transform[-1:], pixels.numpy()))
        factor, shift = (paddle.to_tensor(part[:, None, None]) for part in self._normal_factors)
        return pixels.transpose([0, 3, 1, 2]).astype('float32') * factor - shift

    def spread(self, count):
        """Numbers of `count` images, or of all if there are fewer, spread evenly over the index."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist()

    def _generator(self, index):
        if not self.augment:
            return None
        index = index % len(self)
        epoch = self.epoch
        if self.draws is not None:
            return np.random.default_rng([self.seed, epoch, int(self.draws[index])])
        if epoch is None:
            epoch = int(self._reads[index])
            self._reads[index] += 1
        return np.random.default_rng([self.seed, epoch, index])

    def __getstate__(self):  # for workers that are not forked
        return {**self.__dict__, '_reads': self._reads.copy()}


def require_same_numbers(cfg):
    """Raise UserError if annotate.py gave a class of data.labels another number."""
    ours, theirs = cfg.data.labels, class_names.annotated(cfg) or []
    if any(label in ours and ours.index(label) != number for number, label in enumerate(theirs)):
        of_run = f'{cfg.run_dir}/config.yaml'
        perhaps = f', perhaps -c {shlex.quote(of_run)}' if set(theirs) == set(ours) and os.path.isfile(of_run) else ''
        raise UserError(
            f'{class_names.source(cfg)}: the index files were written with data.labels = {theirs}, but now it is {ours} '
            f'({class_names.difference(theirs, ours)}); use the configuration that annotate.py had{perhaps}, or run annotate.py again; '
            'see docs/troubleshooting.md#class-order'
        )


def train_transform(cfg):
    """The training transform: the `augment` list of a configuration, then the normalisation of evaluation."""
    reduced = [transforms.REDUCED] if cfg.data.reduced_decoding else []
    return [*reduced, *augment.build(cfg.augment, cfg.image.size, cfg.image.interpolation), eval_transform(cfg)[-1]]


def eval_transform(cfg):
    """The transform of evaluation, export and prediction, as data."""
    image = cfg.image
    return transforms.eval_transform(
        image.size, image.mean, image.std, image.resize, cfg.data.reduced_decoding, image.fit, image.interpolation
    )


def before_random(transform, short):
    """Split a transform before its first random operation: (first part, as data; the rest).

    If it starts with a random operation, the first part scales the short side down to `short` pixels.
    """
    steps = [step for step in transform if step != transforms.REDUCED]
    reduced, first = transform[: len(transform) - len(steps)], steps[0]
    if isinstance(first, augment.Resize):
        return [*reduced, {'op': 'resize', 'size': first.size}], steps[1:]
    if not callable(first):
        return [*reduced, first], steps[1:]
    return [*reduced, {'op': 'shrink', 'short': short}], steps


class Loader(paddle.io.DataLoader):
    """A DataLoader over a ZodiacDataset. A file that cannot be read ends the run with a UserError that names it, also in a worker.

    Workers send batches as pixels, a quarter of the bytes of floats; they are normalised on the device. With `shuffle` the order is a
    function of (seed, epoch): call `set_epoch` before each pass. Several processes share each batch, see `BatchSampler`.

    Args:
        batch_size: most images per batch, over all processes.
        mixer: callable (images, labels, numpy Generator) -> (images, labels), see soft_labels.Mixer; None for none.
        balanced: draw every class equally often, with replacement, instead of every image once.
        workers: number of reading processes; None: data.num_workers.
        accumulate: batches per optimizer step.
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
            batch_sampler=BatchSampler(len(dataset), batch_size, processes, device.rank(), accumulate),
            collate_fn=self.guarded.collate,
            num_workers=workers,
            worker_init_fn=stops.work_for_parent,
            use_shared_memory=device.shared_memory_fits(cfg.data.shared_memory, workers * 2 * batch_bytes),
        )

    def set_epoch(self, epoch, skip=0):
        """Set the order and the augmentation of the next pass, and leave out its first `skip` images."""
        self.epoch = self.images.epoch = epoch
        rng = np.random.default_rng([self.images.seed, epoch])
        self.batch_sampler.begin_pass(skip, rng.permutation(len(self.images)) if self.shuffle else None)
        if self.balanced:
            self.images.use_order(balanced_order(self.images.labels, rng))

    def __iter__(self):
        self.guarded.clear()
        with stops.held():  # until the processes, which are forked here, leave signals to this one
            batches = super().__iter__()
        # the batches first in `zip`: Paddle ends its processes when asked for one more at the end
        for (pixels, labels), bounds in zip(_report_killed_workers(batches), self.batch_sampler.bounds()):
            self.guarded.check()
            batch = [self.images.finish(pixels), labels]
            if self.mixer:
                rng = np.random.default_rng([self.images.seed, self.epoch, bounds[0], device.rank()])
                batch = self.mixer(*batch, rng)
            yield batch


def _report_killed_workers(batches):
    """Pass on Paddle's batches, and raise UserError if one of its processes was killed, which Paddle may not report."""
    try:
        yield from batches
    except SystemError:
        workers = getattr(batches, '_workers', ())
        if any((worker.exitcode or 0) < 0 for worker in workers):
            raise UserError(KILLED_LOADER) from None
        raise


class _Guarded(paddle.io.Dataset):
    """A dataset that passes errors from worker processes and threads to the loader: Paddle would lose the file's name, or hang.

    For a bad file it returns a placeholder, which never reaches the network: the loader calls `check` before it yields a batch.
    """

    def __init__(self, dataset, size):
        super().__init__()
        self.dataset = dataset
        self.placeholder = np.zeros([size, size, 3], np.uint8), np.int64(0)
        self.fault = mmap.mmap(-1, 4096)  # shared with worker processes: a flag, then the message

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        try:
            return self.dataset.sample(index)
        except BaseException as error:  # a SystemExit would only end the thread
            self.record(error if isinstance(error, UserError) else fault(f'image {index}', error))
            return self.placeholder

    def collate(self, samples):
        """[(uint8 [size, size, 3], or features; int64 label), ...] -> a batch of each."""
        try:
            return [np.stack(parts) for parts in zip(*samples)]
        except Exception as error:  # such as a placeholder among features
            self.record(fault('a batch of images', error))
            return [np.stack(parts) for parts in zip(self.placeholder)]

    def clear(self):
        self.fault[0] = 0

    def record(self, error):
        """Keep a UserError for `check`, unless there is one already."""
        text = str(error).encode('utf-8', 'replace')[:4000] + b'\0'
        if not self.fault[0]:
            self.fault[1 : 1 + len(text)] = text
            self.fault[0] = 1

    def check(self):
        """Raise the recorded UserError, if any."""
        if self.fault[0]:
            raise UserError(self.fault[1:].split(b'\0', 1)[0].decode('utf-8', 'replace'))
