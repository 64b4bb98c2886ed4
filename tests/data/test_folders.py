"""With data.labels=auto the class folders give the class names, or one error says what is wrong with them."""

import unicodedata
from pathlib import Path

import pytest

from zodiac.base.errors import UserError
from zodiac.data.scan import scan


def touch(*paths):
    for path in paths:
        Path('photos', path).parent.mkdir(parents=True, exist_ok=True)
        Path('photos', path).touch()


def labels(unknown_class='stop'):
    return scan('photos', 'auto', unknown_class).labels


def refusal():
    with pytest.raises(UserError) as caught:
        labels()
    return str(caught.value)


def test_the_names_are_sorted_and_nfc(workdir):
    touch('zebra/1.jpg', unicodedata.normalize('NFD', 'café') + '/1.jpg', '猫/a/1.jpg', 'Ox/1.jpg')
    assert labels() == ['Ox', 'café', 'zebra', '猫']


def test_hidden_junk_and_empty_folders_and_files_beside_them_are_no_classes(workdir):
    touch('cat/1.jpg', 'dog/1.jpg', '.git/1.jpg', '__MACOSX/cat/1.jpg', 'readme.txt', 'new/.DS_Store', 'train.txt')
    tree = scan('photos', 'auto', 'stop')
    assert tree.labels == ['cat', 'dog'] and sorted(tree.stray) == ['photos/new/', 'photos/readme.txt']
    assert len(tree.entries) == 2


@pytest.mark.parametrize('train', ['train', 'Training'])
def test_folders_of_splits_hold_the_classes_of_all_of_them(workdir, train):
    touch(f'{train}/cat/1.jpg', f'{train}/dog/1.jpg', 'val/dog/1.jpg', 'test/ox/1.jpg')
    tree = scan('photos', 'auto', 'stop')
    assert tree.labels == ['cat', 'dog', 'ox'] and [*tree.given_splits] == ['train', 'valid', 'test']


@pytest.mark.parametrize('inner', ['', 'album/'])
def test_a_class_may_have_the_name_of_a_split(workdir, inner):
    touch(f'test/{inner}1.jpg', f'dev/{inner}1.jpg', 'cat/1.jpg')
    assert labels() == ['cat', 'dev', 'test']
    touch('train/1.jpg')
    assert labels() == ['cat', 'dev', 'test', 'train']


def test_one_name_in_two_unicode_forms_is_one_class(workdir):
    touch(
        *(f'{split}/{unicodedata.normalize(form, "café")}/1.jpg' for split, form in (('train', 'NFC'), ('test', 'NFD')))
    )
    touch('train/dog/1.jpg', 'test/dog/1.jpg')
    assert labels() == ['café', 'dog']


@pytest.mark.parametrize('names', [('Cat', 'cat'), ('ox', 'ｏｘ'), ('ﬁsh', 'fish'), ('STRASSE', 'straße')])
def test_names_that_look_alike_are_refused_with_the_setting_that_keeps_them(workdir, names):
    touch(*(f'{name}/1.jpg' for name in names), 'dog/1.jpg')
    if len([*Path('photos').iterdir()]) < 3:
        pytest.skip('this file system does not tell the names apart')
    message = refusal()
    first, second = sorted(names)
    assert f'photos: the class folders {first} and {second} differ only' in message and '-o ' in message


@pytest.mark.parametrize(
    ('paths', 'words'),
    [
        ([], 'no class folders with images; put the images of each class into a folder of its own, photos/<class>/'),
        (['1.jpg'], 'no class folders with images'),
        (['cat/1.jpg'], 'only one class folder has images, photos/cat; add another class'),
        (['a/b/cat/1.jpg', 'a/b/dog/1.jpg'], 'if the folders in photos/a/b are the classes: -o data.root=photos/a/b'),
        (['train/cat/1.jpg', 'test/cat/1.jpg'], 'only one class folder has images'),
        (['cat/1.jpg', 'dog /1.jpg'], 'dog : cannot be the name of a class'),
        (['cat/1.jpg', 'a\nb/1.jpg'], 'photos/a\\nb: cannot be the name of a class'),
        (['test/cat/1.jpg', 'test/dog/1.jpg'], 'there is test/ but no train/'),
        (['train/cat/1.jpg', 'train/dog/1.jpg', 'dog/1.jpg'], 'photos/dog: a class folder beside photos/train/'),
    ],
)
def test_what_is_wrong_is_said_with_the_next_step(workdir, paths, words):
    Path('photos').mkdir()
    touch(*paths)
    assert words in refusal()
