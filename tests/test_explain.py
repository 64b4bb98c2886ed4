"""zodiac explain: from a file of numbers to an explanation and a picture; its messages."""

import json

import numpy as np
import pytest
import small_export
from conftest import assert_message, picture
from PIL import Image

from zodiac.images import transforms

COMMAND = 'zodiac/commands/explain.py'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """(folder with infer/ and photos, predict: function of Programs' images -> probabilities)."""
    folder = tmp_path_factory.mktemp('explained')
    cfg, network = small_export.settings('image.resize=36'), small_export.network_of('cifarnet')
    small_export.write_sealed(folder / 'infer', network, cfg, with_onnx=False)
    for number in range(3):
        picture(number, (70 + 9 * number, 61)).save(folder / f'{number}.png')
    return folder


def numbers(folder, names, change):
    """{name: probabilities} of a program that changes the pixels before they are normalised."""
    cfg, network = small_export.settings('image.resize=36'), small_export.network_of('cifarnet')
    network.eval()
    transform = transforms.eval_transform(32, cfg.image.mean, cfg.image.std, 36)
    pixels = [change(transforms.read(transform[:-1], str(folder / name))) for name in names]
    batch = small_export.paddle.to_tensor(np.stack([transforms.apply(transform[-1:], one) for one in pixels]))
    values = network(batch).numpy().astype(np.float64)
    powers = np.exp(values - values.max(1, keepdims=True))
    return dict(zip(names, (powers / powers.sum(1, keepdims=True)).tolist()))


NAMES = ['0.png', '1.png', '2.png']


def test_a_mistake_is_named_and_shown(made, tmp_path, call_script):
    (tmp_path / 'theirs.json').write_text(json.dumps(numbers(made, NAMES, lambda pixels: pixels[..., ::-1])))
    result = call_script(
        COMMAND, made / 'infer', *(made / name for name in NAMES), '--theirs', 'theirs.json', cwd=tmp_path
    )
    assert_message(result, 0)
    assert 'BGR instead of RGB: your numbers match within' in result.stdout
    assert 'another JPEG decoder by up to' in result.stdout and 'written: explain.png' in result.stdout
    assert 'EXIF orientation ignored (would show on a photo with an EXIF orientation)' in result.stdout
    with Image.open(tmp_path / 'explain.png') as sheet:
        top = sheet.height - len(NAMES) * (224 + 20 + 16)
        left, right = (np.asarray(sheet.crop((x, top, x + 224, top + 224))) for x in (16, 256))
    assert np.array_equal(left, right[..., ::-1]) and left.std() > 10


def test_no_mistake_and_no_explanation(made, tmp_path, call_script):
    right = numbers(made, NAMES, lambda pixels: pixels)
    (tmp_path / 'right.json').write_text(json.dumps(right))
    photos = [made / name for name in NAMES]
    result = call_script(COMMAND, made / 'infer', *photos, '--theirs', 'right.json', '--out', 'x/y.jpg', cwd=tmp_path)
    assert_message(result, 0)
    assert 'No difference to explain' in result.stdout and (tmp_path / 'x/y.jpg').is_file()
    wrong = {name: np.random.default_rng(number).dirichlet([1] * 4).tolist() for number, name in enumerate(NAMES)}
    (tmp_path / 'wrong.json').write_text(json.dumps(wrong))
    result = call_script(COMMAND, made / 'infer', *photos, '--theirs', 'wrong.json', cwd=tmp_path)
    assert_message(result, 1, 'none of the', 'wrong.json')
    assert 'No explanation found. The closest:' in result.stdout


def test_the_output_of_predict_is_taken(made, tmp_path, call_script):
    photos = [made / name for name in NAMES]
    for how, name in (('--json', 'a.jsonl'), ('--csv', 'a.csv')):
        more = [how] if how == '--json' else [how, tmp_path / name]
        done = call_script(
            'predict.py', made / 'infer', *photos, '--top', '4', '--precision', 'fp32', *more, cwd=tmp_path
        )
        if how == '--json':
            (tmp_path / name).write_text(done.stdout)
        result = call_script(COMMAND, made / 'infer', *photos, '--theirs', name, cwd=tmp_path)
        assert_message(result, 0)
        assert 'No difference to explain' in result.stdout


def test_wrong_usage_and_wrong_files_are_named(made, tmp_path, call_script):
    (tmp_path / 'x.json').write_text('{"0.png": [1, 0, 0]}')
    (tmp_path / 'no.png').write_text('no image')
    cases = [
        ([made / 'infer', made / '0.png', '--theirs', 'x.json'], 1, '3 numbers, but the model has 4 classes'),
        ([made / 'infer', made / '0.png', '--theirs', 'none.json'], 1, 'none.json: cannot be read'),
        ([made / 'infer', made / '9.png', '--theirs', 'x.json'], 1, '9.png: no such file or folder'),
        ([made / 'infer', 'no.png', '--theirs', 'x.json'], 1, 'no entry for this photo: no.png'),
        ([made, made / '0.png', '--theirs', 'x.json'], 1, 'infer'),
        (
            [made / 'infer', made / '0.png', '--theirs', 'x.json', '--out', 'x.html'],
            2,
            '--out x.html: must end in .png',
        ),
        ([made / 'infer', made / '0.png'], 2, '--theirs'),
    ]
    for arguments, status, words in cases:
        assert_message(call_script(COMMAND, *arguments, cwd=tmp_path), status, words)
    assert not (tmp_path / 'explain.png').exists()
