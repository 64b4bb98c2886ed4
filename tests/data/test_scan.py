"""Every folder of images is used as intended, or the run stops with a message that names it and a setting that can be pasted."""

import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from conftest import ROOT, assert_message, make_tree, picture, run_script

import config
from zodiac.base import schema
from zodiac.base.errors import UserError
from zodiac.data import scan

LABELS = ['cat', 'dog']


def draw(*paths):
    for number, path in enumerate(paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        picture(number, (9, 8)).save(path, 'PNG')


def found(root='photos', labels=LABELS, unknown_class='stop'):
    """{path below root: (split, label)}"""
    tree = scan.scan(root, labels, unknown_class)
    return {os.path.relpath(entry.path, root): (entry.split, entry.label) for entry in tree.entries}


def refusal(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        found(*args, **kwargs)
    return str(caught.value)


# --- folders of splits


@pytest.mark.parametrize(
    'names',
    [
        ('train', 'val', 'test'),
        ('Train', 'Valid', 'Test'),
        ('training', 'validation', 'testing'),
        ('TRAIN', 'dev', 'test'),
    ],
    ids='+'.join,
)
def test_a_split_folder_may_have_any_usual_name_in_any_case(workdir, names):
    make_tree('photos', LABELS, dict.fromkeys(names, 1))
    expected = {
        f'{name}/{label}/{label}_0.jpg': (split, label)
        for split, name in zip(('train', 'valid', 'test'), names)
        for label in LABELS
    }
    assert found() == expected


def test_photos_for_a_trained_network_need_no_training_images_and_keep_its_classes(workdir):
    make_tree('photos', LABELS, {'test': 1})
    assert [entry.split for entry in scan.scan('photos', LABELS, 'stop', trained=True).entries] == ['test', 'test']
    make_tree('photos', ['cow'], {'test': 1})
    make_tree('around it/in', LABELS, {'': 1})
    for folder, said in (
        ('photos', 'move it away, or set annotate'),
        ('around it', "on that folder: --data 'around it/in'"),
    ):
        with pytest.raises(UserError) as caught:
            scan.scan(folder, LABELS, 'skip' if said.endswith("in'") else 'stop', trained=True)
        assert said in str(caught.value) and '-o' not in str(caught.value)


@pytest.mark.parametrize('second', ['valid', 'Val', 'dev'])
def test_two_folders_for_one_split_are_refused(workdir, second):
    make_tree('photos', LABELS, {'train': 1, 'val': 1, second: 1})
    message = refusal()
    assert 'photos/val' in message and f'photos/{second}' in message


@pytest.mark.parametrize('place', ['validation set/cat', 'more/train/cat', 'dog'])
def test_a_folder_of_images_beside_the_splits_is_not_ignored(workdir, place):
    make_tree('photos', LABELS, {'train': 1, 'test': 1})
    draw(f'photos/{place}/1.png')
    folder = f'photos/{place.partition("/")[0]}'
    message = refusal()
    assert message.startswith(f'{folder}: ') and 'annotate.unknown_class=skip' in message
    tree = scan.scan('photos', LABELS, 'skip')
    assert len(tree.entries) == 4 and tree.stray == [f'{folder}/']


@pytest.mark.parametrize('name', ['train', 'test', 'valid', 'dev'])
def test_a_class_may_have_the_name_of_a_split(workdir, name):
    draw(*(f'photos/{label}/{label}.png' for label in (*LABELS, name)))
    assert found(labels=[*LABELS, name])[f'{name}/{name}.png'] == ('train', name)
    draw(f'photos/{name}/more/inner.png')
    assert found(labels=[*LABELS, name])[f'{name}/more/inner.png'] == ('train', name)


def test_all_classes_may_have_names_of_splits(workdir):
    draw('photos/train/1.png', 'photos/test/1.png')
    assert found(labels=['test', 'train']) == {'train/1.png': ('train', 'train'), 'test/1.png': ('train', 'test')}


def test_a_class_with_the_name_of_a_split_may_be_in_folders_of_splits(workdir):
    labels = ['bus', 'test', 'train']
    make_tree('photos', labels, {'train': 1, 'test': 1})
    assert found(labels=labels)['test/train/train_0.jpg'] == ('test', 'train')
    assert len(found(labels=labels)) == 6


def test_folders_of_splits_are_not_classes_although_labels_have_their_names(workdir):
    make_tree('photos', LABELS, {'Train': 1, 'Valid': 1})
    message = refusal(labels=['Train', 'Valid'])
    assert message.endswith("-o 'data.labels=[cat, dog]'")


def test_a_class_taken_for_a_split_is_named_with_the_labels_that_make_it_a_class(workdir):
    draw('photos/bus/1.png', 'photos/train/1.png')
    message = refusal(labels=['bus', 'car'])
    assert (
        message.startswith('photos/train: is taken for the train images')
        and "'data.labels=[bus, car, train]'" in message
    )
    assert len(found(labels=['bus', 'car', 'train'])) == 2


def test_images_outside_class_folders_in_a_split_are_refused(workdir):
    make_tree('photos', LABELS, {'train': 1})
    draw('photos/test/1.png')
    message = refusal()
    assert message.startswith('photos/test: ') and 'photos/test/<class>/' in message


# --- folders around the class folders


@pytest.mark.parametrize('tree', [{'': 1}, {'train': 1, 'test': 1}], ids=['classes', 'splits'])
@pytest.mark.parametrize('around', ['mydata', 'out/my data', 'a/b/c'])
@pytest.mark.parametrize('unknown_class', ['stop', 'skip'])
def test_a_folder_around_the_classes_is_named_and_not_offered_as_a_class(workdir, tree, around, unknown_class):
    make_tree(f'photos/{around}', LABELS, tree)
    Path('photos/README.txt').write_text('text')
    message = refusal(unknown_class=unknown_class)
    setting = schema.override('data.root', f'photos/{around}')
    assert message.endswith(f'-o {setting}') and 'data.labels=' not in message
    assert len(found(f'photos/{around}')) == 2 * len(tree)


def test_several_folders_around_the_classes_must_be_renamed_to_splits(workdir):
    make_tree('photos', LABELS, {'seg_test': 1, 'seg_train': 1})
    message = refusal()
    assert 'photos/seg_test and photos/seg_train; rename those folders' in message and 'data.labels=' not in message


def test_a_folder_around_the_classes_of_a_split_is_named(workdir):
    make_tree('photos', LABELS, {'train/images': 1, 'test': 1})
    assert 'there are class folders in photos/train/images' in refusal()


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_folder_names_are_compared_after_unicode_normalisation(workdir, form):
    labels = ['café', '강아지']
    draw(
        *(
            unicodedata.normalize(form, f'photos/{split}/{label}/1.png')
            for split in ('train', 'val')
            for label in labels
        )
    )
    given = config.load(
        overrides=[f'data.labels=[{", ".join(unicodedata.normalize("NFD", label) for label in labels)}]']
    )
    assert given.data.labels == labels
    assert sorted(set(found(labels=given.data.labels).values())) == sorted(
        (split, label) for split in ('train', 'valid') for label in labels
    )


def test_both_normal_forms_of_a_folder_are_one_class(workdir):
    draw('photos/café/1.png', f'photos/{unicodedata.normalize("NFD", "café")}/2.png', 'photos/dog/1.png')
    assert sorted(found(labels=['café', 'dog']).values()) == [('train', 'café')] * 2 + [('train', 'dog')]


def test_a_root_in_another_normal_form_is_named(workdir):
    there = unicodedata.normalize('NFD', 'photos é')
    draw(f'{there}/cat/1.png')
    message = refusal('photos é')
    assert message.endswith(f'-o {schema.override("data.root", there)}')


# --- files


def test_files_are_sorted_by_code_point_with_subfolders_last(workdir):
    names = ['B.png', 'a b.png', 'a10.png', 'a2.png', 'b.png', 'é.png', '猫 1.png', 'a/z.png']
    draw(*(f'photos/cat/{name}' for name in reversed(names)), 'photos/dog/1.png')
    assert [path for path in found() if path.startswith('cat/')] == [f'cat/{name}' for name in names]


@pytest.mark.parametrize('split', ['', 'train', 'test'])
def test_an_unknown_class_folder_is_refused_with_three_ways_out(workdir, split):
    make_tree('photos', LABELS, {'train': 1, 'test': 1} if split else {'': 1})
    folder = os.path.join('photos', split, 'doge')
    os.rename(os.path.join('photos', split, 'dog'), folder)
    message = refusal()
    assert message.startswith(f'{folder}: the folder is not in data.labels; rename it to dog, ')
    labels = '[cat, dog, doge]' if split else '[cat, doge]'
    assert 'annotate.unknown_class=skip' in message and message.endswith(f"-o 'data.labels={labels}'")
    tree = scan.scan('photos', LABELS, 'skip')
    assert tree.stray == [f'{folder}/'] and len(tree.entries) == (3 if split else 1)


def test_a_missing_or_empty_root_is_refused(workdir):
    assert refusal().startswith('photos: no such folder')
    os.mkdir('photos')
    assert refusal().startswith('photos: no images found; it needs photos/<class>/ or photos/train/<class>/')
    make_tree('photos', LABELS, {'train': 0, 'valid': 0, 'test': 0})
    assert 'no images found' in refusal()


def test_splits_without_train_are_refused(workdir):
    make_tree('photos', LABELS, {'valid': 1, 'test': 1})
    assert 'there is valid/ but no train/' in refusal()


# --- links


def test_linked_folders_are_followed_once_and_never_upwards(workdir):
    draw('real/2.png', 'real/inner/3.png', 'photos/cat/1.png', 'photos/dog/1.png')
    os.symlink('../../real', 'photos/cat/more')
    os.symlink('../../real/inner', 'photos/cat/again')
    os.symlink('..', 'photos/cat/up')
    os.symlink('.', 'photos/cat/self')
    os.symlink('../photos', 'real/round')
    os.symlink('loop', 'photos/cat/loop')
    os.symlink('../real', 'photos/linked')
    tree = scan.scan('photos', [*LABELS, 'linked'], 'stop')
    assert [entry.path for entry in tree.entries if entry.label == 'cat'] == [
        *('photos/cat/1.png', 'photos/cat/loop', 'photos/cat/again/3.png', 'photos/cat/more/2.png')
    ]
    assert [entry.path for entry in tree.entries if entry.label == 'linked'][:2] == [
        *('photos/linked/2.png', 'photos/linked/inner/3.png')
    ]
    assert {'photos/cat/up/', 'photos/cat/self/', 'photos/cat/more/round/'} <= set(tree.stray)


# --- settings to be pasted


AWKWARD = [
    *('yes', 'No', '0', '1e3', "it's", '#x', 'two words', '猫', 'null', '~', '-x', '[a]', '{b}', 'c: d', 'e:', 'a, b'),
    *(
        '"quoted"',
        '$(touch pasted)',
        '!x',
        '&y',
        '*',
        '`z`',
        'é',
        'x;y',
        '%s',
        '=',
        '2024-01-01',
        '0x1F',
        '1_000',
        '🐈',
    ),
]


def pasted(message, root, shell='sh'):
    """Run annotate.py in a shell with the settings that a message offers after -o; returns the labels in annotation.json."""
    offered = re.search(r'-o (.*)$', message.strip(), re.MULTILINE)[1]
    command = f'"{sys.executable}" "{ROOT}/annotate.py" -o {schema.override("data.root", root)} {offered}'
    done = subprocess.run([shell, '-c', command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    where = re.search(r'written: (.*)/train\.txt', done.stdout)[1]
    return json.loads(Path(where, 'annotation.json').read_text(encoding='utf-8'))['labels']


@pytest.mark.parametrize('shell', [shell for shell in ('sh', 'bash', 'zsh') if shutil.which(shell)])
def test_offered_labels_can_be_pasted_into_a_shell(workdir, shell):
    draw(*(f"it's 1/{label}/{number}.png" for label in AWKWARD for number in range(3)))
    result = run_script('annotate.py', '-o', 'data.root="it\'s 1"', cwd=workdir)
    assert_message(result, 1, 'the folder is not in data.labels')
    assert pasted(result.stderr, "it's 1", shell) == sorted(AWKWARD)
    assert not Path('pasted').exists()


def test_the_labels_without_an_empty_class_can_be_pasted(workdir):
    draw(*(f'photos/{label}/{number}.png' for label in ('no', "it's") for number in range(3)))
    Path('photos/null').mkdir()
    Path('photos/null/broken.png').write_text('broken')
    result = run_script('annotate.py', '-o', 'data.root=photos', """data.labels=["no", "it's", "null"]""", cwd=workdir)
    assert_message(result, 0, 'no images to train on in class null')
    assert pasted(result.stderr, 'photos') == ['no', "it's"]


def test_an_offered_root_can_be_pasted(workdir):
    draw(*(f"photos/2024's #1/{label}/{number}.png" for label in LABELS for number in range(3)))
    result = run_script('annotate.py', '-o', 'data.root=photos', 'data.labels=[cat,dog]', cwd=workdir)
    assert_message(result, 1, 'the class folders are in')
    assert pasted(f'{result.stderr.strip()} data.labels=[cat,dog]', 'photos') == LABELS


@pytest.mark.parametrize('name', ['a\\b', ' a', 'a ', 'a\tb'])
def test_a_folder_whose_name_cannot_be_a_label_is_named_and_not_offered(workdir, name):
    draw(f'photos/{name}/1.png', 'photos/cat/1.png', 'photos/dog/1.png')
    message = refusal()
    assert repr(name) in message and 'data.labels=' not in message


def test_a_single_folder_is_not_offered_as_a_list_of_labels(workdir):
    draw('photos/bird/1.png')
    assert 'data.labels=' not in refusal()


def test_a_folder_of_other_folders_is_offered_as_the_root(workdir):
    draw('photos/birds/finch/1.png', 'photos/birds/wren/1.png')
    assert '(-o data.root=photos/birds)' in refusal()
    assert "'data.labels=[finch, wren]'" in refusal('photos/birds')


def test_a_folder_beside_the_splits_that_cannot_be_read_is_ignored(workdir, monkeypatch):
    make_tree('photos', LABELS, {'train': 1})
    os.mkdir('photos/lost+found')
    listdir = os.listdir

    def refuse(path='.'):
        if str(path).endswith('lost+found'):
            raise PermissionError(13, 'Permission denied', path)
        return listdir(path)

    monkeypatch.setattr(os, 'listdir', refuse)
    assert scan.scan('photos', LABELS, 'stop').stray == ['photos/lost+found/']
