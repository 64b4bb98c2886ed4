"""Nested dataclasses as a schema for settings: values are set by dotted key, and checked by name, type and range."""

import dataclasses
import difflib
import json
import math
import re
import shlex
from dataclasses import field
from typing import Literal, Union, get_args, get_origin, get_type_hints

from zodiac.base.errors import UsageError


def setting(default, doc='', low=None, high=None, above=None, pattern=None):
    """A dataclass field for a setting.

    Args:
        doc: its meaning, for docs/settings.md.
        low, high, above: range of a number: low <= value <= high, value > above.
        pattern: (regular expression that a string must match, the same in words).
    """
    metadata = {'doc': doc, 'low': low, 'high': high, 'above': above, 'pattern': pattern}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def flatten(value, prefix=''):
    """Yield (dotted key, value) for each leaf of a nested dict."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f'{prefix}.{key}' if prefix else str(key))
    elif prefix:
        yield prefix, value


def get(tree, key):
    """The value of a dotted key; a dict for a section. Raises KeyError."""
    value = tree
    for part in key.split('.'):
        if part not in _names(value):
            raise KeyError(key)
        value = getattr(value, part)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def put(tree, key, value, where):
    """Set the value of a dotted key in place. Raises UsageError, which names `where`, key, value and what is allowed."""
    *sections, name = key.split('.')
    section = tree
    for part in sections:
        section = getattr(section, part, None) if part in _names(section) else None
    if name not in _names(section):
        parent = next((leaf for leaf in _leaves(tree) if key.startswith(f'{leaf}.')), None)
        hint = f'; {parent} must be {_allowed_at(tree, parent)}' if parent else nearest(tree, key)
        raise UsageError(f'{where}: {key}: no such setting{hint}')
    if dataclasses.is_dataclass(getattr(section, name)):
        if value is None:  # "train:" with nothing below
            return
        keys = ', '.join(f'{key}.{inner}' for inner in _names(getattr(section, name)))
        raise UsageError(f'{where}: {key} = {value!r}: this is a section; its keys are {keys}')
    kind, limits = _kind_and_limits(section, name)
    converted = _convert(value, kind)
    if converted is _WRONG or not _within(converted, limits):
        raise UsageError(f'{where}: {key} = {value!r}: must be {allowed(kind, limits)}')
    setattr(section, name, converted)


# Names and paths that need no quotes in YAML: they begin with a letter, and are not its words for true, false and null.
PLAIN = re.compile(
    r'(?!(?:y|n|yes|no|on|off|true|false|null)$)(?:\.{1,2}/)*/?[^\W\d_][\w./-]*(?: [\w./-]+)*', re.IGNORECASE
)
UNREADABLE = re.compile('[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')  # in YAML, unless escaped


def override(key, value):
    """The argument of -o that sets a string or a list of strings, quoted for a shell."""
    return shlex.quote(f'{key}={as_yaml(value)}')


def as_yaml(value):
    """The value of a setting as YAML on one line."""
    if isinstance(value, list):
        return f'[{", ".join(map(as_yaml, value))}]'
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    return UNREADABLE.sub(lambda found: f'\\u{ord(found[0]):04x}', json.dumps(value, ensure_ascii=False))


def names_a_folder(text):
    """Whether a string can be a class name: a folder name on any system, without characters that would break a line of an index."""
    return text.strip() == text and text not in ('', '.', '..') and not re.search(r'[\t\r\n/\\\ud800-\udfff]', text)


def item(entry):
    """(name, value or None) of an entry of a list: a name or {name: value}; (None, None) for anything else."""
    if isinstance(entry, dict) and len(entry) == 1:
        entry, value = next(iter(entry.items()))
    else:
        value = None
    return (entry, value) if isinstance(entry, str) else (None, None)


def build(kind, values, where, fixed=()):
    """An instance of a dataclass from a dict of settings, or None for the defaults.

    Args:
        fixed: values that the user cannot set, used if the dataclass has such fields.
    Raises: UsageError, like `put`.
    """
    keys = ', '.join(name for name in _names(kind) if name not in fixed) or 'none'
    if not isinstance(values, (dict, type(None))):
        raise UsageError(f'{where}: {values!r}: write its settings as {{setting: value}}; available: {keys}')
    result = kind(**{name: value for name, value in dict(fixed).items() if name in _names(kind)})
    for key, value in (values or {}).items():
        if key in fixed or key not in _names(kind):
            raise UsageError(f'{where}: {key}: no such setting; available: {keys}')
        put(result, key, value, where)
    return result


def nearest(tree, key):
    """The end of a message on an unknown key: the most similar one."""
    keys = keys_of(tree)
    near = difflib.get_close_matches(key, keys)
    near.sort(key=lambda leaf: sorted(leaf) != sorted(key))  # prefer swapped letters
    near = near or [leaf for leaf in keys if leaf.split('.')[-1] == key.split('.')[-1]]
    return f'; did you mean {near[0]}?' if near else '; `python config.py` prints all settings'


def keys_of(tree):
    """The dotted keys of all settings."""
    return list(_leaves(tree))


def _names(section):
    return [item.name for item in dataclasses.fields(section)] if dataclasses.is_dataclass(section) else []


def _leaves(section, prefix=''):
    for name in _names(section):
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f'{prefix}{name}.')
        else:
            yield prefix + name


def _allowed_at(tree, key):
    *sections, name = key.split('.')
    for part in sections:
        tree = getattr(tree, part)
    return allowed(*_kind_and_limits(tree, name))


def _kind_and_limits(section, name):
    limits = next(item.metadata for item in dataclasses.fields(section) if item.name == name)
    return get_type_hints(type(section))[name], limits


_WRONG = object()


def _convert(value, kind):
    """`value` as `kind`, or _WRONG. Integers are accepted as floats, and so is 1e-3, which YAML reads as a string."""
    origin = get_origin(kind)
    if origin is Union:
        return next((c for c in (_convert(value, k) for k in get_args(kind)) if c is not _WRONG), _WRONG)
    if origin is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else _WRONG
    if origin is list:
        items = [_convert(item, get_args(kind)[0]) for item in value] if isinstance(value, list) else [_WRONG]
        return _WRONG if any(item is _WRONG for item in items) else items
    if kind is float and not isinstance(value, bool):
        try:
            number = float(value) if isinstance(value, (int, float, str)) else math.nan
        except (ValueError, OverflowError):
            return _WRONG
        return number if math.isfinite(number) else _WRONG
    if kind is int and isinstance(value, bool):
        return _WRONG
    return value if isinstance(value, kind) else _WRONG


def _within(value, limits):
    if isinstance(value, list):
        return all(_within(item, limits) for item in value)
    if isinstance(value, str):
        return not limits.get('pattern') or re.fullmatch(limits['pattern'][0], value) is not None
    if value is None or isinstance(value, bool):
        return True
    low, high, above = (limits.get(name) for name in ('low', 'high', 'above'))
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def allowed(kind, limits, literal='{}'):
    """The allowed values in words, such as 'auto or a whole number >= 1'.

    Args:
        literal: format of a value that is written as it is.
    """
    options = list(dict.fromkeys(_options(kind, limits, literal)))
    return ' or '.join(filter(None, [', '.join(options[:-1]), options[-1]]))


def _options(kind, limits, literal):
    if get_origin(kind) is Union:
        return [option for inner in get_args(kind) for option in _options(inner, limits, literal)]
    if get_origin(kind) is Literal:
        return [literal.format(value) for value in get_args(kind)]
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        quote = ' (quote names that YAML would read as numbers or yes/no)' if inner is str else ''
        return [f'a list, each item {allowed(inner, limits, literal)}{quote}']
    if kind is str and limits.get('pattern'):
        return [limits['pattern'][1]]
    if kind in (int, float):
        return [{int: 'a whole number', float: 'a number'}[kind] + _range(limits)]
    if kind is bool:
        return [literal.format('true'), literal.format('false')]
    return [{str: 'a string', dict: '{name: settings}', type(None): literal.format('null')}[kind]]


def _range(limits):
    low, high, above = (limits.get(name) for name in ('low', 'high', 'above'))
    if low is not None and high is not None:
        return f' from {low} to {high}'
    bounds = [f'{sign} {bound}' for sign, bound in (('>=', low), ('>', above), ('<=', high)) if bound is not None]
    return f' {" and ".join(bounds)}' if bounds else ''
