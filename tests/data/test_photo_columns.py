"""Columns of a table of photos, for evaluate.py --slices."""

import pytest

from zodiac.base.errors import UserError
from zodiac.data import photo_columns

PATHS = ['photos/a/1.jpg', 'photos/a/2.jpg', 'photos/猫/3.jpg']


def read(path, content, said=None):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = photo_columns.read(str(path))
    return photo_columns.of_photos(table, PATHS, 'photos', (said if said is not None else []).append)


@pytest.mark.parametrize('root', ['photos/', ''])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_paths_are_those_of_the_index_or_relative_to_the_photos(tmp_path, separator, root):
    rows = [('path', 'camera', 'iso'), (f'{root}a/1.jpg', 'x', '100'), (f'{root}猫/3.jpg', 'y', '')]
    said = []
    found = read(tmp_path / 'table.csv', ''.join(separator.join(row) + '\r\n' for row in rows), said)
    assert found == {'camera': ['x', '', 'y'], 'iso': ['100', '', '']}
    assert said == [f'--slices {tmp_path}/table.csv: has 2 of the 3 photos']


def test_absolute_paths_gbk_and_rows_of_other_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ['path,相机', f'{tmp_path}/photos/猫/3.jpg,尼康', 'photos/other.jpg,佳能', '']
    said = []
    found = read(tmp_path / 'table.csv', '\n'.join(rows).encode('gbk'), said)
    assert found == {'相机': ['', '', '尼康']}
    assert '1 of 2 rows name none of the photos, such as photos/other.jpg' in said[0]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('', 'the list is empty'),
        ('[{"path": 1}]', 'is JSON, not a table'),
        ('camera,iso\nx,1\n', 'one of them path'),
        ('path\na/1.jpg\n', 'one of them path'),
        ('path,a,a\na/1.jpg,1,2\n', 'one of them path'),
        ('path,camera\nother.jpg,x\n', 'names none of the 3 photos, such as other.jpg'),
        ('path,camera\na/1.jpg,x,y\n', 'line 2: 3 columns, but the first line has 2'),
        ('path,camera\na/1.jpg,x\nphotos/a/1.jpg,y\n', 'line 3: photos/a/1.jpg is named twice'),
        ('path,camera\n"a/1.jpg,x\n', 'cannot be read'),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(tmp_path, content, words):
    with pytest.raises(UserError) as raised:
        read(tmp_path / 'table.csv', content)
    assert 'table.csv' in str(raised.value) and words in str(raised.value)


def test_a_missing_table_is_named():
    with pytest.raises(UserError, match='--slices gone.csv: no such file'):
        photo_columns.read('gone.csv')
