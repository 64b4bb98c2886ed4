"""The page of export.web=true in a real browser, with the runtime that ZODIAC_ORT_WEB names (as export.web_runtime does)."""

import os
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, THEMES, picture, require_accessible
from small_export import LABELS, ONNX, network_of, settings, write, write_sealed

import export
import zodiac
from zodiac.inference import export_folder
from zodiac.training import rejection
from zodiac.web import folder as web
from zodiac.web import runtime

sys.path.append(str(ROOT / 'benchmarks'))
from served import ASK, static

sync_api = pytest.importorskip('playwright.sync_api', reason='requirements-dev.txt is not installed')
RUNTIME = os.environ.get('ZODIAC_ORT_WEB')
pytestmark = [ONNX, pytest.mark.skipif(not RUNTIME, reason='ZODIAC_ORT_WEB does not name onnxruntime-web')]


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """An export with a page, and reject.keep; the threshold is between the scores of its photos."""
    folder = tmp_path_factory.mktemp('page')
    network = network_of('small')
    network.eval()
    cfg = settings('reject.keep=0.9')
    plain = folder / 'plain'
    write(plain, network, settings('export.features=true'))
    images = [picture(number) for number in range(40)]
    features = np.stack(
        [one.features for one in zodiac.load(str(plain), engine='onnxruntime').predict(images, features=True)]
    )
    labels = np.arange(40) % 4
    held = rejection.over_folds([features], labels, 4)
    found, _ = rejection.calibrate(rejection.reference(features, labels), held, 0.5, 0.9, 'lac')
    manifest = write_sealed(folder / 'infer', network, cfg, ['paddle', 'onnxruntime'], rejection=found)
    export.add_page(manifest, str(folder / 'infer'), *runtime.read(RUNTIME))
    export_folder.write_manifest(folder / 'infer', manifest)
    return folder / 'infer'


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """PNG photos: large, small, long, grey, and with transparent parts."""
    folder = tmp_path_factory.mktemp('photos')
    images = [
        picture(number, size) for number, size in enumerate([(300, 200), (48, 40), (333, 97), (32, 32), (64, 63)])
    ]
    images.append(picture(5, (90, 60), 'L'))
    clear = picture(6, (90, 60)).convert('RGBA')
    clear.putalpha(picture(7, (90, 60), 'L'))
    for number, image in enumerate([*images, clear]):
        image.save(folder / f'{number}.png')
    return sorted(folder.iterdir())


def choose(page, path):
    page.set_input_files('#file', str(path))
    sync_api.expect(page.locator('#message')).not_to_contain_text('Classifying', timeout=30_000)
    return page.inner_text('#message')


def test_the_page_answers_as_predict_py_does(exported, photos, page_of):
    expected = zodiac.load(str(exported), engine='onnxruntime', precision='fp32').predict(photos)
    with static(exported / 'web') as (address, more, _):
        page = page_of(address)
        for number, (path, one) in enumerate(zip(photos, expected)):
            more[str(number)] = str(path)
            answer = page.evaluate(ASK, str(number))
            assert [guess['label'] for guess in answer['top']] == [label for label, _ in one.top]
            np.testing.assert_allclose(
                [guess['probability'] for guess in answer['top']], [share for _, share in one.top], atol=1e-3
            )
            assert answer['score'] == pytest.approx(one.score, abs=0.02)
            assert (answer['known'], answer['set']) == (one.known, one.set)
            assert answer['engine'] == 'wasm'
        assert {one.known for one in expected} == {True, False}


def test_the_page_says_what_it_found_and_works_without_its_server(exported, photos, page_of, tmp_path):
    (tmp_path / 'note.txt').write_text('hello')
    (tmp_path / 'cut.png').write_bytes(photos[0].read_bytes()[:90])
    (tmp_path / 'a.heic').write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(100))
    (tmp_path / 'a.psd').write_bytes(b'8BPS' + bytes(100))
    one = zodiac.load(str(exported), engine='onnxruntime', precision='fp32').predict([photos[0]])[0]
    with static(exported / 'web') as (address, _, stop):
        page = page_of(address)
        said = choose(page, photos[0])
        assert one.label in said and said.endswith(' ms.')
        assert page.locator('#guesses .name').all_inner_texts() == [label for label, _ in one.top]
        for name, words in {
            'note.txt': 'not a readable',
            'cut.png': 'damaged',
            'a.heic': 'HEIC',
            'a.psd': 'not read',
        }.items():
            assert words in choose(page, tmp_path / name), name
        assert not page.is_visible('#result')

        page.wait_for_selector('#offline:not([hidden])')
        stop()
        page.reload()
        assert one.label in choose(page, photos[0])
        assert page.evaluate('crossOriginIsolated')


def test_a_newer_export_replaces_the_page_that_the_browser_kept(exported, page_of, tmp_path):
    infer = shutil.copytree(exported, tmp_path / 'infer')
    with static(infer / 'web') as (address, _, _):
        page = page_of(address)
        page.wait_for_selector('#offline:not([hidden])')
        shutil.rmtree(infer / 'web')
        manifest = {**export_folder.read_manifest(infer), 'labels': ['new', *LABELS[1:]]}
        web.write(str(infer / 'web'), manifest, runtime.read(RUNTIME)[0])
        page.reload()
        sync_api.expect(page.locator('.classes')).to_contain_text('new', timeout=30_000)


def test_pixels_as_input_and_no_rejection_work_too(photos, page_of, tmp_path):
    network = network_of('small')
    network.eval()
    cfg = settings('export.preprocess=true', 'export.softmax=false')
    manifest = write_sealed(tmp_path / 'infer', network, cfg, ['paddle', 'onnxruntime'])
    export.add_page(manifest, str(tmp_path / 'infer'), *runtime.read(RUNTIME))
    export_folder.write_manifest(tmp_path / 'infer', manifest)
    expected = zodiac.load(str(tmp_path / 'infer'), engine='onnxruntime', precision='fp32').predict([photos[0]])[0]
    with static(tmp_path / 'infer/web') as (address, more, _):
        more['0'] = str(photos[0])
        answer = page_of(address).evaluate(ASK, '0')
    assert {guess['label']: pytest.approx(guess['probability'], abs=1e-3) for guess in answer['top']} == dict(
        expected.top
    )
    assert 'known' not in answer


def test_a_page_that_cannot_load_its_model_says_so(exported, photos, page_of, tmp_path):
    web = shutil.copytree(exported / 'web', tmp_path / 'web')
    (web / 'model.onnx').unlink()
    with static(web) as (address, _, _):
        page = page_of(address)
        page.wait_for_selector('#message.bad')
        assert 'could not be loaded' in choose(page, photos[0])
        assert not page.is_visible('#loading')


def test_the_page_from_a_file_says_that_it_needs_a_server(exported, page_of):
    page = page_of((exported / 'web/index.html').as_uri())
    assert 'python -m http.server' in page.inner_text('#from-file')
    assert not page.is_visible('main')


@pytest.mark.parametrize('theme', THEMES)
def test_the_page_is_accessible(exported, photos, page_of, theme):
    with static(exported / 'web') as (address, _, _):
        page = page_of(address, color_scheme=theme)
        choose(page, photos[0])
        page.evaluate("$('camera').hidden = $('loading').hidden = false")
        require_accessible(page)


def test_a_picture_of_the_camera_is_classified(exported, browser):
    with static(exported / 'web') as (address, _, _):
        context = browser.new_context(permissions=['camera'])
        page = context.new_page()
        page.goto(address)
        page.evaluate(
            """() => {
                const canvas = document.createElement('canvas');
                setInterval(() => canvas.getContext('2d').fillRect(0, 0, 90 * Math.random(), 90), 50);
                media.getUserMedia = async () => canvas.captureStream();
            }"""
        )
        page.click('#open')
        sync_api.expect(page.locator('#view')).to_have_js_property('videoWidth', 300)
        page.click('#take')
        page.wait_for_selector('#guesses li')
        assert page.locator('#guesses li').count() == len(LABELS)
        page.click('#close')
        assert page.evaluate('document.activeElement.id') == 'open' and not page.is_visible('#view')
        context.close()


def test_a_camera_that_is_refused_is_said(exported, page_of):
    with static(exported / 'web') as (address, _, _):
        page = page_of(address)
        page.click('#open')
        page.wait_for_selector('#message.bad')
        assert 'camera cannot be used' in page.inner_text('#message')
