"""Batches and their shares: every image once per pass, even sizes, and the same images for any number of processes."""

import itertools
import math

import numpy as np
import pytest

from zodiac.data.sampler import BatchSampler


def plan(count, batch_size, processes=1, accumulate=1, skip=0):
    """(lengths of the batches, ends of the steps of the optimizer)"""
    batches = BatchSampler(count, batch_size, processes, 0, accumulate)
    batches.begin_pass(skip)
    assert len(batches) == len(batches.bounds())
    return [stop - start for start, stop in batches.bounds()], sorted(batches.ends())


@pytest.mark.parametrize('processes', [1, 2, 3, 5])
def test_every_image_comes_once_and_batches_are_shared_evenly(processes):
    for count, skip in itertools.product((1, 7, 12, 13, 24, 25, 65, 100), (0, 4, 8)):
        check_shares(count, processes, skip)


def check_shares(count, processes, skip):
    ranks = [BatchSampler(count, 8, processes, rank) for rank in range(processes)]
    order = np.random.default_rng(count).permutation(count)
    for batches in ranks:
        batches.begin_pass(skip, order)
    shares = list(zip(*ranks))
    assert len(shares) == len(ranks[0])
    images = [image for batch in shares for share in batch for image in share]
    needed = {1: 4, 2: 4, 3: 6, 5: 5}[processes]  # half of a batch, and two per process if possible
    first = min(skip, max(0, count - needed)) if skip < count else count
    assert np.array_equal(images, order[first:])
    for batch in shares:
        sizes = [len(share) for share in batch]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0 or count < processes


def test_no_share_has_less_than_half_of_its_images():
    """At least half of the largest share, and at least two images if that has two, in each pass with enough images."""
    for processes, accumulate, size in itertools.product((1, 2, 3, 4), (1, 2, 3, 4), (4, 5, 6, 8, 10, 16, 32)):
        of_process = max(math.ceil(size / processes / 2), min(2, size // processes))
        for count in (*range(1, 90), 129):
            lengths, _ = plan(count, size, processes, accumulate)
            assert sum(lengths) == count
            if count >= of_process * processes:
                assert min(lengths) // processes >= of_process, (processes, accumulate, size, count, lengths)
            if size % (2 * processes) == 0 and size // processes > 2:
                assert max(lengths) <= size, (processes, accumulate, size, count, lengths)


@pytest.mark.parametrize(
    ('count', 'expected'), [(64, [32, 32]), (65, [22, 22, 21]), (33, [17, 16]), (32, [32]), (20, [20]), (1, [1])]
)
def test_a_pass_is_cut_evenly_into_the_fewest_batches(count, expected):
    assert plan(count, 32)[0] == expected


def test_accumulated_batches_are_the_parts_of_a_larger_one():
    assert plan(40, 16, accumulate=2) == ([10, 10, 10, 10], [20, 40])
    assert plan(40, 32) == ([20, 20], [20, 40])
    for size, accumulate, count in itertools.product((4, 5, 16), (2, 3, 4), range(1, 100)):
        assert plan(count, size, accumulate=accumulate)[1] == plan(count, size * accumulate)[1]


def test_the_rest_of_a_pass_has_the_same_batches():
    for processes, accumulate, size in itertools.product((1, 2, 3), (1, 2, 3), (3, 4, 5, 8, 16)):
        for count in (1, 5, 17, 33, 40, 65, 66):
            lengths, ends = plan(count, size, processes, accumulate)
            for skip in ends:
                left, left_ends = plan(count, size, processes, accumulate, skip)
                assert lengths[len(lengths) - len(left) :] == left and sum(left) == count - skip
                assert left_ends == [end for end in ends if end > skip]


@pytest.mark.parametrize(
    ('left', 'size', 'processes', 'expected'),
    [(1, 32, 1, [8]), (9, 32, 1, [9]), (1, 8, 1, [4]), (1, 8, 3, [6]), (5, 8, 3, [6]), (7, 8, 3, [7]), (1, 1, 1, [1])],
)
def test_a_pass_that_resumes_with_too_few_images_for_batch_norm_starts_earlier(left, size, processes, expected):
    assert plan(50, size, processes, skip=50 - left)[0] == expected
    assert plan(50, size, processes, skip=50)[0] == []


def test_the_images_of_a_batch_do_not_depend_on_the_number_of_processes():
    alone = list(BatchSampler(50, 8))
    shared = zip(*(BatchSampler(50, 8, 2, rank) for rank in (0, 1)))
    assert [one + other for one, other in shared] == alone
