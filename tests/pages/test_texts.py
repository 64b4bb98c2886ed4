"""The texts of the pages: complete in both languages, all of them used, values written alike everywhere."""

import re
import string

import pytest
from conftest import ROOT
from markupsafe import Markup

from zodiac.pages import texts

SOURCES = [
    path for pattern in ('*.py', '*.html') for path in (ROOT / 'zodiac').glob(f'*/{pattern}') if path.name != 'texts.py'
]
ENDINGS = {  # keys that are put together from a beginning and a value
    'report.split_': ('test', 'valid', 'train', 'other'),
    'report.how_': ('test', 'valid', 'train', 'other'),
    'report.filter_': ('label', 'guess', 'all'),
    'report.made_': (),
    'report.fact_': (),
    'report.curve_': ('loss', 'top1', 'rate', 'speed'),
    'compare.': ('top1', 'top5', 'loss', 'macro_precision', 'macro_recall', 'macro_f1', 'macro_roc_auc'),
    'chart.': ('train', 'valid'),
    'report.next_': ('gain', 'no_gain'),
    'report.slice_': ('short_side', 'brightness', 'sharpness', 'folder'),
    'review.kind_': ('label', 'doubt', 'copy', 'outlier'),
    'decide.ask_': ('label', 'doubt', 'copy', 'outlier', 'new'),
    'decide.was_': ('keep', 'relabel', 'label', 'drop'),
}


def placeholders(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_is_in_both_languages_with_the_same_values():
    for key, text in texts.catalogue().items():
        assert set(text) == {'en', 'zh'} and all(text.values()), key
        assert placeholders(text['en']) == placeholders(text['zh']), key


def test_chinese_texts_are_chinese_and_in_chinese_punctuation():
    for key, text in texts.catalogue().items():
        plain = re.sub(r'<[^>]*>|\{[^}]*\}', '', text['zh'])
        assert re.search(r'[\u4e00-\u9fff]', plain) or text['zh'] == text['en'], key
        assert not re.search(r'[\u4e00-\u9fff][,;:?!(]|[,;:?!)][\u4e00-\u9fff]', plain), key


def test_every_text_is_used_and_every_text_that_is_used_is_there():
    code = re.sub(r"'\w+\.html'", '', '\n'.join(path.read_text(encoding='utf-8') for path in SOURCES))
    used = set(re.findall(r"'((?:common|report|compare|photo|serve|web|chart|review)\.\w*[a-z0-9])'", code))
    used |= {f'report.{name}' for name in re.findall(r"'((?:made|fact)_\w+)'", code)}
    used |= {beginning + ending for beginning, endings in ENDINGS.items() for ending in endings}
    used |= {f'report.made_{name}' for name in ('engine', 'precision', 'temperature')}
    used |= {
        f'report.{name}'
        for name in re.findall(
            r"'(mistakes|classes|matrix|slices|sure|unknown|precision_recall|curve|training|sample|data|made)'", code
        )
    }
    used |= {f'report.{name}' for name in ('width', 'height', 'size', 'mode')}  # of annotation.json
    asking = ('pages/photo.html', 'serving/page.html', 'web/page.html', 'web/worker.js')
    for section, names in (('message', asking), ('decide', ['review/decide.html'])):
        script = '\n'.join((ROOT / 'zodiac' / name).read_text(encoding='utf-8') for name in names)
        used |= {f'{section}.{name}' for name in re.findall(r"'(\w+)'", script)} & texts.catalogue().keys()
    nested = {
        how for text in texts.catalogue().values() for _, _, how, _ in string.Formatter().parse(text['en']) if how
    }
    used |= nested & texts.catalogue().keys()
    assert used == texts.catalogue().keys()


@pytest.mark.parametrize(
    ('text', 'values', 'english', 'chinese'),
    [
        ('{share:%}', {'share': 0.975}, '97.5%', '97.5%'),
        ('{n:photo}', {'n': 1}, '1 photo', '1 photo'),
        ('{n:photo}', {'n': 7096}, '7,096 photos', '7,096 photos'),
        ('{n} {n:is|are}', {'n': 2}, '2 are', '2 are'),
        ('{d:+}', {'d': -0.025}, '−2.5', '−2.5'),
        ('{x:.}', {'x': 0.12345}, '0.123', '0.123'),
        ('{names:list}', {'names': ['a', 'b<', 'c']}, 'a, b&lt; and c', 'a、b&lt;、c'),
        ('{names:list}', {'names': ['a']}, 'a', 'a'),
        ('{name}', {'name': '<b>'}, '&lt;b&gt;', '&lt;b&gt;'),
        ('{name}', {'name': Markup('<b>')}, '<b>', '<b>'),
    ],
)
def test_values_are_written_in_the_way_of_the_language(monkeypatch, text, values, english, chinese):
    monkeypatch.setattr(texts, 'catalogue', lambda: {'a.b': {'en': text, 'zh': text}})
    assert [texts.text('a.b', language, **values) for language in ('en', 'zh')] == [english, chinese]


def test_a_list_of_tuples_is_written_by_another_text():
    assert texts.text('report.often', 'en', pairs=[('a', '<', 2), ('c', 'd', 1)]).endswith(
        'a taken for &lt; (2×) and c taken for d (1×).'
    )
    assert texts.text('report.often', 'zh', pairs=[('a', 'b', 2)]) == '最常见的错误：a 认成 b（2 次）。'


def test_an_unknown_text_or_a_missing_value_is_an_error():
    for key in ('report.nothing', 'report.title'):
        with pytest.raises(KeyError):
            texts.both(key)
