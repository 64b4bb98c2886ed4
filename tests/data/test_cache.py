"""The cache of decoded pictures: the same pixels as without it, whatever happens to its files."""

import csv
import json
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import PIL
import pytest
from conftest import assert_message, make_tree, picture
from PIL import Image

import config
from dataset import Loader, ZodiacDataset
from zodiac.base import files, sources
from zodiac.data import cache

FIXED = 'augment=[resize, horizontal_flip]'  # starts with an operation that is not random
GB = 2**30
STEPS = [{'op': 'center_crop', 'size': 16, 'resize': 18}]


@pytest.fixture
def photos(workdir):
    """Eight pictures of several sizes and formats, with an index for train and valid."""
    os.mkdir('signs')
    paths = []
    for number in range(8):
        size = (90 + 10 * number, 120) if number % 2 else (130, 70 + number)
        paths.append(f'signs/{number}.{"png" if number % 3 else "jpg"}')
        picture(number, size).save(paths[-1])
    lines = ''.join(f'{path}\t{number % 12}\n' for number, path in enumerate(paths))
    for split in ('train', 'valid'):
        Path(f'signs/{split}.txt').write_text(lines)
    return paths


def dataset(mode='train', *overrides, cached=True):
    cfg = config.load(overrides=['image.size=32', 'data.cache=cache', *overrides])
    images, messages = ZodiacDataset(mode, cfg=cfg), []
    if cached:
        images.keep_pictures(cfg, messages.append)
    images.epoch = 3
    return images, messages


def pixels(images):
    return np.stack([images.sample(number)[0] for number in range(len(images))])


def folders():
    return sorted(str(path) for path in Path('cache').iterdir() if path.is_dir())


def made(paths, steps=STEPS, limit=GB):
    messages = []
    pictures = cache.open_or_make('cache', paths, steps, limit, messages.append)
    return pictures, messages


# Content


@pytest.mark.parametrize('options', [['valid'], ['train', FIXED]], ids=['evaluation', 'fixed scale first'])
def test_the_pixels_are_those_without_the_cache(photos, options):
    assert np.array_equal(pixels(dataset(*options)[0]), pixels(dataset(*options, cached=False)[0]))


def test_random_crops_are_taken_from_pictures_scaled_as_for_evaluation(photos):
    images, _ = dataset('train', 'image.resize=50')
    assert {min(images.pictures.get(number).shape[:2]) for number in range(8)} == {50}
    exact = pixels(dataset('train', cached=False)[0]).astype(int)
    assert np.abs(pixels(images) - exact).mean() < 8  # the same crops, of less sharp pictures


def test_small_pictures_are_not_scaled(photos):
    images, _ = dataset('train', 'image.resize=500', 'data.reduced_decoding=false')
    exact, _ = dataset('train', 'data.reduced_decoding=false', cached=False)
    assert np.array_equal(pixels(images), pixels(exact))


def test_batches_from_worker_processes_are_the_same(photos):
    passes = []
    for workers in (0, 2):
        images, _ = dataset('train', f'data.num_workers={workers}')
        loader = Loader(
            images, 3, config.load(overrides=['image.size=32', f'data.num_workers={workers}']), shuffle=True
        )
        loader.set_epoch(1)
        passes.append(np.concatenate([batch.numpy() for batch, _ in loader]))
    assert np.array_equal(*passes)


def test_a_cached_picture_needs_no_file(photos, monkeypatch):
    images, _ = dataset('train')
    expected = pixels(images)
    monkeypatch.setattr('zodiac.images.transforms.read', None)
    assert np.array_equal(pixels(images), expected)
    assert np.array_equal(pixels(pickle.loads(pickle.dumps(images))), expected)  # in another process


# Keys and damage


def test_a_second_run_uses_the_cache(photos, monkeypatch):
    first, _ = made(photos)
    monkeypatch.setattr(cache, '_make', None)
    second, messages = made(photos)
    assert all(np.array_equal(first.get(number), second.get(number)) for number in range(8))
    assert 'cache: 8 of 8 pictures' in messages[-1]


@pytest.mark.parametrize(
    'change',
    [
        lambda paths: picture(99, (60, 60)).save(paths[0]),
        lambda paths: os.utime(paths[3], ns=(1, 1)),
        lambda paths: paths.pop(),
        lambda paths: paths.reverse(),
        lambda paths: os.unlink(paths[2]),
    ],
    ids=['content', 'time', 'one fewer', 'order', 'removed'],
)
def test_other_files_make_another_cache(photos, change):
    made(photos)
    change(photos)
    made(photos)
    assert len(folders()) == 2


@pytest.mark.parametrize('changed', ['settings', 'code', 'Pillow'])
def test_other_settings_or_code_make_another_cache(photos, monkeypatch, changed):
    made(photos)
    if changed == 'code':
        monkeypatch.setattr(sources, 'code_hash', lambda *modules: 'another')
    elif changed == 'Pillow':
        monkeypatch.setattr(PIL, '__version__', '99.0')
    made(photos, [{'op': 'center_crop', 'size': 16, 'resize': 17}] if changed == 'settings' else STEPS)
    assert len(folders()) == 2


@pytest.mark.parametrize('name', ['pixels', 'index.npy', 'about.json'])
@pytest.mark.parametrize('damage', ['gone', 'empty', 'cut', 'noise'])
def test_a_damaged_cache_is_created_again_or_ignored(photos, name, damage):
    expected = pixels(dataset('train')[0])
    path = Path(folders()[0], name)
    content = path.read_bytes()
    path.unlink()
    if damage != 'gone':
        noise = np.random.default_rng(0).bytes(len(content))
        path.write_bytes({'empty': b'', 'cut': content[:-1], 'noise': noise}[damage])
    images, messages = dataset('train')
    assert np.array_equal(pixels(images), expected)
    if (name, damage) == ('pixels', 'noise'):  # found picture by picture
        assert images.pictures.get(0) is None
    else:
        assert 'is damaged' in messages[0] and folders()[0] in messages[0]


def test_a_flipped_bit_is_found_and_the_file_read_instead(photos):
    expected = pixels(dataset('train')[0])
    path = Path(folders()[0], 'pixels')
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    images, _ = dataset('train')
    assert np.array_equal(pixels(images), expected)
    assert images.pictures.get(0) is None and images.pictures.get(1) is not None


def test_the_cache_may_be_deleted_during_training(photos):
    images, _ = dataset('train')
    expected = pixels(images)
    shutil.rmtree('cache')
    assert np.array_equal(pixels(images), expected)


def test_a_file_that_is_not_an_image_is_named_when_it_is_needed(photos):
    Path(photos[2]).write_bytes(b'not an image')
    images, messages = dataset('train')
    assert 'cache: 7 of 8 pictures' in messages[-1]
    with pytest.raises(cache.UserError, match=photos[2]):
        images.sample(2)


# Size


def test_the_cache_stays_within_its_limit_and_other_pictures_are_read_from_files(photos):
    expected = pixels(dataset('train')[0])
    total = sum(entry.stat().st_size for entry in os.scandir(folders()[0]))
    shutil.rmtree('cache')
    images, messages = dataset('train', f'data.cache_gb={total / 2e9}')
    assert 0 < len(images.pictures) < 8
    assert images.pictures.bytes <= total / 2
    assert np.array_equal(pixels(images), expected)


def test_an_old_cache_is_removed_to_make_room_but_not_one_of_this_run(photos, monkeypatch):
    made(photos)
    (old,) = folders()
    size = sum(entry.stat().st_size for entry in os.scandir(old))
    other = [{'op': 'center_crop', 'size': 16, 'resize': 17}]
    assert len(made(photos, other, limit=size)[0]) == 0 and old in folders()
    os.utime(old, (1, 1))
    for folder in set(folders()) - {old}:
        files.remove_folder(folder)
    assert len(made(photos, other, limit=size)[0]) > 0
    assert old not in folders()


def test_a_disk_that_is_nearly_full_is_left_alone(photos, monkeypatch):
    usage = shutil.disk_usage('.')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=cache.SPARE + 100))
    pictures, _ = made(photos)
    assert len(pictures) == 0 and pictures.bytes == 0


def test_training_continues_with_a_warning_if_the_cache_cannot_be_written(photos):
    expected = pixels(dataset('train')[0])
    shutil.rmtree('cache')
    Path('cache').write_text('a file')
    images, messages = dataset('train')
    assert messages[-1].startswith('WARNING: cache: the cache cannot be written')
    assert np.array_equal(pixels(images), expected)


def test_a_failed_write_leaves_nothing(photos, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'save', full)
    pictures, messages = made(photos)
    assert pictures is None and 'No space left' in messages[-1]
    assert folders() == []


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_one_of_two_processes_decodes_and_the_other_waits(photos, tmp_path):
    calls = tmp_path / 'calls'
    real, children = cache._make, []

    def slow(*arguments):
        with open(calls, 'a') as file:
            file.write('x')
        time.sleep(0.3)
        real(*arguments)

    for _ in range(2):
        child = os.fork()
        if not child:
            cache._make = slow
            os._exit(0 if made(photos)[0] is not None else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert calls.read_text() == 'x'


# Training


def test_training_with_the_cache_is_identical_to_training_without_it(tmp_path, call_script):
    make_tree(tmp_path / 'photos', ['cat', 'dog'], {'train': 4, 'valid': 2, 'test': 1})
    shared = ['-o', 'data.root=photos', 'data.labels=[cat,dog]', 'image.size=32', 'model.arch=cifarnet', FIXED]
    shared += ['device=cpu', 'model.pretrained=false', 'data.num_workers=0', 'train.epochs=2', 'train.batch_size=4']
    assert_message(call_script('annotate.py', *shared, cwd=tmp_path), 0)
    rows = []
    for name, more in (('plain', []), ('kept', ['data.cache=true'])):
        done = call_script('train.py', *shared, f'name={name}', *more, cwd=tmp_path)
        assert_message(done, 0, *(['cache: 8 of 8 pictures', 'cache: 4 of 4 pictures'] if more else []))
        with open(tmp_path / f'output/{name}/log.csv', newline='') as file:
            rows.append([[row['train_loss'], row['valid_loss'], row['valid_top1']] for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert json.loads(next((tmp_path / 'output/.cache').glob('*/about.json')).read_text())['steps']


def test_training_on_large_jpegs_is_as_accurate_with_reduced_and_cached_pictures(tmp_path, call_script):
    rng = np.random.default_rng(0)
    for split, count in (('train', 12), ('valid', 8), ('test', 1)):
        for label, across in (('stripes', (1, 16)), ('bars', (16, 1))):
            os.makedirs(tmp_path / 'photos' / split / label)
            for number in range(count):
                pattern = np.broadcast_to(rng.integers(0, 256, (*across, 3), dtype=np.uint8), (16, 16, 3))
                image = Image.fromarray(np.ascontiguousarray(pattern)).resize((480, 320), Image.Resampling.BICUBIC)
                image.save(tmp_path / 'photos' / split / label / f'{number}.jpg')
    shared = ['-o', 'data.root=photos', 'data.labels=[stripes,bars]', 'image.size=32', 'model.arch=cifarnet']
    shared += ['device=cpu', 'model.pretrained=false', 'data.num_workers=0', 'train.epochs=6', 'train.batch_size=8']
    shared += [
        'augment=[{random_resized_crop: {scale: [0.5, 1.0]}}, horizontal_flip]',
        'optim.lr=0.003',
        'optim.name=adam',
    ]
    shared += ['optim.schedule=constant']
    assert_message(call_script('annotate.py', *shared, cwd=tmp_path), 0)
    best = {}
    for name, fast in (('plain', ['data.reduced_decoding=false']), ('fast', ['data.cache=true'])):
        assert_message(call_script('train.py', *shared, f'name={name}', *fast, cwd=tmp_path), 0)
        with open(tmp_path / f'output/{name}/log.csv', newline='') as file:
            best[name] = max(float(row['valid_top1']) for row in csv.DictReader(file))
    assert min(best.values()) >= 0.8
    assert abs(best['plain'] - best['fast']) <= 0.125, best  # two images
