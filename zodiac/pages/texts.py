"""The texts of all pages in English and Chinese, from texts.yaml.

A text may contain HTML and `{name}`, a value, which is escaped. What follows a colon says how it is written: `{share:%}` 97.5%,
`{difference:+}` +2.5, `{loss:.}` 0.123, `{n:photo}` "1 photo" or "7,096 photos", `{n:is|are}` by the number, `{names:list}` "a, b and c".
`{pairs:report.pair}` is a list of tuples, each written as that text, whose placeholders are in the order of the tuple.
"""

import functools
import os
import string

import yaml
from markupsafe import Markup, escape

from zodiac.base import formatting

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'texts.yaml')
TAGS = {'en': 'en', 'zh': 'zh-Hans'}  # of HTML's lang


@functools.lru_cache(maxsize=1)
def catalogue():
    """{key: {'en': text, 'zh': text}}; a key is section.name."""
    with open(PATH, encoding='utf-8') as file:
        sections = yaml.load(file, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    return {f'{section}.{name}': text for section, names in sections.items() for name, text in names.items()}


def text(key, language, **values):
    """Markup: a text in one language. Raises KeyError for an unknown key, or a value that is missing."""
    return Markup(_Format(language).vformat(catalogue()[key][language], (), values))


def both(key, **values):
    """Markup: a text in both languages, of which look.css shows one. An English sentence ends with a space, a Chinese one does not: in a
    template, nothing stands between two sentences."""
    english, chinese = (text(key, language, **values) for language in TAGS)
    gap = ' ' if english.endswith(('.', ':', '?')) else ''
    span = Markup('<span class="t" lang="{}">{}{}</span>').format
    return span(TAGS['en'], english, gap) + span(TAGS['zh'], chinese, '')


def attributes(key, **values):
    """Markup: attributes and the English content of an element that can contain no elements, such as <title>, without its closing tag."""
    english, chinese = (text(key, language, **values).striptags() for language in TAGS)
    return Markup(' data-en="{}" data-zh="{}">{}').format(english, chinese, english)


def message(prefix):
    """{name: {'en', 'zh'}}: the texts of a section as they are, for a script that fills them in."""
    return {key[len(prefix) + 1 :]: text for key, text in catalogue().items() if key.startswith(f'{prefix}.')}


class _Format(string.Formatter):
    def __init__(self, language):
        self.language = language

    def format_field(self, value, how):
        if how == '%':
            return formatting.percent(value)
        if how == '+':
            return formatting.points(value)
        if how == '.':
            return formatting.decimals(value)
        if how == 'list':
            *others, last = map(escape, value)
            comma, end = ('、', '、') if self.language == 'zh' else (', ', ' and ')
            return f'{comma.join(others)}{end}{last}' if others else last
        if how in catalogue():
            names = [name for _, name, _, _ in self.parse(catalogue()[how]['en']) if name]
            return self.format_field([text(how, self.language, **dict(zip(names, row))) for row in value], 'list')
        if '|' in how:
            return how.split('|')[value != 1]
        if how:
            return formatting.count(value, how)
        return f'{value:,}' if isinstance(value, int) else str(escape(value))
