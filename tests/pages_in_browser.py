"""A Chromium for the tests of pages; they are skipped where there is none."""

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
THEMES = ('light', 'dark')


@pytest.fixture(scope='session')
def browser():
    if CHROMIUM is None:
        pytest.skip('there is no Chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='requirements-dev.txt is not installed')
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def page_of(browser):
    """Opens an address in a new window; fails when it contacts another host, or its script raises."""
    contexts, faults = [], []

    def open_page(address, **settings):
        contexts.append(browser.new_context(**{'locale': 'en-GB', **settings}))
        page = contexts[-1].new_page()
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on(
            'request', lambda request: request.url.startswith((address, 'blob:', 'data:')) or faults.append(request.url)
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def require_accessible(page):
    """Fail with the rules of axe-core that a page breaks, WCAG 2.2 A and AA, and the elements that break them."""
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='requirements-dev.txt is not installed')
    tags = [f'wcag{version}{level}' for version in ('2', '21', '22') for level in ('a', 'aa')]
    found = axe.Axe().run(page, options={'runOnly': {'type': 'tag', 'values': [*tags, 'best-practice']}}).response
    assert [(rule['id'], [node['html'][:200] for node in rule['nodes'][:4]]) for rule in found['violations']] == []
    assert len(found['passes']) > 10
