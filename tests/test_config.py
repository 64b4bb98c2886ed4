"""The settings: names, types, ranges, files, overrides, the notebook's names, and their reference page."""

import dataclasses
import json
import shlex

import pytest
import yaml
from conftest import ROOT, assert_message, run_script

import config
from zodiac.base import notebook_names, options, removed, schema
from zodiac.base.errors import UsageError


def load(*overrides):
    return config.load(None, overrides)


def refusal(*overrides, path=None):
    """The message of the UsageError for these settings."""
    with pytest.raises(UsageError) as caught:
        config.load(path, overrides)
    return str(caught.value)


def all_keys():
    return [key for key, _ in schema.flatten(dataclasses.asdict(config.Config()))]


# --- values


def test_shipped_zodiac_yaml_holds_the_defaults_but_leaves_out_any_number_of_images_as_the_notebook_does():
    cfg = load()
    assert cfg.annotate.max_left_out == 1
    cfg.annotate.max_left_out = config.Config().annotate.max_left_out
    assert cfg == config.Config()


RECIPES = [*sorted((ROOT / 'configs').glob('*.yaml')), *sorted((ROOT / 'docs/results').rglob('config.yaml'))]
OUTDATED = [path for path in RECIPES if path.parent.name in ('cifar10', 'cifar10_jpeg')]  # runs with optim.clip_value


@pytest.mark.parametrize(
    'path', [path for path in RECIPES if path not in OUTDATED], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_setting_of_a_shipped_config_is_used(path):
    cfg = config.load(path)
    for key, value in schema.flatten(yaml.safe_load(path.read_text(encoding='utf-8'))):
        assert removed.is_ignored(key, value) or schema.get(cfg, key) == value


# --- removed settings


@pytest.mark.parametrize('path', OUTDATED, ids=lambda path: path.parent.name)
def test_a_saved_config_with_a_removed_setting_is_refused_naming_it(path):
    assert f'{path}: train.evaluate_first = True is no longer supported; ' in refusal(path=path)


def test_removed_settings_at_their_defaults_are_ignored():
    assert load(*(f'{key}={json.dumps(default)}' for key, (default, _) in removed.REMOVED.items())) == load()


@pytest.mark.parametrize(
    ('override', 'instead'),
    [
        ('data.cache_side=300', 'the cache'),
        ('annotate.max_entries=5000000', 'set data.root'),
        ('annotate.max_bytes=1000', 'set data.root'),
        ('annotate.max_ratio=200', 'set data.root'),
        ('train.autotune=true', 'kernels'),
        ('train.evaluate_first=true', 'after epoch 1'),
        ('optim.clip_value=0.1', 'optim.clip_norm'),
        ('train.amp=O2', 'use O1'),
        ('evaluate.engine=tensorrt', 'use onnxruntime'),
        ('device=xpu', 'use gpu or cpu'),
        ('device=npu:0', 'use gpu or cpu'),
    ],
)
def test_the_message_on_a_removed_setting_or_value_says_what_to_use_instead(override, instead):
    message = refusal(override)
    assert message.startswith(f'-o: {override.partition("=")[0]} = ')
    assert instead in message.partition('is no longer supported; ')[2]


@pytest.mark.parametrize(
    ('override', 'key', 'value'),
    [
        ('train.epochs=3', 'train.epochs', 3),
        ('optim.lr=1e-3', 'optim.lr', 0.001),
        ('optim.lr=1', 'optim.lr', 1.0),
        ('data.labels=[cat, 狗]', 'data.labels', ['cat', '狗']),
        ('data.root=a=b', 'data.root', 'a=b'),
        ('data.num_workers=0', 'data.num_workers', 0),
        ('model.pretrained=false', 'model.pretrained', False),
        ('model.pretrained=w.pdparams', 'model.pretrained', 'w.pdparams'),
        ('annotate.archive=null', 'annotate.archive', None),
        ('device=gpu:1', 'device', 'gpu:1'),
        ('image.mean=[0, 0.5, 1]', 'image.mean', [0.0, 0.5, 1.0]),
        ('image.resize=squash', 'image.resize', 'squash'),
        ('image.resize=300', 'image.resize', 300),
        ('augment=[]', 'augment', []),
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
    ('override', 'allowed'),
    [
        ('train.epochs=abc', 'a whole number >= 1'),
        ('train.epochs=0', 'a whole number >= 1'),
        ('train.epochs=2.5', 'a whole number'),
        ('train.epochs=true', 'a whole number'),
        ('train.epochs=', 'a whole number'),
        ('train.epochs={}', 'a whole number'),
        ('train.epochs="3"', 'a whole number'),
        ('optim.lr=0', 'a number > 0'),
        ('optim.lr=.nan', 'a number > 0'),
        ('optim.lr=.inf', 'a number > 0'),
        ('optim.lr=fast', 'a number > 0'),
        ('optim.lr=true', 'a number > 0'),
        ('optim.name=momentun', 'momentum, sgd, adam or adamw'),
        ('optim.momentum=1.5', 'a number from 0 to 1'),
        ('image.resize=crop', 'auto, squash or a whole number from 8 to 8192'),
        ('augment=random_crop', 'a list, each item a string or {name: settings}'),
        ('augment=', 'a list, each item a string or {name: settings}'),
        ('augment={}', 'a list, each item a string or {name: settings}'),
        ('augment=[random_crop, 3]', 'a string or {name: settings}'),
        ('augment=[null]', 'a string or {name: settings}'),
        ('augment=[[resize]]', 'a string or {name: settings}'),
        ('model.pretrained=3', 'true, false or a string'),
        ('model.zero_init_residual=maybe', 'true or false'),
        ('annotate.archive=3', 'a string or null'),
        ('annotate.workers=0', 'auto or a whole number from 1 to 256'),
        ('data.labels=cat', 'a list'),
        ('data.labels=[cat, 7]', 'quote names'),
        ('data.labels=[cat, no]', 'quote names'),
        ('device=tpu', 'auto, cpu, gpu or gpu:N'),
        ('device=gpu:x', 'auto, cpu, gpu or gpu:N'),
        ('name=../elsewhere', 'a folder name'),
        ('name=a/b', 'a folder name'),
        ('data.root=/', 'a path other than /'),
        ('seed=-1', 'from 0 to 2147483647'),
        (f'seed={2**31}', 'from 0 to 2147483647'),
        ('annotate.valid_fraction=0.81', 'a number > 0 and <= 0.8'),
    ],
)
def test_the_message_on_a_wrong_value_names_key_value_and_what_is_allowed(override, allowed):
    key, _, value = override.partition('=')
    message, _, words = refusal(override).partition(': must be ')
    assert message == f'-o: {key} = {yaml.safe_load(value)!r}'
    assert allowed in words


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('augment.flip=0', 'no such setting; augment must be a list'),
        ('augment={random_crop: {padding: 4}}', 'no such setting; augment must be a list'),
        ('train=3', 'section; its keys are train.epochs, train.batch_size'),
        ('train.epochs.more=3', 'no such setting; train.epochs must be a whole number'),
        ('trian.epochs=3', 'no such setting; did you mean train.epochs?'),
        ('optim.learning_rate=1', 'did you mean optim.'),
        ('lr=0.1', 'did you mean optim.lr?'),
        ('xyzzy=1', 'python config.py'),
        ('train.epochs', 'key=value'),
        ('', 'key=value'),
        ('=3', 'key=value'),
        ('data.labels=[cat', 'not valid YAML'),
        ('optim.lr=1' + '0' * 400, 'optim.lr'),
        ('name=2024-13-45', 'name'),
        *((f'{name}=1', f'set {ours}') for name, ours in notebook_names.SETTINGS.items()),
        *((f'{name}=1', f'{name} follows from') for name in notebook_names.DERIVED),
    ],
)
def test_a_wrong_override_is_refused(override, words):
    assert words in refusal(override)


@pytest.mark.parametrize(
    ('overrides', 'key', 'rule'),
    [
        (['data.labels=[cat]'], 'data.labels', 'two or more'),
        (['data.labels=[cat, cat]'], 'data.labels', 'different'),
        (['data.labels=[cat, a/b]'], 'data.labels', 'slash'),
        (['data.labels=[cat, "a\\tb"]'], 'data.labels', 'tab'),
        (['data.labels=[cat, ".."]'], 'data.labels', 'folder names'),
        (['data.labels=[cat, " dog"]'], 'data.labels', 'folder names'),
        (['image.mean=[0.5]'], 'image.mean', 'three numbers'),
        (['image.std=[1, 1, 1, 1]'], 'image.std', 'three numbers'),
        (['image.size=224', 'image.resize=223'], 'image.resize', 'image.size (224)'),
        (['annotate.encoding=latin-0'], 'annotate.encoding', 'an encoding that Python knows'),
        (['annotate.valid_fraction=0.5', 'annotate.test_fraction=0.5'], 'annotate.test_fraction', 'valid_fraction'),
        (['optim.name=adam', 'optim.nesterov=true'], 'optim.nesterov', 'optim.name'),
        (['optim.lr=0.01', 'optim.min_lr=0.02'], 'optim.min_lr', 'optim.lr (0.01)'),
        (['optim.schedule=one_cycle', 'optim.warmup_epochs=0.5'], 'optim.warmup_epochs', 'optim.schedule=one_cycle'),
        (['optim.backbone_lr=0.1'], 'optim.backbone_lr', 'model.unfreeze_epoch'),
        (['model.unfreeze_epoch=1', 'model.freeze=none'], 'model.unfreeze_epoch', 'model.freeze'),
        (['model.unfreeze_every=1', 'model.freeze=backbone'], 'model.unfreeze_every', 'model.unfreeze_epoch'),
        (['train.batch_norm=keep', 'model.pretrained=false'], 'train.batch_norm', 'model.pretrained=false'),
        (['optim.layer_decay=0.8', 'model.freeze=backbone'], 'optim.layer_decay', 'model.unfreeze_epoch'),
        (['train.sampling=balanced', 'train.class_weights=balanced'], 'train.class_weights', 'train.sampling=balanced'),
        (['export.int8=true', 'export.onnx=false'], 'export.onnx', 'export.int8=true'),
    ],
)
def test_the_message_on_conflicting_values_names_key_and_rule(overrides, key, rule):
    message = refusal(*overrides)
    assert key in message
    assert rule in message.partition('must be')[2]


@pytest.mark.parametrize(
    'overrides',
    [
        ['image.size=224', 'image.resize=224'],
        ['image.size=512', 'image.resize=squash'],
        ['optim.lr=0.01', 'optim.min_lr=0.01'],
        ['optim.schedule=one_cycle'],
        ['optim.schedule=cosine_restarts', 'optim.warmup_epochs=2'],
        ['model.freeze=backbone', 'model.unfreeze_epoch=3'],
        ['model.freeze=backbone', 'model.unfreeze_epoch=3', 'model.unfreeze_every=2', 'optim.layer_decay=0.8'],
        ['model.freeze=layer2', 'optim.layer_decay=0.8'],
        ['train.batch_norm=keep', 'model.pretrained=output/other'],
        ['annotate.valid_fraction=0.8', 'annotate.test_fraction=0.1', f'seed={2**31 - 1}'],
        ['optim.nesterov=true'],
    ],
    ids=' '.join,
)
def test_compatible_values_are_accepted(overrides):
    cfg = load(*overrides)
    for override in overrides:
        key, _, value = override.partition('=')
        assert schema.get(cfg, key) == yaml.safe_load(value)


# --- names


def test_a_key_with_swapped_letters_is_refused_with_the_right_one():
    for key in all_keys():
        section, dot, name = key.rpartition('.')
        typo = section + dot + name[1] + name[0] + name[2:]
        message = refusal(f'{typo}=3')
        assert typo in message and f'did you mean {key}?' in message, message


# --- files


def test_overrides_take_precedence_over_the_file_and_later_ones_over_earlier_ones(tmp_path):
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
def test_the_message_on_an_invalid_file_names_it(tmp_path, content):
    path = tmp_path / 'a.yaml'
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refusal(path=path)
    assert str(tmp_path) in refusal(path=tmp_path)


def test_a_recipe_is_found_by_its_name_and_one_of_the_user_comes_first(workdir, capsys):
    options._say.cache_clear()
    ours = config.load(str(ROOT / 'configs/photos.yaml'))
    for name in ('photos', 'photos.yaml', 'configs/photos.yaml'):
        assert config.load(name) == ours
    assert capsys.readouterr().err == f'settings: {ROOT}/configs/photos.yaml\n'
    (workdir / 'photos').mkdir()
    assert config.load('photos') == ours
    (workdir / 'configs').mkdir()
    (workdir / 'configs/photos.yaml').write_text('name: mine')
    assert config.load('photos').name == 'mine'
    assert capsys.readouterr().err == 'settings: configs/photos.yaml\n'
    (workdir / 'photos.yaml').write_text('name: nearer')
    assert config.load('photos.yaml').name == 'nearer'
    assert capsys.readouterr().err == ''
    for name in ('gone', 'elsewhere/photos.yaml'):
        assert f'{name}: cannot read the configuration' in refusal(path=name)
        assert 'the recipes are animals8, ' in refusal(path=name)


def test_a_list_in_a_file_is_replaced_as_a_whole_by_an_override(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('augment:\n  - random_crop: {padding: 4}\n  - horizontal_flip\n')
    assert config.load(path).augment == [{'random_crop': {'padding': 4}}, 'horizontal_flip']
    assert config.load(path, ['augment=[resize]']).augment == ['resize']


def test_the_message_on_an_unknown_key_names_file_and_most_similar_key(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('trian:\n  epochs: 3\n')
    message = refusal(path=path)
    assert message == f'{path}: trian.epochs: no such setting; did you mean train.epochs?'


def test_the_saved_settings_load_again(tmp_path):
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
def test_get_returns_the_notebooks_values_for_its_names(workdir, key, value):
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
def test_get_of_an_unknown_key_raises(workdir, key):
    with pytest.raises(UsageError, match='no such setting; '):
        config.get(key)


# --- command line


def test_o_takes_several_overrides_and_can_be_repeated(workdir):
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


@pytest.mark.parametrize('argv', [['--epochs', '3'], ['-o'], ['extra']])
def test_wrong_usage_ends_with_2(workdir, capsys, argv):
    with pytest.raises(SystemExit) as caught:
        config.from_command_line('x', argv)
    assert caught.value.code == 2
    assert 'usage' in capsys.readouterr().err


def test_help_shows_the_example_of_the_script(workdir, capsys):
    with pytest.raises(SystemExit) as caught:
        config.from_command_line(config.__doc__, ['--help'])
    assert caught.value.code == 0
    assert 'python config.py -c configs/demo.yaml' in capsys.readouterr().out


# --- docs/settings.md


PAGE = (ROOT / 'docs/settings.md').read_text(encoding='utf-8')


def test_the_page_of_settings_is_up_to_date_and_explains_every_setting(workdir):
    result = run_script('config.py', '--describe', cwd=workdir)
    assert result.stdout == PAGE, 'run: python config.py --describe > docs/settings.md'
    rows = [line.split(' | ') for line in PAGE.splitlines() if line.startswith('| `')]
    assert {row[0].strip('| `') for row in rows} == {*all_keys()}
    assert all(len(row) == 4 and len(row[3]) > 5 for row in rows)


def test_the_examples_on_the_page_of_settings_work(workdir):
    example, command = (PAGE.partition(f'```{name}\n')[2].partition('```')[0] for name in ('yaml', 'bash'))
    (workdir / 'pets.yaml').write_text(example)
    assert config.load('pets.yaml').train.epochs == 3
    result = run_script(*shlex.split(command)[1:], cwd=ROOT)
    assert yaml.safe_load(result.stdout)['data']['labels'] == ['cat', 'dog'], result.stderr
