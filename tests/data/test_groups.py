"""Groups of images: from names or a list, in one split and one fold each, kept for training and in later runs."""

import collections
import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture

import annotate
import config
from zodiac.base.errors import UsageError, UserError
from zodiac.data import groups
from zodiac.data.entry import Entry
from zodiac.training import features, linear_head, solved_run


@pytest.fixture
def run(workdir, monkeypatch):
    """Call annotate.py's main on photos/; returns annotation.json."""

    def call(*overrides):
        monkeypatch.setattr(sys, 'argv', ['annotate.py', '-o', 'data.root=photos', 'data.labels=auto', *overrides])
        annotate.main()
        return json.loads(Path('photos/annotation.json').read_text(encoding='utf-8'))

    return call


def videos(count, frames, labels=('cat', 'dog'), start=0):
    """Draw photos/<label>/<video>_<frame>.jpg."""
    for label in labels:
        Path('photos', label).mkdir(parents=True, exist_ok=True)
        for video in range(start, start + count):
            for frame in range(frames):
                seed = sum(map(ord, label)) * 1000 + video * 20 + frame
                picture(seed).save(f'photos/{label}/{label}{video}_{frame}.jpg')


def splits_of(pattern=r'[^/_]+(?=_)'):
    """{group: splits of its images}, {split: number of images}"""
    found, counts = collections.defaultdict(set), collections.Counter()
    for split in ('train', 'valid', 'test'):
        for line in Path('photos', f'{split}.txt').read_text().splitlines():
            found[Path(line.split('\t')[0]).name.split('_')[0]].add(split)
            counts[split] += 1
    return found, counts


def kept():
    return dict(list(csv.reader(Path('photos/groups.csv').read_text().splitlines()))[1:])


def test_no_group_is_in_two_splits_and_the_shares_are_met(run):
    videos(10, 4)
    summary = run('annotate.group=^(.+)_', 'annotate.valid_fraction=0.2', 'annotate.test_fraction=0.1')
    found, counts = splits_of()
    assert all(len(splits) == 1 for splits in found.values()) and len(found) == summary['groups'] == 20
    assert counts == {'train': 56, 'valid': 16, 'test': 8}
    assert summary['splits']['valid']['cat']['accepted'] == 8
    assert kept()['photos/cat/cat3_1.jpg'] == 'cat3'


def test_groups_keep_their_split_when_others_come_and_a_new_image_goes_to_its_group(run):
    videos(10, 3)
    run('annotate.group=^(.+)_')
    before, _ = splits_of()
    videos(3, 3, start=10)
    picture(7).save('photos/cat/cat3_9.jpg')
    run('annotate.group=^(.+)_')
    after, _ = splits_of()
    assert all(after[group] == splits for group, splits in before.items()) and len(after) == 26


def test_images_that_were_split_one_by_one_come_together_once_they_are_grouped(run, capsys):
    videos(8, 5)
    run()
    assert any(len(splits) > 1 for splits in splits_of()[0].values()) and not Path('photos/groups.csv').exists()
    run('annotate.group=^(.+)_')
    assert all(len(splits) == 1 for splits in splits_of()[0].values())
    assert 'images change their split, to be in that of the group' in capsys.readouterr().err
    run()
    assert kept() == {}


def test_every_split_has_a_group_of_each_class_that_has_enough(run):
    videos(3, 5)
    run('annotate.group=^(.+)_')
    found, _ = splits_of()
    for label in ('cat', 'dog'):
        assert sorted(split for group, splits in found.items() if label in group for split in splits) == [
            'test',
            'train',
            'valid',
        ]


def test_a_group_of_several_classes_and_copies_of_its_images_stay_together(run):
    videos(8, 3)
    for video in range(8):  # the same numbers in both classes
        for frame in range(3):
            Path(f'photos/dog/dog{video}_{frame}.jpg').rename(f'photos/dog/cat{video}_{frame}d.jpg')
    shutil.copy('photos/cat/cat1_0.jpg', 'photos/cat/cat2_copy.jpg')
    run('annotate.group=^(.+)_')
    found, counts = splits_of()
    assert len(found) == 8 and all(len(splits) == 1 for splits in found.values()) and found['cat1'] == found['cat2']
    assert min(counts.values()) >= 6


def test_a_group_in_two_split_folders_is_refused(run):
    videos(3, 2)
    Path('photos/train').mkdir()
    for label in ('cat', 'dog'):
        Path('photos', label).rename(f'photos/train/{label}')
        Path('photos/test', label).mkdir(parents=True)
        shutil.copy(f'photos/train/{label}/{label}0_0.jpg', f'photos/test/{label}/{label}0_7.jpg')
    with pytest.raises(
        UserError, match=r'photos: the group cat0 is in two splits, train \(.*cat0_0.jpg\) and test \(.*cat0_7'
    ):
        run('annotate.group=^(.+)_')


def test_too_few_groups_to_split_are_refused(run):
    videos(1, 6)
    with pytest.raises(
        UserError, match='no usable images for valid; to draw valid and test, a class needs at least 3 different groups'
    ):
        run('annotate.group=^(.+)_')


@pytest.mark.parametrize(
    ('pattern', 'expected'),
    [
        (r'v\d+', ['v1', 'v1', 'v2', '']),
        (r'^(v\d)_(\d)', ['v1/0', 'v1/1', 'v2/0', '']),
        (r'cam/(\w)', ['', '', '', 'x']),
    ],
)
def test_the_group_is_what_the_pattern_finds_in_the_name_or_with_a_slash_in_the_path(pattern, expected):
    names = ['a/v1_0.jpg', 'a/v1_1.jpg', 'b/v2_0.jpg', 'cam/x.jpg']
    entries = [Entry(f'photos/{name}', 'train', 'a') for name in names]
    assert groups.by_names(entries, 'photos', pattern) == expected.count('')
    assert [entry.group for entry in entries] == expected


def test_a_pattern_that_is_wrong_or_finds_nothing_is_named(run):
    with pytest.raises(UsageError, match=r'annotate.group = .*\(x.* must be near_duplicates or a regular expression'):
        config.load(None, ['annotate.group=(x'])
    videos(3, 1)
    with pytest.raises(UserError, match=r'annotate.group = frame: found in no file name, such as cat0_0.jpg'):
        run('annotate.group=frame')


def test_near_copies_across_splits_are_offered_to_be_grouped_and_then_are(run, capsys):
    videos(12, 1)
    for path in sorted(Path('photos').rglob('*.jpg')):
        for quality in (60, 70):
            picture_again = picture(sum(map(ord, path.parent.name)) * 1000 + int(path.stem[3:].split('_')[0]) * 20)
            picture_again.save(path.with_name(f'{path.stem}_{quality}.jpg'), quality=quality)
    summary = run()
    assert summary['near_duplicates'] and '-o annotate.group=near_duplicates' in capsys.readouterr().err
    summary = run('annotate.group=near_duplicates')
    assert summary['near_duplicates'] == [] and summary['groups'] > 0
    found, _ = splits_of()
    first, before = kept(), {group: set(splits) for group, splits in found.items()}
    videos(1, 1, start=30)
    run('annotate.group=near_duplicates')
    assert first.items() <= kept().items() and all(splits_of()[0][group] == splits for group, splits in before.items())


def test_the_folds_of_training_keep_groups_together(run, workdir):
    videos(6, 4)
    run('annotate.group=^(.+)_')
    paths = sorted(str(path) for path in Path('photos').rglob('*.jpg'))
    together = solved_run.together(features.content_keys(paths), paths, 'photos')
    names = [Path(path).name.split('_')[0] for path in paths]
    assert len({*zip(names, together.tolist())}) == len({*names}) == len({*together.tolist()})
    labels = np.array([int('dog' in path) for path in paths])
    fold = linear_head.deal(labels, together, 3, seed=0)
    assert all(len({*fold[together == group]}) == 1 for group in together)
    assert all((np.bincount(fold[labels == label], minlength=3) == 8).all() for label in (0, 1))


def test_folds_and_draws_of_groups_with_several_classes():
    rng = np.random.default_rng(0)
    together = np.repeat(np.arange(30), 5)
    labels = (rng.random(150) < 0.3).astype(int)
    labels[:5] = 2  # a class of a single group
    fold = linear_head.deal(labels, together, 5, seed=0)
    assert all(len({*fold[together == group]}) == 1 for group in range(30))
    assert (fold[:5] == -1).all() and {*fold[5:]} == {0, 1, 2, 3, 4}
    kept, out = linear_head._shuffled(labels, together, np.random.default_rng(1))
    assert all(len(images) for images in kept)
    assert not {*together[out]} & {*together[np.concatenate(kept)]}
    values = rng.normal(size=(150, 4)) + labels[:, None]
    assert len(linear_head.learning_curve([values], labels, 3, groups=together)) > 0
    with pytest.raises(UserError, match=r'too few of c \(1\)'):
        linear_head.require_folds(labels, together, 5, ['a', 'b', 'c'])


def test_joined_keys_make_components():
    assert groups.joined([1, 1, 2, 3, 4], [None, 'a', 'a', None, 'b']) == [0, 0, 0, 3, 4]
