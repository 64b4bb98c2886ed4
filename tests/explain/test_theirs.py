"""The numbers of other programs are read in the forms that people have; anything else is named, with its place."""

import json

import numpy as np
import pytest

from zodiac.base.errors import UserError
from zodiac.explain import theirs

PHOTOS, LABELS = ['photos/a.jpg', 'photos/b.jpg'], ['cat', 'dog', '猫']
ROWS = [[0.1, 0.7, 0.2], [0.6, 0.25, 0.15]]
BY_CLASS = [dict(zip(LABELS, row)) for row in ROWS]
TOP = []
for row in BY_CLASS:
    ranked = [{'label': label, 'probability': row[label]} for label in sorted(row, key=row.get, reverse=True)]
    TOP.append({**ranked[0], 'top': ranked, 'engine': 'paddle', 'precision': 'fp32'})
WHOLE = {
    'lists by path': json.dumps(dict(zip(PHOTOS, ROWS))),
    'lists by name, in another order': json.dumps({'b.jpg': ROWS[1], 'a.jpg': ROWS[0], 'c.jpg': [1, 0, 0]}),
    'classes by path': json.dumps(dict(zip(PHOTOS, BY_CLASS)), ensure_ascii=False),
    'class numbers by path': json.dumps({path: dict(enumerate(row)) for path, row in zip(PHOTOS, ROWS)}),
    'lists in order': json.dumps(ROWS),
    'classes in order': json.dumps(BY_CLASS),
    'objects with a path': json.dumps([{'file': path, 'probabilities': row} for path, row in zip(PHOTOS, ROWS)]),
    'predict.py --json --top 3': '\n'.join(json.dumps({'path': path, **top}) for path, top in zip(PHOTOS, TOP)),
    'serve.py': json.dumps({'predictions': TOP}),
    'JSON lines in order': '\n'.join(map(json.dumps, ROWS)),
    'predict.py --csv --top 3': 'path,label,probability,label2,probability2,label3,probability3\n'
    'photos/a.jpg,dog,0.7,猫,0.2,cat,0.1\nphotos/b.jpg,cat,0.6,dog,0.25,猫,0.15\n',
    'a column per class': 'file,dog,cat,猫\na.jpg,0.7,0.1,0.2\nb.jpg,0.25,0.6,0.15\n',
    'a column per class, in order': '\ufeffcat;dog;猫\r\n0.1;0.7;0.2\r\n0.6;0.25;0.15\r\n',
    'numbers alone': '0.1,0.7,0.2\n0.6,0.25,0.15\n',
    'windows paths': 'path\tcat\tdog\t猫\n.\\photos\\b.jpg\t0.6\t0.25\t0.15\nphotos\\a.jpg\t0.1\t0.7\t0.2\n',
}


def write(tmp_path, content, name='numbers.json'):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode('utf-8'))
    return str(path)


@pytest.mark.parametrize('form', WHOLE)
def test_numbers_of_all_classes(tmp_path, form):
    found = theirs.read(write(tmp_path, WHOLE[form]), PHOTOS, LABELS)
    assert found.values.tolist() == ROWS and found.best.tolist() == [1, 0] and not found.only_labels
    assert found.rounding.max() == pytest.approx(0.005)


@pytest.mark.parametrize(
    'content',
    [
        '{"photos/a.jpg": "dog", "photos/b.jpg": "cat"}',
        '{"photos/a.jpg": 1, "photos/b.jpg": 0}',
        '["dog", "cat"]',
        '[{"path": "b.jpg", "label": "cat"}, {"path": "a.jpg", "label": "dog"}]',
        'path,label\na.jpg,dog\nb.jpg,cat\n',
    ],
)
def test_classes_alone(tmp_path, content):
    found = theirs.read(write(tmp_path, content), PHOTOS, LABELS)
    assert found.only_labels and found.best.tolist() == [1, 0]


def test_some_classes(tmp_path):
    found = theirs.read(write(tmp_path, json.dumps([{'dog': 0.7}, {'cat': 0.6, 'dog': 0.25}])), PHOTOS, LABELS)
    assert np.isnan(found.values).tolist() == [[True, False, True], [False, False, True]]
    assert found.best.tolist() == [1, 0]


@pytest.mark.parametrize(
    'content', ['[0.1, 0.7, 0.2]', '{"cat": 0.1, "dog": 0.7, "猫": 0.2}', '{"a.jpg": [0.1, 0.7, 0.2]}']
)
def test_a_single_photo(tmp_path, content):
    assert theirs.read(write(tmp_path, content), PHOTOS[:1], LABELS).values.tolist() == ROWS[:1]


def test_numpy_files(tmp_path):
    np.save(tmp_path / 'a.npy', np.array(ROWS, np.float32))
    np.savez(tmp_path / 'b.npz', paths=PHOTOS[::-1], probabilities=ROWS[::-1])
    np.savez(tmp_path / 'c.npz', ROWS)
    for name in ('a.npy', 'b.npz', 'c.npz'):
        assert theirs.read(str(tmp_path / name), PHOTOS, LABELS).values == pytest.approx(np.array(ROWS)), name


def test_the_rounding_is_that_of_the_digits_that_are_written(tmp_path):
    def rounding(text):
        return theirs.read(write(tmp_path, f'[{text}]'), PHOTOS[:1], LABELS).rounding[0].tolist()

    assert rounding('0.5, 0.4999, 0.0001') == pytest.approx([5e-5, 5e-5, 5e-5])
    assert rounding('0.9997, 0.0003000, 1.234e-08') == pytest.approx([5e-5, 5e-8, 1e-7], rel=1)
    assert max(rounding('0.123456789012, 0.5, 0.376543210988')) < 1e-6


WRONG = {
    '': 'is empty',
    '{"a.jpg": [0.1, 0.7': 'line 1: is not valid JSON',
    '{"a.jpg": [0.1, 0.7, 0.2]}': 'no entry for this photo: photos/b.jpg',
    '[[0.1, 0.7, 0.2]]': 'numbers of 1 photos without their names, but 2 photos',
    '[[0.1, 0.9], [0.5, 0.5]]': 'entry 0: 2 numbers, but the model has 3 classes',
    '[[0.1, 0.7, "x"], [1, 0, 0]]': "entry 0: 'x' is not a number",
    '[[0.1, NaN, 0.2], [1, 0, 0]]': 'entry 0: nan among the numbers',
    '[[0.1, true, 0.2], [1, 0, 0]]': 'entry 0: True is not a number',
    '["horse", "cat"]': "entry 0: 'horse' is no class of this model; its classes are cat, dog, 猫",
    '[null, null]': 'entry 0: NoneType is neither numbers nor a class',
    '[{}, {}]': 'entry 0: no numbers',
    '[]': 'numbers of 0 photos',
    '{"x/a.jpg": "cat", "y/a.jpg": "dog", "b.jpg": "cat"}': 'several entries of that name: photos/a.jpg',
    'path,cat,dog,猫\na.jpg,0.1,0.7\n': 'line 2: 3 columns, but the first line has 4',
    'path,cat,dog,猫\na.jpg,0.1,?,0.2\n': "line 2, column dog: '?' is not a number",
    'path,cat,dog,猫\na.jpg,0.1,0.7,0.2\na.jpg,0.1,0.7,0.2\n': 'line 3: a.jpg is there twice',
    'hello\nworld\n': "line 1: only one column, 'hello'",
    '{"a.jpg": [1, 0, 0]}\n{"b.jpg": oh}': 'line 2: is not valid JSON',
    b'\xff\xfe\x00': 'is not text',
    b'\x93NUMPY\x01\x00broken': 'cannot be read',
    '[' * 100000: 'is not valid JSON',
}  # fmt: skip


@pytest.mark.parametrize('content', WRONG, ids=lambda content: repr(content)[:40])
def test_anything_else_is_named_with_its_place(tmp_path, content):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as raised:
        theirs.read(path, PHOTOS, LABELS)
    assert WRONG[content] in str(raised.value) and path in str(raised.value)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / 'evil.npy', np.array([print, 1], object), allow_pickle=True)
    with pytest.raises(UserError, match='cannot be read'):
        theirs.read(str(tmp_path / 'evil.npy'), PHOTOS, LABELS)
    np.save(tmp_path / 'other.npy', np.zeros((2, 2, 2)))
    with pytest.raises(UserError, match='must be|must have'):
        theirs.read(str(tmp_path / 'other.npy'), PHOTOS, LABELS)
    with pytest.raises(UserError, match='cannot be read'):
        theirs.read(str(tmp_path / 'none.npy'), PHOTOS, LABELS)
