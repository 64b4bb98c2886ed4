"""Settings and values of earlier versions that are no longer supported."""

from zodiac.base.errors import UsageError

UNPACK = 'the limit is fixed now; unpack a larger archive yourself and set data.root'
REMOVED = {  # setting: (its default, at which saved settings may still have it; what to do instead)
    'data.cache_side': ('auto', 'the cache always uses the size that auto chose'),
    'annotate.max_entries': (2_000_000, UNPACK),
    'annotate.max_bytes': (200 * 2**30, UNPACK),
    'annotate.max_ratio': (100.0, UNPACK),
    'train.autotune': (False, 'Paddle chooses the kernels'),
    'train.evaluate_first': (False, 'the first validation is that after epoch 1'),
    'optim.clip_value': (0.0, 'use optim.clip_norm'),
    'export.precision': (
        'fp32',
        'for int8 set export.int8=true; bf16 is chosen where the model runs (predict.py --precision)',
    ),
}
REMOVED_VALUES = {
    ('device', 'xpu'): 'use gpu or cpu',
    ('device', 'npu'): 'use gpu or cpu',
    ('train.amp', 'O2'): 'use O1',
    ('evaluate.engine', 'tensorrt'): 'use onnxruntime',
}


def is_ignored(key, value):
    """Whether this is a removed setting at its default, which changes nothing."""
    return key in REMOVED and value == REMOVED[key][0]


def check(key, value, where):
    """Raise UsageError for a removed setting or value, naming `where`, key, value and what to do instead."""
    instead = REMOVED[key][1] if key in REMOVED else REMOVED_VALUES.get((key, str(value).partition(':')[0]))
    if instead:
        raise UsageError(f'{where}: {key} = {value!r} is no longer supported; {instead}')
