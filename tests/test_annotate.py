"""From a folder or archive of pictures to index files: what is taken, what is left out and why, and who gets to know."""

import collections
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_message, make_tree, picture, run_script
from image_files import BROKEN, LARGE, OTHER_MODES, RGB, ZOO, exif, patched, png, saved, segment
from PIL import Image

import annotate
from zodiac.base.errors import UserError
from zodiac.data import file_facts, inspection
from zodiac.images import decoding

LABELS = ['cat', 'dog']
INDEX = ('train.txt', 'valid.txt', 'test.txt', 'annotation.json')


@pytest.fixture
def run(workdir, monkeypatch):
    """Call annotate.py's main on data.root=signs, labels cat and dog, unless told otherwise; returns annotation.json."""

    def call(*overrides, root='signs'):
        settings = [f'data.root={root}', f'data.labels=[{", ".join(LABELS)}]', *overrides]
        monkeypatch.setattr(sys, 'argv', ['annotate.py', '-o', *settings])
        annotate.main()
        return json.loads(Path(root, 'annotation.json').read_text(encoding='utf-8'))

    return call


def refusal(run, *overrides, **kwargs):
    with pytest.raises(UserError) as caught:
        run(*overrides, **kwargs)
    return str(caught.value)


def index(split, root='signs'):
    """[(path, label)] of one index file, which must be of the documented form to the byte."""
    content = Path(root, f'{split}.txt').read_bytes().decode('utf-8')
    lines = content.split('\n')
    assert lines.pop() == ''
    pairs = [line.split('\t') for line in lines]
    assert all(len(pair) == 2 and pair[1] in ('0', '1', '2') for pair in pairs)
    return [(path, int(label)) for path, label in pairs]


def paths(split, root='signs'):
    return [path for path, _ in index(split, root)]


def rejected(summary):
    return {item['path']: item['reason'] for item in summary['rejected']}


def full_tree(counts=3, suffix='.png'):
    make_tree('signs', LABELS, {'train': counts, 'valid': 1, 'test': 1}, suffix)


def contents(root='signs'):
    return {name: Path(root, name).read_bytes() for name in INDEX if Path(root, name).exists()}


# --- pictures of every kind


def draw(name, folder):
    path = Path(folder) / name
    path.write_bytes(ZOO[name]())
    return str(path)


def notebook_accepts(path):
    """The notebook's own check: open with PIL, load(), mode == 'RGB'."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(path) as image:
                image.load()
                return image.mode == 'RGB'
        except Exception:
            return False


@pytest.fixture(params=['simplejpeg', 'pillow only'])
def decoder(request, monkeypatch):
    if request.param == 'simplejpeg':
        pytest.importorskip('simplejpeg')
    else:
        monkeypatch.setattr(inspection, 'fast_decoder', lambda: None)


def test_accepted_by_default_is_what_the_notebooks_loop_accepts(tmp_path, decoder):
    for name in ZOO:
        path = draw(name, tmp_path)
        assert notebook_accepts(path) == (name in RGB), name
        assert (inspection.inspect(path, convert=False).reason == '') == (name in RGB), name


def test_every_sound_picture_is_accepted_with_convert(tmp_path, decoder):
    for name in (*RGB, *OTHER_MODES):
        found = inspection.inspect(draw(name, tmp_path), convert=True)
        assert found.reason == '', name
        assert (found.verdict.mode == 'RGB') == (name in RGB), name
        assert len(found.picture) == file_facts.PICTURE.size, name


@pytest.mark.parametrize('convert', [False, True])
def test_no_broken_file_is_accepted(tmp_path, decoder, convert):
    damaged = ('truncated or damaged', 'not an image', 'cannot be read')
    for name in BROKEN:
        found = inspection.inspect(draw(name, tmp_path), convert)
        assert found.reason in (('too many pixels',) if 'bomb' in name else damaged), name
        assert found.picture == b'', name


@pytest.mark.parametrize('size', [(10000, 9500), (20000, 20000)])
def test_too_many_pixels_are_refused_with_the_size_or_the_limit(tmp_path, decoder, size):
    path = tmp_path / 'a.png'
    path.write_bytes(png(size, 8, 2, bytes(100_000)))
    found = inspection.inspect(path, convert=False)
    assert found.reason == 'too many pixels'
    assert str(size[0] * size[1]) in found.verdict.detail or f'{size[0]}x{size[1]}' in found.verdict.detail


def test_a_picture_of_another_mode_is_left_out_by_default_naming_its_mode(tmp_path):
    for name in OTHER_MODES:
        path = draw(name, tmp_path)
        with Image.open(path) as image:
            mode = image.mode
        found = inspection.inspect(path, convert=False)
        assert (found.reason, found.verdict.mode) == (f'mode {mode}', mode), name


def test_simplejpeg_changes_nothing_but_the_time(tmp_path, monkeypatch):
    pytest.importorskip('simplejpeg')
    cases = [(draw(name, tmp_path), convert) for name in ZOO for convert in (False, True)]
    with_it = [inspection.inspect(*case) for case in cases]
    monkeypatch.setattr(inspection, 'fast_decoder', lambda: None)
    assert [case for case, found in zip(cases, with_it) if inspection.inspect(*case) != found] == []


def test_a_picture_is_known_again_when_what_training_sees_of_it_is_saved_as_png_or_bmp(tmp_path, decoder):
    for name in (*RGB, *OTHER_MODES):
        path = draw(name, tmp_path)
        pixels = file_facts.pixels(inspection.inspect(path, convert=True, reduce=False).picture)
        image = decoding.decode(path)
        assert image.mode == 'RGB', name
        for copy in (tmp_path / 'copy.png', tmp_path / 'copy.bmp'):
            image.save(copy)
            assert file_facts.pixels(inspection.inspect(copy, convert=True).picture) == pixels, (name, copy.suffix)


def test_a_large_jpeg_is_decoded_at_reduced_size_and_known_in_full_upright(tmp_path, decoder):
    for name in (name for name in (*RGB, *OTHER_MODES) if name.endswith('.jpg')):
        path = draw(name, tmp_path)
        found = inspection.inspect(path, convert=True)
        width, height = decoding.decode(path).size
        assert file_facts.size(found.picture) == (width, height), name
        assert found.verdict.reduced == (min(width, height) >= 54 and width * height >= 8192), name
        assert found.verdict.reduced or not name.startswith(('large', 'flat')), name
        assert not inspection.inspect(path, convert=True, reduce=False).verdict.reduced, name


@pytest.mark.parametrize(
    'options', [{}, {'progressive': True}, {'exif': exif()}, {'restart_marker_blocks': 5}], ids=str
)
def test_a_large_jpeg_cut_or_damaged_anywhere_is_judged_as_the_notebooks_loop_judges_it(tmp_path, decoder, options):
    whole = saved(noisy(LARGE), 'JPEG', **options)
    path = tmp_path / 'a.jpg'
    rng = np.random.default_rng(0)
    cuts = [whole[:end] for end in [*range(len(whole) - 12, len(whole)), *rng.integers(2, len(whole), 30)]]
    flips = []
    for at, bit in zip(rng.integers(2, len(whole), 60).tolist(), rng.integers(0, 8, 60).tolist()):
        flips.append(patched(whole, at, bytes([whole[at] ^ 1 << bit])))
    for number, data in enumerate([whole, *cuts, *flips]):
        path.write_bytes(data)
        assert (inspection.inspect(path, False).reason == '') == notebook_accepts(path), number


def noisy(size):
    pixels = np.asarray(picture(1, size)) + np.random.default_rng(0).normal(0, 10, (size[1], size[0], 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_pictures_of_equal_bytes_but_another_shape_differ(tmp_path):
    for size in ((6, 4), (4, 6)):
        Image.new('RGB', size).save(tmp_path / f'{size[0]}.png')
    keys = {file_facts.same_as(inspection.inspect(tmp_path / name, False).picture) for name in ('6.png', '4.png')}
    assert len(keys) == 2


def test_float_pixels_are_refused_saying_so(tmp_path):
    Image.new('F', (4, 4)).save(tmp_path / 'a.tif')
    assert inspection.inspect(tmp_path / 'a.tif', convert=True).reason == 'float pixels'


def test_a_missing_file_and_a_folder_are_refused_with_the_systems_word(tmp_path):
    for path in (tmp_path / 'gone.jpg', tmp_path):
        found = inspection.inspect(path, convert=False)
        assert found.reason == 'cannot be read'
        assert found.verdict.detail


def test_two_processes_give_the_same_in_the_same_order_as_one(tmp_path):
    names = [draw(name, tmp_path) for name in ZOO]
    one, two = (
        [found[:2] for found in inspection.inspect_all(names, True, workers)] for workers in (1, 2)
    )  # no stamps
    assert two == one
    assert len(one) == len(names)


@pytest.mark.skipif(multiprocessing.get_start_method() != 'fork', reason='the fault is planted by forking')
def test_a_killed_decoding_process_ends_the_run_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, '_inspect_any', lambda *given: os._exit(9))
    with pytest.raises(UserError, match=r'annotate\.workers=1'):
        list(inspection.inspect_all([draw('plain.png', tmp_path)] * 4, True, 2))


# --- what a converted picture looks like


def test_16_bit_grey_keeps_its_shades(tmp_path):
    image = decoding.decode(draw('grey of 16 bits.png', tmp_path))
    assert np.asarray(image)[0].tolist() == [[value] * 3 for value in (0, 0, 1, 128, 255)]


def test_alpha_lies_over_white_and_hidden_colours_stay_hidden(tmp_path):
    image = Image.new('RGBA', (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 128)]):
        image.putpixel((x, 0), pixel)
    image.save(tmp_path / 'a.png')
    assert np.asarray(decoding.decode(tmp_path / 'a.png'))[0].tolist() == [[255] * 3, [255, 0, 0], [127] * 3]


def test_transparent_palette_colour_becomes_white(tmp_path):
    image = Image.new('P', (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for name in ('a.png', 'a.gif'):
        image.save(tmp_path / name, transparency=0)
        assert np.asarray(decoding.decode(tmp_path / name))[0].tolist() == [[255] * 3, [0, 0, 255]]


@pytest.mark.parametrize('name', ['a.jpg', 'a.tif'])
def test_cmyk_keeps_its_colours(tmp_path, name):
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / name)
    assert np.abs(np.asarray(decoding.decode(tmp_path / name), int) - [255, 0, 0]).max() <= 4


def test_an_animation_gives_its_first_frame(tmp_path):
    red, blue = Image.new('RGB', (4, 4), (255, 0, 0)), Image.new('RGB', (4, 4), (0, 0, 255))
    red.save(tmp_path / 'a.gif', save_all=True, append_images=[blue])
    assert np.asarray(decoding.decode(tmp_path / 'a.gif'))[0, 0].tolist() == [255, 0, 0]


# --- trees


def test_split_folders_give_one_index_each_sorted_and_labelled(run):
    full_tree(suffix='.jpg')
    summary = run()
    for split, count in (('train', 3), ('valid', 1), ('test', 1)):
        assert index(split) == [
            (f'signs/{split}/{label}/{label}_{number}.jpg', position)
            for position, label in enumerate(LABELS)
            for number in range(count)
        ]
    assert summary['accepted'] == 10
    assert summary['splits']['train'] == {
        'cat': {'accepted': 3, 'rejected': 0},
        'dog': {'accepted': 3, 'rejected': 0},
    }
    assert summary['settings']['drawn_splits'] == []
    assert summary['rejected'] == summary['junk'] == summary['outside_class_folders'] == []
    assert summary['labels'] == LABELS


def test_index_is_written_in_bytes_as_documented(run):
    full_tree(1, '.jpg')
    run()
    assert Path('signs/train.txt').read_bytes() == (b'signs/train/cat/cat_0.jpg\t0\nsigns/train/dog/dog_0.jpg\t1\n')


def test_label_numbers_follow_the_labels_and_not_the_folders(run):
    full_tree(1)
    shutil.rmtree('signs/valid/cat')
    run('data.labels=[zebra, dog, cat]')
    assert index('train') == [('signs/train/cat/cat_0.png', 2), ('signs/train/dog/dog_0.png', 1)]
    assert index('valid') == [('signs/valid/dog/dog_0.png', 1)]


def test_order_is_by_code_point_with_subfolders_after_files(run):
    full_tree(1)
    names = ['b.png', 'B.png', 'a10.png', 'a2.png', '猫 1.png', 'é.png', 'a/z.png', 'a b.png']
    for seed, name in enumerate(reversed(names)):
        path = Path('signs/train/dog', name)
        path.parent.mkdir(exist_ok=True)
        picture(100 + seed).save(path)
    run()
    wanted = ['B.png', 'a b.png', 'a10.png', 'a2.png', 'b.png', 'dog_0.png', 'é.png', '猫 1.png', 'a/z.png']
    assert paths('train')[1:] == [f'signs/train/dog/{name}' for name in wanted]


def test_a_slash_behind_the_root_or_a_dot_before_it_changes_no_more_than_the_spelling(run):
    full_tree(1)
    run(root='signs/')
    assert paths('train')[0] == 'signs/train/cat/cat_0.png'
    run(root='./signs')
    assert paths('train')[0] == './signs/train/cat/cat_0.png'


def test_a_second_run_writes_the_same_bytes(run):
    make_tree('signs', LABELS, {'': 12}, '.png')
    run()
    first = contents()
    assert len(first) == 4
    run()
    assert contents() == first


def test_one_folder_a_class_is_split_by_fractions_class_by_class(run):
    make_tree('signs', LABELS, {'': 20}, '.png')
    for number in range(5, 20):
        Path(f'signs/dog/dog_{number}.png').unlink()
    before = sorted(path for path in Path('signs').rglob('*') if path.is_file())
    summary = run('annotate.valid_fraction=0.2', 'annotate.test_fraction=0.1')
    counts = {split: collections.Counter(label for _, label in index(split)) for split in ('train', 'valid', 'test')}
    assert counts == {'train': {0: 14, 1: 3}, 'valid': {0: 4, 1: 1}, 'test': {0: 2, 1: 1}}
    together = paths('train') + paths('valid') + paths('test')
    assert sorted(together) == sorted(str(path) for path in before)
    assert [path for path in before if not path.exists()] == []
    assert summary['settings']['drawn_splits'] == ['valid', 'test']
    assert summary['settings']['valid_fraction'] == 0.2
    for split in ('train', 'valid', 'test'):
        assert index(split) == sorted(index(split))


def test_the_drawn_split_depends_on_the_seed_and_on_nothing_else(run):
    make_tree('signs', LABELS, {'': 40}, '.png')
    run('seed=1')
    first = [paths(split) for split in ('train', 'valid', 'test')]
    run('seed=2')
    assert [paths(split) for split in ('train', 'valid', 'test')] != first
    run('seed=1', 'annotate.workers=1', 'name=other')
    assert [paths(split) for split in ('train', 'valid', 'test')] == first
    shutil.move('signs', 'moved')
    shutil.rmtree('moved/dog')
    run('seed=1', root='moved')
    here = [[path.replace('moved', 'signs') for path in paths(split, 'moved')] for split in ('train', 'valid', 'test')]
    assert here == [[path for path in split if '/cat/' in path] for split in first]


def test_the_drawn_split_is_the_same_on_every_machine(run):
    make_tree('signs', LABELS, {'': 10}, '.png')
    run('seed=7', 'annotate.valid_fraction=0.2', 'annotate.test_fraction=0.1')
    drawn = [Path(path).stem for path in paths('valid') + paths('test')]
    assert drawn == ['cat_5', 'cat_6', 'dog_1', 'dog_6', 'cat_9', 'dog_5']


def test_only_the_missing_split_is_drawn_and_it_comes_from_train(run, capsys):
    make_tree('signs', LABELS, {'train': 10, 'test': 2}, '.png')
    summary = run('annotate.valid_fraction=0.3')
    assert collections.Counter(label for _, label in index('valid')) == {0: 3, 1: 3}
    assert all(path.startswith('signs/train/') for path in paths('train') + paths('valid'))
    assert len(set(paths('train')) | set(paths('valid'))) == 20
    assert all(path.startswith('signs/test/') for path in paths('test'))
    assert len(paths('test')) == 4
    assert summary['settings']['drawn_splits'] == ['valid']
    assert 'valid drawn from the training images with seed 0' in capsys.readouterr().out


def test_test_images_can_serve_as_validation_images_so_that_all_others_are_trained_on(run, capsys):
    make_tree('signs', LABELS, {'train': 6, 'test': 3}, '.png')
    summary = run('annotate.valid_from=test')
    assert Path('signs/valid.txt').read_bytes() == Path('signs/test.txt').read_bytes()
    assert index('test') == [
        (f'signs/test/{label}/{label}_{n}.png', LABELS.index(label)) for label in LABELS for n in range(3)
    ]
    assert paths('train') == [f'signs/train/{label}/{label}_{number}.png' for label in LABELS for number in range(6)]
    assert summary['settings']['valid_is_test'] is True
    assert summary['settings']['drawn_splits'] == []
    assert summary['accepted'] == 18
    assert summary['splits']['valid'] == summary['splits']['test']
    assert summary['splits']['valid']['cat'] == {'accepted': 3, 'rejected': 0}
    assert summary['same_picture_in_two_splits'] == []
    out, err = capsys.readouterr()
    assert 'valid.txt lists the test images (annotate.valid_from=test)' in out
    assert 'drawn from' not in out and not err


@pytest.mark.parametrize('split', ['', 'train'])
def test_the_validation_images_are_the_drawn_test_images_where_those_are_asked_for(run, capsys, split):
    make_tree('signs', LABELS, {split: 10}, '.png')
    summary = run('annotate.valid_from=test', 'annotate.test_fraction=0.2')
    assert Path('signs/valid.txt').read_bytes() == Path('signs/test.txt').read_bytes()
    assert [len(paths(name)) for name in ('train', 'valid', 'test')] == [16, 4, 4]
    assert not set(paths('train')) & set(paths('test'))
    assert summary['settings']['drawn_splits'] == ['test']
    assert summary['settings']['valid_is_test'] is True
    assert 'valid_fraction' not in summary['settings']
    assert summary['same_picture_in_two_splits'] == []
    out = capsys.readouterr().out
    assert 'test drawn from the training images with seed 0' in out
    assert 'valid.txt lists the test images' in out


@pytest.mark.parametrize('overrides', [['annotate.valid_from=test'], []])
def test_a_valid_folder_is_taken_whatever_valid_from_says(run, capsys, overrides):
    full_tree()
    summary = run(*overrides)
    assert paths('valid') == ['signs/valid/cat/cat_0.png', 'signs/valid/dog/dog_0.png']
    assert summary['settings']['valid_is_test'] is False
    assert 'valid.txt lists' not in capsys.readouterr().out


def test_without_the_setting_the_validation_images_are_drawn_from_train(run):
    make_tree('signs', LABELS, {'train': 10, 'test': 2}, '.png')
    summary = run()
    assert summary['settings']['valid_is_test'] is False
    assert summary['settings']['drawn_splits'] == ['valid']
    assert not set(paths('valid')) & set(paths('test'))


def test_a_picture_of_train_and_test_is_still_told_when_the_test_images_validate(run):
    make_tree('signs', LABELS, {'train': 3, 'test': 2}, '.png')
    shutil.copy('signs/train/cat/cat_0.png', 'signs/test/cat/copy.png')
    summary = run('annotate.valid_from=test')
    assert summary['same_picture_in_two_splits'] == [['signs/train/cat/cat_0.png', 'signs/test/cat/copy.png']]


def test_an_empty_test_folder_is_named_where_it_should_validate_too(run):
    make_tree('signs', LABELS, {'train': 3, 'test': 0}, '.png')
    message = refusal(run, 'annotate.valid_from=test')
    assert 'no usable images for test' in message
    assert 'remove the empty folder test/' in message


def test_same_pictures_stay_together_when_splits_are_drawn(run):
    make_tree('signs', LABELS, {'': 8}, '.png')
    for label in LABELS:
        for number in range(8):
            with Image.open(f'signs/{label}/{label}_{number}.png') as image:
                image.save(f'signs/{label}/z{7 - number}.bmp')
    summary = run('annotate.valid_fraction=0.3', 'annotate.test_fraction=0.3')
    for split, count in (('train', 8), ('valid', 4), ('test', 4)):
        names = [Path(path).stem for path in paths(split) if '/cat/' in path]
        assert sorted(name[-1] for name in names if name.startswith('cat')) == sorted(
            str(7 - int(name[1:])) for name in names if name.startswith('z')
        )
        assert len(names) == count
    assert summary['same_picture_in_two_splits'] == []


@pytest.mark.parametrize('count', [3, 4, 5])
def test_drawing_splits_leaves_each_class_an_image_to_train_on(run, count):
    make_tree('signs', LABELS, {'': count}, '.png')
    summary = run('annotate.valid_fraction=0.5', 'annotate.test_fraction=0.4')
    for split in ('train', 'valid', 'test'):
        for label in LABELS:
            assert summary['splits'][split][label]['accepted'] >= 1


def test_a_class_too_small_to_draw_from_stays_in_train_with_a_warning(run, capsys):
    make_tree('signs', LABELS, {'': 6}, '.png')
    for number in range(2, 6):
        Path(f'signs/dog/dog_{number}.png').unlink()
    run()
    assert [path for path in paths('train') if '/dog/' in path] == ['signs/dog/dog_0.png', 'signs/dog/dog_1.png']
    said = capsys.readouterr().err
    assert 'WARNING: no valid images in class dog' in said
    assert 'WARNING: no test images in class dog' in said
    assert 'drawn from classes of 3 images or more' in said


# --- archives


def saved_zip(names):
    """The bytes of a zip with a different picture under each name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as opened:
        for seed, name in enumerate(names):
            opened.writestr(name, saved(picture(seed), 'BMP'))
    return stream.getvalue()


@pytest.fixture
def archive(workdir):
    """photos.zip with a wrapper folder, split tree inside."""
    make_tree('photos/signs', LABELS, {'train': 2, 'valid': 1, 'test': 1}, '.png')
    with zipfile.ZipFile('photos.zip', 'w') as opened:
        for path in sorted(Path('photos').rglob('*')):
            opened.write(path, path.relative_to('photos'))
    shutil.rmtree('photos')
    return 'annotate.archive=photos.zip'


def test_an_archive_is_unpacked_once_and_annotated(run, archive, capsys):
    run(archive)
    assert paths('train') == [f'signs/train/{label}/{label}_{number}.png' for label in LABELS for number in (0, 1)]
    assert 'photos.zip unpacked into signs\n' in capsys.readouterr().err
    first = contents()
    stamp = os.stat('signs/train/cat/cat_1.png').st_mtime_ns
    run(archive)
    assert contents() == first
    assert os.stat('signs/train/cat/cat_1.png').st_mtime_ns == stamp
    assert 'is unpacked in signs already' in capsys.readouterr().err
    assert sorted(os.listdir('.')) == ['photos.zip', 'signs']


def test_an_empty_folder_is_filled_from_the_archive(run, archive):
    os.mkdir('signs')
    assert run(archive)['accepted'] == 8


def test_another_archive_is_not_mixed_into_the_folder(run, archive):
    run(archive)
    before = contents()
    with zipfile.ZipFile('photos.zip', 'a') as opened:
        opened.writestr('signs/train/cat/more.png', RGB['plain.png']())
    message = refusal(run, archive)
    assert 'signs: the folder holds other files' in message
    assert 'data.root' in message
    assert contents() == before


def test_a_folder_with_other_files_is_not_unpacked_into(run, archive):
    Path('signs').mkdir()
    Path('signs/mine.txt').write_text('mine')
    assert 'signs: the folder holds other files' in refusal(run, archive)
    assert os.listdir('signs') == ['mine.txt']


def test_a_missing_archive_is_named(run):
    assert refusal(run, 'annotate.archive=gone.zip').startswith('gone.zip: no such archive')


@pytest.mark.parametrize('limit', ['max_entries=2', 'max_bytes=1000'])
def test_the_caps_of_the_settings_hold_and_leave_nothing(run, archive, limit):
    assert f'annotate.{limit.partition("=")[0]}' in refusal(run, archive, f'annotate.{limit}')
    assert os.listdir('.') == ['photos.zip']


def test_an_archive_as_root_is_refused_with_the_way_to_unpack_it(run, archive):
    assert '-o annotate.archive=photos.zip' in refusal(run, root='photos.zip')


def test_an_archive_of_gbk_names_gives_a_readable_index(run):
    data = saved_zip(f'{split}/{name}' for split in ('train', 'valid', 'test') for name in ('AA/A1', 'BB/B1'))
    for standin, name in ((b'/AA/', '/猫/'), (b'/BB/', '/狗/')):
        data = data.replace(standin, name.encode('gbk'))
    Path('a.zip').write_bytes(data)
    run('annotate.archive=a.zip', 'data.labels=[猫, 狗]')
    assert index('train') == [('signs/train/狗/B1', 1), ('signs/train/猫/A1', 0)]


def test_names_that_were_read_in_a_wrong_encoding_are_told_with_the_way_out(run):
    data = saved_zip(f'{folder}/{number}.bmp' for folder in ('AAAA', 'BBBB') for number in range(3))
    for standin, name in ((b'AAAA', '構造'), (b'BBBB', '表現')):
        data = data.replace(standin, name.encode('shift_jis'))
    Path('a.zip').write_bytes(data)
    archive = ('annotate.archive=a.zip', 'data.labels=[構造, 表現]')
    message = refusal(run, archive[0])
    assert message.startswith('the names in the archive were read as gbk') and 'annotate.encoding=shift_jis' in message
    assert 'remove the folder' in refusal(run, *archive, 'annotate.encoding=shift_jis')
    shutil.rmtree('signs')
    run(*archive)
    assert {label for _, label in index('train')} == {0, 1}
    shutil.rmtree('signs')
    run(*archive, 'annotate.encoding=shift_jis')
    assert {'構造', '表現'} < set(os.listdir('signs'))


# --- what is left out


def test_only_rgb_is_indexed_by_default_and_the_rest_is_counted_and_listed(run, capsys):
    full_tree(30)
    names = ['grey.jpg', 'alpha.png', 'cmyk.jpg', 'half.jpg', 'text.jpg', 'bomb.png', 'animated.gif']
    for name in [*names, 'plain.bmp']:
        draw(name, 'signs/train/cat')
    summary = run()
    assert rejected(summary) == {
        'signs/train/cat/grey.jpg': 'mode L',
        'signs/train/cat/alpha.png': 'mode RGBA',
        'signs/train/cat/cmyk.jpg': 'mode CMYK',
        'signs/train/cat/half.jpg': 'truncated or damaged',
        'signs/train/cat/text.jpg': 'not an image',
        'signs/train/cat/bomb.png': 'too many pixels',
        'signs/train/cat/animated.gif': 'mode P',
    }
    assert summary['rejected_by_reason'] == collections.Counter(rejected(summary).values())
    assert summary['splits']['train']['cat'] == {'accepted': 31, 'rejected': 7}
    assert all(item['split'] == 'train' and item['class'] == 'cat' for item in summary['rejected'])
    assert 'signs/train/cat/plain.bmp' in paths('train')
    assert not set(rejected(summary)) & set(paths('train'))
    out = capsys.readouterr().out
    for reason, count in summary['rejected_by_reason'].items():
        assert f'left out: {count} {reason}' in out


def test_convert_keeps_the_other_modes_and_says_which(run, capsys):
    full_tree(1)
    for name in [*OTHER_MODES, 'half.jpg']:
        draw(name, 'signs/train/cat')
    summary = run('annotate.non_rgb=convert')
    assert list(rejected(summary)) == ['signs/train/cat/half.jpg']
    assert {Path(path).name for path in paths('train')} == {*OTHER_MODES, 'cat_0.png', 'dog_0.png'}
    assert sum(summary['converted_by_mode'].values()) == len(OTHER_MODES)
    assert summary['converted_by_mode']['RGBA'] == 2
    assert summary['first_frame_of_animation'] == ['signs/train/cat/animated.gif']
    out = capsys.readouterr().out
    assert 'converted to RGB: 2 of mode RGBA' in out
    assert 'animations, of which the first frame is used: 1' in out


def test_more_than_a_tenth_left_out_is_said_loudly_with_the_setting_that_keeps_it(run, capsys):
    full_tree(7)
    draw('grey.png', 'signs/train/cat')
    draw('alpha.png', 'signs/train/cat')
    run()
    assert 'left out' not in capsys.readouterr().err
    draw('half.jpg', 'signs/train/cat')
    run()
    said = capsys.readouterr().err
    assert 'WARNING: 3 of 21 files (14%) are left out. Set annotate.non_rgb=convert to keep up to 2 of them.' in said


def test_the_setting_is_not_offered_where_it_would_keep_nothing(run, capsys):
    full_tree(2)
    draw('half.jpg', 'signs/train/cat')
    draw('text.jpg', 'signs/train/cat')
    run()
    said = capsys.readouterr().err
    assert 'WARNING: 2 of 10 files (20%) are left out' in said
    assert 'non_rgb' not in said


@pytest.mark.parametrize('name', ['a\tb.png', 'a\nb.png', 'a\rb.png', 'sub\tfolder/a.png'])
def test_a_name_that_cannot_stand_in_an_index_is_left_out_by_name(run, capsys, name):
    full_tree(1)
    Path('signs/train/cat', name).parent.mkdir(exist_ok=True)
    picture(99).save(Path('signs/train/cat', name))
    summary = run()
    assert rejected(summary) == {f'signs/train/cat/{name}': 'tab or newline in the name'}
    assert len(index('train')) == 2
    assert 'left out: 1 tab or newline in the name' in capsys.readouterr().out


def test_a_name_that_is_not_utf8_is_left_out_by_name(run, capsys):
    full_tree(1)
    with open(os.path.join(b'signs/train/cat', b'\xb9\xb7.png'), 'wb') as file:
        file.write(RGB['plain.png']())
    summary = run()
    assert list(rejected(summary).values()) == ['name is not UTF-8']
    assert [path.startswith('signs/train/cat/') for path in rejected(summary)] == [True]
    assert len(index('train')) == 2
    assert 'left out: 1 name is not UTF-8' in capsys.readouterr().out


def test_spaces_quotes_and_odd_characters_in_names_are_kept(run):
    full_tree(1)
    names = [
        ' leading.png',
        'trailing.png ',
        'it\'s "it".png',
        'a\u2028b\x0bc\x85.png',
        '%s{0}.png',
        '-o.png',
        '#1.png',
    ]
    for seed, name in enumerate(names):
        picture(100 + seed).save(Path('signs/train/cat', name), 'PNG')
    run()
    assert set(paths('train')) == {f'signs/train/cat/{name}' for name in [*names, 'cat_0.png']} | {
        'signs/train/dog/dog_0.png'
    }


def test_junk_is_ignored_and_counted(run, capsys):
    full_tree(1)
    for path in (
        'signs/Thumbs.db',
        'signs/train/.DS_Store',
        'signs/train/cat/Thumbs.db',
        'signs/train/cat/.DS_Store',
        'signs/train/cat/._cat_0.png',
        'signs/train/dog/desktop.ini',
    ):
        Path(path).write_bytes(b'junk')
    shutil.copytree('signs/train/dog', 'signs/__MACOSX')
    shutil.copytree('signs/train/dog', 'signs/train/__MACOSX')
    summary = run()
    assert len(summary['junk']) == 8
    assert summary['rejected'] == summary['outside_class_folders'] == []
    assert len(index('train')) == 2
    assert 'junk files or folders ignored: 8' in capsys.readouterr().out


def test_files_outside_the_class_folders_are_counted_and_listed(run, capsys):
    full_tree(1)
    draw('plain.png', 'signs')
    draw('plain.png', 'signs/train')
    os.makedirs('signs/sketches/new')
    draw('plain.png', 'signs/sketches/new')
    summary = run()
    left_out = ['signs/plain.png', 'signs/sketches/', 'signs/train/plain.png']
    assert sorted(summary['outside_class_folders']) == left_out
    assert summary['accepted'] == 6
    out = capsys.readouterr().out
    assert 'files or folders outside the class folders ignored: 3' in out
    assert all(path in out for path in left_out)


def test_our_own_files_are_neither_images_nor_stray(run):
    make_tree('signs', LABELS, {'': 6}, '.png')
    run()
    assert run()['outside_class_folders'] == []


def test_a_broken_link_is_left_out_by_name(run):
    full_tree(1)
    os.symlink('gone.png', 'signs/train/cat/link.png')
    assert rejected(run()) == {'signs/train/cat/link.png': 'cannot be read'}


# --- trees that need a word


def test_chinese_class_folder_and_name_are_indexed(run):
    make_tree('图片', ['猫', '狗'], {'train': 1, 'valid': 1, 'test': 1})
    picture(50).save('图片/train/猫/猫 1.jpg')
    summary = run('data.labels=[狗, 猫]', root='图片')
    assert index('train', '图片') == [
        ('图片/train/狗/狗_0.jpg', 0),
        ('图片/train/猫/猫 1.jpg', 1),
        ('图片/train/猫/猫_0.jpg', 1),
    ]
    assert summary['splits']['train']['猫']['accepted'] == 2
    assert '猫 1.jpg\t1\n'.encode() in Path('图片/train.txt').read_bytes()


@pytest.mark.parametrize('split', ['', 'train', 'test'])
def test_an_unknown_class_folder_stops_with_three_ways_out(run, split):
    full_tree(2) if split else make_tree('signs', LABELS, {'': 6}, '.png')
    folder = os.path.join('signs', split, 'doge')
    os.rename(os.path.join('signs', split, 'dog'), folder)
    labels = '[cat, dog, doge]' if split else '[cat, doge]'
    message = refusal(run)
    assert message.startswith(f'{folder}: ')
    for words in ('rename it to dog', 'annotate.unknown_class=skip', f"-o 'data.labels={labels}'"):
        assert words in message
    assert contents() == {}


def test_an_unknown_class_folder_can_be_skipped_and_is_listed(run):
    full_tree(1)
    os.makedirs('signs/train/zebra')
    draw('plain.png', 'signs/train/zebra')
    summary = run('annotate.unknown_class=skip')
    assert summary['outside_class_folders'] == ['signs/train/zebra/']
    assert len(index('train')) == 2


def test_a_class_without_training_images_is_named_with_the_setting_that_leaves_it_out(run, capsys):
    full_tree(1)
    shutil.rmtree('signs/train/dog')
    os.mkdir('signs/train/ox')
    picture(9).save('signs/train/ox/1.png')
    run('data.labels=[cat, dog, ox, pig]')
    said = capsys.readouterr().err
    assert 'WARNING: no images to train on in class dog, pig' in said
    assert "-o 'data.labels=[cat, ox]' annotate.unknown_class=skip" in said
    run('data.labels=[cat, ox]', 'annotate.unknown_class=skip')


def test_an_empty_root_or_none_is_refused_by_name(run):
    assert refusal(run).startswith('signs: no such folder')
    os.mkdir('signs')
    message = refusal(run)
    assert message.startswith('signs: no images found')
    assert 'signs/train/<class>/' in message
    assert os.listdir('signs') == []


def test_class_folders_without_a_file_are_an_empty_root(run):
    make_tree('signs', LABELS, {'train': 0, 'valid': 0, 'test': 0})
    assert 'no images found' in refusal(run)


def test_a_tree_without_train_is_refused(run):
    make_tree('signs', LABELS, {'valid': 2, 'test': 2}, '.png')
    assert 'no train/' in refusal(run)


@pytest.mark.parametrize('split', ['valid', 'test'])
def test_an_empty_split_is_refused_with_the_way_to_draw_it(run, split):
    full_tree(2)
    for label in LABELS:
        shutil.rmtree(f'signs/{split}/{label}')
    message = refusal(run)
    assert f'no usable images for {split}' in message
    assert f'remove the empty folder {split}/' in message
    assert contents() == {}


def test_a_split_of_greys_only_is_refused_naming_the_setting_that_keeps_them(run):
    full_tree(1)
    for label in LABELS:
        Path(f'signs/valid/{label}/{label}_0.png').write_bytes(OTHER_MODES['grey.png']())
    message = refusal(run)
    assert 'no usable images for valid' in message
    assert '2 mode L' in message
    assert 'annotate.non_rgb=convert' in message


@pytest.mark.parametrize('counts', [{'': 1}, {'train': 0, 'valid': 1, 'test': 1}], ids=['too few', 'empty train'])
def test_a_split_that_stays_empty_is_refused_with_advice_that_can_be_followed(run, counts):
    make_tree('signs', LABELS, counts, '.png')
    message = refusal(run)
    assert 'no usable images for' in message
    for split in ('train', 'valid', 'test'):
        if split == 'train' or not os.path.isdir(f'signs/{split}'):
            assert f'remove the empty folder {split}/' not in message


@pytest.mark.parametrize(
    ('first', 'second'), [('png', 'bmp'), ('jpeg', 'png'), ('jpeg', 'bmp'), ('png', 'tiff'), ('png', 'png')]
)
def test_the_same_picture_in_two_splits_is_found_in_any_format(run, decoder, capsys, first, second):
    full_tree(1)
    picture(77).save(f'signs/train/cat/x.{first}')
    with Image.open(f'signs/train/cat/x.{first}') as image:
        image.save(f'signs/test/cat/y.{second}')
    summary = run()
    assert summary['same_picture_in_two_splits'] == [[f'signs/train/cat/x.{first}', f'signs/test/cat/y.{second}']]
    assert summary['same_picture_in_two_classes'] == []
    said = capsys.readouterr().err
    assert 'WARNING: 1 picture stands in two splits' in said
    assert f'signs/train/cat/x.{first} = signs/test/cat/y.{second}' in said


@pytest.mark.parametrize('second', ['png', 'bmp', 'jpg'])
@pytest.mark.parametrize('first', ['large.jpg', 'large, turned by exif.jpg'])
def test_the_same_large_picture_is_found_in_any_format(run, decoder, first, second):
    full_tree(1)
    draw('large.png', 'signs/train/cat')  # of the same size, another picture: that of the JPEG before it was saved
    path = draw(first, 'signs/train/cat')
    if second == 'jpg':  # other bytes
        data = Path(path).read_bytes()
        Path('signs/test/cat/y.jpg').write_bytes(data[:2] + segment(0xFE, b'a comment') + data[2:])
    else:
        decoding.decode(path).save(f'signs/test/cat/y.{second}')
    assert run()['same_picture_in_two_splits'] == [[path, f'signs/test/cat/y.{second}']]


def test_large_jpegs_that_are_alike_at_reduced_size_only_are_two_pictures(run, decoder):
    full_tree(1)
    pixels = np.full((320, 320, 3), 128, np.uint8)
    Image.fromarray(pixels).save('signs/train/cat/x.jpg', subsampling=0)
    pixels[::8] += 60
    pixels[1::8] -= 60  # no block of 8 x 8 has another mean
    Image.fromarray(pixels).save('signs/test/cat/y.jpg', subsampling=0)
    found = [inspection.inspect(f'signs/{name}.jpg', False) for name in ('train/cat/x', 'test/cat/y')]
    assert file_facts.pixels(found[0].picture) == file_facts.pixels(found[1].picture)
    assert run()['same_picture_in_two_splits'] == []


def test_the_same_picture_in_two_classes_is_found(run, capsys):
    full_tree(1)
    shutil.copy('signs/train/cat/cat_0.png', 'signs/train/dog/z.png')
    summary = run()
    assert summary['same_picture_in_two_classes'] == [['signs/train/cat/cat_0.png', 'signs/train/dog/z.png']]
    assert summary['same_picture_in_two_splits'] == []
    assert '1 picture stands in two classes' in capsys.readouterr().err


def test_pictures_that_differ_in_one_pixel_are_two_pictures(run):
    full_tree(1)
    image = picture(77)
    image.save('signs/train/cat/x.png')
    image.putpixel((5, 5), tuple(255 - value for value in image.getpixel((5, 5))))
    image.save('signs/test/cat/x.png')
    assert run()['same_picture_in_two_splits'] == []


# --- what the images are like


def test_sizes_are_those_of_the_upright_images_that_are_kept(run):
    make_tree('signs', LABELS, {'train': 3, 'valid': 1, 'test': 1}, '.png')  # 48 x 40
    picture(50, (300, 20)).save('signs/train/cat/wide.png')
    picture(51, (10, 500)).save('signs/train/cat/turned.jpg', exif=exif())
    picture(52, (2, 2), 'L').save('signs/train/cat/grey.png')
    summary = run()
    assert summary['sizes'] == {
        'width': {'min': 48, 'median': 48, 'max': 500},
        'height': {'min': 10, 'median': 40, 'max': 40},
        'different': 3,
        'most_common': [
            {'width': 48, 'height': 40, 'images': 10},
            {'width': 500, 'height': 10, 'images': 1},
            {'width': 300, 'height': 20, 'images': 1},
        ],
    }


def test_modes_are_counted_as_the_files_have_them(run):
    full_tree()
    for name in ('grey.png', 'grey.jpg', 'cmyk.jpg', 'alpha.png'):
        draw(name, 'signs/train/cat')
    assert run('annotate.non_rgb=convert')['modes'] == {'RGB': 10, 'L': 2, 'CMYK': 1, 'RGBA': 1}
    assert run()['modes'] == {'RGB': 10}


def look_alike(seed, path, size=(30, 25)):
    picture(seed).resize(size, Image.Resampling.BILINEAR).save(path)


def test_an_image_of_test_or_valid_that_looks_like_a_training_image_is_named_with_it(run, capsys):
    make_tree('图片', ['猫', '狗'], {'train': 3, 'valid': 1, 'test': 1}, '.png')
    shutil.copy('图片/train/猫/猫_1.png', '图片/test/猫/同.png')
    look_alike(2, '图片/valid/狗/像 1.jpg')  # 猫_2 in another class
    pairs = run('data.labels=[猫, 狗]', root='图片')['near_duplicates']
    assert 0 < pairs[1].pop('distance') <= 12
    assert pairs == [
        {
            **{'distance': 0, 'path': '图片/test/猫/同.png', 'split': 'test', 'class': '猫'},
            **{'train_path': '图片/train/猫/猫_1.png', 'train_class': '猫'},
        },
        {
            **{'path': '图片/valid/狗/像 1.jpg', 'split': 'valid', 'class': '狗'},
            **{'train_path': '图片/train/猫/猫_2.png', 'train_class': '猫'},
        },
    ]
    said = capsys.readouterr().err
    assert 'WARNING: 2 images of valid and test look like a training image, 1 like one of another class' in said
    assert '图片/test/猫/同.png ~ 图片/train/猫/猫_1.png' in said


def test_images_of_one_split_may_look_alike(run, capsys):
    full_tree()
    look_alike(0, 'signs/train/cat/again.jpg')
    assert run()['near_duplicates'] == []
    assert 'look' not in capsys.readouterr().err


def test_splits_that_are_drawn_are_compared_with_what_is_left_to_train_on(run):
    make_tree('signs', LABELS, {'': 10}, '.png')
    for number in range(10):
        look_alike(number, f'signs/cat/again_{number}.png')
    found = run()['near_duplicates']
    train = paths('train')
    assert found and all(pair['train_path'] in train and pair['path'] in paths(pair['split']) for pair in found)


def test_test_images_that_serve_for_validation_are_named_once(run):
    make_tree('signs', LABELS, {'train': 3, 'test': 2}, '.png')
    look_alike(0, 'signs/test/cat/again.jpg')
    assert [pair['split'] for pair in run('annotate.valid_from=test')['near_duplicates']] == ['test']


# --- the old index


@pytest.mark.parametrize('fault', ['unknown class', 'empty split', 'wrong setting', 'interrupt', 'killed process'])
def test_a_failed_run_leaves_the_old_index_byte_for_byte(run, monkeypatch, fault):
    full_tree(2)
    run()
    before = contents()
    names = sorted(os.listdir('signs'))
    draw('plain.png', 'signs/train/cat')
    overrides, error = [], UserError
    if fault == 'unknown class':
        Path('signs/train/zebra').mkdir()
        names = sorted(os.listdir('signs'))
    elif fault == 'empty split':
        for label in LABELS:
            shutil.rmtree(f'signs/valid/{label}')
    elif fault == 'wrong setting':
        overrides = ['annotate.non_rgb=keep']
    else:
        error = KeyboardInterrupt if fault == 'interrupt' else UserError

        def stop(*args):
            yield inspection.inspect('signs/train/cat/cat_0.png', False)
            raise error('stopped')

        monkeypatch.setattr(inspection, 'inspect_all', stop)
    with pytest.raises(error):
        run(*overrides)
    assert contents() == before
    assert len(before) == 4
    assert sorted(os.listdir('signs')) == names


@pytest.mark.parametrize('call', [1, 2, 3, 4])
def test_a_full_disk_leaves_the_old_index_byte_for_byte(run, monkeypatch, call):
    full_tree(2)
    run()
    before = contents()
    names = sorted(os.listdir('signs'))
    draw('plain.png', 'signs/train/cat')
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == call:
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(annotate.os, 'fsync', full)
    message = refusal(run)
    assert 'signs/' in message
    assert 'No space left on device' in message
    assert contents() == before
    assert sorted(os.listdir('signs')) == names


def test_images_are_read_only(run):
    full_tree(2)
    draw('turned by exif.jpg', 'signs/train/cat')
    draw('alpha.png', 'signs/train/cat')

    def state():
        files = [
            path for path in Path('signs').rglob('*') if path.is_file() and path.name not in (*INDEX, '.inspected')
        ]
        return {path: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in files}

    before = state()
    run('annotate.non_rgb=convert')
    assert state() == before


# --- the script


def test_script_on_a_split_tree_ends_with_0_and_a_table(workdir):
    make_tree('signs', LABELS, {'train': 30, 'valid': 2, 'test': 2}, '.png')
    draw('grey.png', 'signs/train/cat')
    result = run_script('annotate.py', '-o', 'data.labels=[cat, dog]', cwd=workdir)
    assert_message(result, 0)
    assert len(index('train')) == 60
    assert [line.split() for line in result.stdout.splitlines()[:4]] == [
        ['class', 'train', 'valid', 'test'],
        ['cat', '30', '2', '2'],
        ['dog', '30', '2', '2'],
        ['all', '60', '4', '4'],
    ]
    assert 'left out: 1 mode L' in result.stdout


def test_script_without_images_ends_with_1_and_one_line(workdir):
    (workdir / 'signs').mkdir()
    result = run_script('annotate.py', cwd=workdir)
    assert_message(result, 1, 'signs: no images found')
    assert result.stderr.count('\n') == 1


def test_script_with_a_wrong_setting_ends_with_2(workdir):
    assert_message(run_script('annotate.py', '-o', 'anotate.non_rgb=convert', cwd=workdir), 2, 'annotate.non_rgb')


def test_script_that_cannot_write_ends_with_1_naming_the_file(workdir):
    make_tree('signs', LABELS, {'train': 1, 'valid': 1, 'test': 1}, '.png')
    (workdir / 'signs' / 'train.txt').mkdir()
    result = run_script('annotate.py', '-o', 'data.labels=[cat, dog]', cwd=workdir)
    assert_message(result, 1, 'signs/train.txt', 'cannot write')
