"""The web page in a real browser."""

import os
import re
import sys

import numpy as np
import pytest
from conftest import ROOT, THEMES, require_accessible
from PIL import Image
from small_server import COLOURS, TRANSFORM, encoded, picture_of

from zodiac.inference import exported_model
from zodiac.serving import page as serving_page

pytest.importorskip('uvicorn', reason='requirements-serve.txt is not installed')
sys.path.append(str(ROOT / 'benchmarks'))
from served import export_colours, serving


@pytest.fixture(scope='module')
def infer(tmp_path_factory):
    return export_colours(tmp_path_factory.mktemp('colours') / 'infer')


@pytest.fixture(scope='module')
def server(infer):
    with serving(infer) as (address, _, _):
        yield address


def choose(page, content, name='photo.png', kind='image/png'):
    page.set_input_files('#file', {'name': name, 'mimeType': kind, 'buffer': content})


def test_the_page_shows_the_photo_and_the_most_probable_classes(server, page_of):
    page = page_of(server)
    assert page.title() == 'colours'
    assert not page.is_visible('#result')

    choose(page, picture_of('红'))
    page.wait_for_selector('#guesses li')

    assert page.locator('#guesses .name').all_inner_texts()[0] == '红'
    shares = [float(text.rstrip('%')) for text in page.locator('#guesses .number').all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.2)
    widths = [box['width'] for box in (row.bounding_box() for row in page.locator('#guesses .bar').all())]
    assert widths[0] > 10 * widths[1]
    assert page.evaluate('document.getElementById("photo").naturalWidth') == 64
    assert re.fullmatch(r'红, (99\.\d|100\.0)%, in \d+ ms\.', page.inner_text('#message'))


@pytest.mark.parametrize(
    ('judged', 'said'),
    [
        ({'known': False, 'score': -1.5, 'set': ['dog', 'ox']}, r'None of these \(nearest: dog, 60\.0%\), in \d+ ms\.'),
        ({'known': True, 'score': 0.5, 'set': ['dog', 'ox']}, r'dog, 60\.0%; possible: dog, ox; in \d+ ms\.'),
        ({'known': True, 'score': 0.5, 'set': ['dog']}, r'dog, 60\.0%, in \d+ ms\.'),
    ],
)
def test_the_page_says_none_of_these_and_sets_of_labels(server, page_of, judged, said):
    page = page_of(server)
    top = [{'label': 'dog', 'probability': 0.6}, {'label': 'ox', 'probability': 0.4}]
    page.route('**/predict', lambda route: route.fulfill(json={**top[0], 'top': top, **judged}))
    choose(page, picture_of('blue'))
    page.wait_for_selector('#guesses li')
    assert re.fullmatch(said, page.inner_text('#message'))


def test_a_photo_of_the_export_is_classified_by_a_click(server, page_of):
    photos = np.full((2, 32, 32, 3), [[[[30, 30, 230]]], [[[30, 200, 30]]]], np.uint8)
    model = exported_model.ExportedModel('colours', [*COLOURS], TRANSFORM, {}, None, examples=photos)
    html, headers = serving_page.render(model)
    page = page_of(server)
    page.route(f'{server}/', lambda route: route.fulfill(body=html, content_type='text/html', headers=headers))
    page.goto(server)
    page.click('.examples li:nth-child(2) button')
    page.wait_for_selector('#guesses li')
    assert page.inner_text('#guesses li:first-child .name') == 'green'
    require_accessible(page)


def test_the_page_reports_a_text_file_and_accepts_the_next_photo(server, page_of):
    page = page_of(server)
    choose(page, b'hello', 'note.txt', 'text/plain')
    page.wait_for_selector('#message.bad')

    assert page.inner_text('[role=status]') == 'This file is not a readable image.'
    assert not page.is_visible('#result')

    choose(page, picture_of('blue'))
    page.wait_for_selector('#guesses li')
    assert not page.is_visible('#message.bad')


HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(100)


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('IMG_1.HEIC', HEIC, 'This is an HEIC photo, as iPhones take them. Save it as JPEG'),
        ('cut.png', picture_of('blue')[:60], 'This photo is damaged or incomplete.'),
        ('a.psd', b'8BPS' + bytes(100), 'Images of this format are not read. Save it as JPEG or PNG.'),
        ('a.txt', b'hello', 'This file is not a readable image.'),
    ],
)
def test_the_page_says_in_words_what_is_wrong_with_a_file(server, page_of, name, content, words):
    page = page_of(server)
    choose(page, content, name, '')
    page.wait_for_selector('#message.bad')
    assert page.inner_text('#message').startswith(words)


@pytest.mark.parametrize(
    ('status', 'body', 'words'),
    [
        *((status, '<html>', 'busy') for status in (429, 502, 503, 504)),  # a proxy's
        (500, '{"detail": ""}', '(500)'),
        (408, '{"detail": ""}', 'too long'),
        (413, '{"detail": ""}', 'too large'),
        *((200, body, 'Load the page again') for body in ('<html>', 'null', '{"top": [{"label": "a"}]}')),
    ],
)
def test_the_page_reports_answers_that_are_not_from_the_model(server, page_of, status, body, words):
    page = page_of(server)
    page.route('**/predict', lambda route: route.fulfill(status=status, body=body))
    choose(page, picture_of('blue'))
    page.wait_for_selector('#message.bad')
    assert words in page.inner_text('#message')
    assert not page.is_visible('#result')


@pytest.mark.parametrize(
    'event', ['DragEvent("drop", {dataTransfer: files,', 'ClipboardEvent("paste", {clipboardData: files,']
)
def test_a_photo_can_be_dropped_or_pasted_anywhere_and_only_the_first_is_used(server, page_of, event):
    page = page_of(server)
    page.evaluate(
        """async () => {
            const files = new DataTransfer();
            for (const colour of ['rgb(30, 200, 30)', 'rgb(30, 30, 230)']) {
                const canvas = new OffscreenCanvas(20, 20);
                const ink = canvas.getContext('2d');
                ink.fillStyle = colour;
                ink.fillRect(0, 0, 20, 20);
                files.items.add(new File([await canvas.convertToBlob()], 'a.png', {type: 'image/png'}));
            }
            document.querySelector('h1').dispatchEvent(new EVENT bubbles: true}));
        }""".replace('EVENT', event)
    )
    page.wait_for_selector('#guesses li')
    assert page.inner_text('#guesses li:first-child .name') == 'green'
    assert page.inner_text('#message').endswith(' ms. One photo at a time. This is the first.')


def test_a_photo_that_the_browser_cannot_show_is_still_classified(server, page_of):
    page = page_of(server)
    choose(page, encoded(Image.new('RGB', (64, 48), 'blue'), 'TIFF'), 'a.tif', 'image/tiff')
    page.wait_for_selector('#guesses li')
    page.wait_for_selector('#unseen')
    assert not page.is_visible('#photo')

    choose(page, picture_of('green'))
    page.wait_for_selector('#photo')
    assert not page.is_visible('#unseen')


def test_without_javascript_the_page_shows_a_command(server, page_of):
    page = page_of(server, java_script_enabled=False)
    assert 'curl -F file=@photo.jpg' in page.inner_text('body')
    assert not page.is_visible('#drop') and not page.is_visible('#language')


def test_the_page_follows_the_language_of_the_browser_and_its_switch(server, page_of):
    page = page_of(server, locale='zh-CN')
    assert page.get_attribute('html', 'lang') == 'zh-Hans'
    assert '选择照片' in page.inner_text('#drop')
    choose(page, b'hello')
    page.wait_for_selector('#message.bad')
    assert page.inner_text('#message') == '无法读取此文件，它不是有效的图片。'

    page.click('#language')

    assert page.get_attribute('html', 'lang') == 'en'
    assert page.inner_text('#message') == 'This file is not a readable image.'


def test_the_page_works_with_the_keyboard_alone(server, page_of):
    page = page_of(server)
    for switch in ('language', 'theme'):
        page.keyboard.press('Tab')
        assert page.evaluate('document.activeElement.id') == switch
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'file'
    assert page.evaluate('getComputedStyle(document.getElementById("drop")).outlineStyle') == 'solid'
    page.on('filechooser', lambda chooser: None)  # the browser now reports it instead of opening it
    page.wait_for_timeout(300)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press('Enter')
    chooser.value.set_files({'name': 'a.png', 'mimeType': 'image/png', 'buffer': picture_of('blue')})
    page.wait_for_selector('#guesses li')


@pytest.mark.parametrize('width', [320, 390, 1200])
def test_the_page_fits_a_window(server, page_of, width):
    page = page_of(server, viewport={'width': width, 'height': 700})
    top = [{'label': label, 'probability': 0.5} for label in ('Donaudampfschiff' * 20, '鼠' * 100)]
    page.route('**/predict', lambda route: route.fulfill(json={**top[0], 'top': top}))
    choose(page, picture_of('blue', (900, 300)))
    page.wait_for_selector('#guesses li')
    assert page.evaluate('document.documentElement.scrollWidth') <= width


CONTRAST = """parts => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(part => part / 255).map(
            part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const contrast = (one, other) => Math.max(light(one) / light(other), light(other) / light(one));
    const style = part => getComputedStyle(document.querySelector(part));
    return parts.map(([part, behind]) =>
        parseFloat(style(part).borderBottomWidth) && contrast(style(part).borderBottomColor, style(behind).backgroundColor));
}"""


@pytest.mark.parametrize('colours', [{'color_scheme': 'light'}, {'color_scheme': 'dark'}, {'forced_colors': 'active'}])
def test_borders_and_bars_stand_out(server, page_of, colours):
    page = page_of(server, **colours)
    choose(page, picture_of('blue'))
    page.wait_for_selector('#guesses li')
    parts = [['.bar', 'li'], *([part, behind] for part in ('#drop', '#token') for behind in ('body', part))]
    assert min(page.evaluate(CONTRAST, parts)) >= 3  # WCAG 2.2, 1.4.11


def test_the_page_asks_for_the_token_until_it_is_right(infer, page_of):
    with serving(infer, env={**os.environ, 'ZODIAC_TOKEN': 'secret'}) as (address, _, _):
        page = page_of(address)
        choose(page, picture_of('blue'))
        page.wait_for_selector('#message.bad')
        assert page.inner_text('#message') == 'The server requires a token. Enter it above.'
        for wrong in ('wrong', 'ключ'):
            assert page.evaluate('document.activeElement.id') == 'token'
            page.keyboard.type(wrong)
            page.keyboard.press('Enter')
            page.wait_for_selector('#message.bad >> text=not the token')
            page.evaluate('tell([])')
        page.fill('#token', 'secret')
        page.click('#token-part button')
        page.wait_for_selector('#guesses li')
        assert not page.is_visible('#token-part')
        assert page.evaluate('document.activeElement.id') == 'file'  # ready for the next photo


def test_after_the_right_token_the_focus_is_ready_for_the_next_photo_also_when_the_first_is_unreadable(infer, page_of):
    with serving(infer, env={**os.environ, 'ZODIAC_TOKEN': 'secret'}) as (address, _, _):
        page = page_of(address)
        choose(page, b'hello')
        page.wait_for_selector('#message.bad')
        page.keyboard.type('secret')
        page.keyboard.press('Enter')
        page.wait_for_selector('#message.bad >> text=not a readable image')
        assert not page.is_visible('#token-part')
        assert page.evaluate('document.activeElement.id') == 'file'


def test_the_page_reports_an_unreachable_server(infer, page_of):
    with serving(infer) as (address, process, _):
        page = page_of(address)
        process.kill()
        process.wait()
        choose(page, picture_of('blue'))
        page.wait_for_selector('#message.bad')
        assert page.inner_text('#message') == 'The server cannot be reached.'


@pytest.mark.parametrize('theme', THEMES)
def test_the_page_is_accessible(server, page_of, theme):
    page = page_of(server, color_scheme=theme)
    choose(page, picture_of('blue'))
    page.wait_for_selector('#guesses li')
    require_accessible(page)
    page.click('#theme')
    assert page.get_attribute('html', 'data-theme') != theme
    require_accessible(page)
