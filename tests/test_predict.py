"""predict.py: every path is classified or reported as an error, in bounded memory, and the output can be parsed."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT, assert_message, picture
from PIL import Image

import predict
from zodiac.base import files
from zodiac.data import inspection, scan
from zodiac.images import transforms
from zodiac.inference import exported_model, image_batches, sorting

LABELS = ['cat', 'dog', '猫']
TRANSFORM = transforms.eval_transform(8, [0.5] * 3, [0.25] * 3, 'squash')


@pytest.fixture
def model(monkeypatch):
    """A model that calls every image a dog; its folder is not read."""
    exported = exported_model.ExportedModel(
        'small', LABELS, TRANSFORM, {}, lambda batch: np.tile([0.2, 0.5, 0.3], (len(batch), 1))
    )
    monkeypatch.setattr(exported_model, 'load', lambda *_: exported)
    return exported


@pytest.fixture
def ask(call_script, tmp_path, model):
    return lambda *arguments: call_script('predict.py', 'infer', *arguments, cwd=tmp_path)


@pytest.fixture
def pipe(tmp_path):
    """A pipe without a writer; one opens it after ten seconds, so that a test fails instead of hanging."""
    (tmp_path / 'photos').mkdir(exist_ok=True)
    path = tmp_path / 'photos' / 'pipe.jpg'
    os.mkfifo(path)

    def release():
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(10, release)
    timer.start()
    yield path
    timer.cancel()


def draw(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else name.encode()), 'wb') as file:
            picture(number).save(file, 'PNG')


def paths_of(result):
    return [line.split('\t')[0] for line in result.stdout.splitlines()]


def test_a_pipe_in_a_folder_is_an_error_and_does_not_block(ask, tmp_path, pipe):
    draw(tmp_path / 'photos', 'a.png', 'z.png')
    result = ask('photos')
    assert_message(result, 1, 'photos/pipe.jpg: not a file', '1 of 3')
    assert paths_of(result) == ['photos/a.png', 'photos/z.png']


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # Pillow does not close it
def test_a_pipe_that_is_named_is_read(ask, tmp_path, pipe):
    content = io.BytesIO()
    picture(0).save(content, 'JPEG')
    writer = threading.Thread(target=lambda: pipe.write_bytes(content.getvalue()))
    writer.start()
    result = ask('photos/pipe.jpg')
    writer.join()
    assert_message(result, 0)
    assert paths_of(result) == ['photos/pipe.jpg']


def test_linked_folders_are_searched_once_and_loops_end(ask, tmp_path):
    draw(tmp_path / 'elsewhere', 'b.png')
    draw(tmp_path / 'photos' / 'inner', 'a.png')
    (tmp_path / 'photos' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'photos' / 'link2').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'photos' / 'inner' / 'up').symlink_to('..')
    result = ask('photos')
    assert_message(result, 0)
    assert paths_of(result) == ['photos/inner/a.png', 'photos/link/b.png']


def test_predict_and_annotate_find_the_same_images_in_a_folder(ask, tmp_path):
    folder = tmp_path / 'photos' / 'cat'
    draw(folder, 'a.jpg', 'b.JFIF', 'c.jpe', 'no suffix', 'e.png.part', '猫.dat')
    draw(tmp_path / 'elsewhere', 'linked.jfif')
    (folder / 'more').symlink_to(tmp_path / 'elsewhere')
    (folder / 'up').symlink_to('..')
    for name, content in (('README', b'text'), ('labels.csv', b'a,b'), ('empty', b''), ('.hidden.png', b'text')):
        (folder / name).write_bytes(content)
    result = ask('photos')
    assert_message(result, 0, 'photos: skipped 3 other files, not images, for example photos/cat/README')
    tree = scan.scan(str(tmp_path / 'photos'), ['cat', 'dog'], 'stop')
    accepted = [entry.path for entry in tree.entries if not inspection.inspect(entry.path, True).reason]
    assert len(accepted) == 7
    assert paths_of(result) == [os.path.relpath(path, tmp_path) for path in accepted]


def test_a_folder_that_cannot_be_read_is_reported_and_counted(ask, tmp_path, monkeypatch):
    draw(tmp_path / 'photos' / 'a', 'a.png')
    draw(tmp_path / 'photos' / 'b', 'b.png')
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('/a'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    result = ask('photos')
    assert_message(result, 1, 'photos/a: cannot be read (Permission denied)', '1 of 2')
    assert paths_of(result) == ['photos/b/b.png']


def test_an_empty_folder_among_others_is_one_error_beside_the_results(ask, tmp_path):
    draw(tmp_path / 'photos', 'a.png')
    (tmp_path / 'empty').mkdir()
    result = ask('photos', 'empty', 'photos', '--csv', 'a.csv')
    assert_message(result, 1, 'empty: no images in this folder', '1 of 3')
    with open(tmp_path / 'a.csv', encoding='utf-8', newline='') as file:
        assert [row['path'] for row in csv.DictReader(file)] == ['photos/a.png'] * 2


ODD = ['tab\there.png', 'lf\n.png', 'cr\r.png', '\x1b[31mred.png', 'c1\x9b.png', ' a,"b" 猫.png', b'latin\xe9.png']


def test_any_file_name_gives_one_line_without_control_characters(ask, tmp_path):
    draw(tmp_path / 'photos', *ODD)
    (tmp_path / 'photos' / 'bad\x1b[2J\n.png').write_text('text')
    result = ask('photos')
    lines = result.stdout.split('\n')
    assert lines.pop() == '' and len(lines) == len(ODD)
    assert all(line.count('\t') == 2 for line in lines)
    assert 'photos/tab\\there.png\tdog\t0.5000' in lines and 'photos/\\x1b[31mred.png\tdog\t0.5000' in lines
    assert not any(ord(letter) < 32 and letter not in '\n\t\r' for letter in result.stdout + result.stderr)
    assert 'error: photos/bad\\x1b[2J\\n.png: not an image' in result.stderr


def test_csv_contains_names_unescaped(ask, tmp_path):
    draw(tmp_path / 'photos', *ODD)
    names = {os.path.join('photos', name) for name in os.listdir(tmp_path / 'photos')}
    assert_message(ask('photos', '--csv', 'a.csv'), 0)
    with open(tmp_path / 'a.csv', encoding='utf-8', newline='') as file:
        rows = [row['path'] for row in csv.DictReader(file)]
    # except bytes that are not UTF-8
    assert set(rows) == {name.encode('utf-8', 'backslashreplace').decode() for name in names}


@pytest.mark.parametrize('encoding', ['utf-8', 'latin-1', 'ascii', 'utf-16'])
def test_json_is_valid_in_any_output_encoding(monkeypatch, model, encoding):
    for name in (*ODD, 'é😀.png'):
        name = os.fsdecode(name)
        shown = io.BytesIO()
        monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(shown, encoding, errors='backslashreplace'))
        answer = exported_model.Answer(np.array([0.2, 0.3, 0.5]))
        print(predict.as_json((name, [('猫', 0.5)], answer, model)))
        sys.stdout.flush()
        record = json.loads(shown.getvalue().decode(encoding))
        assert (record['path'], record['label']) == (name, '猫')
        assert ('猫' in shown.getvalue().decode(encoding)) == (encoding == 'utf-8')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--csv', 'a.csv', '--json'], ['--json', 'not allowed with']),
        (['--top', 'abc'], ['--top', "1 or more, not 'abc'"]),
        (['--top', '0'], ['--top', '1 or more']),
        (['--batch-size', '²'], ['--batch-size', '1 or more']),
        (['--device', 'gpu:x'], ['--device gpu:x', 'gpu:N']),
        (['--device', 'foo', '--engine', 'onnxruntime'], ['--device foo', 'gpu:N']),
    ],
)
def test_a_wrong_command_line_is_reported_before_the_work(ask, tmp_path, monkeypatch, options, words):
    draw(tmp_path, 'a.png')
    monkeypatch.setattr(exported_model, 'load', lambda *_: pytest.fail('the work must not begin'))
    result = ask('a.png', *options)
    assert_message(result, 2, *words)
    assert '_positive' not in result.stderr and not (tmp_path / 'a.csv').exists()


def test_a_csv_file_that_cannot_be_written_is_reported_before_the_work(ask, tmp_path, monkeypatch):
    draw(tmp_path, 'a.png')
    (tmp_path / 'folder').mkdir()
    monkeypatch.setattr(exported_model, 'load', lambda *_: pytest.fail('the work must not begin'))
    assert_message(ask('a.png', '--csv', 'folder'), 1, 'folder: cannot write (Is a directory)')
    assert_message(ask('a.png', '--csv', 'a.png/b.csv'), 1, 'a.png/b.csv: cannot write')


def test_csv_into_a_device_does_not_replace_it(ask, tmp_path, monkeypatch):
    draw(tmp_path, 'a.png')
    monkeypatch.setattr(files.os, 'replace', lambda *_: pytest.fail('would replace the device'))
    result = ask('a.png', '--csv', '/dev/null')
    assert_message(result, 0)
    assert result.stdout == ''  # with /dev/stdout it would be part of the CSV


STOPPED = """
import os, signal, sys
import numpy as np
import predict
from zodiac.base import errors; from zodiac.images import transforms; from zodiac.inference import exported_model

batches = []

def answer(batch):
    batches.append(len(batch))
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return np.tile([0.2, 0.8], (len(batch), 1))

squash = transforms.eval_transform(8, [0.5] * 3, [0.25] * 3, 'squash')
exported_model.load = lambda *_: exported_model.ExportedModel('small', ['cat', 'dog'], squash, {}, answer)
errors.run(predict.main)
"""


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_ctrl_c_ends_with_130_and_keeps_only_an_older_csv_file(tmp_path):
    draw(tmp_path / 'photos', *(f'{number}.png' for number in range(9)))
    (tmp_path / 'old.csv').write_text('old')
    before = sorted(os.listdir(tmp_path))
    for name in ('new.csv', 'old.csv'):
        command = [sys.executable, '-c', STOPPED, 'infer', 'photos', '--batch-size', '2', '--csv', name]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (130, '', 'interrupted\n')
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / 'old.csv').read_text() == 'old'


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='reads the memory of the process from /proc')
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """300 images with 5.4 GB of pixels, 180 MB after the transform; the network is slower than the decoders."""
    Image.new('RGB', (3000, 2000), (90, 120, 30)).save(tmp_path / '0.jpg')
    for number in range(1, 300):
        os.link(tmp_path / '0.jpg', tmp_path / f'{number}.jpg')
    transform = transforms.eval_transform(224, [0.5] * 3, [0.25] * 3, reduced=True)
    before, read = resident(), 0
    for paths, _, errors in image_batches.read(image_batches.find([str(tmp_path)], print), transform, 4):
        time.sleep(0.04)
        read += len(paths)
        assert not errors
        assert resident() - before < 60e6
    assert read == 300


def resident():
    """Resident memory of this process in bytes."""
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def test_photos_are_copied_into_folders_of_their_classes_and_nothing_is_overwritten(ask, tmp_path):
    draw(tmp_path / 'photos', 'a.png', 'b.png')
    draw(tmp_path / 'more', 'x.png', 'a.png')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.png')}
    result = ask('photos', 'more', '--sort-into', 'sorted')
    assert_message(result, 0, 'copied into sorted/: 4, already there: 0')
    assert sorted(os.listdir(tmp_path / 'sorted/dog')) == ['a (2).png', 'a.png', 'b.png', 'x.png']
    assert_message(ask('photos', 'more', '--sort-into', 'sorted'), 0, 'copied into sorted/: 0, already there: 4')
    assert len(os.listdir(tmp_path / 'sorted/dog')) == 4
    assert all(path.read_bytes() == content for path, content in before.items())
    assert_message(ask('photos', '--sort-into', 'photos/sorted'), 2, 'must not be inside photos')


def test_features_are_written_with_their_paths_in_one_piece(ask, tmp_path, model):
    draw(tmp_path / 'photos', 'a.png', 'b.png', '猫.png')
    (tmp_path / 'photos/broken.jpg').write_bytes(b'x')
    assert_message(ask('photos', '--features', 'f.npz'), 1, '--features: the model in', 'export.features=true')
    assert not (tmp_path / 'f.npz').exists()
    model.has_features = model.has_logits = True
    model.outputs = lambda batch: {'logits': batch.mean((2, 3)), 'features': batch.reshape(len(batch), -1)[:, :7]}
    assert_message(
        ask('photos', '--features', 'f.npz', '--batch-size', '2'), 1, 'features of 3 images: f.npz', '1 of 4'
    )
    with np.load(tmp_path / 'f.npz', allow_pickle=False) as found:
        assert found['paths'].tolist() == ['photos/a.png', 'photos/b.png', 'photos/猫.png']
        assert (found['features'].shape, found['features'].dtype) == ((3, 7), np.float32)
        image = transforms.read(TRANSFORM, str(tmp_path / 'photos/b.png'))
        assert np.array_equal(found['features'][1], image.reshape(-1)[:7])
    before = (tmp_path / 'f.npz').read_bytes()
    assert_message(ask('photos/broken.jpg', '--features', 'f.npz'), 1, '1 of 1')
    assert (tmp_path / 'f.npz').read_bytes() == before
    assert_message(ask('photos', '--features', 'photos'), 1, 'photos: cannot write')


@pytest.mark.parametrize('label', ['..', 'a/b', ''])
def test_a_label_that_is_no_folder_name_stays_inside(tmp_path, label):
    draw(tmp_path, 'a.png')
    sorting.copy_into(str(tmp_path / 'sorted'), label, str(tmp_path / 'a.png'))
    (folder,) = (tmp_path / 'sorted').iterdir()
    assert os.listdir(folder) == ['a.png']
