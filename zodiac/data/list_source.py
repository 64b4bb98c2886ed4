"""Open a list of images, in whatever encoding it is; what the readers of all kinds share, see `lists`."""

import codecs
import io
import itertools
import json
import os
import re
from typing import Callable, NamedTuple

from zodiac.base import files
from zodiac.base.errors import UserError

SEVERAL = 'several labels per image are not supported'
GBK = 'gb18030'  # which contains it
SAMPLE = 100  # lines that are looked at to find the layout of a text
JSON = (b'[{', b'[\n', b'{"', b'{\n')  # how it begins
COLUMNS = {  # names of columns, the best first; compared in lower case, with _ for spaces and hyphens
    'path': (
        *('path', 'image_path', 'img_path', 'file_path', 'filepath', 'imagepath', 'file_name', 'filename'),
        *('image_name', 'file', 'image_file', 'image', 'img', 'image_id', 'name', 'id'),
        *('路径', '图片路径', '文件名', '图片', '图像'),
    ),
    'label': (
        *('class_name', 'classname', 'label_name', 'category_name', 'label', 'labels', 'class', 'category', 'choice'),
        *('target', 'species', 'breed', '类别', '标签', '分类'),
    ),
    'split': ('split', 'set', 'subset', 'partition', '划分'),
    'group': ('group', 'group_id', 'video', 'video_id', 'patient', 'patient_id', '组', '分组'),
}

IMAGE = re.compile(r'.*\.(jpe?g|jfif|png|webp|avif|gif|bmp|tiff?|p[pgb]m)', re.IGNORECASE)


class Row(NamedTuple):
    """One labelled image. `number`: of the line, or the item of a JSON file, from 1; label, split and group are '' if there is none."""

    number: int
    path: str
    label: str
    split: str = ''
    group: str = ''


class Source(NamedTuple):
    """A list file. `content`: of JSON; for text None."""

    path: str
    encoding: str
    lines: Callable  # lines(newline=None): a text file, see `open`
    content: object
    head: list  # the first lines of a text that are not blank


def open_list(path):
    """The `Source` of a list. Raises UserError if it cannot be read, is empty, or is no text in UTF-8, UTF-16 or GBK."""
    if os.path.isdir(path):
        raise UserError(
            f'{path}: annotate.list is a folder; set data.root to a folder of class folders, or name the list in it'
        )
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except FileNotFoundError:
        raise UserError(f'{path}: no such file; set annotate.list to the list of the images') from None
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror}); check annotate.list') from None
    encoding = _encoding(path, data)

    def lines(newline=None):
        return io.TextIOWrapper(io.BytesIO(data), encoding, newline=newline)

    content = None
    if path.lower().endswith('.json') or data.lstrip(codecs.BOM_UTF8 + b' \t\r\n')[:2] in JSON:
        content = _json(path, lines().read())
    head = list(itertools.islice((line.rstrip('\r\n') for line in lines() if line.strip()), SAMPLE))
    if content is None and not head:
        raise UserError(f'{path}: the list is empty')
    return Source(path, encoding, lines, content, head)


def _encoding(path, data):
    """The encoding of a text: that of its byte order mark, or UTF-8, UTF-16 or GBK. Raises UserError for any other, and for NUL bytes."""
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        encoding = 'utf-16'
    elif data[1:2] == b'\0' or data[:1] == b'\0' and data[1:2] != b'\0':  # the first character is ASCII
        encoding = 'utf-16-le' if data[1:2] == b'\0' else 'utf-16-be'
    else:
        encoding = 'utf-8-sig'
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != 'utf-8-sig':
            raise UserError(f'{path}: is not text in UTF-16, as it begins; save the list as UTF-8') from None
        first, encoding = data.count(b'\n', 0, error.start) + 1, GBK
        other = next((number for number, line in enumerate(data.split(b'\n'), 1) if _has_utf8(line)), None)
        if other:
            raise UserError(
                f'{path}: line {other} is UTF-8, line {first} is not; save the list in one encoding, UTF-8'
            ) from None
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as second:
            first = data.count(b'\n', 0, second.start) + 1
            raise UserError(f'{path}, line {first}: is neither UTF-8 nor GBK; save the list as UTF-8') from None
    if '\0' in text:
        number = text.count('\n', 0, text.index('\0')) + 1
        raise UserError(f'{path}, line {number}: has a NUL byte; the file is damaged or not a text')
    return encoding


def _has_utf8(line):
    """Whether bytes have characters that only UTF-8 writes so: three bytes or more each."""
    try:
        return max(line.decode(), default='') >= '\u0800'
    except UnicodeDecodeError:
        return False


def _json(path, text):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        why = f'{error.msg}, column {error.colno}'
        raise UserError(
            f'{path}, line {error.lineno}: is not valid JSON ({why}); perhaps the file is cut off: export it again'
        ) from None
    except (RecursionError, ValueError):  # nested too deeply, a number of thousands of digits
        raise UserError(f'{path}: is not a list of images, but other JSON') from None


def plain(cell):
    """The name of a column as COLUMNS has it."""
    return re.sub(r'[\s-]+', '_', cell.strip().casefold())


def known_columns(header):
    """{what: number of its column} of the columns whose names are known."""
    found = {
        what: next((header.index(name) for name in names if name in header), None) for what, names in COLUMNS.items()
    }
    return {what: place for what, place in found.items() if place is not None}


def shown(text):
    """The start of a text, for a message."""
    return repr(files.printable(text.strip())[:60])
