"""Render a page and read its parts."""

from html.parser import HTMLParser
from xml.etree import ElementTree

from zodiac.report import pages


def page_of(tmp_path, template='report.html', **content):
    """{heading: the elements below it, up to the next heading}; those before the first heading are under ''."""
    path = tmp_path / template
    pages.write_page(str(path), template, **content)
    parts = {'': []}
    for element in parse(path.read_text(encoding='utf-8')).find('body'):
        if element.tag in ('h2', 'h3'):
            parts[text_of(element)] = below = []
        else:
            (below if len(parts) > 1 else parts['']).append(element)
    return parts


def parse(page):
    builder = ElementTree.TreeBuilder()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            builder.start(tag, {name: value or '' for name, value in attributes})
            if tag in ('meta', 'img', 'br'):
                builder.end(tag)

        def handle_endtag(self, tag):
            assert builder.end(tag).tag == tag

        def handle_data(self, data):
            builder.data(data)

    Reader().feed(page)
    return builder.close()


def text_of_page(tmp_path, template='report.html', **content):
    return ' '.join(text_of(*elements) for elements in page_of(tmp_path, template, **content).values())


def text_of(*elements):
    return ' '.join(' '.join(' '.join(element.itertext()) for element in elements).split())


def tables(elements):
    """The tables among the elements, each a list of rows of texts."""
    found = [table for element in elements for table in element.iter('table')]
    return [[[text_of(cell) for cell in row] for row in table.iter('tr')] for table in found]


def figures(elements):
    """(src of the image, caption, class of the first bold text) of each figure."""
    found = [figure for element in elements for figure in element.iter('figure')]
    return [(one.find('.//img').get('src'), text_of(one), one.find('.//b').get('class')) for one in found]


def tiles(elements):
    """{text of a tile: its number}."""
    found = [tile for element in elements if element.get('class') == 'numbers' for tile in element]
    return {text_of(tile).partition(text_of(tile.find('b')))[2].strip(): text_of(tile.find('b')) for tile in found}


def images_of(elements):
    return [image.get('src') for element in elements for image in element.iter('img')]
