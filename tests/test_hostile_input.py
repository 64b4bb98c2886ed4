"""Whatever lies in a folder or an index file: a message or a number, never a crash, and every file accounted for."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, assert_message, picture
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset import read_index
from zodiac.base.errors import UserError
from zodiac.data import scan
from zodiac.images import decoding

MANY = settings(max_examples=300, deadline=None, derandomize=True)
FORMATS = ('jpg', 'png', 'webp', 'bmp', 'gif', 'tiff')


@MANY
@given(st.lists(st.tuples(st.text(min_size=1, max_size=30), st.integers(0, 3)), min_size=1, max_size=20))
@example([('a\u2028b\x85c\x0bd \r e', 1), (' ', 0), ('猫/🐈.jpg', 3), ('"quoted", and more', 2)])
def test_a_name_that_annotate_accepts_comes_back_from_the_index(samples):
    accepted = [(name, label) for name, label in samples if not scan.name_problem(name)]
    if not accepted:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'train.txt')
        content = ''.join(f'{name}\t{label}\n' for name, label in accepted)
        Path(path).write_bytes(content.encode())
        paths, labels = read_index(path, 4)
    assert list(zip(paths, labels.tolist())) == accepted


@MANY
@given(st.binary(max_size=200) | st.text('ab/\t\r\n 0129-', max_size=60).map(str.encode))
@example(b'a.jpg\t1\r\nb.jpg\t0')
@example(b'a.jpg\t-1\n')
@example('a.jpg\t²\n'.encode())
@example('a.jpg\t٣\n'.encode())
def test_an_index_of_any_bytes_gives_samples_or_a_message(content):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'train.txt')
        Path(path).write_bytes(content)
        try:
            paths, labels = read_index(path, 3)
        except UserError as error:
            assert str(error).startswith(path) and 'annotate.py' in str(error)
        else:
            assert len(paths) == len(labels) > 0
            assert all(paths) and set(labels.tolist()) <= {0, 1, 2}


def damaged(content, rng):
    """Bytes of an image with one to eight changed, a part cut out, doubled or cut off, or replaced by noise."""
    content = bytearray(content)
    place = int(rng.integers(len(content)))
    length = int(rng.integers(1, 64))
    how = rng.integers(5)
    if how == 0:
        for _ in range(rng.integers(1, 9)):
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    elif how == 1:
        del content[place:]
    elif how == 2:
        del content[place : place + length]
    elif how == 3:
        content[place:place] = content[place : place + length]
    else:
        content[place : place + length] = rng.bytes(length)
    return bytes(content)


@pytest.mark.parametrize('rule', ['reject', 'convert'])
def test_of_a_thousand_damaged_images_each_is_in_the_index_or_among_the_rejected(workdir, call_script, rule):
    rng = np.random.default_rng(len(rule))
    whole = {}
    for suffix in FORMATS:
        picture(1, (24, 20)).save(f'whole.{suffix}')
        whole[suffix] = Path(f'whole.{suffix}').read_bytes()
    folder = Path('photos/cat')
    folder.mkdir(parents=True)
    for number in range(1000):
        suffix = FORMATS[number % len(FORMATS)]
        (folder / f'{number}.{suffix}').write_bytes(damaged(whole[suffix], rng))
    for number in range(10):
        (Path('photos/dog') / f'{number}.png').parent.mkdir(exist_ok=True)
        picture(100 + number).save(f'photos/dog/{number}.png')
    options = ['data.root=photos', 'data.labels=[cat,dog]', f'annotate.non_rgb={rule}', 'annotate.workers=1']
    assert_message(call_script('annotate.py', '-o', *options, cwd=workdir), 0)
    summary = json.loads(Path('photos/annotation.json').read_text(encoding='utf-8'))
    accepted = [path for split in ('train', 'valid', 'test') for path in read_index(f'photos/{split}.txt', 2)[0]]
    rejected = [entry['path'] for entry in summary['rejected']]
    everything = sorted(str(path) for path in Path('photos').rglob('*/*'))
    assert sorted(accepted + rejected) == everything
    assert 200 < len(rejected) < 1000  # some damage cannot be seen
    for path in accepted:
        assert decoding.decode(path).mode == 'RGB'


def test_only_the_decoders_of_photo_formats_are_ever_loaded(tmp_path):
    (tmp_path / 'a.jpg').write_text('no image')
    code = (
        'import sys; from zodiac.images import decoding\n'
        'try: decoding.decode(sys.argv[1])\n'
        'except decoding.ImageError: pass\n'
        "print(*sorted({'PIL.EpsImagePlugin', 'PIL.PdfImagePlugin', 'PIL.WmfImagePlugin'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, '-c', code, tmp_path / 'a.jpg'], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ''), done.stderr


def test_a_pipe_is_read_as_a_file_is(tmp_path):
    picture(0).save(tmp_path / 'a.png')
    os.mkfifo(tmp_path / 'pipe')
    writer = threading.Thread(target=lambda: (tmp_path / 'pipe').write_bytes((tmp_path / 'a.png').read_bytes()))
    writer.start()
    found = decoding.decode(str(tmp_path / 'pipe'))
    writer.join()
    assert np.array_equal(np.asarray(found), np.asarray(picture(0)))
