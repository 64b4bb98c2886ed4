"""Read lists of labelled images that other programs write: CSV and TSV, PaddleClas and PaddleX, COCO, Label Studio.

The kind is found from the content, see `KINDS`. Nothing here looks at images: `listed` finds them and checks the rows against each other.
"""

import codecs
import collections
import contextlib
import csv
import io
import itertools
import json
import os
import re
from typing import Callable, NamedTuple

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.data.folders import SPLIT_NAMES

SEVERAL = 'several labels per image are not supported'
GBK = 'gb18030'  # which contains it
SAMPLE = 100  # lines that are looked at to find the layout of a text
DELIMITERS = {',': 'comma', '\t': 'tab', ';': 'semicolon', '|': 'bar'}
COLUMNS = {  # names of columns, the best first; compared in lower case, with _ for spaces and hyphens
    'path': (
        *(
            'path',
            'image_path',
            'img_path',
            'file_path',
            'filepath',
            'imagepath',
            'file_name',
            'filename',
            'image_name',
        ),
        *('file', 'image_file', 'image', 'img', 'image_id', 'name', 'id', '路径', '图片路径', '文件名', '图片', '图像'),
    ),
    'label': (
        *('class_name', 'classname', 'label_name', 'category_name', 'label', 'labels', 'class', 'category', 'choice'),
        *('target', 'species', 'breed', '类别', '标签', '分类'),
    ),
    'split': ('split', 'set', 'subset', 'partition', '划分'),
    'group': ('group', 'group_id', 'video', 'video_id', 'patient', 'patient_id', '组', '分组'),
}
NUMBERED = re.compile(r'(.*\.\w{1,5})[ \t]+([\d,]+)')  # a line of PaddleClas, whose paths have a suffix
IMAGE = re.compile(r'.*\.(jpe?g|jfif|png|webp|avif|gif|bmp|tiff?|p[pgb]m)', re.IGNORECASE)
LABEL_FILES = (
    'labels.txt',
    'label.txt',
    'label_list.txt',
    'class_id_map.txt',
    'classes.txt',
)  # beside a PaddleClas list
ABOUT_A_TASK = (
    'id',
    'annotation_id',
    'annotator',
    'created_at',
    'updated_at',
    'lead_time',
)  # Label Studio's own fields


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


class Part(NamedTuple):
    """The rows of one file. `unit`: what `Row.number` counts; `split`: of all its rows, '' if the rows name it or none is known."""

    path: str
    unit: str
    rows: object
    split: str


def read(path, labels, say):
    """Read a list.

    Args:
        labels: class names that numbers stand for if there is no label file, or 'auto'.
        say: called with each line on what was guessed.
    Returns: (list of `Part`s, whose rows are read as they are iterated, the class names in the order of their numbers or None).
    Raises: UserError naming the file and the line, here and while the rows are read.
    """
    source = _open(path)
    kind = next((name for name, (fits, *_) in KINDS.items() if fits(source)), None)
    if kind is None:
        raise UserError(
            f'{path}: is JSON, but neither of COCO (images, annotations, categories), nor an export of Label Studio (JSON or JSON-MIN), '
            'nor a list of objects with path and label'
        )
    say(f'{path}: read as {kind}' + (' in GBK' if source.encoding == GBK else ''))
    fits, rows, unit, is_divided = KINDS[kind]
    sources = _divided(source, fits, say) if is_divided else {'': source}
    if len(sources) > 1:
        say('; '.join(f'{split}: {found.path}' for split, found in sources.items()))
    names = _class_names(path, labels, say) if fits is _is_paddle else None
    parts = [Part(one.path, unit, rows(one, names, say), split) for split, one in sources.items()]
    return parts, list(names.values()) if names else None


def _open(path):
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
    if path.lower().endswith('.json') or data.lstrip(codecs.BOM_UTF8 + b' \t\r\n')[:2] in (
        b'[{',
        b'[\n',
        b'{"',
        b'{\n',
    ):
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


# --- CSV and TSV


def _is_table(source):
    return source.content is None


def _table_rows(source, names, say):
    delimiter, first = _layout(source)
    header = [_plain(cell) for cell in first]
    places = _places(header)
    if 'path' in places and 'label' in places:
        used = ', '.join(f'{what} = {first[place].strip()}' for what, place in places.items())
        left = [cell.strip() for place, cell in enumerate(first) if place not in places.values()]
        say(f'{source.path}: {used}' + (f'; not used: {", ".join(left)}' if left else ''))
        skip = True
    else:
        places, skip = _places_without_header(source, delimiter, first), False
        say(f'{source.path}: no header; {", ".join(f"{what} = column {place + 1}" for what, place in places.items())}')
    return _cells(source, delimiter, places, len(first), skip)


def _cells(source, delimiter, places, width, skip):
    """Yield the rows of a table."""
    path, label, split, group = (places.get(what) for what in ('path', 'label', 'split', 'group'))
    needed = max(place for place in places.values()) + 1
    reader = csv.reader(source.lines(newline=''), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            why = f'{error}; perhaps a quote is not closed'
            raise UserError(f'{source.path}, line {max(1, reader.line_num)}: cannot be read: {why}') from None
        if cells is None:
            return
        if not any(map(str.strip, cells)):
            continue
        if skip:
            skip = False
            continue
        if len(cells) != width and (len(cells) < needed or any(map(str.strip, cells[width:]))):
            raise UserError(
                f'{source.path}, line {reader.line_num}: {len(cells)} columns, but the first line has {width}; quote what contains a '
                f'{DELIMITERS[delimiter]}; {SEVERAL}'
            )
        yield Row(
            reader.line_num,
            cells[path].strip(),
            cells[label].strip(),
            '' if split is None else cells[split].strip(),
            '' if group is None else cells[group].strip(),
        )


def _plain(cell):
    return re.sub(r'[\s-]+', '_', cell.strip().casefold())


def _places(header):
    """{what: number of its column} of the columns whose names are known."""
    found = {
        what: next((header.index(name) for name in names if name in header), None) for what, names in COLUMNS.items()
    }
    return {what: place for what, place in found.items() if place is not None}


def _layout(source):
    """(delimiter, cells of the first line) of a table."""
    several = []
    for delimiter in DELIMITERS:
        rows = _first_rows(source, delimiter)
        if rows and len(rows[0]) > 1:
            places = _places([_plain(cell) for cell in rows[0]])
            if 'path' in places and 'label' in places:
                return delimiter, rows[0]
            several.append((sum(len(row) == len(rows[0]) for row in rows), delimiter, rows[0]))
    if not several:
        raise UserError(
            f'{source.path}, line 1: one column ({_shown(source.head[0])}); a list needs two, path and label, separated by '
            'comma, tab or semicolon'
        )
    return max(several, key=lambda found: found[0])[1:]


def _first_rows(source, delimiter):
    """The rows at the start of a table, up to one that cannot be read."""
    rows = []
    with contextlib.suppress(csv.Error):
        rows.extend(csv.reader(source.head, delimiter=delimiter))
    return rows


def _places_without_header(source, delimiter, first):
    """The columns of a table whose first line is an image. Raises UserError if it is not, or what a column means is unclear."""
    pictures = [place for place, cell in enumerate(first) if IMAGE.fullmatch(cell.strip())]
    rows = [row for row in _first_rows(source, delimiter) if len(row) == len(first)]
    others = [place for place in range(len(first)) if place not in pictures]
    if not pictures:
        lacking = [what for what in ('path', 'label') if what not in _places([_plain(cell) for cell in first])]
        marks = others[1:] and all(row[place].strip() in ('0', '1') for row in rows[1:] for place in others[1:])
        if marks and len(rows) > 1 and len(others) > 2:
            raise UserError(f'{source.path}: one column per class; {SEVERAL}: write columns path and label')
        raise UserError(
            f'{source.path}, line 1: no column {" or ".join(lacking)} among {", ".join(map(_shown, first))}; name the columns path, label '
            'and, if you have them, split and group'
        )
    splits = [place for place in others if all(row[place].strip().lower() in SPLIT_NAMES for row in rows)]
    labels = [place for place in others if place not in splits]
    if len(pictures) != 1 or len(labels) != 1 or len(splits) > 1:
        raise UserError(
            f'{source.path}, line 1: {len(first)} columns without a header; add a first line that names them, such as '
            f'path{delimiter if delimiter != chr(9) else ","}label; {SEVERAL}'
        )
    return {'path': pictures[0], 'label': labels[0], **({'split': splits[0]} if splits else {})}


def _shown(text):
    return repr(files.printable(text.strip())[:60])


# --- PaddleClas and PaddleX: `path number`, the class names in another file


def _is_paddle(source):
    if source.content is not None or {'path', 'label'} <= {
        *_places([_plain(cell) for cell in source.head[0].split('\t')])
    }:
        return False
    return 2 * sum(bool(NUMBERED.fullmatch(line.strip())) for line in source.head) > len(source.head)


def _paddle_rows(source, names, say):
    for number, line in enumerate(source.lines(), 1):
        line = line.strip()
        if not line:
            continue
        path, _, label = line.replace('\t', ' ').rpartition(' ')
        if ',' in label and label.replace(',', '').isdecimal():
            raise UserError(f'{source.path}, line {number}: labels {label}; {SEVERAL}')
        if not path or not label.isdecimal():
            raise UserError(
                f'{source.path}, line {number}: {_shown(line)} is not a path, a space and the number of a class'
            )
        if names and int(label) not in names:
            raise UserError(
                f'{source.path}, line {number}: there is no class {label}; the classes have the numbers {_range(names)}'
            )
        yield Row(number, line[: len(path)].strip(), names[int(label)] if names else label)


def _range(names):
    return f'{min(names)} to {max(names)}'


def _class_names(path, labels, say):
    """{number: name} of the label file beside a list, or else of data.labels; None with data.labels=auto if there is no such file."""
    folder = os.path.dirname(path)
    found = [os.path.join(folder, name) for name in LABEL_FILES if os.path.isfile(os.path.join(folder, name))]
    found += sorted(
        os.path.join(folder, name) for name in os.listdir(folder or '.') if name.lower().endswith('_label_list.txt')
    )
    found = [one for one in found if os.path.abspath(one) != os.path.abspath(path)]
    if found:
        say(f'{found[0]}: the names of the classes')
        return _label_file(found[0])
    if labels != 'auto':
        say(f'{path}: no label file beside it, so the numbers are those of data.labels')
        return dict(enumerate(labels))
    say(f'{path}: no {LABEL_FILES[0]} or {LABEL_FILES[1]} beside it, so the numbers are the names of the classes')
    return None


def _label_file(path):
    """{number: name}: of lines `number name` (PaddleClas, PaddleX 3), or of one name per line, numbered from 0 (PaddleX)."""
    source = _open(path)
    lines = [line.strip() for line in source.lines()]
    while lines and not lines[-1]:
        lines.pop()
    pairs = [re.fullmatch(r'(\d+)[ \t]+(\S.*)', line) for line in lines if line]
    if all(pairs):
        names = {}
        for pair in pairs:
            if names.setdefault(int(pair[1]), pair[2]) != pair[2]:
                raise UserError(f'{path}: the number {pair[1]} has two names, {names[int(pair[1])]} and {pair[2]}')
        names = dict(sorted(names.items()))
    else:
        names = dict(enumerate(lines))
    empty = next((number for number, name in names.items() if not name), None)
    if empty is not None:
        raise UserError(f'{path}, line {empty + 1}: no name; the number of a class is that of its line, from 0')
    twice = next((name for name, count in collections.Counter(names.values()).items() if count > 1), None)
    if twice:
        raise UserError(f'{path}: the name {twice} comes twice')
    return names


def _divided(source, fits, say):
    """{split: Source} of a list named after a split and the lists of the other splits beside it; {'': source} if there is no other."""
    folder, name = os.path.split(source.path)
    words = '|'.join(sorted((*SPLIT_NAMES, 'eval'), key=len, reverse=True))
    own = re.search(rf'(?<![a-z])(?:{words})(?:20\d\d)?(?![a-z])', name.lower())
    if not own:
        return {'': source}
    before, after = re.escape(name[: own.start()]), re.escape(name[own.end() :])
    found = {}
    for other in sorted(os.listdir(folder or '.'), key=lambda other: (other != name, other)):
        match = re.fullmatch(f'{before}({words})(?:20\\d\\d)?{after}', other, re.IGNORECASE)
        split = match and SPLIT_NAMES.get(match[1].lower(), 'valid')
        path = os.path.join(folder, other)
        if split and split not in found and os.path.isfile(path) and os.path.getsize(path):
            one = source if other == name else _open(path)
            if fits(one):
                found[split] = one
            else:
                say(f'{path}: not read, it is not a list of the same kind')
    if 'train' not in found or len(found) == 1:
        return {'': source}
    return {split: found[split] for split in ('train', 'valid', 'test') if split in found}


# --- COCO


def _is_coco(source):
    return isinstance(source.content, dict) and {'images', 'annotations', 'categories'} <= {*source.content}


def _coco_rows(source, names, say):
    content, path = source.content, source.path
    try:
        categories = {category['id']: str(category['name']) for category in content['categories']}
        images = {
            image['id']: [number, str(image['file_name']), ''] for number, image in enumerate(content['images'], 1)
        }
        if len(images) < len(content['images']):
            raise UserError(f'{path}: two images have the same id')
        for number, annotation in enumerate(content['annotations'], 1):
            where, image = f'{path}, annotation {number}', images.get(annotation['image_id'])
            label = categories.get(annotation['category_id'])
            if image is None:
                raise UserError(
                    f'{where}: there is no image with the id {annotation["image_id"]}; export the list again'
                )
            if label is None:
                raise UserError(
                    f'{where}: there is no category with the id {annotation["category_id"]}; export the list again'
                )
            if image[2] not in ('', label):
                raise UserError(f'{where}: {image[1]} is {label}, before it was {image[2]}; {SEVERAL}')
            image[2] = label
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path}: is not as COCO defines it ({type(error).__name__}: {error}); export the list again'
        ) from None
    return (Row(*image) for image in images.values())


# --- Label Studio


def _is_label_studio(source):
    content = source.content
    return isinstance(content, list) and bool(content) and all(isinstance(task, dict) for task in content)


def _label_studio_rows(source, names, say):
    for number, task in enumerate(source.content, 1):
        where = f'{source.path}, task {number}'
        where += f' (id {task["id"]})' if 'id' in task else ''
        full = isinstance(task.get('data'), dict)
        data = task['data'] if full else {key: value for key, value in task.items() if key not in ABOUT_A_TASK}
        picture = _picture(data)
        if picture is None:
            raise UserError(f'{where}: no path of an image in {", ".join(map(str, data)) or "it"}')
        labels = _choices(task, where) if full else _chosen(data, picture)
        if len(labels) > 1:
            raise UserError(f'{where}: {", ".join(sorted(labels))}; {SEVERAL}')
        extra = {_plain(str(key)): value for key, value in data.items() if isinstance(value, (str, int))}
        split, group = (
            next((str(extra[name]) for name in COLUMNS[what] if name in extra), '') for what in ('split', 'group')
        )
        yield Row(number, data[picture], next(iter(labels), ''), split, group)


def _picture(data):
    """The key of the image's path; None if there is none."""
    texts = [key for key, value in data.items() if isinstance(value, str)]
    known = [key for name in COLUMNS['path'] for key in texts if _plain(str(key)) == name]
    looks = [key for key in texts if IMAGE.fullmatch(data[key].partition('?d=')[2] or data[key].partition('?')[0])]
    return next(iter([key for key in known if key in looks] + looks + known), None)


def _choices(task, where):
    """The labels of a task in JSON: those of all annotations that were not skipped."""
    labels = set()
    try:
        for annotation in task.get('annotations') or task.get('completions') or []:
            if not annotation.get('was_cancelled') and not annotation.get('skipped'):
                for result in annotation.get('result', []):
                    if result.get('type') == 'choices':
                        labels.update(str(choice).strip() for choice in result['value']['choices'])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where}: is not as Label Studio writes it ({type(error).__name__}: {error}); export it again'
        ) from None
    return labels


def _chosen(data, picture):
    """The labels of a task in JSON-MIN, or of any object with a path and a label."""
    fields = {_plain(str(key)): value for key, value in data.items() if key != picture}
    own = next((name for name in COLUMNS['label'] if name in fields), None)
    left = [name for name in fields if name not in (*COLUMNS['split'], *COLUMNS['group'])]
    value = fields.get(own or (left[0] if len(left) == 1 else None))
    if isinstance(value, dict):
        value = value.get('choices')
    values = value if isinstance(value, list) else [value]
    return {str(one).strip() for one in values if isinstance(one, (str, int)) and str(one).strip()}


KINDS = {  # {name: (whether a Source is of this kind, function that yields its rows, what these count, one file per split)}
    'COCO': (_is_coco, _coco_rows, 'image', True),
    'Label Studio': (_is_label_studio, _label_studio_rows, 'task', False),
    'PaddleClas or PaddleX': (_is_paddle, _paddle_rows, 'line', True),
    'a table': (_is_table, _table_rows, 'line', False),
}
