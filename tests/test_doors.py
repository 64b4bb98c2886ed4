"""annotate.py, training, predict.py and serve.py accept the same files and see the same pixels.

Set ZODIAC_DATA to the folder with odd_images.zip to test a thousand collected odd files as well.
"""

import contextlib
import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_message, picture, run_script
from image_files import COLOUR, NAMED, SHADES, WRITTEN, ZOO, png16, pnm, private_tags, saved, turned

import config
from zodiac.base.errors import UserError
from zodiac.data import entry, inspection
from zodiac.images import decoding
from zodiac.inference import exported_model, image_batches

pytest.importorskip('fastapi', reason='requirements-serve.txt is not installed')
from fastapi.testclient import TestClient
from small_server import served

from dataset import ZodiacDataset
from zodiac.serving import application, uploads

ODD = Path(os.environ.get('ZODIAC_DATA', '')) / 'odd_images.zip'
SETTINGS = ['data.root=photos', 'data.labels=[cat,dog]', 'annotate.non_rgb=convert', 'image.size=24']


def second_frame_damaged():
    frames = [picture(number).quantize(8) for number in (1, 2)]
    whole = saved(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    return whole[: len(whole) // 2 + 40]


def wrong_byte():
    """A PNG with one wrong byte in its pixel data, as from a bad disk."""
    whole = bytearray(saved(picture(3, (160, 120)), 'PNG'))
    whole[whole.index(b'IDAT') + 40] ^= 0x55
    return bytes(whole)


MADE = {
    **ZOO,
    **NAMED,
    **{
        f'{name} {turn}': turned(name, turn)
        for name in WRITTEN
        if name != 'AVIF' or decoding.HAS_AVIF
        for turn in (3, 6)
    },
    'a wrong byte.png': wrong_byte(),
    'no end.png': saved(picture(1), 'PNG')[:-6],
    'second frame damaged.gif': second_frame_damaged(),
    '12 bits.png': png16(SHADES << 4),
    '12 bits in colour.png': png16(COLOUR << 4),
    'grey.pgm': pnm(SHADES, 4095),
    'colour.ppm': pnm(COLOUR, 255),
    'cut off.ppm': pnm(COLOUR, 255)[:-9],
    'tags.tif': private_tags(),
    'too many tags.tif': private_tags(2000),
    'cut off.avif': struct.pack('>I', 20) + b'ftypavif' + bytes(900),
}


@pytest.fixture(params=['made', 'odd'])
def files(request, workdir):
    """{path: bytes} of files below photos/cat; photos/dog has a few sound ones."""
    if request.param == 'made':
        found = {name: content if isinstance(content, bytes) else content() for name, content in MADE.items()}
    elif not os.environ.get('ZODIAC_DATA') or not ODD.is_file():
        pytest.skip('ZODIAC_DATA names no folder with odd_images.zip')
    else:
        with zipfile.ZipFile(ODD) as archive:
            found = {name: archive.read(name) for name in archive.namelist() if not name.endswith('/')}
    for name, content in found.items():
        path = Path('photos/cat', name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    Path('photos/dog').mkdir()
    for number in range(3):
        picture(100 + number).save(f'photos/dog/{number}.png')
    return {f'photos/cat/{name}': content for name, content in found.items()}


def accepted_by_annotate(paths):
    """The paths that annotate.py accepts, by its index files and its list of rejected files, which must agree."""
    result = run_script('annotate.py', '-o', *SETTINGS, cwd='.')
    assert_message(result, 0)
    lines = [line for line in result.stderr.splitlines() if line.strip('!')]
    assert [
        line for line in lines if not line.startswith(('WARNING: ', 'Each is listed'))
    ] == []  # no message of a library
    summary = json.loads(Path('photos/annotation.json').read_text(encoding='utf-8'))
    indexed = {
        line.split('\t')[0]
        for split in ('train', 'valid', 'test')
        for line in Path(f'photos/{split}.txt').read_text(encoding='utf-8').splitlines()
    }
    assert {path for path in paths if path in indexed} == set(paths) - {item['path'] for item in summary['rejected']}
    return indexed & set(paths)


def read_by_dataset(paths, reduced):
    """{path: its item in a dataset}, and the transform."""
    cfg = config.load(overrides=[*SETTINGS, f'data.reduced_decoding={str(reduced).lower()}'])
    Path('photos/train.txt').write_text(''.join(f'{path}\t0\n' for path in paths), encoding='utf-8')
    dataset = ZodiacDataset('train', augment=False, cfg=cfg)
    found = {}
    for number, path in enumerate(paths):
        with contextlib.suppress(UserError):
            found[path] = dataset[number][0]
    return found, dataset.transform


def read_by_predict(paths, transform):
    found = {}
    for good, batch, _ in image_batches.read(iter(paths), transform, 16):
        found.update(zip(good, batch))
    return found


def accepted_by_serve(files, groups, transform):
    """The paths that the server accepts, one request per group, and the inputs of its network, as bytes."""
    seen, taken = set(), set()

    def predict(batch):
        seen.update(image.tobytes() for image in batch)
        return np.full((len(batch), 2), 0.5, np.float32)

    limits = uploads.Limits(requests=4, images=16, body=1 << 26, total=1 << 28, pixels=decoding.MAX_PIXELS, seconds=60)
    model = exported_model.ExportedModel('photos', ['cat', 'dog'], transform, {}, predict)
    with TestClient(application.create(served(model, delay=0), limits)) as client:
        for group in groups:
            answer = client.post('/predict', files=[('file', ('a', files[path], 'image/jpeg')) for path in group])
            assert answer.status_code in (200, 413, 422), (group, answer.text)
            taken.update(group if answer.status_code == 200 else ())
    return taken, seen


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::RuntimeWarning')  # of Pillow, which the scripts ignore
def test_all_scripts_accept_the_same_files_and_see_the_same_pixels(files, capfd):
    paths = sorted(files)
    accepted = accepted_by_annotate(paths)
    assert len(paths) / 3 < len(accepted) < len(paths)
    for reduced in (False, True):
        trained, transform = read_by_dataset(paths, reduced)
        predicted = read_by_predict(paths, transform)
        assert accepted == set(trained) == set(predicted)
        assert [path for path in accepted if not np.array_equal(trained[path], predicted[path])] == []
    sound = sorted(accepted)
    together = [sound[start : start + 16] for start in range(0, len(sound), 16)]
    served, seen = accepted_by_serve(files, [*together, *([path] for path in paths if path not in accepted)], transform)
    assert served == accepted
    assert [path for path in sound if trained[path].tobytes() not in seen] == []
    for path in accepted:
        whole = np.asarray(decoding.decode(io.BytesIO(files[path])))
        digest = hashlib.sha256(whole).digest()[: entry.HASH_BYTES]
        for reduce in (False, True):
            found = inspection.inspect(path, True, reduce)
            assert found.verdict.reduced or entry.pixels(found.fingerprint) == digest, path
            assert entry.size(found.fingerprint) == whole.shape[1::-1], path
    assert capfd.readouterr().err == ''  # no message of a C library either
