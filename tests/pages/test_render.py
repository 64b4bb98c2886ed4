"""Pages are whole: one file, in the look of all, in the language that was asked for."""

import re

import pytest
from conftest import ROOT

from zodiac.pages import render

FRAMED = r"extends '(frame|photo)\.html'"


@pytest.fixture
def template(tmp_path):
    path = tmp_path / 'a.html'
    path.write_text(
        "{% extends 'frame.html' %}{% block title %}{{ attributes('report.title', name=name) }}{% endblock %}"
        '{% block content %}<main>{{ name }}</main>{% endblock %}'
    )
    return str(path)


@pytest.mark.parametrize(
    ('language', 'start'), [('zh', '<html lang="zh-Hans" data-language="zh">'), (None, '<html lang="en">')]
)
def test_a_page_contains_the_look_and_the_switches_and_loads_nothing(template, language, start):
    page = render.render(template, language, name='<x>')
    assert start in page and '<main>&lt;x&gt;</main>' in page
    assert '<title data-en="&lt;x&gt;: report" data-zh="&lt;x&gt;：评估报告">&lt;x&gt;: report</title>' in page
    for name in ('look.css', 'page.js'):
        assert (ROOT / 'zodiac/pages' / name).read_text(encoding='utf-8') in page
    assert not re.search(r'(src|href)="(?!data:)', page) and '@import' not in page


def test_a_path_may_be_broken_after_each_slash():
    assert render.breaks('a/<b>/c.png') == 'a/<wbr>&lt;b&gt;/<wbr>c.png'
    assert render.breaks('a\\b') == 'a\\<wbr>b'


def test_no_page_has_a_style_of_its_own():
    for path in (ROOT / 'zodiac').glob('*/*.html'):
        text = path.read_text(encoding='utf-8')
        assert path.name == 'frame.html' or ('<style' not in text and re.search(FRAMED, text)), path
        assert not re.search(r'[:"\s]#[0-9a-fA-F]{3,8}\b', text), path
