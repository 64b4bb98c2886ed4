"""annotate.py as a whole: the files it writes, what it prints, and what it leaves unchanged."""

import collections
import hashlib
import io
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_message, make_tree, picture, run_script
from image_files import OTHER_MODES, RGB, draw, exif, saved
from PIL import Image

import annotate
from zodiac.base.errors import UserError
from zodiac.data import inspection
from zodiac.images import decoding

LABELS = ['cat', 'dog']
INDEX = ('train.txt', 'valid.txt', 'test.txt', 'annotation.json')


@pytest.fixture
def run(workdir, monkeypatch):
    """Call annotate.py's main, by default on signs/ with labels cat and dog; returns annotation.json."""

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
    """[(path, label)] of an index file, whose format must be as documented."""
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


# --- trees


def test_each_split_folder_gives_a_sorted_index(run):
    full_tree(suffix='.jpg')
    summary = run()
    for split, count in (('train', 3), ('valid', 1), ('test', 1)):
        assert index(split) == [
            (f'signs/{split}/{label}/{label}_{number}.jpg', position)
            for position, label in enumerate(LABELS)
            for number in range(count)
        ]
    assert Path('signs/test.txt').read_bytes() == b'signs/test/cat/cat_0.jpg\t0\nsigns/test/dog/dog_0.jpg\t1\n'
    assert summary['accepted'] == 10
    assert summary['splits']['train'] == {
        'cat': {'accepted': 3, 'rejected': 0},
        'dog': {'accepted': 3, 'rejected': 0},
    }
    assert summary['settings']['drawn_splits'] == []
    assert summary['rejected'] == summary['junk'] == summary['outside_class_folders'] == []
    assert summary['labels'] == LABELS


def test_label_numbers_are_those_of_data_labels(run):
    full_tree(1)
    shutil.rmtree('signs/valid/cat')
    run('data.labels=[zebra, dog, cat]')
    assert index('train') == [('signs/train/cat/cat_0.png', 2), ('signs/train/dog/dog_0.png', 1)]
    assert index('valid') == [('signs/valid/dog/dog_0.png', 1)]


def test_the_root_may_end_with_a_slash_or_start_with_a_dot(run):
    full_tree(1)
    run(root='signs/')
    assert paths('train')[0] == 'signs/train/cat/cat_0.png'
    run(root='./signs')
    assert paths('train')[0] == './signs/train/cat/cat_0.png'


def test_class_folders_are_split_by_the_fractions(run):
    make_tree('signs', LABELS, {'': 20}, '.png')
    before = sorted(str(path) for path in Path('signs').rglob('*.png'))
    summary = run('annotate.valid_fraction=0.2', 'annotate.test_fraction=0.1')
    found = {split: paths(split) for split in ('train', 'valid', 'test')}
    assert {split: len(listed) for split, listed in found.items()} == {'train': 28, 'valid': 8, 'test': 4}
    assert sorted(sum(found.values(), [])) == before == sorted(str(path) for path in Path('signs').rglob('*.png'))
    assert all(index(split) == sorted(index(split)) for split in found)
    assert summary['settings']['drawn_splits'] == ['valid', 'test']
    assert summary['settings']['valid_fraction'] == 0.2


def test_only_the_missing_split_is_drawn_and_from_train(run, capsys):
    make_tree('signs', LABELS, {'train': 10, 'test': 2}, '.png')
    summary = run('annotate.valid_fraction=0.3')
    assert collections.Counter(label for _, label in index('valid')) == {0: 3, 1: 3}
    assert all(path.startswith('signs/train/') for path in paths('train') + paths('valid'))
    assert len(set(paths('train')) | set(paths('valid'))) == 20
    assert all(path.startswith('signs/test/') for path in paths('test'))
    assert len(paths('test')) == 4
    assert summary['settings']['drawn_splits'] == ['valid']
    assert 'valid drawn from the training images with seed 0' in capsys.readouterr().out


def test_the_test_images_can_also_be_the_validation_images(run, capsys):
    make_tree('signs', LABELS, {'train': 6, 'test': 3}, '.png')
    shutil.copy('signs/train/cat/cat_0.png', 'signs/test/cat/copy.png')
    summary = run('annotate.valid_from=test')
    assert Path('signs/valid.txt').read_bytes() == Path('signs/test.txt').read_bytes()
    assert len(index('test')) == 7
    assert paths('train') == [f'signs/train/{label}/{label}_{number}.png' for label in LABELS for number in range(6)]
    assert summary['settings']['valid_is_test'] is True
    assert summary['settings']['drawn_splits'] == []
    assert summary['accepted'] == 19
    assert summary['splits']['valid'] == summary['splits']['test']
    assert summary['splits']['valid']['cat'] == {'accepted': 4, 'rejected': 0}
    assert summary['same_picture_in_two_splits'] == [['signs/train/cat/cat_0.png', 'signs/test/cat/copy.png']]
    assert [pair['split'] for pair in summary['near_duplicates']] == ['test']  # not listed twice
    out, err = capsys.readouterr()
    assert 'valid.txt lists the test images (annotate.valid_from=test)' in out
    assert 'drawn from' not in out and 'WARNING: 1 test image is a near-copy of a training image' in err


@pytest.mark.parametrize('split', ['', 'train'])
def test_the_validation_images_may_be_drawn_test_images(run, capsys, split):
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
def test_a_valid_folder_is_used_with_any_valid_from(run, capsys, overrides):
    full_tree()
    summary = run(*overrides)
    assert paths('valid') == ['signs/valid/cat/cat_0.png', 'signs/valid/dog/dog_0.png']
    assert summary['settings']['valid_is_test'] is False
    assert 'valid.txt lists' not in capsys.readouterr().out


def test_duplicates_stay_together_when_splits_are_drawn(run):
    make_tree('signs', LABELS, {'': 8}, '.png')
    for label in LABELS:
        for number in range(8):
            with Image.open(f'signs/{label}/{label}_{number}.png') as image:
                image.save(f'signs/{label}/{label}_{number}.bmp')
    summary = run('annotate.valid_fraction=0.3', 'annotate.test_fraction=0.3')
    for split, count in (('train', 16), ('valid', 8), ('test', 8)):
        assert len(paths(split)) == count == 2 * len({Path(path).stem for path in paths(split)})
    assert summary['same_picture_in_two_splits'] == []


def test_chinese_names_are_indexed(run):
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


# --- archives


def saved_zip(names):
    """The bytes of a zip with a different picture for each name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as opened:
        for seed, name in enumerate(names):
            opened.writestr(name, saved(picture(seed), 'BMP'))
    return stream.getvalue()


def test_an_archive_is_unpacked_and_annotated(run):
    names = [
        f'wrapper/{split}/{label}/{number}.bmp' for split in ('train', 'val') for label in LABELS for number in range(4)
    ]
    Path('photos.zip').write_bytes(saved_zip(names))
    for _ in range(2):
        assert run('annotate.archive=photos.zip')['accepted'] == 16
        assert paths('valid') == [f'signs/val/{label}/{number}.bmp' for label in LABELS for number in range(4)]
    assert '-o annotate.archive=photos.zip' in refusal(run, root='photos.zip')


def test_gbk_names_in_an_archive_give_a_utf8_index(run):
    data = saved_zip(f'{split}/{name}' for split in ('train', 'valid', 'test') for name in ('AA/A1', 'BB/B1'))
    for standin, name in ((b'/AA/', '/猫/'), (b'/BB/', '/狗/')):
        data = data.replace(standin, name.encode('gbk'))
    Path('a.zip').write_bytes(data)
    run('annotate.archive=a.zip', 'data.labels=[猫, 狗]')
    assert index('train') == [('signs/train/狗/B1', 1), ('signs/train/猫/A1', 0)]


def test_wrongly_decoded_names_in_an_archive_are_reported_with_the_next_step(run):
    data = saved_zip(f'{folder}/{number}.bmp' for folder in ('AAAA', 'BBBB') for number in range(3))
    for standin, name in ((b'AAAA', '構造'), (b'BBBB', '表現')):
        data = data.replace(standin, name.encode('shift_jis'))
    Path('a.zip').write_bytes(data)
    archive = ('annotate.archive=a.zip', 'data.labels=[構造, 表現]')
    message = refusal(run, archive[0])
    assert (
        message.startswith('the file names in the archive were decoded as gbk')
        and 'annotate.encoding=shift_jis' in message
    )
    assert 'remove the folder' in refusal(run, *archive, 'annotate.encoding=shift_jis')
    shutil.rmtree('signs')
    run(*archive)
    assert {label for _, label in index('train')} == {0, 1}
    shutil.rmtree('signs')
    run(*archive, 'annotate.encoding=shift_jis')
    assert {'構造', '表現'} < set(os.listdir('signs'))


# --- rejected files


def test_by_default_only_rgb_is_indexed_and_the_rest_is_counted_and_listed(run, capsys):
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


def test_convert_keeps_the_other_modes_and_reports_them(run, capsys):
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


def test_more_than_a_tenth_rejected_gives_a_warning_with_a_setting_that_keeps_images(run, capsys):
    full_tree(7)
    draw('half.jpg', 'signs/train/cat')
    draw('text.jpg', 'signs/train/cat')
    run()
    assert 'left out' not in capsys.readouterr().err
    draw('empty.jpg', 'signs/train/cat')
    run()
    err = capsys.readouterr().err
    assert 'WARNING: 3 of 21 files (14.3%) are left out.\n' in err and 'non_rgb' not in err
    draw('grey.png', 'signs/train/cat')
    run()
    assert '(18.2%) are left out. Set annotate.non_rgb=convert to keep up to 1 of them.' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        (b'a\tb.png', 'tab or newline in the name'),
        (b'a\nb.png', 'tab or newline in the name'),
        (b'a\rb.png', 'tab or newline in the name'),
        (b'sub\tfolder/a.png', 'tab or newline in the name'),
        (b'\xb9\xb7.png', 'name is not UTF-8'),
    ],
)
def test_a_name_that_cannot_be_in_an_index_is_rejected(run, capsys, name, reason):
    full_tree(1)
    path = os.path.join(b'signs/train/cat', name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as file:
        file.write(RGB['plain.png']())
    summary = run()
    assert list(rejected(summary).values()) == [reason]
    assert all(path.startswith('signs/train/cat/') for path in rejected(summary))
    assert len(index('train')) == 2
    assert f'left out: 1 {reason}' in capsys.readouterr().out


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


def test_our_own_files_are_not_reported_as_stray(run):
    make_tree('signs', LABELS, {'': 6}, '.png')
    run()
    assert run()['outside_class_folders'] == []


def test_a_broken_link_is_rejected_by_name(run):
    full_tree(1)
    os.symlink('gone.png', 'signs/train/cat/link.png')
    assert rejected(run()) == {'signs/train/cat/link.png': 'cannot be read'}


def damaged(content, rng):
    """Bytes of an image with up to eight flipped bits, truncated, or with a part removed, doubled or replaced by noise."""
    content = bytearray(content)
    place = int(rng.integers(len(content)))
    length = int(rng.integers(1, 64))
    how = rng.integers(5)
    if how == 0:
        for _ in range(rng.integers(1, 9)):
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    elif how == 1:
        del content[place:]
    elif how == 2:
        del content[place : place + length]
    elif how == 3:
        content[place:place] = content[place : place + length]
    else:
        content[place : place + length] = rng.bytes(length)
    return bytes(content)


@pytest.mark.parametrize('non_rgb', ['reject', 'convert'])
def test_each_of_a_thousand_damaged_images_is_either_indexed_or_rejected(run, non_rgb):
    rng = np.random.default_rng(len(non_rgb))
    kinds = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF')
    sound = [saved(picture(1, (24, 20)), kind) for kind in kinds]
    make_tree('signs', LABELS, {'': 10}, '.png')
    for number in range(1000):
        Path(f'signs/cat/{number}.jpg').write_bytes(damaged(sound[number % len(kinds)], rng))
    summary = run(f'annotate.non_rgb={non_rgb}', 'annotate.workers=1')
    accepted = sum((paths(split) for split in ('train', 'valid', 'test')), [])
    assert sorted([*accepted, *rejected(summary)]) == sorted(str(path) for path in Path('signs').rglob('*/*'))
    assert 200 < len(rejected(summary)) < 1000  # some damage cannot be detected
    for path in accepted:
        assert decoding.decode(path).mode == 'RGB'


# --- warnings and errors


def test_a_class_without_training_images_gives_a_warning_with_the_setting_that_leaves_it_out(run, capsys):
    full_tree(1)
    shutil.rmtree('signs/train/dog')
    os.mkdir('signs/train/ox')
    picture(9).save('signs/train/ox/1.png')
    run('data.labels=[cat, dog, ox, pig]')
    err = capsys.readouterr().err
    assert 'WARNING: no images to train on in class dog, pig' in err
    assert "-o 'data.labels=[cat, ox]' annotate.unknown_class=skip" in err
    run('data.labels=[cat, ox]', 'annotate.unknown_class=skip')


def test_a_class_too_small_to_draw_from_gives_a_warning(run, capsys):
    make_tree('signs', LABELS, {'': 6}, '.png')
    for number in range(2, 6):
        Path(f'signs/dog/dog_{number}.png').unlink()
    run()
    err = capsys.readouterr().err
    for split in ('valid', 'test'):
        assert f'WARNING: no {split} images in class dog: nothing is measured there' in err
    assert '(it is drawn from classes of 3 images or more)' in err


def test_a_split_without_usable_images_is_refused_and_nothing_is_written(run):
    full_tree(1)
    for label in LABELS:
        Path(f'signs/valid/{label}/{label}_0.png').write_bytes(OTHER_MODES['grey.png']())
    message = refusal(run)
    assert message.startswith('signs: no usable images for valid (left out: 2 mode L)')
    assert 'annotate.non_rgb=convert' in message
    assert contents() == {}


@pytest.mark.parametrize('place', ['splits', 'classes'])
def test_the_same_image_in_two_splits_or_classes_gives_a_warning(run, capsys, place):
    full_tree(1)
    copy = 'signs/test/cat/z.bmp' if place == 'splits' else 'signs/train/dog/z.bmp'
    with Image.open('signs/train/cat/cat_0.png') as image:
        image.save(copy)
    summary = run()
    found = {name: summary[f'same_picture_in_two_{name}'] for name in ('splits', 'classes')}
    assert found == {'splits': [], 'classes': [], place: [['signs/train/cat/cat_0.png', copy]]}
    expected = f'WARNING: 1 image is in two {place}, for example signs/train/cat/cat_0.png = {copy}. All are in'
    assert expected in capsys.readouterr().err


# --- sizes, modes and near-copies


def test_sizes_are_those_of_the_accepted_upright_images(run):
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


def test_the_modes_of_the_files_are_counted(run):
    full_tree()
    for name in ('grey.png', 'grey.jpg', 'cmyk.jpg', 'alpha.png'):
        draw(name, 'signs/train/cat')
    assert run('annotate.non_rgb=convert')['modes'] == {'RGB': 10, 'L': 2, 'CMYK': 1, 'RGBA': 1}
    assert run()['modes'] == {'RGB': 10}


def save_near_copy(seed, path, size=(30, 25)):
    picture(seed).resize(size, Image.Resampling.BILINEAR).save(path)


def test_near_copies_of_training_images_are_listed_and_give_a_warning(run, capsys):
    make_tree('图片', ['猫', '狗'], {'train': 3, 'valid': 1, 'test': 1}, '.png')
    shutil.copy('图片/train/猫/猫_1.png', '图片/test/猫/同.png')
    save_near_copy(2, '图片/valid/狗/像 1.jpg')  # 猫_2 in another class
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
    assert (
        'WARNING: 2 valid and test images are near-copies of training images, 1 of another class (图片/test/猫/同.png resembles '
        '图片/train/猫/猫_1.png); the accuracy is inflated. '
    ) in capsys.readouterr().err


def test_near_copies_within_a_split_are_ignored(run, capsys):
    full_tree()
    save_near_copy(0, 'signs/train/cat/again.jpg')
    assert run()['near_duplicates'] == []
    assert 'near-cop' not in capsys.readouterr().err


def test_drawn_splits_are_compared_with_the_remaining_training_images(run):
    make_tree('signs', LABELS, {'': 10}, '.png')
    for number in range(10):
        save_near_copy(number, f'signs/cat/again_{number}.png')
    found = run()['near_duplicates']
    train = paths('train')
    assert found and all(pair['train_path'] in train and pair['path'] in paths(pair['split']) for pair in found)


# --- existing files


@pytest.mark.parametrize('fault', ['unknown class', 'empty split', 'wrong setting', 'interrupt', 'killed process'])
def test_a_failed_run_does_not_change_the_index(run, monkeypatch, fault):
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
def test_a_full_disk_does_not_change_the_index(run, monkeypatch, call):
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


def test_images_are_not_changed(run):
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


def test_the_script_ends_with_0_and_a_table(workdir):
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


def test_the_script_without_images_ends_with_1_and_one_line(workdir):
    (workdir / 'signs').mkdir()
    result = run_script('annotate.py', cwd=workdir)
    assert_message(result, 1, 'signs: no images found')
    assert result.stderr.count('\n') == 1


def test_the_script_with_a_wrong_setting_ends_with_2(workdir):
    assert_message(run_script('annotate.py', '-o', 'anotate.non_rgb=convert', cwd=workdir), 2, 'annotate.non_rgb')


def test_the_script_that_cannot_write_ends_with_1_and_names_the_file(workdir):
    make_tree('signs', LABELS, {'train': 1, 'valid': 1, 'test': 1}, '.png')
    (workdir / 'signs' / 'train.txt').mkdir()
    result = run_script('annotate.py', '-o', 'data.labels=[cat, dog]', cwd=workdir)
    assert_message(result, 1, 'signs/train.txt', 'cannot write')
