"""Settings from a YAML file (-c) and from the command line (-o), and what other spellings of them mean."""

import argparse
import difflib
import functools
import os
import re
import shlex
import sys

from zodiac.base import calls, schema
from zodiac.base.errors import UsageError

OTHER_NAMES = {  # of settings, as they are often guessed: without section, in lower case, with _ for -
    'learning_rate': 'optim.lr',
    'lr0': 'optim.lr',
    'lrf': 'optim.min_lr',
    'optimizer': 'optim.name',
    'opt': 'optim.name',
    'wd': 'optim.weight_decay',
    'scheduler': 'optim.schedule',
    'lr_scheduler': 'optim.schedule',
    'lr_decay': 'optim.schedule',
    'sched': 'optim.schedule',
    'gamma': 'optim.step_factor',
    'clip_grad': 'optim.clip_norm',
    'warmup': 'optim.warmup_epochs',
    'epoch': 'train.epochs',
    'num_epochs': 'train.epochs',
    'batch': 'train.batch_size',
    'bs': 'train.batch_size',
    'batchsize': 'train.batch_size',
    'early_stopping': 'train.patience',
    'fp16': 'train.amp',
    'bf16': 'train.amp',
    'half': 'train.amp',
    'ema_decay': 'train.ema',
    'model_ema': 'train.ema',
    'model_ema_decay': 'train.ema',
    'epsilon': 'train.label_smoothing',
    'mixup_alpha': 'train.mixup',
    'cutmix_alpha': 'train.cutmix',
    'backbone': 'model.arch',
    'model': 'model.arch',
    'network': 'model.arch',
    'weights': 'model.pretrained',
    'freeze_backbone': 'model.freeze',
    'freeze_layers': 'model.freeze',
    'data': 'data.root',
    'data_dir': 'data.root',
    'data_path': 'data.root',
    'dataset': 'data.root',
    'input': 'data.root',
    'images': 'data.root',
    'classes': 'data.labels',
    'class_names': 'data.labels',
    'workers': 'data.num_workers',
    'imgsz': 'image.size',
    'img_size': 'image.size',
    'image_size': 'image.size',
    'input_size': 'image.size',
    'resolution': 'image.size',
    'augmentation': 'augment',
    'zip': 'annotate.archive',
    'val_split': 'annotate.valid_fraction',
    'validation_split': 'annotate.valid_fraction',
    'test_split': 'annotate.test_fraction',
    'test_size': 'annotate.test_fraction',
    'folds': 'evaluate.folds',
    'onnx': 'export.onnx',
    'gpu': 'device',
    'gpus': 'device',
    'run': 'name',
    'experiment': 'name',
    'project': 'output',
    'output_dir': 'output',
    'save_dir': 'output',
    'random_seed': 'seed',
    'random_state': 'seed',
}
NEAR = 0.75  # similarity of a misspelt name; below, `drop` would mean `group`
PATHS = {  # what a script can take before its options
    'run': ('RUN', 'a run, with its settings: its name, such as pets, or its folder, output/pets'),
    'photos': ('PHOTOS', 'folder of photos, an archive or a list: the settings are those of configs/photos.yaml'),
}


class Parser(argparse.ArgumentParser):
    """An argparse parser that names the setting behind an option or argument which it does not know."""

    def parse_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        found, unknown = self.parse_known_args(words, namespace)
        paths = [getattr(found, kind, None) for kind in PATHS]
        for word in [*unknown, *filter(None, paths)]:
            if word.startswith('-') and word in words or '=' in word and not os.path.exists(word):
                self.error(self._instead(word, words))
        if unknown:
            self.error(f'unrecognized arguments: {" ".join(unknown)}; a name with spaces needs quotes')
        return found

    def _instead(self, word, words):
        """What to write instead of an unknown option, or of a setting without -o."""
        name, equals, value = word.partition('=')
        after = words[words.index(word) + 1 :][:1]
        if not equals:
            value = after[0] if after and not after[0].startswith('-') else 'true'
        section = os.path.splitext(os.path.basename(self.prog).split()[-1])[0]
        key = meaning(self.settings, name, section)
        given = word if equals or after != [value] else f'{word} {value}'
        if not key:
            return f'{given}: no such option; --help shows the options, `python config.py` all settings for -o'
        return f'{given}: settings are given with -o: -o {shlex.quote(f"{key}={value}")}'


def parser(doc, settings, takes=None):
    """An argparse parser with `-c CONFIG` and `-o key.sub=value ...`; --help shows `doc`.

    Args:
        settings: an instance of the schema, for the message on a setting that is written as an option.
        takes: a key of PATHS, which may come first.
    """
    result = Parser(**calls.how_called(doc))
    result.settings = settings
    if takes:
        metavar, about = PATHS[takes]
        result.add_argument(takes, nargs='?', metavar=metavar, help=about)
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


def meaning(settings, name, section=''):
    """The dotted key that a guessed name means, such as `batch-size` or `optim.learning_rate`; None if none is near.

    Args:
        settings: an instance of the schema.
        section: the one that comes first if several have such a setting.
    """
    name = name.lstrip('-').replace('-', '_').lower()
    keys, last = schema.keys_of(settings), name.rpartition('.')[2]
    same = [key for key in keys if key.rpartition('.')[2] == last]
    of_section = f'{section}.{last}'
    for key in (name, of_section, OTHER_NAMES.get(last), *same[:1]):
        if key in keys:
            return key
    near = difflib.get_close_matches(last, [key.rpartition('.')[2] for key in keys], n=1, cutoff=NEAR)
    return next((key for key in keys if near and key.rpartition('.')[2] == near[0]), None)


def check(settings, key, value, where):
    """Raise UsageError, naming `where`, for a key that is one of OTHER_NAMES."""
    meant = OTHER_NAMES.get(key.rpartition('.')[2])
    if meant and value is not None and key not in schema.keys_of(settings):
        raise UsageError(f'{where}: {key}: no such setting; did you mean {meant}?')


def overrides_of(args):
    """The `key=value` arguments of a parsed command line, in order."""
    return [override for group in args.override for override in group]


def again(args):
    """The -c and -o of a parsed command line, as arguments of another script."""
    overrides = overrides_of(args)
    return [*(['-c', args.config] if args.config else []), *(['-o', *overrides] if overrides else [])]


def assignments(path, overrides):
    """Yield (dotted key, value, source) of the settings in a YAML file, then of the overrides: each `key=value`, or such a triple.

    Raises: UsageError.
    """
    for key, value in schema.flatten(read_yaml(path)):
        yield key, value, path
    for override in overrides:
        if isinstance(override, tuple):
            yield override
            continue
        key, equals, text = override.partition('=')
        if not equals or not key.strip():
            place = '; a path comes before -o' if os.path.exists(override) else ''
            raise UsageError(f'-o {override}: write it as key=value, for example -o train.epochs=3{place}')
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
