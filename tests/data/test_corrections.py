"""corrections.csv: what was decided on photos, and how annotate.py applies it."""

import os
import threading

import pytest

from zodiac.base.errors import UserError
from zodiac.data import corrections
from zodiac.data.entry import Entry
from zodiac.data.scan import Tree

HEADER = 'time,path,action,label,given,reason\n'
TIME = '2026-01-01T00:00:00+00:00'


@pytest.fixture
def root(workdir):
    (workdir / 'photos/cat').mkdir(parents=True)
    for name in 'abc':
        (workdir / f'photos/cat/{name}.jpg').write_bytes(b'')
    return 'photos'


def written(root, *lines):
    with open(corrections.path_of(root), 'w', encoding='utf-8', newline='') as file:
        file.write(HEADER + ''.join(f'{TIME},{line}\n' for line in lines))


def tree(root, names='abc'):
    return Tree(
        root=root, labels=['cat', 'dog'], entries=[Entry(f'photos/cat/{name}.jpg', 'train', 'cat') for name in names]
    )


def test_without_a_file_nothing_is_changed(root):
    found = tree(root)
    assert corrections.read(root) == {}
    assert corrections.apply(found) == {'relabelled': [], 'dropped': [], 'labelled': [], 'gone': []}
    assert len(found.entries) == 3 and os.listdir(root) == ['cat']


def test_the_last_line_on_a_photo_counts(root):
    for action, label in (('relabel', 'dog'), ('drop', ''), ('keep', '')):
        corrections.append(root, 'photos/cat/a.jpg', action, label, 'cat', f'because "{action}", 因为')
    last = corrections.read(root)['photos/cat/a.jpg']
    assert (last.action, last.label, last.reason, last.line) == ('keep', '', 'because "keep", 因为', 4)
    with open(corrections.path_of(root), encoding='utf-8') as file:
        assert len(file.readlines()) == 4


def test_labels_are_changed_photos_dropped_and_new_ones_added(root, workdir):
    (workdir / 'new').mkdir()
    (workdir / 'new/n.jpg').write_bytes(b'')
    written(
        root,
        'photos/cat/a.jpg,relabel,dog,cat,it barks',
        './photos/cat/b.jpg,drop,,cat,blurred',
        'photos/cat/c.jpg,drop,,cat,',
        'photos/cat/c.jpg,undo,,cat,',
        'new/n.jpg,label,dog,,',
        'photos/cat/gone.jpg,relabel,dog,cat,',
        'new/gone.jpg,label,dog,,',
        'photos/cat/never.jpg,keep,,cat,',
    )
    found = tree(root)
    done = corrections.apply(found)
    assert [(entry.path, entry.split, entry.label) for entry in found.entries] == [
        ('photos/cat/a.jpg', 'train', 'dog'),
        ('photos/cat/c.jpg', 'train', 'cat'),
        ('new/n.jpg', 'train', 'dog'),
    ]
    assert done == {
        'relabelled': [{'path': 'photos/cat/a.jpg', 'from': 'cat', 'to': 'dog', 'reason': 'it barks'}],
        'dropped': [{'path': 'photos/cat/b.jpg', 'class': 'cat', 'reason': 'blurred'}],
        'labelled': [{'path': 'new/n.jpg', 'class': 'dog', 'reason': ''}],
        'gone': ['photos/cat/gone.jpg', 'new/gone.jpg'],
    }


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('photos/cat/a.jpg,relabel,dgo,cat,', "'dgo' is not a class; the classes are cat, dog"),
        ('photos/cat/a.jpg,relabel,,cat,', 'relabel needs a label'),
        ('photos/cat/a.jpg,delete,,cat,', "action 'delete' is not one of keep, drop"),
        ('photos/cat/a.jpg,drop', 'has 3 columns, not 6'),
        (',drop,,,', 'has no path'),
        ('photos/\0cat/a.jpg,drop,,', 'columns, not 6'),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(root, line, words):
    written(root, 'photos/cat/b.jpg,keep,,cat,', line)
    with pytest.raises(UserError, match='photos/corrections.csv, line 3: ') as error:
        corrections.apply(tree(root))
    assert words in str(error.value)


@pytest.mark.parametrize('content', [b'path;action\n', b'\xff\xfe', b'time,path\n'])
def test_a_file_of_another_kind_is_an_error_and_is_not_written_to(root, content, workdir):
    path = workdir / 'photos/corrections.csv'
    path.write_bytes(content)
    for call in (lambda: corrections.read(root), lambda: corrections.append(root, 'photos/cat/a.jpg', 'keep')):
        with pytest.raises(UserError, match='photos/corrections.csv, line 1: '):
            call()
    assert path.read_bytes() == content


def test_files_of_spreadsheets_are_read(root, workdir):
    text = f'{HEADER}{TIME},photos/cat/a.jpg,drop,,cat,"why, so"\n\n'.replace('\n', '\r\n')
    (workdir / 'photos/corrections.csv').write_bytes(b'\xef\xbb\xbf' + text.encode())
    corrections.append(root, 'photos/cat/b.jpg', 'keep')
    assert {path: one.action for path, one in corrections.read(root).items()} == {
        'photos/cat/a.jpg': 'drop',
        'photos/cat/b.jpg': 'keep',
    }


def test_a_line_that_was_cut_off_is_ignored_and_replaced(root, workdir):
    path = workdir / 'photos/corrections.csv'
    whole = f'{HEADER}{TIME},photos/cat/a.jpg,drop,,cat,\n'
    path.write_text(f'{whole}{TIME},photos/cat/b.jpg,rela')
    assert list(corrections.read(root)) == ['photos/cat/a.jpg']
    corrections.append(root, 'photos/cat/c.jpg', 'keep')
    assert path.read_text().startswith(whole) and 'rela' not in path.read_text()
    assert list(corrections.read(root)) == ['photos/cat/a.jpg', 'photos/cat/c.jpg']


def test_a_last_line_without_an_end_is_kept(root, workdir):
    (workdir / 'photos/corrections.csv').write_text(f'{HEADER}{TIME},photos/cat/a.jpg,drop,,cat,by hand')
    corrections.append(root, 'photos/cat/c.jpg', 'keep')
    assert list(corrections.read(root)) == ['photos/cat/a.jpg', 'photos/cat/c.jpg']


def test_a_decision_on_an_older_state_is_refused_and_changes_nothing(root, workdir):
    first = corrections.append(root, 'photos/cat/a.jpg', 'keep', seen=0)
    before = (workdir / 'photos/corrections.csv').read_bytes()
    with pytest.raises(corrections.Conflict) as error:
        corrections.append(root, 'photos/cat/a.jpg', 'drop', seen=0)
    assert error.value.decision == first and (workdir / 'photos/corrections.csv').read_bytes() == before
    corrections.append(root, 'photos/cat/b.jpg', 'drop', seen=0)
    corrections.append(root, 'photos/cat/a.jpg', 'drop', seen=first.line)
    assert corrections.read(root)['photos/cat/a.jpg'].action == 'drop'


def test_reasons_become_one_line(root):
    corrections.append(root, 'photos/cat/a.jpg', 'keep', reason='two\nlines\t and\r more\0' + 'x' * 1000)
    reason = corrections.read(root)['photos/cat/a.jpg'].reason
    assert reason.startswith('two lines and more x') and len(reason) == 500


def test_a_full_disk_leaves_the_file_as_it_was(root, workdir, monkeypatch):
    corrections.append(root, 'photos/cat/a.jpg', 'keep')
    before = (workdir / 'photos/corrections.csv').read_bytes()

    def full(handle):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(corrections.os, 'fsync', full)
    with pytest.raises(UserError, match='cannot write'):
        corrections.append(root, 'photos/cat/b.jpg', 'drop')
    assert (workdir / 'photos/corrections.csv').read_bytes() == before


def test_a_folder_that_was_moved_keeps_its_decisions(root, workdir, monkeypatch):
    corrections.append(root, 'photos/cat/a.jpg', 'drop')
    (workdir / 'photos').rename(workdir / 'moved')
    assert list(corrections.read('moved')) == ['moved/cat/a.jpg']


def test_decisions_that_come_at_the_same_time_are_all_kept(root):
    threads = [
        threading.Thread(target=corrections.append, args=(root, f'photos/cat/{number}.jpg', 'keep'))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(corrections.read(root)) == 20
