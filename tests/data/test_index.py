"""Index files: the fast reader gives what a plain loop over the lines gives, or an error that names the line."""

import pickle
import re
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zodiac.base.errors import UserError
from zodiac.data import index, scan

MANY = settings(max_examples=200, deadline=None, derandomize=True)


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def plainly(content, num_classes):
    """The lines as (path, label), read one by one."""
    found = []
    for line in content.split('\n'):
        line = line.rstrip('\r')
        if line:
            path, _, label = line.rpartition('\t')
            assert path and label.isdecimal() and int(label) < num_classes
            found.append((path, int(label)))
    return found


def random_content(rng, lines):
    names = ['a.jpg', 'signs/猫 1.jpg', 'x' * 200, 'with\ttab.png', '2\t3', 'é\r.jpg', '٣']
    labels = ['0', '7', '11', '0011', '000000000000005', '٣', '1']
    ends = ['\n', '\r\n', '\n\n', '\r\r\n', '\n\r\n']
    parts = [f'{rng.choice(names)}\t{rng.choice(labels)}{rng.choice(ends)}' for _ in range(lines)]
    return ''.join(parts) + (f'last.jpg\t{rng.integers(12)}' if rng.random() < 0.5 else '')


@pytest.mark.parametrize('mapped', [False, True])
@pytest.mark.parametrize('block', [1, 50, 1 << 24])
def test_every_form_of_line_is_read_as_by_a_plain_loop(tmp_path, monkeypatch, block, mapped):
    monkeypatch.setattr(index, 'BLOCK', block)
    monkeypatch.setattr(index, 'MAPPED', 0 if mapped else 1 << 26)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        content = random_content(rng, int(rng.integers(1, 60)))
        paths, labels = index.read(write(tmp_path / 'train.txt', content), 12)
        assert list(zip(paths, labels.tolist())) == plainly(content, 12)


@pytest.mark.parametrize('block', [1, 40, 1 << 24])
@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        ('a.jpg 3', 'no tab'),
        ('\t3', 'no path'),
        ('a.jpg\t12', "'12' is not a number from 0 to 11"),
        ('a.jpg\tcat', "'cat'"),
        ('a.jpg\t', "''"),
        ('a.jpg\t-1', "'-1'"),
        ('a\t1.5', "'1.5'"),
        ('a\t²', "'²'"),
        ('a\t99999999999999999999', "'99999999999999999999'"),
    ],
)
def test_the_first_bad_line_is_named_by_its_number(tmp_path, monkeypatch, block, bad, words):
    monkeypatch.setattr(index, 'BLOCK', block)
    path = write(tmp_path / 'train.txt', 'a.jpg\t0\r\n\n' * 20 + f'{bad}\nb.jpg\t99\n')
    with pytest.raises(UserError, match=r'train\.txt:41: .*' + re.escape(words)):
        index.read(path, 12)


@pytest.mark.parametrize('mapped', [False, True])
def test_text_that_is_not_utf8_is_refused(tmp_path, monkeypatch, mapped):
    monkeypatch.setattr(index, 'MAPPED', 0 if mapped else 1 << 26)
    with pytest.raises(UserError, match=r'train\.txt: cannot be read'):
        index.read(write(tmp_path / 'train.txt', b'a.jpg\t1\n\xff.jpg\t2\n'), 12)


@pytest.mark.parametrize('mapped', [False, True])
def test_a_byte_order_mark_is_not_part_of_the_first_path(tmp_path, monkeypatch, mapped):
    monkeypatch.setattr(index, 'MAPPED', 0 if mapped else 1 << 26)
    paths, labels = index.read(write(tmp_path / 'train.txt', '\ufeffa.jpg\t0\r\nb.jpg\t2\r\n'), 3)
    assert (list(paths), labels.tolist()) == (['a.jpg', 'b.jpg'], [0, 2])
    with pytest.raises(UserError, match=r'train\.txt:2: '):
        index.read(write(tmp_path / 'train.txt', '\ufeffa.jpg\t0\nb.jpg\t3\n'), 3)


@pytest.mark.parametrize('content', ['', '\n', '\r\n\n'])
def test_an_empty_index_is_refused(tmp_path, content):
    with pytest.raises(UserError, match=r'train\.txt: lists no images; run annotate\.py again'):
        index.read(write(tmp_path / 'train.txt', content), 12)


def test_a_missing_index_is_named_with_the_next_step(tmp_path):
    with pytest.raises(UserError, match=r'train\.txt: no such index; run annotate\.py first'):
        index.read(str(tmp_path / 'train.txt'), 12)


def test_without_the_folder_of_the_photos_the_setting_is_named(tmp_path):
    with pytest.raises(UserError, match=r'no folder .*moved; .* -o data\.root=FOLDER'):
        index.read(str(tmp_path / 'moved/train.txt'), 12)


def test_paths_are_a_sequence(tmp_path):
    paths, _ = index.read(write(tmp_path / 'train.txt', 'a.jpg\t0\nb/猫.jpg\t1\nc.jpg\t2\n'), 3)
    assert (len(paths), paths[1], paths[-1], paths[np.int64(0)]) == (3, 'b/猫.jpg', 'c.jpg', 'a.jpg')
    assert paths[1:] == ['b/猫.jpg', 'c.jpg']
    assert 'c.jpg' in paths
    with pytest.raises(IndexError):
        paths[3]


@pytest.mark.parametrize('mapped', [False, True])
def test_paths_can_be_sent_to_another_process(tmp_path, monkeypatch, mapped):
    monkeypatch.setattr(index, 'MAPPED', 0 if mapped else 1 << 26)
    paths, _ = index.read(write(tmp_path / 'train.txt', 'a.jpg\t0\nb.jpg\t1\n'), 3)
    assert list(pickle.loads(pickle.dumps(paths))) == ['a.jpg', 'b.jpg']


def test_a_line_takes_a_few_bytes_and_no_object(tmp_path, monkeypatch):
    monkeypatch.setattr(index, 'MAPPED', 0)
    monkeypatch.setattr(index, 'BLOCK', 1 << 20)
    lines = 200_000
    path = write(tmp_path / 'train.txt', ''.join(f'signs/train/dog/{number:06d}.jpg\t7\n' for number in range(lines)))
    tracemalloc.start()
    try:
        paths, labels = index.read(path, 12)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(paths), paths[lines - 1], labels.sum()) == (lines, 'signs/train/dog/199999.jpg', 7 * lines)
    assert kept < 24 * lines


@pytest.mark.parametrize('before', ['signs', './signs', 'data/signs', '/gone/signs', '..'])
def test_images_are_found_below_an_index_from_another_working_folder(tmp_path, before):
    (tmp_path / 'signs/train/dog').mkdir(parents=True)
    for name in ('1.jpg', '2.jpg'):
        (tmp_path / 'signs/train/dog' / name).touch()
    lines = [f'{before}/train/dog/{name}.jpg\t0\n' for name in ('gone', 1, 2)]
    paths, _ = index.read(write(tmp_path / 'signs/train.txt', ''.join(lines)), 1)
    assert list(paths) == [f'{tmp_path}/signs/train/dog/{name}.jpg' for name in ('gone', 1, 2)]
    assert list(pickle.loads(pickle.dumps(paths))) == list(paths)


def test_paths_of_existing_images_are_not_changed(tmp_path, monkeypatch):
    for root in ('signs', 'copy'):
        (tmp_path / root / 'train').mkdir(parents=True)
        (tmp_path / root / 'train/1.jpg').touch()
    monkeypatch.chdir(tmp_path)
    paths, _ = index.read(write(tmp_path / 'copy/train.txt', 'signs/train/1.jpg\t0\nsigns/train/gone.jpg\t0\n'), 1)
    assert list(paths) == ['signs/train/1.jpg', 'signs/train/gone.jpg']


@MANY
@given(st.lists(st.tuples(st.text(min_size=1, max_size=30), st.integers(0, 3)), min_size=1, max_size=20))
@example([('a\u2028b\x85c\x0bd \r e', 1), (' ', 0), ('猫/🐈.jpg', 3), ('"quoted", and more', 2)])
def test_a_name_that_scan_accepts_is_read_back(samples):
    accepted = [(name, label) for name, label in samples if not scan.name_problem(name)]
    if not accepted:
        return
    with tempfile.TemporaryDirectory() as folder:
        content = ''.join(f'{name}\t{label}\n' for name, label in accepted)
        paths, labels = index.read(write(Path(folder, 'train.txt'), content), 4)
    assert list(zip(paths, labels.tolist())) == accepted


@MANY
@given(st.binary(max_size=200) | st.text('ab/\t\r\n 0129-', max_size=60).map(str.encode))
@example(b'a.jpg\t1\r\nb.jpg\t0')
@example(b'a.jpg\t-1\n')
@example('a.jpg\t²\n'.encode())
@example('a.jpg\t٣\n'.encode())
def test_an_index_of_any_bytes_gives_samples_or_an_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, 'train.txt'), content)
        try:
            paths, labels = index.read(path, 3)
        except UserError as error:
            assert str(error).startswith(path) and 'annotate.py' in str(error)
        else:
            assert len(paths) == len(labels) > 0
            assert all(paths) and set(labels.tolist()) <= {0, 1, 2}
