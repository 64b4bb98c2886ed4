"""Samples and batches are a function of (seed, epoch, index), and a bad file is always reported."""

import faulthandler
import json
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
from dataset import Loader, ZodiacDataset
from zodiac.base.errors import UserError
from zodiac.images import transforms

WORKERS = pytest.mark.parametrize('workers', [0, 2])


def settings(workers=0, **more):
    """A configuration for images of 32 px in signs/."""
    overrides = {'data.num_workers': workers, 'image.size': 32, **more}
    return config.load(overrides=[f'{key}={value}' for key, value in overrides.items()])


def draw_split(mode, count):
    """Draw pictures and write their index; returns the paths."""
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
    """Grey pictures whose value is 8 times their number in the index."""
    for number in range(count):
        write_picture(f'signs/{number}.png', Image.new('RGB', (40, 36), (8 * number,) * 3))
    write_index(mode, [f'signs/{number}.png\t{number % 12}' for number in range(count)])


def numbers_of(loader):
    """The picture numbers of a pass, batch by batch."""
    return [np.round(images.numpy()[:, 0, 16, 16] * 255 / 8).astype(int).tolist() for images, _ in loader]


NUMBERED = {'image.mean': [0, 0, 0], 'image.std': [1, 1, 1]}


def one_pass(loader):
    """(images, labels) of a pass."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in loader]
    return tuple(np.concatenate(parts) for parts in zip(*batches))


def items(dataset):
    return np.stack([dataset[index][0] for index in range(len(dataset))])


@pytest.fixture
def no_hang():
    """Ends the test run with a traceback if Paddle's C++ code hangs, which no exception can interrupt."""
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


def test_the_active_configuration_and_mode_train_are_the_defaults(workdir):
    draw_split('train', 2)
    config.use(overrides=['image.size=48'])
    assert ZodiacDataset()[0][0].shape == (3, 48, 48)
    assert ZodiacDataset(mode='train').augment


def test_by_default_only_training_augments(workdir):
    for mode in ('train', 'valid', 'test'):
        draw_split(mode, 1)
    assert [ZodiacDataset(mode, cfg=settings()).augment for mode in ('train', 'valid', 'test')] == [True, False, False]
    assert not ZodiacDataset('train', augment=False, cfg=settings()).augment


def test_an_order_and_features_can_replace_the_images_of_the_index(workdir):
    draw_split('valid', 3)
    dataset = ZodiacDataset('valid', cfg=settings())
    plain = items(dataset)
    dataset.use_order([2, 2, 0])
    assert np.array_equal(items(dataset), plain[[2, 2, 0]])
    features = [np.arange(6, dtype=np.float32).reshape(3, 2)]
    dataset.use_features(features)
    assert dataset.sample(0)[0].tolist() == [4, 5] and dataset.sample(0)[1] == 2


def test_a_batch_stacks_the_items(workdir):
    draw_split('valid', 3)
    cfg = settings()
    dataset = ZodiacDataset('valid', cfg=cfg)
    images, labels = one_pass(Loader(dataset, 2, cfg))
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert np.array_equal(images, items(dataset))
    assert labels.tolist() == [0, 1, 2]


def test_a_batch_is_normalised_exactly_like_its_items(workdir):
    draw_split('valid', 5)
    cfg = settings(**{'image.mean': [0.485, 0.456, 0.406], 'image.std': [0.229, 0.224, 0.225]})
    dataset = ZodiacDataset('valid', cfg=cfg)
    assert dataset.sample(0)[0].dtype == np.uint8
    assert np.array_equal(one_pass(Loader(dataset, 5, cfg))[0], items(dataset))


def test_iteration_ends_after_the_last_item(workdir):
    draw_split('valid', 3)
    assert len(list(ZodiacDataset('valid', cfg=settings()))) == 3


# Random draws


def draw(seed, epoch, index):
    dataset = ZodiacDataset('train', cfg=settings(seed=seed))
    dataset.epoch = epoch
    return dataset[index][0]


def test_a_draw_is_a_function_of_seed_epoch_and_index(workdir):
    write_picture('signs/a.jpg', picture(0, (90, 70)))
    write_index('train', ['signs/a.jpg\t0', 'signs/a.jpg\t0'])  # the same picture twice
    first = draw(1, 2, 0)
    assert np.array_equal(first, draw(1, 2, 0))
    for other in (draw(5, 2, 0), draw(1, 3, 0), draw(1, 2, 1), draw(2, 1, 0)):
        assert not np.array_equal(first, other)


def test_a_draw_does_not_depend_on_earlier_reads(workdir):
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
def test_workers_change_neither_draws_nor_order(workdir, shared_memory, no_hang):
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


def test_shared_memory_is_used_only_if_allowed(workdir):
    draw_split('valid', 2)
    for setting in (True, False):
        cfg = settings(2, **{'data.shared_memory': str(setting).lower()})
        assert Loader(ZodiacDataset('valid', cfg=cfg), 2, cfg).use_shared_memory is setting


def test_without_an_epoch_each_read_of_an_image_is_a_new_reproducible_draw(workdir):
    draw_split('train', 2)
    one, other = (ZodiacDataset('train', cfg=settings()) for _ in range(2))
    reads = [one[0][0] for _ in range(3)]
    assert not np.array_equal(reads[0], reads[1])
    assert not np.array_equal(reads[1], reads[2])
    other[1]  # another image has another count
    assert all(np.array_equal(read, other[0][0]) for read in reads)


def test_without_an_epoch_workers_count_reads_together(workdir, no_hang):
    draw_split('train', 5)
    passes = {}
    for workers in (0, 2):
        cfg = settings(workers)
        loader = Loader(ZodiacDataset('train', cfg=cfg), 2, cfg)
        passes[workers] = [one_pass(loader)[0] for _ in range(2)]
    assert np.array_equal(passes[0], passes[2])
    assert not any(np.array_equal(first, second) for first, second in zip(*passes[2]))


def test_evaluation_is_deterministic(workdir):
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


def test_the_order_does_not_depend_on_earlier_epochs(workdir):
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
def test_a_pass_can_skip_its_first_batches(workdir, workers, balanced, no_hang):
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
    assert seen == list(range(len(seen))) and len(seen) <= 4  # no part of the batch with the bad file


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
def test_any_exception_ends_the_pass_with_the_name_of_the_image_and_its_message(
    workdir, monkeypatch, workers, error, no_hang
):
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
    message = str(caught.value)
    assert message.startswith(paths[5] if isinstance(error, Exception) else 'image 5') and 'odd words' in message


@WORKERS
def test_images_of_several_sizes_end_the_pass(workdir, monkeypatch, workers, no_hang):
    draw_split('test', 4)
    monkeypatch.setattr(ZodiacDataset, '_read', lambda self, number, rng: np.zeros((8 + number, 8, 3), np.uint8))
    cfg = settings(workers)
    with pytest.raises(UserError, match='same shape'):
        one_pass(Loader(ZodiacDataset('test', cfg=cfg), 2, cfg))


def test_with_two_bad_files_in_a_batch_one_is_reported_in_full(workdir):
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


def test_a_pass_succeeds_after_the_bad_file_is_repaired(workdir):
    paths = draw_split('test', 3)
    remove(paths[1])
    cfg = settings()
    loader = Loader(ZodiacDataset('test', cfg=cfg), 2, cfg)
    with pytest.raises(UserError):
        one_pass(loader)
    write_picture(paths[1], picture(1))
    assert one_pass(loader)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ('annotated', 'refused'),
    [
        (['b', 'a', 'c'], True),
        (['a', 'b', 'c'], False),
        (['a', 'b'], False),  # another set of classes
        (['x', 'b', 'c'], False),
        (None, False),
        ('abc', False),
        ([1, {}, 'c'], False),
    ],
)
def test_an_index_with_the_classes_in_another_order_is_refused(workdir, annotated, refused):
    write_index('train', ['signs/0.jpg\t0'])
    (workdir / 'signs' / 'annotation.json').write_text(json.dumps({'labels': annotated}))
    cfg = settings(**{'data.labels': '[a,b,c]'})
    if not refused:
        ZodiacDataset('train', cfg=cfg)
        return
    with pytest.raises(UserError, match=r"annotation.json.*'b', 'a', 'c'.*'a', 'b', 'c'.*annotate.py again"):
        ZodiacDataset('train', cfg=cfg)
