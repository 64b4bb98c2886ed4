"""Read the numbers of another program: JSON, JSON lines, CSV, .npy or .npz, in the forms that programs write."""

import codecs
import io
import json
import math
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from zodiac.base.errors import UserError, one_line
from zodiac.explain import tables

LIST_KEYS = ('probabilities', 'logits', 'scores', 'output', 'outputs')
LARGEST = 64 << 20  # bytes


@dataclass(frozen=True)
class Theirs:
    """What another program says of each photo."""

    values: np.ndarray  # float64 [photos, classes]; NaN where it says nothing
    rounding: np.ndarray  # float64, the same shape: by how much printing them may have changed them
    best: np.ndarray  # int [photos]: the class that it names

    @property
    def only_labels(self):
        return bool(np.isnan(self.values).all())


def read(path, photos, labels):
    """Theirs, from a file.

    Args:
        photos: paths, as on the command line; labels: class names of the model, in order.
    Raises: UserError that names the file, the place in it, and what is expected.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
    if len(content) > LARGEST:
        raise UserError(f'{path}: more than {LARGEST >> 20} MB; keep only the numbers of these photos')
    labels = [unicodedata.normalize('NFC', str(label)) for label in labels]
    is_numpy = content[:6] == b'\x93NUMPY' or content[:4] == b'PK\x03\x04'
    entries = _arrays(path, content) if is_numpy else _texts(path, content, len(photos))
    rows = [_row(entry, where, labels) for entry, where in _in_order(path, entries, photos)]
    values, best = np.array([row[0] for row in rows]), [row[1] for row in rows]
    rounding = _rounding([row[2] for row in rows], values)
    return Theirs(
        values, rounding, np.array([_best(value) if one is None else one for value, one in zip(values, best)])
    )


def _best(values):
    return int(np.nanargmax(values))


def _arrays(path, content):
    """[(path or None, row), ...] of a NumPy file."""
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        arrays = {name: found[name] for name in found.files} if hasattr(found, 'files') else {'array': found}
    except Exception as error:  # damaged files raise many kinds
        raise UserError(
            f'{path}: cannot be read ({one_line(error)}); write it with numpy.save or numpy.savez'
        ) from None
    names = next((arrays.pop(key) for key in ('paths', 'path', 'files', 'filenames') if key in arrays), None)
    named = [arrays[key] for key in LIST_KEYS if key in arrays]
    numeric = named or [array for array in arrays.values() if array.dtype.kind in 'fiu' and array.ndim in (1, 2)]
    if len(numeric) != 1 and not named:
        raise UserError(
            f'{path}: has the arrays {", ".join(arrays) or "none"}; it must have one of numbers, [photos, classes]'
        )
    array = numeric[0]
    if array.dtype.kind not in 'fiu' or array.ndim not in (1, 2):
        raise UserError(f'{path}: an array of {array.dtype} {list(array.shape)}; it must be numbers, [photos, classes]')
    rows = array[None] if array.ndim == 1 else array
    if names is not None and np.shape(names) != (len(rows),):
        raise UserError(f'{path}: {np.size(names)} paths, but {len(rows)} rows of numbers')
    names = [None] * len(rows) if names is None else [str(name) for name in names]
    return [(name, row, f'{path}, row {number}') for number, (name, row) in enumerate(zip(names, rows))]


def _texts(path, content, count):
    """[(path or None, entry, where), ...] of a text file."""
    try:
        coding = 'utf-16' if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else 'utf-8-sig'
        text = content.decode(coding)
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: is not text in UTF-8 (byte {error.start}); {tables.FORMS}') from None
    if not text.strip():
        raise UserError(f'{path}: is empty; {tables.FORMS}')
    if path.lower().endswith(('.csv', '.tsv')) or text.lstrip()[0] not in '[{':
        return tables.read(path, text)
    try:
        return list(_json_entries(path, _parse(text), count))
    except json.JSONDecodeError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or not _is_json(lines[0][1]):
            raise UserError(f'{path}, line {error.lineno}: is not valid JSON ({error.msg}); {tables.FORMS}') from None
    found = []
    for number, line in lines:  # one JSON value per line
        try:
            found.append((*_named(_parse(line)), f'{path}, line {number}'))
        except json.JSONDecodeError as error:
            raise UserError(f'{path}, line {number}: is not valid JSON ({error.msg})') from None
    return found


def _parse(text):
    """JSON with numbers as Decimal, which keep how many digits were written."""
    try:
        return json.loads(text, parse_float=Decimal)
    except RecursionError:
        raise json.JSONDecodeError('nested too deeply', text, 0) from None


def _is_json(text):
    try:
        return isinstance(_parse(text), (dict, list))
    except json.JSONDecodeError:
        return False


def _json_entries(path, value, count):
    if isinstance(value, dict) and isinstance(value.get('predictions'), list):  # what serve.py answers
        value = value['predictions']
    if isinstance(value, dict):
        if _is_answer(value) or (count == 1 and _is_distribution(value)):
            yield (*_named(value), path)
            return
        for name, entry in value.items():
            yield name, entry, f'{path}, {name}'
    elif value and _all_numbers(value):
        yield None, value, path
    else:
        for number, entry in enumerate(value):
            yield (*_named(entry), f'{path}, entry {number}')


def _is_answer(value):
    return any(key in value and not isinstance(value[key], dict) for key in ('label', 'top', *LIST_KEYS))


def _is_distribution(value):
    """Whether a dict is {class: number}; {photo: class number} is not."""
    numbers = list(value.values())
    return _all_numbers(numbers) and (len(numbers) > 1 or isinstance(numbers[0], Decimal))


def _all_numbers(values):
    values = list(values)
    return bool(values) and all(isinstance(value, (int, Decimal)) for value in values)


def _named(entry):
    """(path or None, entry without it)."""
    if isinstance(entry, dict):
        for key in tables.PATH_KEYS:
            if isinstance(entry.get(key), str):
                return entry[key], {name: value for name, value in entry.items() if name != key}
    return None, entry


def _in_order(path, entries, photos):
    """[(entry, where), ...] of the photos. Without names, the entries must be as many as the photos."""
    if all(name is None for name, *_ in entries):
        if len(entries) != len(photos):
            raise UserError(
                f'{path}: numbers of {len(entries)} photos without their names, but {len(photos)} photos are given; name the photos '
                'in the file, or give the same ones in the same order'
            )
        return [(entry, where) for _, entry, where in entries]
    by_path, by_name = {}, {}
    for name, entry, where in entries:
        name = _plain(str(name))
        if name in by_path:
            raise UserError(f'{where}: {name} is there twice')
        by_path[name] = (entry, where)
        by_name.setdefault(name.rpartition('/')[2], []).append((entry, where))
    found = []
    for photo in photos:
        plain = _plain(photo)
        several = [by_path[plain]] if plain in by_path else by_name.get(plain.rpartition('/')[2], [])
        if len(several) != 1:
            what = 'several entries of that name' if several else 'no entry for this photo'
            known = ', '.join(list(by_path)[:3])
            raise UserError(f'{path}: {what}: {photo}; it has {known}{", ..." if len(by_path) > 3 else ""}')
        found.append(several[0])
    return found


def _plain(path):
    path = unicodedata.normalize('NFC', path).replace('\\', '/')
    return path[2:] if path.startswith('./') else path


def _row(entry, where, labels):
    """(values float [classes], class that is named or None, the numbers as written) of one photo."""
    if isinstance(entry, dict):
        listed = next((entry[key] for key in LIST_KEYS if isinstance(entry.get(key), (list, dict))), None)
        if listed is None and isinstance(entry.get('top'), list):
            listed = {one.get('label'): one.get('probability') for one in entry['top'] if isinstance(one, dict)}
        if listed is None and isinstance(entry.get('label'), (str, int)) and 'label' not in labels:
            score = next((entry[key] for key in tables.SCORE_KEYS if key in entry), None)
            listed = entry['label'] if score is None else {entry['label']: score}
        entry = entry if listed is None else listed
    written = [None] * len(labels)
    if isinstance(entry, str) or (isinstance(entry, int) and not isinstance(entry, bool)):
        return [math.nan] * len(labels), _class_of(entry, where, labels), written
    if isinstance(entry, (list, np.ndarray)):
        if len(entry) != len(labels):
            raise UserError(f'{where}: {len(entry)} numbers, but the model has {len(labels)} classes')
        written = list(entry)
    elif isinstance(entry, dict):
        for name, value in entry.items():
            written[_class_of(name, where, labels)] = value
    else:
        raise UserError(f'{where}: {type(entry).__name__} is neither numbers nor a class; {tables.FORMS}')
    values = [math.nan if value is None else _finite(value, where) for value in written]
    if all(map(math.isnan, values)):
        raise UserError(f'{where}: no numbers; {tables.FORMS}')
    return values, None, written


def _class_of(name, where, labels):
    name = unicodedata.normalize('NFC', str(name)).strip()
    if name in labels:
        return labels.index(name)
    if name.isdecimal() and int(name) < len(labels):
        return int(name)
    known = ', '.join(labels[:8]) + (', ...' if len(labels) > 8 else '')
    raise UserError(f'{where}: {name!r} is no class of this model; its classes are {known}')


def _finite(value, where):
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, np.number)):
        raise UserError(f'{where}: {value!r} is not a number')
    if not math.isfinite(value):
        raise UserError(f'{where}: {value} among the numbers; the other program computes something that is not finite')
    return float(value)


def _rounding(written, values):
    """Half a unit of the last digit that is written, float64 [photos, classes].

    Zeros at the end are not written, so the unit is that of the number with the most digits: after the point, or in all.
    """
    numbers = [number for row in written for number in row if isinstance(number, Decimal)]
    floor = np.full(values.shape, 1e-7) * np.maximum(1, np.abs(np.nan_to_num(values)))
    if not numbers:
        halves = [number for row in written for number in row if isinstance(number, np.float16)]
        return np.maximum(floor, 5e-4 * np.abs(np.nan_to_num(values))) if halves else floor
    places = max(max(0, -number.as_tuple().exponent) for number in numbers)
    digits = max(len(number.as_tuple().digits) for number in numbers if number) if any(numbers) else 1
    size = np.floor(np.log10(np.maximum(np.abs(np.nan_to_num(values)), 1e-300)))
    by_digits = np.where(size > -20, 10.0 ** (size - digits + 1), 0)
    return np.maximum(floor, np.maximum(0.5 * 10.0**-places, 0.5 * by_digits))
