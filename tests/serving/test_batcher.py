"""Images of many requests share batches, and each gets its own answer."""

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest

from zodiac.serving.batcher import Batcher, NetworkError, sizes


class Network:
    """Returns its input and records the batch sizes; waits while its gate is closed."""

    def __init__(self):
        self.batches, self.gate, self.started = [], threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, batch):
        self.started.set()
        self.gate.wait(20)
        self.batches.append(len(batch))
        return batch


def with_batcher(work, size=8, delay=0.0, network=None):
    async def main():
        async with Batcher(network or Network(), size, delay) as batcher:
            return await asyncio.wait_for(work(batcher), 20)

    return asyncio.run(main())


async def running(batcher, network):
    """The task of an image that the network is running on."""
    task = asyncio.create_task(batcher.predict(image(0)))
    while not network.started.is_set():
        await asyncio.sleep(0.001)
    return task


def image(number):
    return np.full(3, number, np.float32)


@pytest.mark.parametrize('size', [1, 2, 3, 8])
def test_each_image_gets_its_own_answer_and_batch_sizes_are_powers_of_two(size):
    network = Network()

    async def work(batcher):
        return await asyncio.gather(*(batcher.predict(image(number)) for number in range(50)))

    answers = with_batcher(work, size, network=network)

    assert [answer.tolist() for answer in answers] == [[number] * 3 for number in range(50)]
    assert sum(network.batches) == 50
    assert set(network.batches) <= set(sizes(size))
    assert max(network.batches) == {1: 1, 2: 2, 3: 2, 8: 8}[size]


def test_images_that_arrive_while_a_batch_runs_form_the_next_one():
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
def test_an_image_waits_up_to_the_delay_for_an_announced_one(delay, announced, batches):
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


def test_an_image_of_a_cancelled_request_is_not_run():
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


def raises(error):
    def predict(batch):
        raise error

    return predict


FAULTS = {
    'an error': raises(RuntimeError('of the engine')),
    'StopIteration': raises(StopIteration()),
    'SystemExit': raises(SystemExit(3)),
    'nothing': lambda batch: None,
    'fewer rows': lambda batch: batch[1:],
    'NaN': lambda batch: batch * np.nan,
}


@pytest.mark.parametrize('fault', FAULTS)
def test_an_error_fails_its_batch_and_the_next_batch_runs(fault):
    turns = iter([FAULTS[fault]])

    async def work(batcher):
        with batcher.announced():
            failed = await asyncio.gather(
                *(batcher.predict(image(number)) for number in (1, 2)), return_exceptions=True
            )
        trouble = batcher.trouble(20)
        return failed, trouble, await batcher.predict(image(3)), batcher.trouble(20)

    failed, trouble, later, afterwards = with_batcher(
        work, delay=0.05, network=lambda batch: next(turns, lambda batch: batch)(batch)
    )

    assert [type(error) for error in failed] == [NetworkError] * 2
    assert trouble == Batcher.FAILED
    assert later.tolist() == [3] * 3
    assert afterwards is None


def test_an_image_with_nan_fails_alone():
    async def work(batcher):
        with batcher.announced():
            images = (image(1), image(np.inf), image(2))
            return await asyncio.gather(*map(batcher.predict, images), return_exceptions=True)

    first, second, third = with_batcher(work, delay=0.05)

    assert (first.tolist(), type(second), third.tolist()) == ([1] * 3, NetworkError, [2] * 3)


def test_failures_are_logged_once_with_their_traceback_then_rate_limited(caplog):
    async def work(batcher):
        for _ in range(50):
            with pytest.raises(NetworkError):
                await batcher.predict(image(1))

    with_batcher(work, network=raises(RuntimeError('of the engine')))

    (record,) = caplog.records
    assert 'of the engine' in record.getMessage() and record.exc_info


def test_a_network_that_hangs_is_reported_and_does_not_delay_the_end():
    network = Network()
    network.gate.clear()

    async def main():
        async with Batcher(network, 1, 0.0) as batcher:
            answers = [asyncio.ensure_future(batcher.predict(image(number))) for number in range(3)]
            while not network.started.is_set():
                await asyncio.sleep(0.001)
            before = batcher.trouble(60)
            await asyncio.sleep(0.05)
            during = batcher.trouble(0.01)
        return before, during, await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 5)

    start = time.monotonic()
    try:
        before, during, answers = asyncio.run(main())
        assert time.monotonic() - start < 5
    finally:
        network.gate.set()
    assert before is None and 'more than 0.01 seconds' in during
    assert [type(answer) for answer in answers] == [NetworkError] * 3


def test_warming_up_runs_each_size_once_in_the_thread_of_the_network():
    network, threads = Network(), []

    def predict(batch):
        threads.append(threading.current_thread())
        return network(batch)

    batcher = Batcher(predict, 8, 0.0)
    batcher.warm_up(image(1))

    async def main():
        async with batcher:
            await asyncio.wait_for(batcher.predict(image(2)), 20)

    asyncio.run(main())
    assert network.batches == [1, 2, 4, 8, 1]
    assert len(set(threads)) == 1
