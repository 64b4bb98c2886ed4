"""Helpers for dotted keys and shell commands; tests/test_config.py checks the schema itself."""

import random
import shlex

import yaml

from zodiac.base import schema


def test_an_override_for_the_shell_is_read_back_unchanged():
    rng = random.Random(0)
    letters = 'ab./- _1~yenoNOl猫é"\'\\[]{}:,#&*!|>%@`=?\x7f\x85\u2028\ufeff🐈'
    for _ in range(3000):
        text = ''.join(rng.choice(letters) for _ in range(rng.randrange(1, 6)))
        for value in (text, ['x', text]):
            (word,) = shlex.split(schema.override('data.labels', value))
            key, _, spelled = word.partition('=')
            assert (key, yaml.safe_load(spelled)) == ('data.labels', value)
    assert schema.override('data.root', '../../out/my-data_1.2') == 'data.root=../../out/my-data_1.2'
    assert schema.override('data.labels', ['小 猫', 'no']) == """'data.labels=[小 猫, "no"]'"""


def test_flatten_yields_every_leaf_and_keeps_empty_dicts_and_lists():
    nested = {'a': {'b': 1, 'c': {'d': [2, 3], 'e': {}}}, 'f': None}
    assert list(schema.flatten(nested)) == [('a.b', 1), ('a.c.d', [2, 3]), ('a.c.e', {}), ('f', None)]
    assert list(schema.flatten(None)) == []
