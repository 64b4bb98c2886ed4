"""The summary of annotate.py on the report page."""

import json
from pathlib import Path

import pytest
from conftest import picture
from html_parts import images_of, main, text_of
from small_report import NOTHING, write

from zodiac.report import annotation

LABELS = ['猫', 'dog', 'ox']
OLD = {  # of version 0.1.0
    'root': 'photos',
    'settings': {'drawn_splits': ['valid', 'test']},
    'accepted': 70,
    'converted_by_mode': {'L': 3},
    'rejected_by_reason': {'not an image': 2, 'mode CMYK': 1},
    'same_picture_in_two_splits': [],
    'same_picture_in_two_classes': [['a', 'b']],
}
SIZES = {
    'width': {'min': 10, 'median': 48, 'max': 500},
    'height': {'min': 20, 'median': 40, 'max': 400},
    'different': 7,
    'most_common': [{'width': 48, 'height': 40, 'images': 60}, {'width': 500, 'height': 400, 'images': 4}],
}
NEW = {**OLD, 'sizes': SIZES, 'modes': {'RGB': 67, 'L': 3}, 'near_duplicates': []}


def pair(number, distance=3, train_class='猫'):
    return {
        **{'distance': distance, 'path': f'test {number} 猫.png', 'split': 'test', 'class': '猫'},
        **{'train_path': f'train {number}.png', 'train_class': train_class},
    }


def read(found):
    with open('annotation.json', 'w', encoding='utf-8') as file:
        json.dump(found, file)
    return annotation.read('annotation.json', 128)


def page_of(found, **result):
    """The text of the report page, and its number of images."""
    written = main(write(Path(), LABELS, photos=False, annotated=read(found), **result))
    return text_of(written), len(images_of(written))


def test_a_missing_annotation_is_empty(workdir, capsys):
    assert annotation.read('annotation.json', 128) == NOTHING
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('content', ['', '{', '[]', 'null', '3', '\udcff'])
def test_an_unreadable_annotation_is_empty_with_a_warning(workdir, capsys, content):
    (workdir / 'annotation.json').write_text(content, encoding='utf-8', errors='surrogateescape')
    assert annotation.read('annotation.json', 128) == NOTHING
    assert 'annotation.json: is damaged' in capsys.readouterr().err


@pytest.mark.parametrize(
    'part',
    [
        {'near_duplicates': 3},
        {'near_duplicates': [{'path': 'x'}]},
        {'near_duplicates': [3]},
        {'sizes': {'width': 1}},
        {'sizes': 'x'},
        {'rejected_by_reason': []},
        {'settings': 3},
        {'accepted': 'many'},
        {'modes': []},
    ],
    ids=str,
)
def test_an_annotation_with_a_damaged_part_is_empty_with_a_warning(workdir, capsys, part):
    assert read({**NEW, **part}) == NOTHING
    assert 'run annotate.py again' in capsys.readouterr().err


@pytest.mark.parametrize('found', [{}, {'root': 'photos'}, OLD], ids=['none', 'a part', 'old'])
def test_parts_that_an_old_annotation_lacks_are_left_out(workdir, found):
    text, _ = page_of(found)
    assert 'Sizes and modes' not in text and 'near-cop' not in text and 'look like training' not in text
    assert ('2 not an image, 1 mode CMYK' in text) == (found is OLD)
    assert annotation.without_near_duplicates(read(found)['paths'], ['a'], [True]) is None


def test_the_page_shows_sizes_and_modes(workdir):
    text, _ = page_of(NEW, near_duplicates={'images': 0, 'top1_without': 0.5})
    assert 'pixelssmallestmedianlargest width1048500 height2040400' in text
    assert 'sizephotos 48 × 4060 500 × 4004 5 other sizes6' in text
    assert 'modephotos RGB67 L3' in text
    assert 'No validation or test photo is a near-copy of a training photo.' in text


def test_near_duplicates_are_shown_side_by_side_with_the_accuracy_without_them(workdir):
    for number in (0, 1):
        for path in (pair(number)['path'], pair(number)['train_path']):
            picture(number).save(path)
    (workdir / 'train 1.png').unlink()
    text, none = page_of(NEW, near_duplicates={'images': 0, 'top1_without': 0.5})
    gone = text.count('can no longer be read')
    found = {**NEW, 'near_duplicates': [pair(0, 2), pair(1, 7, 'dog')]}
    text, images = page_of(found, near_duplicates={'images': 1, 'top1_without': 0.251})
    assert '2 validation or test photos are nearly the same as a training photo; 1 of another class.' in text
    assert 'Of the 6 photos measured here, 1. Without them the accuracy is 25.1%, with all photos 33.3%.' in text
    assert 'test: 猫; training: dog; 7 of 128 hash bits differ test 1 猫.pngtrain 1.png' in text
    assert 'test: 猫; training: 猫; 2 of 128 hash bits differ test 0 猫.pngtrain 0.png' in text
    assert text.index('training: dog') < text.index('training: 猫'), 'pairs of two classes come first'
    assert images == none + 3 and text.count('can no longer be read') == gone + 1


def test_without_other_images_there_is_no_accuracy_without_near_duplicates(workdir):
    found = {**NEW, 'near_duplicates': [pair(0)]}
    without = annotation.without_near_duplicates(read(found)['paths'], [pair(0)['path']], [True])
    assert without == {'images': 1, 'top1_without': None}
    text, _ = page_of(found, near_duplicates=without)
    assert '1 validation or test photo is nearly the same as a training photo; 0 of another class.' in text
    assert 'Of the 6 photos measured here, 1. Near-copies inflate' in text


def test_a_few_pairs_are_shown_and_all_are_counted(workdir):
    found = {**NEW, 'near_duplicates': [pair(n) for n in range(9)]}
    near = read(found)['near_duplicates']
    assert (near['images'], near['of_another_class'], len(near['pairs'])) == (9, 0, 6)
    without = {'images': 0, 'top1_without': None}
    assert '6 of 9 pairs are shown; annotation.json lists all' in page_of(found, near_duplicates=without)[0]


def test_the_accuracy_without_near_duplicates_counts_the_other_images():
    near_copies = {pair(0)['path'], pair(1)['path'], pair(8)['path']}
    paths = [pair(number)['path'] for number in range(4)]
    found = annotation.without_near_duplicates(near_copies, paths, [True, True, False, True])
    assert found == {'images': 2, 'top1_without': 0.5}


def test_pairs_are_found_from_another_working_folder(workdir):
    for name in ('test 1 猫.png', 'train 1.png'):
        (workdir / name).touch()
    pairs = [{**pair(1), 'path': 'photos/test 1 猫.png', 'train_path': 'photos/train 1.png'}]
    (workdir / 'annotation.json').write_text(json.dumps({**NEW, 'near_duplicates': pairs}), encoding='utf-8')
    found = annotation.read(str(workdir / 'annotation.json'), 128)
    assert found['paths'] == {f'{workdir}/test 1 猫.png'}
