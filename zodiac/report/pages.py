"""HTML pages from the templates in this folder; a page is one file and loads nothing."""

import os

import jinja2

from zodiac.base import files
from zodiac.report import formatting

NO_BREAK_SPACE = '\xa0'


def write_page(path, template, **content):
    """Render a template. Parts whose content is empty or None are left out."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        percent=lambda share: formatting.percent(share).replace(' ', NO_BREAK_SPACE),
        decimals=formatting.decimals,
        points=formatting.points,
        count=formatting.count,
    )
    with files.atomic_write(path) as file:
        file.write(environment.get_template(template).render(**content))
