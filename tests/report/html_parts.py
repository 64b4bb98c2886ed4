"""Read the parts of a page."""

import json
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = ('meta', 'link', 'img', 'br', 'wbr', 'input')
OTHER = {'en': 'zh-Hans', 'zh': 'en'}


def page(path, language='en'):
    """The tree of a page as a reader of this language sees it."""
    builder = ElementTree.TreeBuilder()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            builder.start(tag, {name: value or '' for name, value in attributes})
            if tag in VOID:
                builder.end(tag)

        def handle_endtag(self, tag):
            assert builder.end(tag).tag == tag

        def handle_data(self, data):
            builder.data(data)

    with open(path, encoding='utf-8') as file:
        Reader().feed(file.read())
    root = builder.close()
    for one in root.iter():
        if one.get('class') == 't' and one.get('lang') == OTHER[language]:
            one.text = None
            for child in list(one):
                one.remove(child)
    return root


def main(path, language='en'):
    return page(path, language).find('.//main')


def section(path, name, language='en'):
    """The elements of a section, whose heading has this id, up to the next section; as one element."""
    found, inside = ElementTree.Element('section'), False
    for element in main(path, language):
        if element.tag == 'h2':
            inside = element.get('id') == name
        elif inside:
            found.append(element)
    return found


def text_of(element):
    return ' '.join(''.join(element.itertext()).split())


def table(element, number=0):
    """The rows of a table as texts."""
    found = list(element.iter('table'))[number]
    return [[text_of(cell) for cell in row] for row in found.iter('tr')]


def tiles(element):
    """{text of a tile: its number}."""
    found = [tile for one in element.iter('ul') if one.get('class') == 'numbers' for tile in one]
    return {text_of(tile).partition(text_of(tile.find('b')))[2].strip(): text_of(tile.find('b')) for tile in found}


def images_of(element):
    return [image.get('src') for image in element.iter('img')]


def of_class(element, name):
    return [one for one in element.iter() if name in one.get('class', '').split()]


def rest_of(element):
    """The mistakes that the script of the page lists: a dict, see `mistakes.compact`; None without any."""
    found = [one for one in element.iter('script') if one.get('id') == 'rest']
    return json.loads(found[0].text) if found else None
