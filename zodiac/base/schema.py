"""A tree of dataclasses as a schema: set a value by its dotted key, checked by name, type and range."""

import dataclasses
import difflib
import json
import math
import re
import shlex
from dataclasses import field
from typing import Literal, Union, get_args, get_origin, get_type_hints

from zodiac.base.errors import UsageError


def setting(default, low=None, high=None, above=None, pattern=None):
    """A dataclass field with its allowed range: low <= value <= high, value > above, or a regular expression."""
    limits = {'low': low, 'high': high, 'above': above, 'pattern': pattern}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=limits)
    return field(default=default, metadata=limits)


def flatten(value, prefix=''):
    """Yield (dotted key, value) for each leaf of nested dicts."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f'{prefix}.{key}' if prefix else str(key))
    elif prefix:
        yield prefix, value


def get(tree, key):
    """The value at a dotted key; a section comes as a dict. Raises KeyError."""
    value = tree
    for part in key.split('.'):
        if part not in _names(value):
            raise KeyError(key)
        value = getattr(value, part)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def put(tree, key, value, where):
    """Set the leaf at a dotted key, in place. Raises UsageError naming `where`, key, value and what is allowed."""
    *sections, name = key.split('.')
    section = tree
    for part in sections:
        section = getattr(section, part, None) if part in _names(section) else None
    if name not in _names(section):
        parent = next((leaf for leaf in _leaves(tree) if key.startswith(f'{leaf}.')), None)
        hint = f'; {parent} is {_allowed(tree, parent)}' if parent else nearest(tree, key)
        raise UsageError(f'{where}: {key}: no such setting{hint}')
    if dataclasses.is_dataclass(getattr(section, name)):
        if value is None:  # "train:" with nothing below it
            return
        keys = ', '.join(f'{key}.{inner}' for inner in _names(getattr(section, name)))
        raise UsageError(f'{where}: {key} = {value!r}: it is a section; its keys are {keys}')
    kind, limits = _kind_and_limits(section, name)
    converted = _convert(value, kind)
    if converted is _WRONG or not _within(converted, limits):
        raise UsageError(f'{where}: {key} = {value!r}: allowed is {_describe(kind, limits)}')
    setattr(section, name, converted)


# Names and paths that YAML reads as themselves: a letter first, so no number, and none of its words for true, false and null.
PLAIN = re.compile(
    r'(?!(?:y|n|yes|no|on|off|true|false|null)$)(?:\.{1,2}/)*/?[^\W\d_][\w./-]*(?: [\w./-]+)*', re.IGNORECASE
)
UNREADABLE = re.compile('[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')  # to YAML, unless they are escaped


def override(key, value):
    """What sets a text or a list of texts on a command line, behind -o, to be pasted into a shell."""
    spelled = f'[{", ".join(map(_as_yaml, value))}]' if isinstance(value, list) else _as_yaml(value)
    return shlex.quote(f'{key}={spelled}')


def _as_yaml(text):
    if PLAIN.fullmatch(text):
        return text
    return UNREADABLE.sub(lambda found: f'\\u{ord(found[0]):04x}', json.dumps(text, ensure_ascii=False))


def names_a_folder(text):
    """Whether a class may be called so: the name of a folder on any system, without what breaks a line of an index."""
    fit = text.strip() == text and text not in ('', '.', '..') and not re.search(r'[\t\r\n/\\\ud800-\udfff]', text)
    return fit


def item(entry):
    """(name, its value or None) of an entry of a list: a name, or {name: value}; (None, None) for anything else."""
    if isinstance(entry, dict) and len(entry) == 1:
        entry, value = next(iter(entry.items()))
    else:
        value = None
    return (entry, value) if isinstance(entry, str) else (None, None)


def build(kind, values, where, fixed=()):
    """An instance of a dataclass from a dict of settings, or None for its defaults.

    Args:
        fixed: values that are known and not for the user to set; used where the dataclass has such a field.
    Raises: UsageError as `put` does.
    """
    keys = ', '.join(name for name in _names(kind) if name not in fixed) or 'none'
    if not isinstance(values, (dict, type(None))):
        raise UsageError(f'{where}: {values!r}: write its settings as {{setting: value}}; there are: {keys}')
    result = kind(**{name: value for name, value in dict(fixed).items() if name in _names(kind)})
    for key, value in (values or {}).items():
        if key in fixed or key not in _names(kind):
            raise UsageError(f'{where}: {key}: no such setting; there are: {keys}')
        put(result, key, value, where)
    return result


def nearest(tree, key):
    """str: a hint at the setting that was meant, to follow a message."""
    keys = list(_leaves(tree))
    near = difflib.get_close_matches(key, keys)
    near.sort(key=lambda leaf: sorted(leaf) != sorted(key))  # two letters swapped come first
    near = near or [leaf for leaf in keys if leaf.split('.')[-1] == key.split('.')[-1]]
    return f'; did you mean {near[0]}?' if near else '; `python config.py` prints all settings'


def _names(section):
    return [item.name for item in dataclasses.fields(section)] if dataclasses.is_dataclass(section) else []


def _leaves(section, prefix=''):
    for name in _names(section):
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f'{prefix}{name}.')
        else:
            yield prefix + name


def _allowed(tree, key):
    *sections, name = key.split('.')
    for part in sections:
        tree = getattr(tree, part)
    return _describe(*_kind_and_limits(tree, name))


def _kind_and_limits(section, name):
    limits = next(item.metadata for item in dataclasses.fields(section) if item.name == name)
    return get_type_hints(type(section))[name], limits


_WRONG = object()


def _convert(value, kind):
    """`value` as `kind`, or _WRONG. A whole number serves as a float, and so does 1e-3, which YAML reads as text."""
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
        return limits.get('pattern') is None or re.fullmatch(limits['pattern'], value) is not None
    if value is None or isinstance(value, bool):
        return True
    low, high, above = (limits.get(name) for name in ('low', 'high', 'above'))
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def _describe(kind, limits):
    origin = get_origin(kind)
    if origin is Union:
        return ' or '.join(_describe(k, limits) for k in get_args(kind))
    if origin is Literal:
        return ', '.join(get_args(kind))
    if origin is list:
        inner = get_args(kind)[0]
        quote = ' (quote names that YAML would read as numbers or yes/no)' if inner is str else ''
        return f'a list of {_describe(inner, limits)}{quote}'
    words = {
        int: 'a whole number',
        float: 'a number',
        bool: 'true, false',
        str: 'a text',
        dict: '{name: settings}',
        type(None): 'null',
    }[kind]
    if kind in (int, float):
        for name, sign in (('low', '>='), ('above', '>'), ('high', '<=')):
            if limits.get(name) is not None:
                words += f' {sign} {limits[name]}'
    elif kind is str and limits.get('pattern'):
        words += f' that matches {limits["pattern"]}'
    return words
