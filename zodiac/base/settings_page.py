"""The reference of all settings, docs/settings.md, generated from the schema."""

import dataclasses
import json
import typing

from zodiac.base import schema

INTRODUCTION = """# Settings

All settings with their defaults, as printed by `python config.py --describe`.

A YAML file (`-c`) names only the settings that differ from the defaults:

```yaml
name: pets
data:
  labels: [cat, dog]
train:
  epochs: 3
```

On the command line, `-o` overrides the file. Values are written as in YAML. This prints the resulting settings; `annotate.py`,
`train.py`, `evaluate.py`, `export.py` and the other scripts except `predict.py` and `serve.py` take the same options:

```bash
python config.py -c configs/demo.yaml -o train.epochs=3 optim.lr=0.01 'data.labels=[cat, dog]'
```

Without `-c`, scripts use `configs/zodiac.yaml`; with a path of photos `configs/photos.yaml`, with a run its settings. An unknown name
or a wrong value stops a script at once, with a message that says what is allowed. Each run saves its
settings in `output/<name>/config.yaml`.
"""
HEAD = '| setting | default | allowed | meaning |\n| --- | --- | --- | --- |\n'


def markdown(cfg):
    """The page, for an instance of the schema with all settings at their defaults."""
    sections = {'': cfg, **{item.name: getattr(cfg, item.name) for item in dataclasses.fields(cfg)}}
    parts = [INTRODUCTION]
    for name, section in sections.items():
        if dataclasses.is_dataclass(section):
            rows = ''.join(_rows(section, f'{name}.' if name else ''))
            parts.append(f'## {name or "General"}\n\n{section.__doc__}\n\n{HEAD}{rows}')
    return '\n'.join(parts)


def _rows(section, prefix):
    kinds = typing.get_type_hints(type(section))
    for item in dataclasses.fields(section):
        default, about = getattr(section, item.name), item.metadata
        if not dataclasses.is_dataclass(default):
            allowed = schema.allowed(kinds[item.name], about, '`{}`')
            shown = json.dumps(default).replace('"', '')  # YAML needs no quotes here
            yield f'| `{prefix}{item.name}` | `{shown}` | {allowed} | {about["doc"]} |\n'
