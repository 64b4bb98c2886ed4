"""Inspection of single files: the same verdict as the notebook's own check, with every decoder, and the same pixels as in training."""

import multiprocessing
import os
import warnings

import numpy as np
import pytest
from conftest import picture
from image_files import BROKEN, LARGE, OTHER_MODES, RGB, ZOO, draw, exif, patched, saved
from PIL import Image

from zodiac.base.errors import UserError
from zodiac.data import entry, inspection
from zodiac.images import decoding


def notebook_accepts(path):
    """The notebook's own check: open with PIL, load(), mode == 'RGB'."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(path) as image:
                image.load()
                return image.mode == 'RGB'
        except Exception:
            return False


def test_the_same_files_are_accepted_as_by_the_notebook_and_all_sound_ones_with_convert(tmp_path, decoder):
    for name in ZOO:
        path = draw(name, tmp_path)
        default, converted = (inspection.inspect(path, convert) for convert in (False, True))
        assert notebook_accepts(path) == (default.reason == '') == (name in RGB), name
        if name in BROKEN:
            reasons = (
                {'too many pixels'} if 'bomb' in name else {'truncated or damaged', 'not an image', 'cannot be read'}
            )
            assert {default.reason, converted.reason} <= reasons, name
            assert default.fingerprint == converted.fingerprint == b'', name
            continue
        assert (converted.reason, converted.verdict.mode == 'RGB') == ('', name in RGB), name
        assert len(converted.fingerprint) == entry.FINGERPRINT.size, name
        if name in OTHER_MODES:
            with Image.open(path) as image:
                assert (default.reason, default.verdict.mode) == (f'mode {image.mode}', image.mode), name


def test_simplejpeg_does_not_change_the_result(tmp_path, monkeypatch):
    pytest.importorskip('simplejpeg')
    cases = [(draw(name, tmp_path), convert) for name in ZOO for convert in (False, True)]
    with_it = [inspection.inspect(*case)[:2] for case in cases]  # without the stamps, which depend on the time
    monkeypatch.setattr(inspection, 'simplejpeg', None)
    assert [case for case, found in zip(cases, with_it) if inspection.inspect(*case)[:2] != found] == []


def test_the_hash_is_that_of_the_pixels_in_training(tmp_path, decoder):
    for name in (*RGB, *OTHER_MODES):
        path = draw(name, tmp_path)
        pixels = entry.pixels(inspection.inspect(path, convert=True, reduce=False).fingerprint)
        image = decoding.decode(path)
        assert image.mode == 'RGB', name
        for copy in (tmp_path / 'copy.png', tmp_path / 'copy.bmp'):
            image.save(copy, compress_level=1)
            assert entry.pixels(inspection.inspect(copy, convert=True).fingerprint) == pixels, (name, copy.suffix)


def test_a_large_jpeg_is_decoded_at_reduced_size_and_its_full_upright_size_is_known(tmp_path, decoder):
    for name in (name for name in (*RGB, *OTHER_MODES) if name.endswith('.jpg')):
        path = draw(name, tmp_path)
        found = inspection.inspect(path, convert=True)
        width, height = decoding.decode(path).size
        assert entry.size(found.fingerprint) == (width, height), name
        assert found.verdict.reduced == (min(width, height) >= 54 and width * height >= 8192), name
        assert found.verdict.reduced or not name.startswith(('large', 'flat')), name
        assert not inspection.inspect(path, convert=True, reduce=False).verdict.reduced, name


def noisy(size):
    pixels = np.asarray(picture(1, size)) + np.random.default_rng(0).normal(0, 10, (size[1], size[0], 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    'options', [{}, {'progressive': True}, {'exif': exif()}, {'restart_marker_blocks': 5}], ids=str
)
def test_a_truncated_or_damaged_large_jpeg_is_judged_as_by_the_notebook(tmp_path, decoder, options):
    whole = saved(noisy(LARGE), 'JPEG', **options)
    path = tmp_path / 'a.jpg'
    rng = np.random.default_rng(0)
    cuts = [whole[:end] for end in [*range(len(whole) - 12, len(whole)), *rng.integers(2, len(whole), 30)]]
    flips = []
    for at, bit in zip(rng.integers(2, len(whole), 60).tolist(), rng.integers(0, 8, 60).tolist()):
        flips.append(patched(whole, at, bytes([whole[at] ^ 1 << bit])))
    for number, data in enumerate([whole, *cuts, *flips]):
        path.write_bytes(data)
        assert (inspection.inspect(path, False).reason == '') == notebook_accepts(path), number


def test_a_missing_file_and_a_folder_are_rejected_with_the_message_of_the_system(tmp_path):
    for path in (tmp_path / 'gone.jpg', tmp_path):
        found = inspection.inspect(path, convert=False)
        assert found.reason == 'cannot be read'
        assert found.verdict.detail


def test_two_processes_give_the_same_results_in_the_same_order(tmp_path):
    names = [draw(name, tmp_path) for name in ZOO]
    one, two = (
        [found[:2] for found in inspection.inspect_all(names, True, workers)] for workers in (1, 2)
    )  # no stamps
    assert two == one
    assert len(one) == len(names)


@pytest.mark.skipif(multiprocessing.get_start_method() != 'fork', reason='the fault is injected by forking')
def test_a_killed_decoding_process_ends_the_run_with_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, '_inspect_any', lambda *given: os._exit(9))
    with pytest.raises(UserError, match=r'annotate\.workers=1'):
        list(inspection.inspect_all([draw('plain.png', tmp_path)] * 4, True, 2))
