"""Splits drawn from the training images: stratified, a function of the seed alone, and without duplicates across splits."""

import collections
from types import SimpleNamespace

import pytest

from zodiac.base.errors import UserError
from zodiac.data import splits
from zodiac.data.entry import Entry, Verdict

LABELS = ['cat', 'dog']


def images(counts, root='signs', split='train'):
    """Accepted entries, counts[label] of each label."""
    return [Entry(f'{root}/{label}/{n}.png', split, label, Verdict()) for label in counts for n in range(counts[label])]


def drawn(entries, seed=0, duplicates=(), valid=0.1, test=0.1):
    """{split: paths without the root}"""
    fractions = {split: fraction for split, fraction in (('valid', valid), ('test', test)) if fraction}
    splits.draw(entries, duplicates, fractions, seed)
    found = collections.defaultdict(list)
    for entry in entries:
        found[entry.split].append(entry.path.partition('/')[2])
    return found


def test_each_class_is_split_by_the_fractions():
    found = drawn(images({'cat': 20, 'dog': 5}), valid=0.2, test=0.1)
    counts = {split: collections.Counter(path.split('/')[0] for path in paths) for split, paths in found.items()}
    assert counts == {'train': {'cat': 14, 'dog': 3}, 'valid': {'cat': 4, 'dog': 1}, 'test': {'cat': 2, 'dog': 1}}


def test_a_draw_depends_on_the_seed_and_the_class_alone():
    first = drawn(images({'cat': 40, 'dog': 40}), seed=1)
    assert drawn(images({'cat': 40, 'dog': 40}), seed=2) != first
    alone = drawn(images({'cat': 40}, root='moved'), seed=1)
    assert alone == {split: [path for path in paths if path.startswith('cat')] for split, paths in first.items()}


def test_a_draw_is_the_same_on_every_machine():
    found = drawn(images({'cat': 10, 'dog': 10}), seed=7, valid=0.2, test=0.1)
    assert found['valid'] + found['test'] == [
        'cat/5.png',
        'cat/6.png',
        'dog/1.png',
        'dog/6.png',
        'cat/9.png',
        'dog/5.png',
    ]


def test_images_of_other_splits_are_not_drawn():
    entries = [*images({'cat': 10}), *images({'cat': 2}, 'test', 'test')]
    found = drawn(entries, valid=0.3, test=0)
    assert {split: len(paths) for split, paths in found.items()} == {'train': 7, 'valid': 3, 'test': 2}
    assert [entry.path for entry in entries if entry.split == 'test'] == ['test/cat/0.png', 'test/cat/1.png']


def test_duplicates_stay_together():
    entries, copies = images({'cat': 8, 'dog': 8}), images({'cat': 8, 'dog': 8}, root='copies')
    found = drawn(entries + copies, duplicates=list(zip(entries, copies)), valid=0.3, test=0.3)
    assert [entry.split for entry in entries] == [entry.split for entry in copies]
    assert {split: len(paths) for split, paths in found.items()} == {'train': 16, 'valid': 8, 'test': 8}


@pytest.mark.parametrize('count', [3, 4, 5])
def test_every_split_has_an_image_of_each_class_that_is_large_enough(count):
    found = drawn(images(dict.fromkeys(LABELS, count)), valid=0.5, test=0.4)
    assert all({path.split('/')[0] for path in found[split]} == {*LABELS} for split in ('train', 'valid', 'test'))


def test_a_class_that_is_too_small_stays_in_train():
    assert drawn(images({'cat': 6, 'dog': 2}))['train'][-2:] == ['dog/0.png', 'dog/1.png']


# --- empty splits


def refusal(counts, given=(), drawn=(), reasons=(), valid_is_test=False):
    """The error message for `counts[split]` images and rejected ones of these reasons."""
    found = {split: images({'cat': counts[split]}, split=split) for split in ('train', 'valid', 'test')}
    if valid_is_test:
        found['valid'] = found['test']
    rejected = [Entry('a.png', 'train', 'cat', Verdict(reason)) for reason in reasons]
    given = {split: f'signs/{split}' for split in given}
    with pytest.raises(UserError) as caught:
        splits.require_images(found, SimpleNamespace(root='signs', entries=rejected, given_splits=given), drawn)
    return str(caught.value)


@pytest.mark.parametrize('split', ['valid', 'test'])
def test_an_empty_folder_of_a_split_is_named_with_the_way_to_draw_it(split):
    message = refusal({'train': 2, 'valid': 2, 'test': 2, split: 0}, given=['train', 'valid', 'test'])
    assert message == (
        f'signs: no usable images for {split}; add some, or remove the empty folder {split}/ to draw the split from train'
    )


def test_an_empty_test_folder_is_named_if_it_also_serves_as_valid():
    message = refusal({'train': 2, 'valid': 0, 'test': 0}, given=['train', 'test'], valid_is_test=True)
    assert 'no usable images for test' in message and 'remove the empty folder test/' in message


def test_rejected_images_are_counted_with_the_setting_that_keeps_them():
    message = refusal(
        {'train': 2, 'valid': 0, 'test': 2}, given=['valid'], reasons=['mode L', 'not an image', 'mode L']
    )
    assert '(left out: 2 mode L, 1 not an image); add some, or set annotate.non_rgb=convert' in message


@pytest.mark.parametrize(
    ('counts', 'given', 'words'),
    [
        (
            {'train': 2, 'valid': 0, 'test': 0},
            [],
            'for valid; to draw valid and test, a class needs at least 3 different',
        ),
        ({'train': 0, 'valid': 1, 'test': 1}, ['train', 'valid', 'test'], 'for train; add some'),
    ],
    ids=['too few to draw', 'empty train'],
)
def test_the_advice_for_an_empty_split_can_be_followed(counts, given, words):
    message = refusal(counts, given, [split for split in ('valid', 'test') if split not in given])
    assert words in message and 'remove the empty folder' not in message
