"""Which images form a batch: even batches, shared by several processes, and class-balanced sampling."""

import functools

import numpy as np

from zodiac.base.paddle_setup import paddle

MIN_SHARE = 8  # images per process that are enough for BatchNorm in a run that resumes with another batch size


class BatchSampler(paddle.io.BatchSampler):
    """The image numbers of each batch; each of several processes gets its share.

    Every image comes exactly once per pass. A pass is cut into the fewest steps of at most batch_size * accumulate images, a step into
    the fewest batches of at most batch_size, and a batch into the shares of the processes. All are consecutive parts of `order`, and
    all cuts are even (see `_cut`): a small last batch would distort the statistics of BatchNorm.

    A pass that skips its first steps has the same remaining batches. If it resumes elsewhere because the batch size has changed, and
    hardly any images are left, it starts a little earlier (see MIN_SHARE).

    Attributes: order, int [count]; skip, the number of images at the start of the pass to leave out.
    """

    def __init__(self, count, batch_size, processes=1, rank=0, accumulate=1):
        self.order = np.arange(count)
        self.skip = 0
        self.batch_size = batch_size
        self.processes = processes
        self.rank = rank
        self.accumulate = accumulate

    def begin_pass(self, skip=0, order=None):
        """Prepare the next pass: leave out its first `skip` images, and use another `order` if one is given."""
        self.skip = skip
        if order is not None:
            self.order = order

    def bounds(self):
        """Tuple of (start, stop) of each batch of the pass."""
        return self._plan(self.skip)[0]

    def ends(self):
        """Set of the `stop` of each batch after which the optimizer takes a step."""
        return self._plan(self.skip)[1]

    def _plan(self, skip):
        return _plan(len(self.order), skip, self.batch_size, self.processes, self.accumulate)

    def share(self, bounds):
        """The image numbers of this process in one batch."""
        return np.array_split(self.order[slice(*bounds)], self.processes)[self.rank].tolist()

    def smallest(self):
        """Number of images in the smallest batch of a whole pass."""
        return min(stop - start for start, stop in self._plan(0)[0])

    def __iter__(self):
        return map(self.share, self.bounds())

    def __len__(self):
        return len(self.bounds())


def _min_share(size, processes):
    """Fewest images per process in a batch: half of its share of `size`, and at least two if its share has two."""
    return max(-(-size // (2 * processes)), min(2, size // processes))


@functools.lru_cache(maxsize=4)  # Paddle asks for the length in every step
def _plan(count, skip, batch_size, processes, accumulate):
    """(start, stop) of each batch, and the ends of the optimizer's steps; see `BatchSampler`."""
    fewest = processes * min(MIN_SHARE, _min_share(batch_size, processes))
    start = min(skip, max(0, count - fewest)) if skip < count else count
    steps = _cut(start, count, batch_size * accumulate, processes)
    bounds = tuple(batch for step in steps for batch in _cut(*step, batch_size, processes))
    return bounds, frozenset(stop for _, stop in steps)


def _cut(start, stop, size, processes):
    """Cut a range into the fewest parts of at most `size`: list of (start, stop). Lengths differ by at most one, longer parts first.

    If a process would get fewer than `_min_share` images, there is one part less, and each is slightly longer than `size`.
    """
    count = stop - start
    if not count:
        return []
    parts = max(1, min(-(-count // size), count // (processes * _min_share(size, processes))))
    length, longer = divmod(count, parts)
    edges = [start + number * length + min(number, longer) for number in range(parts + 1)]
    return list(zip(edges, edges[1:]))


def balanced_order(labels, rng):
    """int array [n]: image numbers drawn with replacement; every class is equally probable, and every image within its class."""
    counts = np.bincount(labels)
    weights = 1 / counts[labels]
    return rng.choice(len(labels), len(labels), p=weights / weights.sum())
