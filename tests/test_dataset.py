"""Index files to samples and batches: the same ones for the same (seed, epoch, index), and no bad file in silence."""

import faulthandler
import itertools
import json
import math
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, assert_message, picture
from PIL import Image

import config
from dataset import Loader, ZodiacDataset, read_index
from zodiac.base.errors import UserError
from zodiac.data.sampler import BatchSampler
from zodiac.images import transforms

WORKERS = pytest.mark.parametrize('workers', [0, 2])


def settings(workers=0, **more):
    """A configuration of images of 32 px in signs/."""
    overrides = {'data.num_workers': workers, 'image.size': 32, **more}
    return config.load(overrides=[f'{key}={value}' for key, value in overrides.items()])


def draw_split(mode, count):
    """Draw pictures into the working directory and write their index; returns the paths."""
    paths = []
    for number in range(count):
        paths.append(f'signs/{mode}_{number}.jpg')
        write_picture(paths[-1], picture(number))
    write_index(mode, [f'{path}\t{number % 12}' for number, path in enumerate(paths)])
    return paths


def write_picture(path, image):
    os.makedirs('signs', exist_ok=True)
    image.save(path)


def write_index(mode, lines, end='\n'):
    os.makedirs('signs', exist_ok=True)
    with open(f'signs/{mode}.txt', 'w', encoding='utf-8', newline='') as file:
        file.write(''.join(line + end for line in lines))
    return f'signs/{mode}.txt'


def numbered_split(mode, count):
    """Grey pictures whose value tells their number in the index."""
    for number in range(count):
        write_picture(f'signs/{number}.png', Image.new('RGB', (40, 36), (8 * number,) * 3))
    write_index(mode, [f'signs/{number}.png\t{number % 12}' for number in range(count)])


def numbers_of(loader):
    """The numbers of the pictures that a pass hands out, batch by batch."""
    return [np.round(images.numpy()[:, 0, 16, 16] * 255 / 8).astype(int).tolist() for images, _ in loader]


NUMBERED = {'image.mean': [0, 0, 0], 'image.std': [1, 1, 1]}


def one_pass(loader):
    """(images, labels) of a whole pass."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in loader]
    return tuple(np.concatenate(parts) for parts in zip(*batches))


def items(dataset):
    return np.stack([dataset[index][0] for index in range(len(dataset))])


@pytest.fixture
def no_hang():
    """Ends the whole test run with a traceback should Paddle's C++ code hang, where no exception reaches it."""
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


# Items


@pytest.mark.parametrize('mode', ['train', 'valid', 'test'])
def test_an_item_is_a_float32_image_and_an_int64_label(workdir, mode):
    draw_split(mode, 3)
    dataset = ZodiacDataset(mode, cfg=settings())
    assert len(dataset) == 3
    image, label = dataset[2]
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype) == ((3, 32, 32), np.float32)
    assert image.flags['C_CONTIGUOUS']
    assert (label, label.dtype) == (2, np.int64)


def test_a_dataset_takes_the_active_configuration_and_mode_train_by_default(workdir):
    draw_split('train', 2)
    config.use(overrides=['image.size=48'])
    assert ZodiacDataset()[0][0].shape == (3, 48, 48)
    assert ZodiacDataset(mode='train').augment


def test_only_training_augments_unless_told_otherwise(workdir):
    for mode in ('train', 'valid', 'test'):
        draw_split(mode, 1)
    assert [ZodiacDataset(mode, cfg=settings()).augment for mode in ('train', 'valid', 'test')] == [True, False, False]
    assert not ZodiacDataset('train', augment=False, cfg=settings()).augment


def test_a_batch_stacks_the_items(workdir):
    draw_split('valid', 3)
    cfg = settings()
    dataset = ZodiacDataset('valid', cfg=cfg)
    images, labels = one_pass(Loader(dataset, 2, cfg))
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert np.array_equal(images, items(dataset))
    assert labels.tolist() == [0, 1, 2]


def test_a_batch_is_normalised_to_the_very_bits_of_its_items(workdir):
    draw_split('valid', 5)
    cfg = settings(**{'image.mean': [0.485, 0.456, 0.406], 'image.std': [0.229, 0.224, 0.225]})
    dataset = ZodiacDataset('valid', cfg=cfg)
    assert dataset.sample(0)[0].dtype == np.uint8
    assert np.array_equal(one_pass(Loader(dataset, 5, cfg))[0], items(dataset))


def test_iteration_ends_after_the_last_item(workdir):
    draw_split('valid', 3)
    assert len(list(ZodiacDataset('valid', cfg=settings()))) == 3


# The index


def test_an_index_is_read_as_paths_and_numbers(workdir):
    path = write_index('train', ['signs/train/dog/猫 1.jpg\t0', 'b.jpg\t11'])
    paths, labels = read_index(path, 12)
    assert list(paths) == ['signs/train/dog/猫 1.jpg', 'b.jpg']
    assert (labels.tolist(), labels.dtype) == ([0, 11], np.int64)


def test_windows_line_ends_and_empty_lines_are_accepted(workdir):
    path = write_index('train', ['a.jpg\t3', '', 'b.jpg\t4'], end='\r\n')
    paths, labels = read_index(path, 12)
    assert list(paths) == ['a.jpg', 'b.jpg']
    assert labels.tolist() == [3, 4]


def test_an_index_without_a_last_line_end_is_accepted(workdir):
    path = write_index('train', ['a.jpg\t3\nb.jpg\t4'], end='')
    assert read_index(path, 12)[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ('line', 'word'),
    [
        ('signs/b.jpg 3', 'no tab'),
        ('signs/b.jpg\t12', "'12'"),
        ('signs/b.jpg\t-1', "'-1'"),
        ('signs/b.jpg\tdog', "'dog'"),
        ('signs/b.jpg\t', "''"),
        ('signs/b.jpg\t1.0', "'1.0'"),
        ('signs/b.jpg\t²', "'²'"),
        ('signs/b.jpg\t99999999999999999999', "'99999999999999999999'"),
        ('\t3', 'path'),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(workdir, line, word):
    path = write_index('train', ['signs/a.jpg\t0', line, 'signs/c.jpg\t1'])
    with pytest.raises(UserError, match=re.escape(f'{path}:2:')) as caught:
        ZodiacDataset('train', cfg=settings())
    assert word in str(caught.value)


def test_a_label_out_of_range_says_what_is_allowed(workdir):
    write_index('train', ['signs/a.jpg\t12'])
    with pytest.raises(UserError, match='from 0 to 11'):
        ZodiacDataset('train', cfg=settings())


@pytest.mark.parametrize('content', ['', '\n', '\r\n\n'])
def test_an_empty_index_is_named(workdir, content):
    path = write_index('train', [content], end='')
    with pytest.raises(UserError, match=re.escape(path)):
        ZodiacDataset('train', cfg=settings())


def test_a_missing_index_is_named_with_the_next_step(workdir):
    with pytest.raises(UserError, match=r'signs/valid\.txt.*annotate\.py'):
        ZodiacDataset('valid', cfg=settings())


def test_an_index_that_is_no_text_is_named(workdir):
    path = write_index('train', [])
    with open(path, 'wb') as file:
        file.write(b'\xff\xfe\x00\x01')
    with pytest.raises(UserError, match=re.escape(path)):
        ZodiacDataset('train', cfg=settings())


# Random draws


def draw(seed, epoch, index):
    dataset = ZodiacDataset('train', cfg=settings(seed=seed))
    dataset.epoch = epoch
    return dataset[index][0]


def test_a_draw_is_a_function_of_seed_epoch_and_index(workdir):
    write_picture('signs/a.jpg', picture(0, (90, 70)))
    write_index('train', ['signs/a.jpg\t0', 'signs/a.jpg\t0'])  # twice the same picture
    first = draw(1, 2, 0)
    assert np.array_equal(first, draw(1, 2, 0))
    for other in (draw(5, 2, 0), draw(1, 3, 0), draw(1, 2, 1), draw(2, 1, 0)):
        assert not np.array_equal(first, other)


def test_a_draw_does_not_depend_on_what_was_read_before(workdir):
    draw_split('train', 4)
    dataset = ZodiacDataset('train', cfg=settings())
    dataset.epoch = 1
    forward = items(dataset)
    backward = np.stack([dataset[index][0] for index in (3, 2, 1, 0)])[::-1]
    assert np.array_equal(forward, backward)


def test_a_negative_index_is_the_same_sample(workdir):
    draw_split('train', 3)
    dataset = ZodiacDataset('train', cfg=settings())
    dataset.epoch = 0
    assert np.array_equal(dataset[-1][0], dataset[2][0])


def test_a_dataset_in_another_process_draws_the_same(workdir):
    draw_split('train', 3)
    dataset = ZodiacDataset('train', cfg=settings())
    dataset.epoch = 4
    assert np.array_equal(items(pickle.loads(pickle.dumps(dataset))), items(dataset))


@pytest.mark.parametrize('shared_memory', ['true', 'false'])
def test_workers_change_no_draw_and_no_order(workdir, shared_memory, no_hang):
    draw_split('train', 7)
    passes = []
    for workers in (0, 2):
        cfg = settings(workers, **{'data.shared_memory': shared_memory})
        loader = Loader(ZodiacDataset('train', cfg=cfg), 2, cfg, shuffle=True)
        assert loader.num_workers == workers
        loader.set_epoch(3)
        passes.append(one_pass(loader))
    assert passes[0][1].shape == (7,)
    assert np.array_equal(passes[0][0], passes[1][0])
    assert np.array_equal(passes[0][1], passes[1][1])


def test_shared_memory_is_used_only_where_it_is_allowed(workdir):
    draw_split('valid', 2)
    for setting in (True, False):
        cfg = settings(2, **{'data.shared_memory': str(setting).lower()})
        assert Loader(ZodiacDataset('valid', cfg=cfg), 2, cfg).use_shared_memory is setting


def test_without_an_epoch_each_read_of_an_image_is_drawn_anew_and_reproducibly(workdir):
    draw_split('train', 2)
    one, other = (ZodiacDataset('train', cfg=settings()) for _ in range(2))
    reads = [one[0][0] for _ in range(3)]
    assert not np.array_equal(reads[0], reads[1])
    assert not np.array_equal(reads[1], reads[2])
    other[1]  # another image has a count of its own
    assert all(np.array_equal(read, other[0][0]) for read in reads)


def test_without_an_epoch_workers_count_the_reads_too(workdir, no_hang):
    draw_split('train', 5)
    passes = {}
    for workers in (0, 2):
        cfg = settings(workers)
        loader = Loader(ZodiacDataset('train', cfg=cfg), 2, cfg)
        passes[workers] = [one_pass(loader)[0] for _ in range(2)]
    assert np.array_equal(passes[0], passes[2])
    assert not any(np.array_equal(first, second) for first, second in zip(*passes[2]))


def test_evaluation_repeats(workdir):
    draw_split('test', 3)
    dataset = ZodiacDataset('test', cfg=settings())
    first = items(dataset)
    assert np.array_equal(first, items(dataset))
    dataset.epoch = 5
    assert np.array_equal(first, items(dataset))
    assert np.array_equal(first, items(ZodiacDataset('test', cfg=settings(seed=9))))


# Order


def order(seed=0, epoch=0, workers=0, count=13):
    cfg = settings(workers, seed=seed, **NUMBERED)
    loader = Loader(ZodiacDataset('train', augment=False, cfg=cfg), 4, cfg, shuffle=True)
    loader.set_epoch(epoch)
    return sum(numbers_of(loader), [])


def test_the_order_is_a_function_of_seed_and_epoch(workdir):
    numbered_split('train', 13)
    orders = [order(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))]
    assert all(sorted(numbers) == list(range(13)) for numbers in orders)  # every sample once
    assert len(set(map(tuple, orders))) == 5
    assert order(1, 1) == orders[3]


def test_one_loader_orders_each_epoch_as_a_fresh_one_does(workdir):
    numbered_split('train', 13)
    cfg = settings(**NUMBERED)
    loader = Loader(ZodiacDataset('train', augment=False, cfg=cfg), 4, cfg, shuffle=True)
    passes = []
    for epoch in (0, 1, 2, 1):
        loader.set_epoch(epoch)
        passes.append(sum(numbers_of(loader), []))
    assert passes[1] == passes[3] == order(epoch=1)
    assert passes[2] == order(epoch=2)


@WORKERS
@pytest.mark.parametrize('balanced', [False, True])
def test_a_pass_can_leave_out_its_first_batches(workdir, workers, balanced, no_hang):
    numbered_split('train', 13)
    cfg = settings(workers, **NUMBERED)

    def mixer(images, labels, rng):
        return images, rng.integers(1 << 30)

    dataset = ZodiacDataset('train', augment=False, cfg=cfg)
    loader = Loader(dataset, 4, cfg, shuffle=True, mixer=mixer, balanced=balanced)
    loader.set_epoch(1)
    whole = numbers_of(loader)
    draws = [draw for _, draw in loader]
    assert len(set(draws)) == len(loader) == 4
    for skip, images in enumerate([0, 4, 7, 10, 13]):
        loader.set_epoch(1, images)
        assert len(loader) == 4 - skip
        assert numbers_of(loader) == whole[skip:]
        loader.set_epoch(1, images)
        assert [draw for _, draw in loader] == draws[skip:]
    loader.set_epoch(1)
    assert numbers_of(loader) == whole


@WORKERS
def test_without_shuffle_every_sample_comes_once_and_in_order(workdir, workers, no_hang):
    numbered_split('test', 10)
    cfg = settings(workers, **NUMBERED)
    loader = Loader(ZodiacDataset('test', cfg=cfg), 4, cfg)
    assert len(loader) == 3
    for _ in range(2):
        assert numbers_of(loader) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


# Bad files


def remove(path):
    os.remove(path)


def truncate(path):
    with open(path, 'rb+') as file:
        file.truncate(os.path.getsize(path) // 2)


@pytest.mark.parametrize(('spoil', 'reason'), [(remove, 'no such file'), (truncate, 'truncated')])
def test_an_item_of_a_bad_file_raises_its_name(workdir, spoil, reason):
    paths = draw_split('train', 3)
    spoil(paths[1])
    dataset = ZodiacDataset('train', cfg=settings())
    with pytest.raises(UserError, match=re.escape(paths[1]) + f'.*{reason}'):
        dataset[1]
    assert dataset[0][0].shape == (3, 32, 32)


@WORKERS
@pytest.mark.parametrize(('spoil', 'reason'), [(remove, 'no such file'), (truncate, 'truncated')])
@pytest.mark.parametrize('mode', ['train', 'test'])
def test_a_bad_file_ends_a_pass_with_its_name(workdir, spoil, reason, workers, mode, no_hang):
    paths = draw_split(mode, 10)
    spoil(paths[5])
    cfg = settings(workers)
    loader = Loader(ZodiacDataset(mode, cfg=cfg), 2, cfg)
    seen, started = [], time.monotonic()
    with pytest.raises(UserError, match=re.escape(paths[5]) + f'.*{reason}'):
        for _, labels in loader:
            seen += labels.numpy().tolist()
    assert time.monotonic() - started < 20
    assert seen == list(range(len(seen))) and len(seen) <= 4  # nothing of the batch of the bad file was handed out


@WORKERS
def test_a_bad_file_in_the_last_batch_ends_the_pass_too(workdir, workers, no_hang):
    paths = draw_split('test', 5)
    remove(paths[4])
    cfg = settings(workers)
    with pytest.raises(UserError, match=re.escape(paths[4])):
        one_pass(Loader(ZodiacDataset('test', cfg=cfg), 2, cfg))


class Unpicklable(Exception):
    def __init__(self, one, other):
        super().__init__('odd words')
        self.other = lambda: other


@WORKERS
@pytest.mark.parametrize('error', [ValueError('odd words'), Unpicklable(1, 2), SystemExit('odd words')], ids=repr)
def test_any_exception_at_an_image_ends_the_pass_with_its_name_and_words(workdir, monkeypatch, workers, error, no_hang):
    paths = draw_split('test', 9)
    read = transforms.read

    def fail(steps, path, *more):
        if path == paths[5]:
            raise error
        return read(steps, path, *more)

    monkeypatch.setattr(transforms, 'read', fail)
    cfg = settings(workers)
    with pytest.raises(UserError) as caught:
        one_pass(Loader(ZodiacDataset('test', cfg=cfg), 2, cfg))
    said = str(caught.value)
    assert said.startswith(paths[5] if isinstance(error, Exception) else 'image 5') and 'odd words' in said


@WORKERS
def test_images_of_several_sizes_end_the_pass(workdir, monkeypatch, workers, no_hang):
    draw_split('test', 4)
    monkeypatch.setattr(ZodiacDataset, '_read', lambda self, number, rng: np.zeros((8 + number, 8, 3), np.uint8))
    cfg = settings(workers)
    with pytest.raises(UserError, match='same shape'):
        one_pass(Loader(ZodiacDataset('test', cfg=cfg), 2, cfg))


def test_of_two_bad_files_in_a_batch_the_message_tells_one_whole(workdir):
    long, short = 'signs/a picture with a long name.jpg', 'signs/b.jpg'
    write_index('test', [f'{long}\t0', f'{short}\t1'])
    cfg = settings()
    dataset = ZodiacDataset('test', cfg=cfg)
    messages = []
    for index in (0, 1):
        with pytest.raises(UserError) as caught:
            dataset[index]
        messages.append(str(caught.value))
    with pytest.raises(UserError) as caught:
        one_pass(Loader(dataset, 2, cfg))
    assert str(caught.value) in messages


@pytest.mark.parametrize('mode', ['train', 'valid'])
def test_a_pass_leaves_no_worker_behind(workdir, no_hang, mode):
    draw_split(mode, 9)
    cfg = settings(2)
    loader = Loader(ZodiacDataset(mode, cfg=cfg), 4, cfg, shuffle=mode == 'train')
    of_others = set(multiprocessing.active_children())
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert sum(len(labels) for _, labels in loader) == 9
        assert set(multiprocessing.active_children()) <= of_others


KILL = """
import multiprocessing, os, signal, sys
sys.path.insert(0, {root!r})
from zodiac.base import errors
import config
from dataset import Loader, ZodiacDataset

def main():
    cfg = config.use(None, ['data.num_workers=2', 'data.shared_memory={shared}', 'image.size=32', 'image.resize=32'])
    for number, _ in enumerate(Loader(ZodiacDataset(mode='valid'), 1, cfg)):
        if number == 2:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

errors.run(main)
"""


@pytest.mark.parametrize('shared_memory', [True, False])
def test_a_killed_worker_ends_the_run_with_a_message(workdir, shared_memory):
    draw_split('valid', 40)
    (workdir / 'kill.py').write_text(KILL.format(root=str(ROOT), shared=shared_memory))
    result = subprocess.run([sys.executable, 'kill.py'], capture_output=True, text=True, timeout=30)
    assert_message(
        result, 1, 'a process that loads images was killed', 'data.shared_memory=false', 'data.num_workers=0'
    )


def test_a_pass_succeeds_once_the_bad_file_is_mended(workdir):
    paths = draw_split('test', 3)
    remove(paths[1])
    cfg = settings()
    loader = Loader(ZodiacDataset('test', cfg=cfg), 2, cfg)
    with pytest.raises(UserError):
        one_pass(loader)
    write_picture(paths[1], picture(1))
    assert one_pass(loader)[1].tolist() == [0, 1, 2]


# Batches, and their shares of several processes


def plan(count, batch_size, processes=1, accumulate=1, skip=0):
    """(lengths of the batches, where the optimizer moves)."""
    batches = BatchSampler(count, batch_size, processes, 0, accumulate)
    batches.skip = skip
    assert len(batches) == len(batches.bounds())
    return [stop - start for start, stop in batches.bounds()], sorted(batches.ends())


@pytest.mark.parametrize('processes', [1, 2, 3, 5])
def test_every_image_comes_once_and_the_processes_share_each_batch_evenly(processes):
    for count, skip in itertools.product((1, 7, 12, 13, 24, 25, 65, 100), (0, 4, 8)):
        check_shares(count, processes, skip)


def check_shares(count, processes, skip):
    ranks = [BatchSampler(count, 8, processes, rank) for rank in range(processes)]
    order = np.random.default_rng(count).permutation(count)
    for batches in ranks:
        batches.order, batches.skip = order, skip
    shares = list(zip(*ranks))
    assert len(shares) == len(ranks[0])
    images = [image for batch in shares for share in batch for image in share]
    needed = {1: 4, 2: 4, 3: 6, 5: 5}[processes]  # half of a batch, and two for each process where they may have them
    first = min(skip, max(0, count - needed)) if skip < count else count
    assert np.array_equal(images, order[first:])
    for batch in shares:
        sizes = [len(share) for share in batch]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0 or count < processes


def test_no_batch_has_less_than_half_of_its_images_whatever_shares_it():
    """Half of what a process has of a batch at most, and two images where it has two: of each pass that has so many."""
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


def test_batches_that_add_up_are_the_parts_of_a_larger_one():
    assert plan(40, 16, accumulate=2) == ([10, 10, 10, 10], [20, 40])
    assert plan(40, 32) == ([20, 20], [20, 40])
    for size, accumulate, count in itertools.product((4, 5, 16), (2, 3, 4), range(1, 100)):
        assert plan(count, size, accumulate=accumulate)[1] == plan(count, size * accumulate)[1]


def test_what_is_left_of_a_pass_is_cut_as_the_whole_pass_was():
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
def test_a_pass_that_goes_on_with_too_few_images_for_batch_norm_begins_a_little_earlier(
    left, size, processes, expected
):
    assert plan(50, size, processes, skip=50 - left)[0] == expected
    assert plan(50, size, processes, skip=50)[0] == []


def test_the_images_of_a_batch_do_not_depend_on_the_number_of_processes():
    alone = list(BatchSampler(50, 8))
    shared = zip(*(BatchSampler(50, 8, 2, rank) for rank in (0, 1)))
    assert [one + other for one, other in shared] == alone


@pytest.mark.parametrize(
    ('annotated', 'refused'),
    [
        (['b', 'a', 'c'], True),
        (['a', 'b', 'c'], False),
        (['a', 'b'], False),  # another set of classes: a class more, or a better name
        (['x', 'b', 'c'], False),
        (None, False),
        ('abc', False),
        ([1, {}, 'c'], False),
    ],
)
def test_an_index_of_the_same_classes_in_another_order_is_refused(workdir, annotated, refused):
    write_index('train', ['signs/0.jpg\t0'])
    (workdir / 'signs' / 'annotation.json').write_text(json.dumps({'labels': annotated}))
    cfg = settings(**{'data.labels': '[a,b,c]'})
    if not refused:
        ZodiacDataset('train', cfg=cfg)
        return
    with pytest.raises(UserError, match=r"annotation.json.*'b', 'a', 'c'.*'a', 'b', 'c'.*annotate.py again"):
        ZodiacDataset('train', cfg=cfg)
