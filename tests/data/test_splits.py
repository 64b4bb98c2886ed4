"""Splits drawn from the training images: stratified, a function of seed, class and pixels, kept in later runs, without duplicates."""

import collections
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from zodiac.base.errors import UserError
from zodiac.data import splits
from zodiac.data.entry import SKETCH_BYTES, Entry, Verdict, content, pack

LABELS = ['cat', 'dog']
SETTINGS = {'seed': 0, 'drawn_splits': ['valid', 'test'], 'valid_fraction': 0.1, 'test_fraction': 0.1}


def image(label, name, picture=None, split='train', root='signs'):
    """An accepted entry; those with the same `picture` have the same pixels."""
    entry = Entry(f'{root}/{label}/{name}', split, label, Verdict())
    digest = hashlib.sha256((picture or f'{label}/{name}').encode()).digest()[:10]
    entry.fingerprint = pack((48, 40), digest, bytes(SKETCH_BYTES))
    return entry


def images(counts, start=0, **about):
    """counts[label] images of each label, numbered from `start`."""
    return [image(label, f'{n}.png', **about) for label in counts for n in range(start, start + counts[label])]


def drawn(entries, seed=0, duplicates=(), valid=0.1, test=0.1, kept=()):
    """{split: paths without the root}"""
    fractions = {split: fraction for split, fraction in (('valid', valid), ('test', test)) if fraction}
    splits.draw(entries, duplicates, fractions, seed, dict(kept))
    found = collections.defaultdict(list)
    for entry in entries:
        found[entry.split].append(entry.path.partition('/')[2])
    return found


def split_of(entries):
    """{content: split}, as a later run keeps it."""
    return {content(entry.fingerprint): entry.split for entry in entries}


def counted(entries):
    """{label: {split: number of images}}"""
    found = collections.defaultdict(collections.Counter)
    for entry in entries:
        found[entry.label][entry.split] += 1
    return found


def test_each_class_is_split_by_the_fractions():
    found = drawn(images({'cat': 20, 'dog': 5}), valid=0.2, test=0.1)
    counts = {split: collections.Counter(path.split('/')[0] for path in paths) for split, paths in found.items()}
    assert counts == {'train': {'cat': 14, 'dog': 3}, 'valid': {'cat': 4, 'dog': 1}, 'test': {'cat': 2, 'dog': 1}}


def test_a_draw_depends_on_the_seed_the_class_and_the_pixels_alone():
    first = drawn(images({'cat': 40, 'dog': 40}), seed=1)
    assert drawn(images({'cat': 40, 'dog': 40}), seed=2) != first
    alone = drawn(images({'cat': 40}, root='moved')[::-1], seed=1)
    assert {split: {*paths} for split, paths in alone.items()} == {
        split: {path for path in paths if path.startswith('cat')} for split, paths in first.items()
    }


def test_a_draw_is_the_same_on_every_machine():
    found = drawn(images({'cat': 10, 'dog': 10}), seed=7, valid=0.2, test=0.1)
    assert found['valid'] + found['test'] == [
        'cat/6.png',
        'cat/9.png',
        'dog/4.png',
        'dog/9.png',
        'cat/5.png',
        'dog/2.png',
    ]


def test_images_of_other_splits_are_not_drawn():
    entries = [*images({'cat': 10}), *images({'cat': 2}, root='test', split='test')]
    found = drawn(entries, valid=0.3, test=0)
    assert {split: len(paths) for split, paths in found.items()} == {'train': 7, 'valid': 3, 'test': 2}
    assert [entry.path for entry in entries if entry.split == 'test'] == ['test/cat/0.png', 'test/cat/1.png']


@pytest.mark.parametrize('same', [True, False], ids=['same content', 'one decoded at reduced size'])
def test_duplicates_stay_together(same):
    entries = images({'cat': 8, 'dog': 8})
    copies = [
        image(one.label, 'copy', f'{one.label}/{number % 8}.png' if same else None, root=f'copies{number}')
        for number, one in enumerate(entries)
    ]
    if not same:
        for number, copy in enumerate(copies):
            copy.fingerprint = image('cat', 'x', f'reduced {number}').fingerprint
    found = drawn(entries + copies, duplicates=list(zip(entries, copies)), valid=0.3, test=0.3)
    assert [entry.split for entry in entries] == [entry.split for entry in copies]
    assert {split: len(paths) for split, paths in found.items()} == {'train': 16, 'valid': 8, 'test': 8}


def test_copies_in_two_classes_go_to_one_split():
    entries = [*images({'cat': 9}), *(image('dog', f'{n}.png', f'cat/{n}.png') for n in range(9))]
    drawn(entries, duplicates=list(zip(entries[:9], entries[9:])), valid=0.3, test=0.3)
    assert [entry.split for entry in entries[:9]] == [entry.split for entry in entries[9:]]


@pytest.mark.parametrize('count', [3, 4, 5])
def test_every_split_has_an_image_of_each_class_that_is_large_enough(count):
    found = drawn(images(dict.fromkeys(LABELS, count)), valid=0.5, test=0.4)
    assert all({path.split('/')[0] for path in found[split]} == {*LABELS} for split in ('train', 'valid', 'test'))


def test_a_class_that_is_too_small_stays_in_train():
    assert drawn(images({'cat': 6, 'dog': 2}))['train'][-2:] == ['dog/0.png', 'dog/1.png']


# --- later runs


@pytest.fixture
def before():
    """{content: split} of a first run on 40 cats and 40 dogs."""
    entries = images({'cat': 40, 'dog': 40})
    drawn(entries)
    return split_of(entries)


@pytest.mark.parametrize('added', [1, 10, 60])
def test_added_images_move_no_other_and_fill_the_fractions(before, added):
    entries = [*images({'cat': added}, start=100), *images({'cat': 40, 'dog': 40})]
    drawn(entries, kept=before)
    assert before.items() <= split_of(entries).items()
    share = round((40 + added) / 10)
    assert counted(entries)['cat'] == {'train': 40 + added - 2 * share, 'valid': share, 'test': share}
    assert counted(entries)['dog'] == {'train': 32, 'valid': 4, 'test': 4}


def test_removed_images_move_no_other(before):
    entries = [entry for entry in images({'cat': 40, 'dog': 40}) if before[content(entry.fingerprint)] != 'test'][::2]
    assert drawn(entries, kept=before)['test'] == []
    assert split_of(entries).items() <= before.items()


def test_the_split_of_a_removed_image_is_recorded_for_when_it_comes_back(before):
    entries = images({'cat': 40, 'dog': 20})
    gone = splits.draw(entries, (), {'valid': 0.1, 'test': 0.1}, 0, dict(before))
    assert gone == {content(entry.fingerprint): before[content(entry.fingerprint)] for entry in images({'dog': 20}, 20)}
    lines = [*splits.record({'train': entries[:1], 'test': ()}, ['test'], gone)]
    assert len(lines) == 21 and lines[0] == f'{content(entries[0].fingerprint).hex()}\ttrain\n'


def test_an_image_keeps_its_split_under_another_name_and_in_another_class(before):
    entries = [image('dog', f'renamed {n}', f'{label}/{n}.png') for label in LABELS for n in range(40)]
    drawn(entries, kept=before)
    assert split_of(entries) == before


def test_a_copy_of_a_known_image_goes_where_that_is(before):
    entries = images({'cat': 40, 'dog': 40})
    known = next(entry for entry in entries if before[content(entry.fingerprint)] == 'test')
    copy = image('cat', 'as.jpg', 'decoded at reduced size')
    drawn([copy, *entries], duplicates=[(copy, known)], kept=before)
    assert copy.split == 'test'


def test_new_images_fill_empty_splits_first():
    entries = images({'cat': 3})
    drawn(entries)
    kept = {content(entries[number].fingerprint): 'train' for number in range(2)}
    grown = images({'cat': 10})
    drawn(grown[:4], kept=kept, valid=0.4, test=0.4)
    assert counted(grown[:4])['cat'] == {'train': 2, 'valid': 1, 'test': 1}


def test_a_class_whose_training_images_are_gone_gets_the_first_new_one_to_train_on():
    entries = images({'cat': 5})
    drawn(entries)
    left = [entry for entry in entries if entry.split != 'train']
    kept = split_of(left)
    new = image('cat', 'new.png')
    drawn([*left, new], kept=kept)
    assert new.split == 'train' and split_of(left) == kept


def test_a_class_without_any_other_training_image_gets_one_of_valid_rather_than_test(capsys):
    entries = images({'cat': 3, 'dog': 3})
    drawn(entries)
    kept = split_of(entries)
    left = [entry for entry in entries if entry.split != 'train' or entry.label == 'dog']
    for entry in left:
        entry.split = 'train'
    drawn(left, kept=kept)
    assert counted(left) == {'cat': {'train': 1, 'test': 1}, 'dog': {'train': 1, 'valid': 1, 'test': 1}}
    assert capsys.readouterr().err == 'cat: no training image is left; one of valid becomes one\n'


# --- what an earlier run has left


def write_run(entries, recorded=True, **settings):
    """Write what annotate.py would."""
    Path('signs').mkdir(exist_ok=True)
    drawn(entries)
    by_split = {split: [entry for entry in entries if entry.split == split] for split in ('train', 'valid', 'test')}
    for split, listed in by_split.items():
        Path(f'signs/{split}.txt').write_text(''.join(f'{entry.path}\t0\n' for entry in listed), encoding='utf-8')
    if recorded:
        Path('signs/splits.tsv').write_text(''.join(splits.record(by_split, ['valid', 'test'], {})))
    Path('signs/annotation.json').write_text(json.dumps({'settings': {**SETTINGS, **settings}}))
    return split_of(entries)


def test_the_splits_of_an_earlier_run_are_found_by_pixels(workdir):
    before = write_run(images({'cat': 40}))
    assert splits.earlier('signs', SETTINGS, [image('cat', 'renamed', 'cat/0.png')]) == before


@pytest.mark.parametrize('recorded', [True, False])
def test_an_edited_or_unrecorded_image_is_found_by_its_path(workdir, recorded):
    before = write_run(images({'cat': 40}), recorded)
    now = [image('cat', f'{n}.png', f'edited {n}') for n in range(41)]
    found = splits.earlier('signs', SETTINGS, now)
    assert [found.get(content(entry.fingerprint)) for entry in now] == [*before.values(), None]


@pytest.mark.parametrize('setting', [{'seed': 1}, {'test_fraction': 0.2}, {'drawn_splits': ['test']}])
def test_another_seed_or_fraction_draws_all_anew_and_says_so(workdir, capsys, setting):
    write_run(images({'cat': 40}))
    (key,) = setting
    assert splits.earlier('signs', {**SETTINGS, **setting}, images({'cat': 40})) == {}
    said = f'signs: all images get a new split ({key} was {SETTINGS[key]}, now {setting[key]})'
    assert capsys.readouterr().err.strip() == said


def test_a_first_run_and_one_after_given_splits_know_nothing_and_say_nothing(workdir, capsys):
    assert splits.earlier('signs', SETTINGS, images({'cat': 4})) == {}
    write_run(images({'cat': 40}), drawn_splits=[])
    assert splits.earlier('signs', SETTINGS, images({'cat': 40})) == {}
    for text in ('{', '[]', '{"settings": 3}'):
        Path('signs/annotation.json').write_text(text)
        assert splits.earlier('signs', SETTINGS, images({'cat': 4})) == {}
    assert capsys.readouterr().err == ''


def test_edited_lines_of_the_record_are_ignored(workdir):
    before = write_run(images({'cat': 40}))
    with open('signs/splits.tsv', 'ab') as file:
        file.write(b'zz\ttrain\n\xff\n\n00\tnowhere\n')
    assert splits.earlier('signs', SETTINGS, images({'cat': 40})) == before


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
