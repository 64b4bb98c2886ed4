"""The settings: names, types, ranges, files, overrides, the notebook's names, and how a script ends."""

import dataclasses
import random
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from typing import List, Literal, Optional, Union

import pytest
import yaml
from conftest import ROOT, assert_message, run_script

import config
from zodiac.base import errors, schema
from zodiac.base.errors import UsageError, UserError
from zodiac.base.schema import setting


def test_what_is_spelled_for_a_command_line_is_read_back_as_it_was():
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


def load(*overrides):
    return config.load(None, overrides)


def refusal(*overrides, path=None):
    """The message with which the settings are refused."""
    with pytest.raises(UsageError) as caught:
        config.load(path, overrides)
    return str(caught.value)


def all_keys():
    return [key for key, _ in schema.flatten(dataclasses.asdict(config.Config()))]


# --- values and their limits


def test_shipped_zodiac_yaml_holds_the_defaults():
    assert load() == config.Config()


RECIPES = [*sorted((ROOT / 'configs').glob('*.yaml')), *sorted((ROOT / 'docs/results').rglob('config.yaml'))]


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_of_a_shipped_config_is_taken(path):
    cfg = config.load(path)
    for key, value in schema.flatten(yaml.safe_load(path.read_text(encoding='utf-8'))):
        assert schema.get(cfg, key) == value


@pytest.mark.parametrize(
    ('override', 'key', 'value'),
    [
        ('train.epochs=3', 'train.epochs', 3),
        ('optim.lr=1e-3', 'optim.lr', 0.001),
        ('optim.lr=1', 'optim.lr', 1.0),
        ('optim.weight_decay=0', 'optim.weight_decay', 0.0),
        ('data.labels=[cat, 狗]', 'data.labels', ['cat', '狗']),
        ('data.root=a=b', 'data.root', 'a=b'),
        ('data.num_workers=0', 'data.num_workers', 0),
        ('data.num_workers=auto', 'data.num_workers', 'auto'),
        ('model.pretrained=false', 'model.pretrained', False),
        ('model.pretrained=w.pdparams', 'model.pretrained', 'w.pdparams'),
        ('annotate.archive=null', 'annotate.archive', None),
        ('device=gpu:1', 'device', 'gpu:1'),
        ('image.mean=[0, 0.5, 1]', 'image.mean', [0.0, 0.5, 1.0]),
        ('image.resize=squash', 'image.resize', 'squash'),
        ('image.resize=auto', 'image.resize', 'auto'),
        ('image.resize=300', 'image.resize', 300),
        ('augment=[]', 'augment', []),
        ('augment=[resize]', 'augment', ['resize']),
        (
            'augment=[{random_crop: {padding: 4, mode: edge}}, horizontal_flip, {resize: null}]',
            'augment',
            [{'random_crop': {'padding': 4, 'mode': 'edge'}}, 'horizontal_flip', {'resize': None}],
        ),
        ('train={epochs: 4}', 'train.epochs', 4),
        (' train.epochs =5', 'train.epochs', 5),
    ],
)
def test_override_sets_the_value_in_its_type(override, key, value):
    result = schema.get(load(override), key)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('train.epochs=abc', ['train.epochs', "'abc'", 'a whole number >= 1']),
        ('train.epochs=0', ['train.epochs', '0', '>= 1']),
        ('train.epochs=2.5', ['train.epochs', '2.5', 'a whole number']),
        ('train.epochs=true', ['train.epochs', 'True', 'a whole number']),
        ('train.epochs=', ['train.epochs', 'None', 'a whole number']),
        ('train.epochs={}', ['train.epochs', '{}', 'a whole number']),
        ('train.epochs="3"', ['train.epochs', "'3'", 'a whole number']),
        ('train.batch_size=0', ['train.batch_size', '0', '>= 1']),
        ('train.batch_size=-1', ['train.batch_size', '-1', '>= 1']),
        ('optim.lr=0', ['optim.lr', '0', 'a number > 0']),
        ('optim.lr=.nan', ['optim.lr', 'nan', 'a number']),
        ('optim.lr=.inf', ['optim.lr', 'inf', 'a number']),
        ('optim.lr=fast', ['optim.lr', "'fast'", 'a number > 0']),
        ('optim.lr=true', ['optim.lr', 'True', 'a number']),
        ('optim.name=momentun', ['optim.name', "'momentun'", 'momentum', 'sgd', 'adamw']),
        ('optim.momentum=1.5', ['optim.momentum', '1.5', '<= 1']),
        ('image.resize=crop', ['image.resize', "'crop'", 'auto', 'squash', 'a whole number >= 8']),
        ('augment=random_crop', ['augment', "'random_crop'", 'a list of a text or {name: settings}']),
        ('augment=', ['augment', 'None', 'a list of a text or {name: settings}']),
        ('augment=3', ['augment', '3', 'a list of a text or {name: settings}']),
        ('augment={}', ['augment', '{}', 'a list of a text or {name: settings}']),
        ('augment=[random_crop, 3]', ['augment', "['random_crop', 3]", 'a text or {name: settings}']),
        ('augment=[null]', ['augment', '[None]', 'a text or {name: settings}']),
        ('augment=[[resize]]', ['augment', "[['resize']]", 'a text or {name: settings}']),
        ('augment.scale=[0.8, 1]', ['augment.scale', 'no such setting']),
        ('augment.flip=0', ['augment.flip', 'no such setting']),
        ('augment={random_crop: {padding: 4}}', ['augment.random_crop', 'a list']),
        ('model.arch=resnet51', ['model.arch', "'resnet51'", 'resnet50']),
        ('model.pretrained=3', ['model.pretrained', '3', 'true, false', 'a text']),
        ('model.zero_init_residual=maybe', ['model.zero_init_residual', "'maybe'", 'true, false']),
        ('annotate.non_rgb=keep', ['annotate.non_rgb', "'keep'", 'reject', 'convert']),
        ('annotate.workers=0', ['annotate.workers', '0', 'auto', '>= 1']),
        ('data.num_workers=many', ['data.num_workers', "'many'", 'auto', 'a whole number']),
        ('data.labels=cat', ['data.labels', "'cat'", 'a list']),
        ('data.labels=[cat, 7]', ['data.labels', '7', 'quote']),
        ('data.labels=[cat, no]', ['data.labels', 'False', 'quote']),
        ('device=tpu', ['device', "'tpu'", 'gpu', 'cpu']),
        ('device=gpu:x', ['device', "'gpu:x'", 'gpu']),
        ('name=../elsewhere', ['name', "'../elsewhere'"]),
        ('name=a/b', ['name', "'a/b'"]),
        ('data.root=/', ['data.root', "'/'"]),
        ('seed=-1', ['seed', '-1', '>= 0']),
        ('train=3', ['train', '3', 'section', 'train.epochs', 'train.batch_size']),
        ('train.epochs.more=3', ['train.epochs.more', 'no such setting', 'train.epochs']),
    ],
)
def test_wrong_value_is_refused_naming_key_value_and_what_is_allowed(override, words):
    message = refusal(override)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ('overrides', 'key'),
    [
        (['data.labels=[cat]'], 'data.labels'),
        (['data.labels=[]'], 'data.labels'),
        (['data.labels=[cat, cat]'], 'data.labels'),
        (['data.labels=[cat, a/b]'], 'data.labels'),
        (['data.labels=[cat, "a\\tb"]'], 'data.labels'),
        (['data.labels=[cat, ".."]'], 'data.labels'),
        (['data.labels=[cat, " dog"]'], 'data.labels'),
        (['data.labels=[cat, ""]'], 'data.labels'),
        (['image.mean=[0.5]'], 'image.mean'),
        (['image.std=[1, 1, 1, 1]'], 'image.std'),
        (['image.std=[1, 0, 1]'], 'image.std'),
        (['image.size=224', 'image.resize=200'], 'image.resize'),
        (['image.size=224', 'image.resize=223'], 'image.resize'),
        (['annotate.valid_fraction=0.5', 'annotate.test_fraction=0.5'], 'annotate.test_fraction'),
        (['optim.name=adam', 'optim.nesterov=true'], 'optim.nesterov'),
        (['optim.lr=0.01', 'optim.min_lr=0.02'], 'optim.min_lr'),
        (['optim.min_lr=0.00376'], 'optim.min_lr'),
        (['optim.clip_norm=1', 'optim.clip_value=0.1'], 'optim.clip_value'),
        (['optim.schedule=one_cycle', 'optim.warmup_epochs=0.5'], 'optim.warmup_epochs'),
        (['model.unfreeze_epoch=3'], 'model.unfreeze_epoch'),
        (['model.unfreeze_epoch=1', 'model.freeze=none'], 'model.unfreeze_epoch'),
        (['train.sampling=balanced', 'train.class_weights=balanced'], 'train.class_weights'),
    ],
)
def test_values_that_do_not_fit_together_are_refused_naming_the_key(overrides, key):
    message = refusal(*overrides)
    assert key in message
    assert 'allowed is' in message


@pytest.mark.parametrize(
    'overrides',
    [
        ['image.size=224', 'image.resize=224'],
        ['image.size=512', 'image.resize=squash'],
        ['optim.lr=0.01', 'optim.min_lr=0.01'],
        ['optim.clip_norm=1'],
        ['optim.clip_value=0.1'],
        ['optim.clip_norm=1', 'optim.clip_value=0'],
        ['optim.schedule=one_cycle'],
        ['optim.schedule=cosine_restarts', 'optim.warmup_epochs=2'],
        ['model.freeze=backbone', 'model.unfreeze_epoch=3'],
        ['model.freeze=layer2', 'model.unfreeze_epoch=1'],
        ['train.sampling=balanced'],
        ['train.class_weights=balanced'],
        ['optim.nesterov=true'],
    ],
    ids=' '.join,
)
def test_values_that_fit_together_are_taken(overrides):
    cfg = load(*overrides)
    for override in overrides:
        key, _, value = override.partition('=')
        assert schema.get(cfg, key) == yaml.safe_load(value)


def test_a_refusal_of_values_that_do_not_fit_names_the_other_setting_too():
    for overrides, other in (
        (['image.resize=100'], 'image.size (224)'),
        (['optim.min_lr=1'], 'optim.lr (0.00375)'),
        (['optim.clip_norm=1', 'optim.clip_value=1'], 'optim.clip_norm'),
        (['optim.schedule=one_cycle', 'optim.warmup_epochs=1'], 'optim.schedule=one_cycle'),
        (['model.unfreeze_epoch=1'], 'model.freeze'),
        (['train.sampling=balanced', 'train.class_weights=balanced'], 'train.sampling=balanced'),
    ):
        assert other in refusal(*overrides)


def test_a_value_at_its_limit_is_taken_and_one_beyond_is_not():
    assert load('annotate.valid_fraction=0.8', 'annotate.test_fraction=0.1').annotate.valid_fraction == 0.8
    assert '<= 0.8' in refusal('annotate.valid_fraction=0.81')
    assert load(f'seed={2**31 - 1}').seed == 2**31 - 1
    assert 'seed' in refusal(f'seed={2**31}')


@pytest.mark.parametrize('override', ['optim.lr=1' + '0' * 400, 'name=2024-13-45'])
def test_a_value_that_python_cannot_hold_is_refused_naming_the_key(override):
    assert override.partition('=')[0] in refusal(override)


# --- names


def test_swapped_letters_in_a_key_are_refused_naming_the_key_that_was_meant():
    for key in all_keys():
        section, dot, name = key.rpartition('.')
        typo = section + dot + name[1] + name[0] + name[2:]
        message = refusal(f'{typo}=3')
        assert typo in message and f'did you mean {key}?' in message, message


@pytest.mark.parametrize(
    ('override', 'meant'),
    [
        ('trian.epochs=3', 'train.epochs'),
        ('optim.learning_rate=1', 'optim.'),
        ('train.epoch=3', 'train.epochs'),
        ('lr=0.1', 'optim.lr'),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_one(override, meant):
    assert f'did you mean {meant}' in refusal(override)


def test_a_key_that_resembles_nothing_is_refused_with_a_way_to_see_all():
    assert 'python config.py' in refusal('xyzzy=1')


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('epochs', 'train.epochs'),
        ('batch_size', 'train.batch_size'),
        ('LABEL_MAP', 'data.labels'),
        ('LEARNING_RATE.params.lr', 'optim.lr'),
        ('OPTIMIZER.params.momentum', 'optim.momentum'),
        ('OPTIMIZER.regularizer.factor', 'optim.weight_decay'),
    ],
)
def test_setting_a_notebook_name_is_refused_naming_our_setting(name, meant):
    assert meant in refusal(f'{name}=1')


@pytest.mark.parametrize('name', ['num_classes', 'image_shape', 'total_images', 'model_save_dir'])
def test_a_derived_value_cannot_be_set(name):
    assert f'{name} follows from' in refusal(f'{name}=5')


@pytest.mark.parametrize('override', ['train.epochs', '', '=3'])
def test_an_override_that_is_not_key_equals_value_is_refused(override):
    assert 'key=value' in refusal(override)


def test_an_override_that_is_not_yaml_is_refused():
    assert 'not valid YAML' in refusal('data.labels=[cat')


# --- files


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('train: {epochs: 7, batch_size: 8}\n')
    cfg = config.load(path, ['train.epochs=8', 'train.epochs=9'])
    assert (cfg.train.epochs, cfg.train.batch_size, cfg.optim.lr) == (9, 8, 0.00375)


def test_a_file_without_content_or_with_an_empty_section_gives_the_defaults(tmp_path):
    path = tmp_path / 'a.yaml'
    for text in ('', '# nothing\n', 'train:\n'):
        path.write_text(text)
        assert config.load(path) == config.Config()


def test_a_file_saved_by_windows_notepad_is_read(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_bytes('\ufeffdata:\r\n  root: 图片\r\n'.encode())
    assert config.load(path).data.root == '图片'


@pytest.mark.parametrize(
    'content',
    [b'- a\n- b\n', b'just text', b'train: [1\n', b'\xff\xfe\x00', b'name: "\x07"', None],
    ids=['list', 'text', 'open bracket', 'not UTF-8', 'control character', 'missing'],
)
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path, content):
    path = tmp_path / 'a.yaml'
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refusal(path=path)


def test_a_folder_as_configuration_is_refused_by_name(tmp_path):
    assert str(tmp_path) in refusal(path=tmp_path)


def test_a_list_of_operations_in_a_file_is_read_as_it_stands_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('augment:\n  - random_crop: {padding: 4}\n  - horizontal_flip\n')
    assert config.load(path).augment == [{'random_crop': {'padding': 4}}, 'horizontal_flip']
    assert config.load(path, ['augment=[resize]']).augment == ['resize']


def test_operations_without_dashes_in_a_file_are_refused_telling_of_the_list(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('augment:\n  random_crop: {padding: 4}\n  horizontal_flip: {p: 0.5}\n')
    assert 'a list' in refusal(path=path)


def test_an_unknown_key_in_a_file_is_refused_naming_file_and_nearest_key(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('trian:\n  epochs: 3\n')
    message = refusal(path=path)
    assert str(path) in message
    assert 'trian.epochs' in message
    assert 'did you mean train.epochs?' in message


def test_the_resolved_configuration_loads_back_to_the_same(tmp_path):
    cfg = load(
        'name=run 1.b',
        'data.labels=["no", "007", 猫, "a: b", "null"]',
        'optim.lr=1e-05',
        'annotate.archive=x.zip',
        'model.pretrained=false',
        'data.num_workers=3',
        'image.resize=squash',
        'augment=[resize, {random_erasing: {scale: [0.1, 0.2], inside: false}}, {affine: null}]',
        'model.head=[global_avg_pool, flatten, {dropout: 0.3}, linear]',
    )
    path = tmp_path / 'config.yaml'
    path.write_text(cfg.to_yaml(), encoding='utf-8')
    assert config.load(path) == cfg
    assert '猫' in cfg.to_yaml()
    assert [key for key, _ in schema.flatten(yaml.safe_load(cfg.to_yaml()))] == all_keys()


def test_configurations_do_not_share_their_lists():
    one, other = config.Config(), config.Config()
    one.data.labels.append('cat')
    one.augment.append('cat')
    for cfg in (other, config.Config()):
        assert 'cat' not in cfg.data.labels
        assert 'cat' not in cfg.augment


# --- get


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('LABEL_MAP', config.ZODIAC),
        ('num_classes', 12),
        ('image_shape', [3, 224, 224]),
        ('epochs', 20),
        ('batch_size', 32),
        ('total_images', 7096),
        ('model_save_dir', 'output/zodiac'),
        ('LEARNING_RATE.params.lr', 0.00375),
        ('OPTIMIZER.params.momentum', 0.9),
        ('OPTIMIZER.regularizer.factor', 1e-6),
    ],
)
def test_get_knows_the_notebooks_names_with_the_notebooks_values(workdir, key, value):
    assert config.get(key) == value


def test_get_reads_the_active_configuration(workdir):
    config.use(None, ['train.epochs=3', 'data.labels=[a, b, c]', 'image.size=64', 'name=small'])
    assert config.get('train.epochs') == config.get('epochs') == 3
    assert config.get('num_classes') == 3
    assert config.get('image_shape') == [3, 64, 64]
    assert config.get('model_save_dir') == 'output/small'
    assert config.get('train')['epochs'] == 3


def test_number_of_training_images_follows_from_the_index(workdir):
    (workdir / 'photos').mkdir()
    (workdir / 'photos' / 'train.txt').write_text('photos/a.jpg\t0\nphotos/b.jpg\t1\n\nphotos/c.jpg\t1')
    config.use(None, ['data.root=photos'])
    assert config.get('total_images') == 3


@pytest.mark.parametrize('key', ['train.epoch', '', 'train.', 'LEARNING_RATE', 'run_dir', 'data.labels.0'])
def test_get_of_an_unknown_key_says_so(workdir, key):
    with pytest.raises(UsageError, match='no such setting'):
        config.get(key)


def test_get_suggests_the_nearest_key(workdir):
    with pytest.raises(UsageError, match=r'train\.epoch: no such setting; did you mean train\.epochs\?'):
        config.get('train.epoch')


# --- command line


def test_overrides_may_share_one_o_or_have_one_each(workdir):
    cfg = config.from_command_line('x', ['-o', 'train.epochs=3', 'seed=4', '-o', 'optim.lr=0.5'])
    assert (cfg.train.epochs, cfg.seed, cfg.optim.lr) == (3, 4, 0.5)
    assert config.active() is cfg


def test_config_script_prints_settings_that_load_again(workdir):
    result = run_script('config.py', '-c', ROOT / 'configs' / 'demo.yaml', '-o', 'train.epochs=9', cwd=workdir)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ''
    (workdir / 'copy.yaml').write_text(result.stdout, encoding='utf-8')
    assert config.load('copy.yaml') == config.load(ROOT / 'configs' / 'demo.yaml', ['train.epochs=9'])


def test_script_with_a_wrong_setting_ends_with_2_and_one_line(workdir):
    result = run_script('config.py', '-o', 'trian.epochs=3', cwd=workdir)
    assert_message(result, 2, 'trian.epochs', 'did you mean train.epochs?')
    assert result.stderr.count('\n') == 1
    assert result.stdout == ''


def test_script_whose_reader_has_left_ends_without_a_word(workdir):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'config.py')], cwd=workdir, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b''
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 141)


@pytest.mark.parametrize('argv', [['--epochs', '3'], ['-o'], ['extra']])
def test_wrong_usage_ends_with_2(workdir, capsys, argv):
    with pytest.raises(SystemExit) as caught:
        config.from_command_line('x', argv)
    assert caught.value.code == 2
    assert 'usage' in capsys.readouterr().err


def test_help_shows_the_scripts_example(workdir, capsys):
    with pytest.raises(SystemExit) as caught:
        config.from_command_line(config.__doc__, ['--help'])
    assert caught.value.code == 0
    assert 'python config.py -c configs/demo.yaml' in capsys.readouterr().out


# --- how a script ends


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ('main', 'status', 'words'),
    [
        (lambda: None, 0, []),
        (lambda: 3, 3, []),
        (raising(UserError('signs: empty')), 1, ['error: signs: empty']),
        (raising(UsageError('seed = -1')), 2, ['error: seed = -1']),
        (raising(OSError(28, 'No space left on device', 'out.txt')), 1, ['out.txt', 'No space left on device']),
        (raising(MemoryError()), 1, ['out of memory']),
        (raising(UnicodeEncodeError('latin-1', '照片', 0, 2, 'no')), 1, ['照片', 'PYTHONUTF8=1']),
    ],
    ids=['done', 'own status', 'failed', 'usage', 'disk full', 'memory', 'locale'],
)
def test_run_ends_with_the_documented_status_and_one_line(capsys, main, status, words):
    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    assert caught.value.code == status
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.count('\n') == bool(words)
    assert all(word in captured.err for word in words)


def test_run_keeps_the_traceback_of_our_own_faults():
    with pytest.raises(ZeroDivisionError):
        errors.run(lambda: 1 / 0)


# --- the schema by itself


@dataclass
class Inner:
    rate: float = setting(0.5, low=0, above=-1, high=1)
    words: List[str] = setting(['a'], pattern='[a-z]+')


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


def test_put_sets_what_get_reads():
    tree = Outer()
    for key, value in (('kind', 'y'), ('limit', 2), ('limit', None), ('switch', 7), ('inner.words', ['b', 'c'])):
        schema.put(tree, key, value, 'here')
        assert schema.get(tree, key) == value
    assert schema.get(tree, 'inner') == {'rate': 0.5, 'words': ['b', 'c']}


@pytest.mark.parametrize(
    ('key', 'value'),
    [('kind', 'z'), ('limit', 1), ('inner.words', ['b', 'C']), ('inner.rate', -0.1), ('inner.rate', 2), ('inner', 1)],
)
def test_put_of_a_wrong_value_changes_nothing_and_names_the_place(key, value):
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
