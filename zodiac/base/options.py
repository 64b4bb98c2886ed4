"""Settings from a YAML file (-c) and from the command line (-o)."""

import argparse
import functools
import os
import re
import sys

from zodiac.base import calls, schema
from zodiac.base.errors import UsageError


def parser(doc):
    """An argparse parser with `-c CONFIG` and `-o key.sub=value ...`; --help shows `doc`."""
    result = argparse.ArgumentParser(**calls.how_called(doc))
    result.add_argument(
        '-c', '--config', metavar='CONFIG', help='YAML file of settings, or the name of a recipe (default: zodiac)'
    )
    result.add_argument(
        '-o',
        '--override',
        metavar='key.sub=value',
        nargs='+',
        action='append',
        default=[],
        help='settings that override the file, as YAML values',
    )
    return result


def overrides_of(args):
    """The `key=value` arguments of a parsed command line, in order."""
    return [override for group in args.override for override in group]


def assignments(path, overrides):
    """Yield (dotted key, value, source) of the settings in a YAML file, then of those in `key=value` overrides. Raises UsageError."""
    for key, value in schema.flatten(read_yaml(path)):
        yield key, value, path
    for override in overrides:
        key, equals, text = override.partition('=')
        if not equals or not key.strip():
            raise UsageError(f'-o {override}: write it as key=value, for example -o train.epochs=3')
        for inner_key, value in schema.flatten(parse_yaml(text, f'-o {override}'), key.strip()):
            yield inner_key, value, '-o'


def read_yaml(path):
    """The settings in a YAML file or a recipe, as a nested dict. Raises UsageError, which names the file."""
    path = recipe(path)
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'not UTF-8 text'
        raise UsageError(f'{path}: cannot read the configuration ({reason}); {_recipes()}') from None
    content = parse_yaml(text, path)
    if content is not None and not isinstance(content, dict):
        raise UsageError(f'{path}: a configuration consists of "key: value" lines; {_recipes()}')
    return content or {}


def recipe(path):
    """The file that `path` names. Where it is no file, `photos` is short for `configs/photos.yaml`, and recipes that are not in the working
    directory are those that come with Zodiac; stderr says which file is used."""
    name = re.fullmatch(r'(?:configs/)?([\w-]+?)(?:\.yaml)?', os.fspath(path))
    if not name or os.path.exists(path) and not os.path.isdir(path):
        return path
    places = [os.path.join(folder, f'{name[1]}.yaml') for folder in ('configs', os.path.join(calls.FOLDER, 'configs'))]
    found = next(filter(os.path.isfile, places), path)
    if found != path and 'PADDLE_TRAINER_ID' not in os.environ:
        _say(f'settings: {found}')
    return found


@functools.cache
def _say(text):
    """Print to stderr, once."""
    print(text, file=sys.stderr)


def _recipes():
    folder = os.path.join(calls.FOLDER, 'configs')
    names = sorted(name[: -len('.yaml')] for name in os.listdir(folder) if name.endswith('.yaml'))
    return f'the recipes are {", ".join(names)}, in {calls.here("configs")}/'


def parse_yaml(text, where):
    """The value of a YAML text. Raises UsageError, which names `where`."""
    import yaml  # 12 ms, which --help does without

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise UsageError(f'{where}: not valid YAML: {" ".join(str(error).split())}') from None
