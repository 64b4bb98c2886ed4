"""annotate.py with a corrections.csv: labels change, splits do not."""

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import files_below, make_tree, picture

import annotate
import config
import run as whole
from zodiac.base.errors import UserError
from zodiac.data import corrections, entry

LABELS = ['cat', 'dog']


@pytest.fixture
def run(workdir, monkeypatch):
    """Call annotate.py's main on photos/; returns annotation.json."""
    monkeypatch.setattr(entry, 'SETTLED', 0)  # the files of these tests are new

    def call(*overrides):
        settings = ['data.root=photos', f'data.labels=[{", ".join(LABELS)}]', *overrides]
        monkeypatch.setattr(sys, 'argv', ['annotate.py', '-o', *settings])
        annotate.main()
        return json.loads(Path('photos/annotation.json').read_text(encoding='utf-8'))

    return call


def indexed():
    """{path: (split, class)}"""
    found = {}
    for split in ('train', 'valid', 'test'):
        for line in Path(f'photos/{split}.txt').read_text(encoding='utf-8').splitlines():
            path, label = line.split('\t')
            found[path] = (split, LABELS[int(label)])
    return found


def test_a_relabelled_photo_has_the_new_label_and_keeps_its_split_and_a_dropped_one_comes_back_to_its_own(run, capsys):
    make_tree('photos', LABELS, {'': 20}, '.png')
    run()
    before, pixels = indexed(), files_below('photos/cat')
    cats = {split: [path for path, own in before.items() if own == (split, 'cat')] for split in ('train', 'test')}
    moved, dropped = cats['test'][0], cats['train'][0]
    corrections.append('photos', moved, 'relabel', 'dog', 'cat', 'barks')
    corrections.append('photos', dropped, 'drop', '', 'cat', 'blurred')
    capsys.readouterr()

    done = run()

    assert indexed() == {
        path: (own[0], 'dog') if path == moved else own for path, own in before.items() if path != dropped
    }
    assert done['corrections'] == {
        'relabelled': [{'path': moved, 'from': 'cat', 'to': 'dog', 'reason': 'barks'}],
        'dropped': [{'path': dropped, 'class': 'cat', 'reason': 'blurred'}],
        'labelled': [],
        'gone': [],
    }
    assert done['accepted'] == 39 and done['rejected'] == []
    said = capsys.readouterr()
    assert 'corrections of photos/corrections.csv: 1 relabelled, 1 dropped' in said.out
    cfg = config.load(overrides=['data.root=photos', 'data.labels=[cat, dog]'])
    assert whole.photos_of(cfg).endswith(' photos of 2 classes; corrections: 1 relabelled, 1 dropped')
    assert files_below('photos/cat') == pixels

    run()
    assert 'no file has changed' in capsys.readouterr().err
    for path in (moved, dropped):
        corrections.append('photos', path, 'undo')
    run()
    assert indexed() == before


def test_new_photos_of_another_folder_join_and_splits_of_others_stay(run):
    make_tree('photos', LABELS, {'': 20}, '.png')
    run()
    before = indexed()
    os.makedirs('new')
    for number in range(12):
        picture(1000 + number).save(f'new/{number}.png')
        corrections.append('photos', f'new/{number}.png', 'label', 'dog')
    Path('new/0.png').write_bytes(b'no image')

    done = run()

    after = indexed()
    assert {path: own for path, own in after.items() if path in before} == before
    assert sorted({own[1] for path, own in after.items() if path not in before}) == ['dog']
    assert len(after) == len(before) + 11 and [one['path'] for one in done['rejected']] == ['new/0.png']


def test_given_splits_stay_and_new_photos_are_trained_on(run):
    make_tree('photos', LABELS, {'train': 6, 'valid': 2, 'test': 2}, '.png')
    os.makedirs('new')
    picture(1000).save('new/a.png')
    corrections.append('photos', 'new/a.png', 'label', 'cat')
    corrections.append('photos', 'photos/test/cat/cat_0.png', 'relabel', 'dog')
    run()
    assert indexed()['new/a.png'] == ('train', 'cat') and indexed()['photos/test/cat/cat_0.png'] == ('test', 'dog')


def test_photos_of_a_list_are_corrected_and_keep_their_group(run):
    make_tree('pictures', LABELS, {'': 12}, '.png')
    rows = [f'{path},{path.parent.name},{path.stem[-1]}' for path in sorted(Path('pictures').glob('*/*'))]
    Path('list.csv').write_text('\n'.join(['path,label,group', *rows]))
    run('annotate.list=list.csv')
    before = indexed()
    corrections.append('photos', 'pictures/cat/cat_3.png', 'relabel', 'dog')
    corrections.append('photos', 'pictures/cat/cat_4.png', 'drop')
    run('annotate.list=list.csv')
    split = before['pictures/cat/cat_3.png'][0]
    assert indexed()['pictures/cat/cat_3.png'] == (split, 'dog') and 'pictures/cat/cat_4.png' not in indexed()
    assert 'pictures/cat/cat_3.png,3' in Path('photos/groups.csv').read_text()


def test_photos_of_an_archive_are_corrected(run):
    make_tree('made', LABELS, {'': 12}, '.png')
    with zipfile.ZipFile('made.zip', 'w') as archive:
        for path in sorted(Path('made').glob('*/*')):
            archive.write(path, path.relative_to('made'))
    run('annotate.archive=made.zip')
    corrections.append('photos', 'photos/cat/cat_1.png', 'relabel', 'dog')
    run('annotate.archive=made.zip')
    assert indexed()['photos/cat/cat_1.png'][1] == 'dog'


def test_a_photo_that_is_gone_gives_a_warning(run, capsys):
    make_tree('photos', LABELS, {'': 12}, '.png')
    corrections.append('photos', 'photos/cat/never.png', 'relabel', 'dog')
    done = run()
    assert done['corrections']['gone'] == ['photos/cat/never.png']
    assert 'photos/corrections.csv: 1 photo is not there any more (photos/cat/never.png)' in capsys.readouterr().err


def test_a_bad_line_writes_nothing_and_is_named(run):
    make_tree('photos', LABELS, {'': 12}, '.png')
    corrections.append('photos', 'photos/cat/cat_1.png', 'relabel', 'cow')
    with pytest.raises(UserError, match="photos/corrections.csv, line 2: 'cow' is not a class"):
        run()
    assert not Path('photos/train.txt').exists()


def test_many_dropped_photos_are_not_too_many_that_are_left_out(run):
    make_tree('photos', LABELS, {'': 20}, '.png')
    for number in range(10):
        corrections.append('photos', f'photos/cat/cat_{number}.png', 'drop')
    assert run()['accepted'] == 30


def test_a_class_whose_photos_are_all_dropped_is_an_error(run):
    make_tree('photos', LABELS, {'': 6}, '.png')
    for number in range(6):
        corrections.append('photos', f'photos/cat/cat_{number}.png', 'drop')
    with pytest.raises(UserError, match='class cat has no usable training image'):
        run('annotate.max_left_out=0.05')
