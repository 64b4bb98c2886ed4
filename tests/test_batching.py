"""Images of many requests share runs of the network, and each gets its own answer."""

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest

from zodiac.batching import Batcher, sizes


class Network:
    """Answers an image with itself, and remembers the sizes of its batches; a closed gate holds it up."""

    def __init__(self):
        self.batches, self.gate, self.started = [], threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, batch):
        self.started.set()
        self.gate.wait(20)
        self.batches.append(len(batch))
        if (batch < 0).any():
            raise RuntimeError('a number below 0')
        return batch


def with_batcher(work, size=8, delay=0.0, network=None):
    async def main():
        async with Batcher(network or Network(), size, delay) as batcher:
            return await asyncio.wait_for(work(batcher), 20)

    return asyncio.run(main())


async def running(batcher, network):
    """The task of an image that the network is at."""
    task = asyncio.create_task(batcher.predict(image(0)))
    while not network.started.is_set():
        await asyncio.sleep(0.001)
    return task


def image(number):
    return np.full(3, number, np.float32)


@pytest.mark.parametrize('size', [1, 2, 3, 8])
def test_each_gets_the_answer_to_its_own_image_in_batches_of_powers_of_two(size):
    network = Network()

    async def work(batcher):
        return await asyncio.gather(*(batcher.predict(image(number)) for number in range(50)))

    answers = with_batcher(work, size, network=network)

    assert [answer.tolist() for answer in answers] == [[number] * 3 for number in range(50)]
    assert sum(network.batches) == 50
    assert set(network.batches) <= set(sizes(size))
    assert max(network.batches) == {1: 1, 2: 2, 3: 2, 8: 8}[size]


def test_what_comes_while_a_batch_runs_makes_up_the_next():
    network = Network()
    network.gate.clear()

    async def work(batcher):
        first = await running(batcher, network)
        others = [asyncio.create_task(batcher.predict(image(number))) for number in range(1, 5)]
        await asyncio.sleep(0.01)
        network.gate.set()
        await asyncio.gather(first, *others)

    with_batcher(work, network=network)

    assert network.batches == [1, 4]


@pytest.mark.parametrize(
    ('delay', 'announced', 'batches'), [(0.0, True, [1, 1]), (0.5, True, [2]), (0.5, False, [1, 1])]
)
def test_an_image_waits_for_one_that_is_announced_as_long_as_the_delay(delay, announced, batches):
    network = Network()

    async def work(batcher):
        with batcher.announced() if announced else contextlib.nullcontext():
            first = asyncio.create_task(batcher.predict(image(0)))
            await asyncio.sleep(0.1)
        await asyncio.gather(first, batcher.predict(image(1)))

    with_batcher(work, delay=delay, network=network)

    assert network.batches == batches


def test_a_full_batch_does_not_wait():
    async def work(batcher):
        start = time.monotonic()
        with batcher.announced():
            await asyncio.gather(*(batcher.predict(image(number)) for number in range(4)))
        return time.monotonic() - start

    assert with_batcher(work, size=4, delay=10) < 5


def test_an_image_whose_client_has_left_is_not_run():
    network = Network()
    network.gate.clear()

    async def work(batcher):
        first = await running(batcher, network)
        left, stays = [asyncio.create_task(batcher.predict(image(number))) for number in (1, 2)]
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.sleep(0.05)
        network.gate.set()
        return await first, await stays

    assert [answer.tolist() for answer in with_batcher(work, network=network)] == [[0] * 3, [2] * 3]
    assert network.batches == [1, 1]


def test_an_error_of_the_network_reaches_its_batch_and_the_next_batch_runs():
    async def work(batcher):
        found = await asyncio.gather(*(batcher.predict(image(number)) for number in (1, -1)), return_exceptions=True)
        return found, await batcher.predict(image(3)), batcher.running()

    (first, second), later, running = with_batcher(work)

    assert [str(first), str(second)] == ['a number below 0'] * 2
    assert later.tolist() == [3] * 3
    assert running


def test_warming_up_runs_each_size_once_in_the_thread_of_the_network():
    network, threads = Network(), []

    def predict(batch):
        threads.append(threading.current_thread())
        return network(batch)

    async def work(batcher):
        await batcher.warm_up(image(1))
        await batcher.predict(image(2))

    with_batcher(work, network=predict)
    assert network.batches == [1, 2, 4, 8, 1]
    assert len(set(threads)) == 1


def test_the_sizes_of_batches():
    assert sizes(1) == [1]
    assert sizes(8) == [1, 2, 4, 8]
    assert sizes(12) == [1, 2, 4, 8]
