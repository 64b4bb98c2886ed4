"""The report and the comparison in a real browser."""

import numpy as np
import pytest
from conftest import ENGLISH, THEMES, require_accessible
from small_report import LOG, write
from test_compare import write_pair
from test_gradcam import Bright

from zodiac.report import compare, mistakes

ALL = 60  # mistakes; the photos of all are in the page, except for those of `cut`


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 30)
    guesses = np.where(np.arange(90) % 3 < 2, (labels + 1) % 3, labels)
    probabilities = 0.4 * np.eye(3)[guesses] + 0.6 * rng.dirichlet([9, 9, 9], 90)
    probabilities[np.arange(90), guesses] += probabilities.max(1)
    probabilities /= probabilities.sum(1, keepdims=True)
    network = Bright()
    network.forward = lambda x, run=network.forward: run(x)[:, [0, 1, 1]]
    return write(tmp_path_factory.mktemp('report'), ENGLISH, labels, probabilities, network, log=LOG)


@pytest.fixture(scope='module')
def cut(tmp_path_factory):
    labels = np.repeat(np.arange(3), 200)
    probabilities = np.eye(3)[(labels + 1) % 3] * 0.7 + 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mistakes, 'PICTURED', 8)
        return write(tmp_path_factory.mktemp('cut'), ENGLISH, labels, probabilities, photos=True)


@pytest.fixture
def compared(workdir):
    write_pair(workdir)
    compare.write('a_vs_b', *compare.read_two('a', 'b'))
    return workdir / 'a_vs_b/compare.html'


def numbers(page):
    return [int(page.inner_text(f'[role=status] .t[lang=en] .{name}')) for name in ('shown', 'matching')]


def test_the_language_switches_without_a_reload(written, page_of):
    page = page_of(written.as_uri())
    assert page.inner_text('#short') == 'In short' and page.title() == 'a: report'
    page.evaluate('window.mark = 1')
    page.click('#language')
    assert page.inner_text('#short') == '结论' and page.title() == 'a：评估报告'
    assert page.get_attribute('html', 'lang') == 'zh-Hans' and page.evaluate('window.mark') == 1
    assert (
        page.locator('tspan[lang=zh-Hans]').first.is_visible() and not page.locator('tspan[lang=en]').first.is_visible()
    )
    assert page.locator('#label option').first.inner_text() == '全部类别'
    page.click('#language')
    assert page.inner_text('#short') == 'In short'


def test_the_page_opens_in_the_language_of_the_browser(written, page_of):
    assert page_of(written.as_uri(), locale='zh-CN').inner_text('#short') == '结论'


def test_mistakes_are_filtered_by_label_and_prediction(written, page_of):
    page = page_of(written.as_uri())
    assert numbers(page) == [24, ALL]
    page.select_option('#label', label='tiger (20)')
    assert numbers(page) == [20, 20]
    assert {
        text.split(' labelled ')[1].split()[0]
        for text in page.locator('.mistake:visible p:first-of-type').all_inner_texts()
    } == {'tiger'}
    page.select_option('#guess', label='ox (20)')
    assert numbers(page) == [0, 0]
    page.select_option('#label', index=0)
    assert numbers(page) == [20, 20]


def test_the_last_mistake_can_be_reached_and_opens_its_photo(written, page_of):
    page = page_of(written.as_uri())
    assert not page.locator('.mistake').last.is_visible()
    page.click('#all')
    assert numbers(page) == [ALL, ALL] and page.locator('.mistake:visible').count() == ALL
    last = page.locator('.mistake').last
    assert last.locator('img').count() == 2, 'photo and heat map'
    last.locator('a').click()
    assert page.url.endswith('.png') and page.locator('img').evaluate('image => image.naturalWidth') > 60


def test_mistakes_without_a_photo_are_listed_filtered_and_linked(cut, page_of):
    page = page_of(cut.as_uri())
    assert numbers(page) == [8, 600]
    page.click('#others summary')
    assert numbers(page) == [108, 600]
    page.select_option('#label', label='rabbit (200)')
    page.click('#all')
    assert numbers(page) == [200, 200]
    last = page.locator('#others tbody tr').last
    assert last.locator('td').all_inner_texts()[1:] == ['rabbit', '10.0%', 'ox', '80.0%']
    assert last.locator('a').evaluate('link => link.href').endswith('/photos/rabbit/599.png')


def test_a_number_in_the_matrix_leads_to_its_mistakes(written, page_of):
    page = page_of(written.as_uri())
    page.locator('.matrix button').nth(1).click()
    assert numbers(page) == [20, 20]
    assert page.evaluate('document.activeElement.id') == 'label'
    assert page.evaluate('document.getElementById("mistakes").getBoundingClientRect().top') < 40


@pytest.mark.parametrize('width', [320, 360, 1200])
def test_the_report_fits_a_window(written, page_of, width):
    page = page_of(written.as_uri(), viewport={'width': width, 'height': 700})
    page.click('#all')
    assert page.evaluate('document.documentElement.scrollWidth') <= width


def test_paper_is_light_and_has_no_controls(written, page_of):
    page = page_of(written.as_uri(), color_scheme='dark')
    paper = 'getComputedStyle(document.body).backgroundColor'
    assert page.evaluate(paper) != 'rgb(255, 255, 255)'
    page.emulate_media(media='print')
    assert page.evaluate(paper) == 'rgb(255, 255, 255)'
    assert not page.is_visible('#language') and not page.is_visible('#filters')


@pytest.mark.parametrize('theme', THEMES)
def test_the_report_is_accessible(written, page_of, theme):
    page = page_of(written.as_uri(), color_scheme=theme)
    require_accessible(page)


def test_the_list_without_photos_is_accessible(cut, page_of):
    page = page_of(cut.as_uri())
    page.click('#others summary')
    require_accessible(page)


@pytest.mark.parametrize('theme', THEMES)
def test_the_comparison_is_accessible_in_both_languages(compared, page_of, theme):
    page = page_of(compared.as_uri(), color_scheme=theme)
    require_accessible(page)
    page.click('#language')
    assert '看不出哪个更好' in page.inner_text('main')
    require_accessible(page)
