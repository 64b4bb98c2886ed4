"""data.labels=auto means the class names in annotation.json, in every script and by every name of the setting."""

import json
from pathlib import Path

import pytest

import config
from zodiac.base import class_names
from zodiac.base.errors import UserError


@pytest.fixture
def annotated(workdir):
    """Write the `labels` of photos/annotation.json."""

    def write(labels):
        Path('photos').mkdir(exist_ok=True)
        Path('photos/annotation.json').write_text(json.dumps({'labels': labels}), encoding='utf-8')

    return write


def auto():
    return config.use(None, ['data.root=photos', 'data.labels=auto'])


def test_the_names_are_those_of_the_data_at_each_call(annotated):
    cfg = auto()
    for labels in (['cat', '狗'], ['cat', 'ox', '狗']):
        annotated(labels)
        assert class_names.resolve(cfg).data.labels == labels
        assert config.get('LABEL_MAP') == config.get('data.labels') == labels
        assert config.get('num_classes') == len(labels)
    assert cfg.data.labels == 'auto'
    assert 'labels: auto' in cfg.to_yaml() and '- 狗' in class_names.resolve(cfg).to_yaml()


def test_named_classes_stay_as_they_are(annotated):
    annotated(['cat', 'dog'])
    cfg = config.load(None, ['data.root=photos', 'data.labels=[ox, pig]'])
    assert class_names.resolve(cfg) is cfg


@pytest.mark.parametrize('content', [None, '{', '[]', '{}', '{"labels": 3}', '{"labels": []}', '{"labels": [1]}'])
def test_without_names_there_is_one_error_with_the_next_step(workdir, content):
    if content:
        Path('photos').mkdir()
        Path('photos/annotation.json').write_text(content)
    auto()
    for key in ('LABEL_MAP', 'num_classes'):
        with pytest.raises(UserError, match=r'photos/annotation.json: .*data.labels = auto.*run annotate.py first'):
            config.get(key)
    assert config.get('model_save_dir') == 'output/zodiac'


def test_a_difference_is_named():
    assert class_names.difference(['a', 'b'], ['a', 'c', 'd']) == 'new: c, d; gone: b'
    assert class_names.difference(['a'], ['a', 'b']) == 'new: b'
    assert class_names.difference(['a', 'b'], ['b', 'a']) == 'the same classes in another order'
