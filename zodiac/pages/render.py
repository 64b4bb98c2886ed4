"""HTML pages from templates; a page is one file and loads nothing."""

import base64
import hashlib
import os
import re

import jinja2
from markupsafe import Markup, escape

from zodiac.base import formatting
from zodiac.pages import texts

HERE = os.path.dirname(os.path.abspath(__file__))
LANGUAGES = ('zh', 'en')


def render(template, language=None, **content):
    """str: a page from the path of a template that extends frame.html.

    Args:
        language: the one that it opens in, one of LANGUAGES; None for that of the browser. The reader can change it.
        content: what the template names; parts whose content is empty or None are left out.
    """
    folder, name = os.path.split(template)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(t=texts.both, attributes=texts.attributes, message=texts.message)
    environment.filters.update(
        percent=formatting.percent, decimals=formatting.decimals, points=formatting.points, breaks=breaks
    )
    own = {'look': _file('look.css'), 'switches': _file('page.js'), 'language': language}
    return environment.get_template(name).render(**own, **content)


def digests(page, tag):
    """What a Content-Security-Policy calls the contents of each <script> or <style> of a page, so that no others run: list of str."""
    contents = re.findall(f'<{tag}>(.*?)</{tag}>', page, re.S)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" for content in contents]


def breaks(path):
    """A path that a browser may break after each slash."""
    return Markup(escape(path).replace('/', Markup('/<wbr>')).replace('\\', Markup('\\<wbr>')))


def _file(name):
    with open(os.path.join(HERE, name), encoding='utf-8') as file:
        return Markup(file.read())
