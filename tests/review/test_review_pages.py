"""The pages in a real browser: the one on which people decide, with what a killed server keeps, and the list."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('cleanlab', reason='requirements-review.txt is not installed')
pytest.importorskip('uvicorn', reason='requirements-review.txt is not installed')

import numpy as np
from conftest import ROOT, THEMES, make_tree, require_accessible

from zodiac.data import corrections
from zodiac.review import findings, listing
from zodiac.review import page as listed
from zodiac.review.photos import Photos

PATHS = {0: 'photos/cat/cat_0.png', 3: 'photos/dog/dog_0.png', 5: 'photos/dog/dog_2.png', 6: 'new/n.png'}
SERVER = """
import os, sys, pathlib
sys.path[:0] = [{root!r}, {root!r} + '/tests', {root!r} + '/tests/review']
from small_review import make
from zodiac.review import server
from zodiac.base.errors import run
review = make(pathlib.Path('.'))
run(lambda: server.serve(review, 0, None, lambda address: print(address, flush=True)))
"""


@pytest.fixture
def served(workdir):
    """(address, process) of a server of the small review in the working directory."""
    process = subprocess.Popen(
        [sys.executable, '-c', SERVER.format(root=str(ROOT))], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    yield process.stdout.readline().strip(), process
    process.kill()
    process.wait()
    process.stdout.close()


def decided(path):
    one = corrections.read('photos').get(path)
    return one and (one.action, one.label)


def wait_for(check):
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def opened(served, page_of):
    """A function that opens the page, ready for keys."""

    def open_page(**settings):
        page = page_of(served[0], **settings)
        wait_for(lambda: page.evaluate('document.getElementById("shown").naturalWidth > 0'))
        return page

    return open_page


def test_a_person_decides_by_keyboard_alone_and_undoes(opened):
    page = opened()
    assert page.inner_text('#question') == 'Labelled cat. Is it dog?'
    assert page.inner_text('#message').strip() == 'Photo 1 of 4; 4 to decide.'
    page.keyboard.press('e')
    page.keyboard.type('it barks, kr')
    page.keyboard.press('Enter')
    page.keyboard.press('r')
    page.wait_for_selector('text=Photo 2 of 4; 3 to decide.')
    one = corrections.read('photos')[PATHS[0]]
    assert (one.action, one.label, one.given, one.reason) == ('relabel', 'dog', 'cat', 'it barks, kr')

    page.keyboard.press('k')
    page.wait_for_selector('text=Photo 3 of 4; 2 to decide.')
    assert page.is_hidden('#relabel')  # no other class is suggested
    page.keyboard.press('d')
    page.wait_for_selector('text=Photo 4 of 4; 1 to decide.')
    assert page.inner_text('#question') == 'What is it? Perhaps dog.' and page.is_hidden('#keep')
    page.keyboard.press('2')
    page.wait_for_selector('text=All are decided')
    assert [decided(path) for path in PATHS.values()] == [
        ('relabel', 'dog'),
        ('keep', ''),
        ('drop', ''),
        ('label', 'cat'),
    ]

    page.keyboard.press('ArrowLeft')
    page.wait_for_selector('text=Decided: leave it out.')
    page.keyboard.press('u')
    page.wait_for_selector('text=Photo 3 of 4; 1 to decide.')
    assert decided(PATHS[5]) == ('undo', '')


def test_neighbours_of_both_classes_are_shown_with_the_copy_first(opened):
    page = opened()
    assert page.locator('#near h3').all_inner_texts() == ['Most similar photos of cat', 'Most similar photos of dog']
    wait_for(lambda: page.evaluate('[...document.querySelectorAll("#near img")].every(one => one.naturalWidth > 0)'))
    assert page.locator('#near img').count() == 4
    page.keyboard.press('ArrowRight')
    page.wait_for_selector('text=the same photo is labelled cat')
    assert page.locator('#near h3').all_inner_texts()[1].startswith('The photo that looks the same, labelled cat')


def test_any_class_can_be_chosen_with_the_mouse(opened):
    page = opened()
    page.select_option('#others', 'dog')
    page.wait_for_selector('text=Photo 2 of 4')
    assert decided(PATHS[0]) == ('relabel', 'dog')


def test_two_tabs_do_not_overwrite_each_other(opened):
    first, second = opened(), opened()
    first.keyboard.press('d')
    first.wait_for_selector('text=Photo 2 of 4')
    second.keyboard.press('k')
    second.wait_for_selector('text=This photo was decided on in another window.')
    assert decided(PATHS[0]) == ('drop', '')
    assert second.inner_text('#decided').strip() == 'Decided: leave it out.'
    second.keyboard.press('k')
    second.wait_for_selector('text=Photo 2 of 4')
    assert decided(PATHS[0]) == ('keep', '')


def test_a_killed_server_loses_nothing_and_the_page_says_so(served, opened):
    page = opened()
    page.keyboard.press('r')
    page.wait_for_selector('text=Photo 2 of 4')
    served[1].send_signal(signal.SIGKILL)
    served[1].wait()
    page.keyboard.press('d')
    page.wait_for_selector('#message.bad')
    assert page.inner_text('#message').startswith('Not saved: the server cannot be reached.')
    assert decided(PATHS[0]) == ('relabel', 'dog') and decided(PATHS[3]) is None


def test_the_page_goes_on_where_it_was_left(opened):
    page = opened()
    page.keyboard.press('k')
    page.wait_for_selector('text=Photo 2 of 4')
    page.reload()
    page.wait_for_selector('text=Photo 2 of 4; 3 to decide.')


def test_another_site_in_the_same_browser_can_neither_read_nor_decide(served, browser, tmp_path):
    address = served[0]
    (tmp_path / 'evil.html').write_text('<p>evil</p>')
    asked = """async address => {
        const answers = [];
        for (const how of [{}, {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'},
                body: '{"number": 0, "action": "drop", "label": "", "reason": "", "seen": 0}'}]) {
            try { answers.push((await fetch(address + (how.method ? 'decide' : 'state'), how)).type); } catch { answers.push('refused'); }
        }
        return answers;
    }"""
    context = browser.new_context()  # `page_of` would report its requests to another host
    evil = context.new_page()
    evil.goto((tmp_path / 'evil.html').as_uri())
    assert evil.evaluate(asked, address) == ['refused', 'opaque']
    context.close()
    assert corrections.read('photos') == {}


@pytest.mark.parametrize('width', [320, 390, 1200])
def test_the_page_fits_a_window(opened, width):
    page = opened(viewport={'width': width, 'height': 700})
    assert page.evaluate('document.documentElement.scrollWidth') <= width


def test_the_page_is_in_chinese_too(opened):
    page = opened(locale='zh-CN')
    assert page.inner_text('#question') == '标注为 cat，是不是 dog？'


@pytest.mark.parametrize('theme', THEMES)
def test_the_page_is_accessible(opened, theme):
    page = opened(color_scheme=theme)
    require_accessible(page)
    page.keyboard.press('k')
    page.wait_for_selector('text=Photo 2 of 4')
    require_accessible(page)


@pytest.mark.parametrize('theme', THEMES)
def test_the_list_shows_each_finding_beside_a_similar_photo_and_is_accessible(workdir, page_of, theme):
    make_tree(workdir / 'photos', ['cat', 'dog'], {'': 3}, '.png')
    paths = [f'photos/{label}/{label}_{number}.png' for label in ('cat', 'dog') for number in range(3)]
    labels, rng = np.repeat([0, 1], 3), np.random.default_rng(0)
    photos = Photos(paths, ['train'] * 6, labels, ['cat', 'dog'], [rng.normal(size=(6, 4))], np.arange(6))
    likely = np.array([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [np.nan, np.nan]])
    wrong, strange = np.arange(6) == 0, 3.0 * (np.arange(6) == 4)
    judged = findings.Judged(likely, np.linspace(0, 1, 6), wrong, np.array([1, 1, 0, 1, 1, 1]), strange)
    found = listing.rows(judged, photos, {2: 3, 3: 2}, {})
    neighbours = findings.Neighbours(photos.views[0], labels, photos.groups)
    listed.write('report/review.html', 'pets', found, photos, neighbours, 'zodiac review pets --serve', 'lite')

    page = page_of(
        (workdir / 'report/review.html').as_uri(), color_scheme=theme, viewport={'width': 320, 'height': 700}
    )

    assert page.evaluate('document.documentElement.scrollWidth') <= 320
    assert page.locator('.wall li').count() == 5 and page.locator('.wall img').count() == 10
    texts = page.locator('.wall li').all_inner_texts()
    assert 'labelled cat 10.0% · looks like dog 90.0%' in texts[0] and 'The label is probably wrong.' in texts[0]
    assert 'Beside it: that photo, labelled dog.' in texts[2] and 'It is unlike all classes.' in texts[4]
    assert '1 of 6 photos has a label that is probably wrong.' in page.inner_text('.lead')
    require_accessible(page)
