"""Settings as nested dataclasses: set and get by dotted key, checked."""

import random
import shlex
from dataclasses import dataclass, field
from typing import List, Literal, Optional, Union

import pytest
import yaml

from zodiac.base import schema
from zodiac.base.errors import UsageError
from zodiac.base.schema import setting


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


@dataclass
class Inner:
    rate: float = setting(0.5, low=0, high=1)
    words: List[str] = setting(['a'], pattern=('[a-z]+', 'small letters'))


@dataclass
class Outer:
    kind: Literal['x', 'y'] = 'x'
    limit: Optional[int] = setting(None, low=2)
    switch: Union[bool, int] = True
    inner: Inner = field(default_factory=Inner)


def test_flatten_yields_every_leaf_and_keeps_empty_dicts_and_lists():
    nested = {'a': {'b': 1, 'c': {'d': [2, 3], 'e': {}}}, 'f': None}
    assert list(schema.flatten(nested)) == [('a.b', 1), ('a.c.d', [2, 3]), ('a.c.e', {}), ('f', None)]
    assert list(schema.flatten(None)) == []


def test_put_sets_the_value_that_get_returns():
    tree = Outer()
    for key, value in (('kind', 'y'), ('limit', 2), ('limit', None), ('switch', 7), ('inner.words', ['b', 'c'])):
        schema.put(tree, key, value, 'here')
        assert schema.get(tree, key) == value
    assert schema.get(tree, 'inner') == {'rate': 0.5, 'words': ['b', 'c']}


@pytest.mark.parametrize(
    ('key', 'value'),
    [('kind', 'z'), ('limit', 1), ('inner.words', ['b', 'C']), ('inner.rate', -0.1), ('inner.rate', 2), ('inner', 1)],
)
def test_put_of_a_wrong_value_changes_nothing_and_names_its_source(key, value):
    tree = Outer()
    with pytest.raises(UsageError, match=f'^here: {key}'):
        schema.put(tree, key, value, 'here')
    assert tree == Outer()


@pytest.mark.parametrize('key', ['no', 'inner.no', 'kind.no', 'inner.words.0', ''])
def test_get_of_an_unknown_key_raises_key_error(key):
    with pytest.raises(KeyError):
        schema.get(Outer(), key)


def test_defaults_of_lists_are_copies():
    assert Outer().inner.words is not Outer().inner.words
