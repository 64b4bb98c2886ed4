"""Training on cached features of a frozen backbone: same results, and the backbone runs once."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_message, picture, run_script
from small_runs import SETTINGS, log_of, run_train, write_index

import config
from dataset import Loader, ZodiacDataset
from zodiac.base import sources
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.inference import engines, paddle_engine
from zodiac.models import builder, convert, freezing, prediction, weights, wrappers
from zodiac.training import checkpoint, features

nn = paddle.nn
TRAIN, VALID = 13, 7
FEATURES = [*SETTINGS, 'model.freeze=backbone', 'data.cache=cache']
STILL = 'augment=[resize]'  # not random


class Network(nn.Layer):
    factor = 1

    def __init__(self):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU())
        self.fc = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 6), nn.BatchNorm1D(6), nn.Linear(6, 3))

    def forward(self, x):
        return self.fc(self.stage(x)) * self.factor


@pytest.fixture
def photos(workdir, monkeypatch):
    monkeypatch.setattr(features, 'BATCH', 5)
    write_index('train', [number % 3 if number < 9 else 0 for number in range(TRAIN)])
    write_index('valid', [number % 3 for number in range(VALID)])


@pytest.fixture
def fit(photos, monkeypatch):
    """Run train.py with a small network on features."""

    def call(*overrides, flags=(), asked=None, network=Network):
        def make():
            paddle.seed(0)
            return network()

        return run_train(monkeypatch, make, [*FEATURES, *overrides, *flags], asked)

    return call


def rows_of(run):
    return [{key: float(value) for key, value in row.items()} for row in log_of(run)]


def frozen_network(arch='resnet18', head='auto', size=32):
    paddle.seed(0)
    network = builder.build(arch, 3, size, head)
    if hasattr(network, 'learn_from'):
        network.learn_from(paddle.randn([8, 3, size, size]))
    freezing.freeze(network, 'backbone')
    return network


def kept(network, *overrides, mode='train', views=1, mirror=False):
    """The dataset, with its features as items, and the messages."""
    cfg, said = config.load(overrides=[*FEATURES, *overrides]), []
    images = ZodiacDataset(mode, cfg=cfg)
    extractor = features.Extractor(cfg, network, Loader, said.append)
    images.use_features(extractor.features(images, features.content_keys(images.paths), views, mirror))
    extractor.say_total()
    return images, said


def computed(said):
    """Number of images, over all views, by the last message."""
    count = re.match('features: (none|[0-9]+) computed', said[-1])[1]
    return 0 if count == 'none' else int(count)


# The features


def test_each_file_is_hashed_once_for_all_its_features(photos, monkeypatch):
    hashed, content = [], features._content
    monkeypatch.setattr(features, '_content', lambda path: hashed.append(path) or content(path))
    extractor = features.Extractor(config.load(overrides=FEATURES), frozen_network(), Loader, lambda text: None)
    paths = [f'{number}.jpg' for number in range(3)]  # that are not there: their names count
    first, again = extractor.keys(paths), extractor.keys([*paths[::-1], '3.jpg'])
    assert np.array_equal(first[::-1], again[:3]) and hashed == [*paths, '3.jpg']


@pytest.mark.parametrize(
    ('arch', 'head', 'shape'),
    [
        ('resnet18', 'auto', [512]),
        ('resnet18', ['flatten', {'dropout': 0.4}, {'linear': 5}, 'elu', 'linear'], [512]),
        ('resnet18', ['global_avg_pool', 'flatten', 'linear'], [512]),
        ('resnet9', 'auto', [512]),
        ('cifarnet', 'auto', [256]),
    ],
    ids=['resnet', 'dense head', 'pooled head', 'resnet9', 'cifarnet'],
)
def test_head_on_features_gives_the_logits_of_the_network(photos, arch, head, shape):
    network = frozen_network(arch, head)
    images, _ = kept(network, 'image.size=32', 'image.resize=32', mode='valid')
    backbone = features.Backbone(network)
    inputs = paddle.to_tensor(np.stack([images[number][0] for number in range(VALID)]))
    network.eval()
    with paddle.no_grad():
        expected, features_now = network(inputs).numpy(), backbone.layer(inputs).numpy()
        logits = backbone.rest(paddle.to_tensor(np.asarray(images.features[0]))).numpy()
    assert list(images.features[0].shape) == [VALID, *shape]
    assert np.allclose(images.features[0], features_now, atol=1e-4 * np.abs(features_now).max())
    assert np.allclose(logits, expected, atol=1e-4 * max(1, np.abs(expected).max()))


DENSE = ['flatten', {'dropout': 0.4}, {'linear': 5}, 'elu', 'linear']


def predictor(*overrides, epoch=1, head='auto'):
    """(predict, extractor) of a run on features, the messages, validation images, and their probabilities by the network."""
    overrides = [*FEATURES, 'image.size=32', 'image.resize=32', 'train.views=1', *overrides]
    cfg, network, said = config.load(overrides=overrides), frozen_network(head=head), []
    if cfg.evaluate.flip_average:
        network = wrappers.FlipAverage(network)
    network.eval()
    found = features.predictor(cfg, network, {'epoch': epoch}, Loader, said.append)
    images = ZodiacDataset('valid', cfg=cfg)
    return found, said, images, prediction.predict(network, Loader(images, 4, cfg), VALID)


@pytest.mark.parametrize('head', ['auto', DENSE], ids=['linear', 'dense'])
@pytest.mark.parametrize('flip_average', ['false', 'true'])
def test_probabilities_from_features_are_those_of_the_network(photos, head, flip_average):
    (predict, extractor), said, images, expected = predictor(f'evaluate.flip_average={flip_average}', head=head)
    found = predict(images)
    assert found.dtype == np.float32 and np.allclose(found, expected, atol=1e-4)
    again = predict(images)
    extractor.say_total()
    assert np.array_equal(again, found) and computed(said) == VALID * (2 if flip_average == 'true' else 1)
    assert images[0][0].shape == (3, 32, 32), 'its items are still pictures'


def test_where_features_cannot_be_kept_the_network_predicts(photos):
    Path('file').touch()
    (predict, extractor), said, images, expected = predictor('data.cache=file')
    assert np.allclose(predict(images), expected, atol=1e-6)
    extractor.say_total()
    (message,) = said
    assert message.startswith('file: the features cannot be written there')


@pytest.mark.parametrize(
    ('overrides', 'epoch', 'kept'),
    [
        (['train.views=0'], 1, False),
        (['train.views=1'], 3, True),
        (['train.head=linear'], 1, True),
        (['train.head=linear'], None, True),
        (['train.head=linear'], 2, False),
    ],
    ids=str,
)
def test_a_backbone_that_has_learned_is_run_on_the_images(photos, overrides, epoch, kept):
    (predict, extractor), said, images, expected = predictor(*overrides, epoch=epoch)
    assert bool(extractor) == kept
    assert np.allclose(predict(images), expected, atol=1e-4) and bool(said) == kept


@pytest.mark.parametrize('flip_average', ['false', 'true'])
def test_fixed_images_are_run_by_the_network_once(photos, monkeypatch, flip_average):
    (_, extractor), *_ = predictor(f'evaluate.flip_average={flip_average}')
    average, images = extractor.backbone.network, np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    if flip_average == 'true':
        average = wrappers.FlipAverage(average)
    with paddle.no_grad():
        expected = average(paddle.to_tensor(images)).numpy()
    found = extractor.logits_of(images, flip_average == 'true')
    assert np.allclose(found, expected, atol=1e-6)
    run, counts = features.Backbone.run_network, []
    with monkeypatch.context() as patch:
        patch.setattr(features.Backbone, 'run_network', lambda self, part: counts.append(len(part)) or run(self, part))
        assert np.array_equal(extractor.logits_of(images, flip_average == 'true'), found)
        assert not counts
        extractor.logits_of(np.concatenate([images[1:], 1 - images[:1]]), flip_average == 'true')
        assert counts == ([1, 1] if flip_average == 'true' else [1]), 'only the new image'
    for path in Path('cache').glob('*/values'):
        path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(extractor.logits_of(images, flip_average == 'true'), found), 'damaged ones are not used'


def test_an_image_that_cannot_be_read_is_named(photos):
    (predict, _), said, images, _ = predictor()
    Path('valid/3.png').write_bytes(b'')
    with pytest.raises(UserError, match='valid/3.png'):
        predict(images)
    assert not [text for text in said if 'this time' in text]


def test_a_network_with_computation_after_its_head_is_refused(fit):
    class Scaled(Network):
        factor = 2

    with pytest.raises(UserError, match='train.views: the head gives other logits .*; set train.views=0'):
        fit('train.views=1', network=Scaled)
    assert not list(Path('cache').glob('*/values'))


def test_view_v_is_the_augmentation_of_epoch_v_and_epochs_cycle_through_the_views(photos):
    network = Network()
    images, _ = kept(network, views=2)
    backbone = features.Backbone(network).layer
    plain = ZodiacDataset('train', cfg=config.load(overrides=FEATURES))
    for epoch in range(4):
        images.epoch, plain.epoch = epoch, epoch % 2
        expected = backbone(paddle.to_tensor(np.stack([plain[number][0] for number in range(TRAIN)]))).numpy()
        found = np.stack([images.sample(number)[0] for number in range(TRAIN)])
        assert np.allclose(found, expected, atol=1e-4)
    assert not np.allclose(images.features[0], images.features[1], atol=1e-2)


def test_balanced_sampling_pairs_features_and_labels(photos):
    images, _ = kept(Network())
    order = [5, 5, 0, *range(10)]
    images.use_order(order)
    for index, number in enumerate(order):
        values, label = images.sample(index)
        assert np.array_equal(values, images.features[0][number]) and label == images.labels[number]


# The training


@pytest.mark.parametrize(
    'more',
    [
        [],
        [
            'optim.nesterov=true',
            'train.accumulate=2',
            'optim.clip_norm=1',
        ],  # not Adam: it amplifies rounding in a bias before BatchNorm
        ['train.ema=0.7', 'train.label_smoothing=0.1', 'train.class_weights=balanced'],
        ['train.sampling=balanced'],
    ],
    ids=['momentum', 'nesterov', 'average', 'balanced'],
)
def test_without_augmentation_training_on_features_equals_training_on_images(fit, more):
    runs = [fit(f'name=run{views}', f'train.views={views}', STILL, *more) for views in (0, 1)]
    expected, found = map(rows_of, runs)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert ours == pytest.approx(theirs, abs=1e-3)
    theirs, ours = (weights.read(f'{run}.pdparams') for run in runs)
    assert list(ours) == list(theirs)
    for name in ours:
        if name.startswith('stage.'):
            assert np.array_equal(ours[name], theirs[name]), name
        else:
            assert np.allclose(ours[name], theirs[name], atol=1e-3), name


def test_with_augmentation_the_first_epochs_equal_training_on_images(fit):
    expected, found = (rows_of(fit(f'name=run{views}', f'train.views={views}')) for views in (0, 3))
    for ours, theirs in zip(found, expected):
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize('more', [[], ['train.ema=0.7', 'train.sampling=balanced']], ids=['plain', 'average'])
def test_resuming_on_features_is_exact(fit, more):
    settings = ['train.views=2', *more]
    expected = fit('name=whole', *settings)
    for asked in (2, 4, 6):
        with pytest.raises(KeyboardInterrupt):
            fit(f'name=stopped{asked}', *settings, asked=asked)
        if asked == 6:
            shutil.rmtree('cache')  # the run does not depend on it
        run = fit(f'name=stopped{asked}', *settings, flags=['--resume'])
        assert rows_of(run) == rows_of(expected)
        for suffix in ('.pdparams', '.pdopt'):
            ours, theirs = (weights.read(f'{one}{suffix}') for one in (run, expected))
            for name in theirs:
                if name != 'LR_Scheduler':
                    assert np.array_equal(ours[name], theirs[name]), name


def test_features_of_a_resumed_run_come_from_the_backbone_in_its_checkpoint(fit):
    class Other(Network):
        def __init__(self):
            super().__init__()
            self.stage[0].weight.set_value(self.stage[0].weight + 1)

    expected = fit('name=whole', 'train.views=1')
    with pytest.raises(KeyboardInterrupt):
        fit('name=stopped', 'train.views=1', asked=5)
    assert rows_of(fit('name=stopped', 'train.views=1', flags=['--resume'], network=Other)) == rows_of(expected)


def test_quick_epochs_save_no_checkpoint_except_the_last(fit):
    run = fit('train.views=1')
    assert checkpoint.epochs(run) == ['step_0000012']
    assert len(rows_of(run)) == 3


def test_the_learning_rate_finder_runs_on_features(fit, capsys, monkeypatch):
    monkeypatch.setattr('zodiac.training.lr_finder.propose', lambda *_: 0.1)
    monkeypatch.setattr('zodiac.report.plots.plot_lr_finder', lambda *_: None)
    run = fit('train.views=1', flags=['--find-lr'])
    assert list(Path('cache').glob('*/values')) and not run.exists()
    assert 'proposed: -o optim.lr=0.1' in capsys.readouterr().out


# The cache


def test_a_second_training_uses_the_cached_features(fit, monkeypatch, capsys):
    fit('name=one', 'train.views=2')
    monkeypatch.setattr(features, '_make', None)
    monkeypatch.setattr(convert, 'save_static', None)
    capsys.readouterr()
    fit('name=two', 'train.views=2', 'optim.lr=0.01', 'train.batch_size=6')
    said = capsys.readouterr().err
    assert said.count('features: none computed, all found in cache') == said.count('features: ') == 1


def test_more_views_reuse_the_cached_ones(photos):
    assert computed(kept(Network(), views=2)[1]) == 2 * TRAIN
    paddle.seed(1)
    network = Network()
    assert computed(kept(network, views=2)[1]) == 2 * TRAIN  # another backbone
    assert computed(kept(network, views=3)[1]) == TRAIN


@pytest.mark.parametrize(
    ('change', 'train_views', 'valid_views'),
    [
        (['seed=1'], 1, 0),
        (['augment=[resize]'], 1, 0),
        (['image.std=[1,1,1]'], 1, 1),
        (['data.reduced_decoding=false'], 1, 1),
        (['optim.lr=0.1', 'train.batch_size=2'], 0, 0),
    ],
    ids=['seed', 'augment', 'normalisation', 'decoding', 'optimizer'],
)
def test_only_settings_that_change_the_features_recompute_them(photos, change, train_views, valid_views):
    network = Network()
    for mode, expected in (('train', train_views), ('valid', valid_views)):
        kept(network, mode=mode)
        assert computed(kept(network, *change, mode=mode)[1]) == expected * (TRAIN if mode == 'train' else VALID)


def test_another_trainable_head_uses_the_same_features(photos):
    small = ['image.size=32', 'image.resize=32']
    expected, _ = kept(frozen_network(head=['global_avg_pool', 'flatten', 'linear']), *small)
    found, said = kept(frozen_network(head=['global_avg_pool', 'flatten', {'linear': 7}, 'relu', 'linear']), *small)
    assert computed(said) == 0 and np.array_equal(found.features[0], expected.features[0])
    assert computed(kept(frozen_network(head=['global_max_pool', 'flatten', 'linear']), *small)[1]) == TRAIN


def test_changed_code_recomputes_the_features(photos, monkeypatch):
    network, asked = Network(), []
    kept(network)
    monkeypatch.setattr(sources, 'code_hash', lambda *modules: asked.extend(modules) or 'another')
    assert computed(kept(network)[1]) == TRAIN
    assert {'zodiac.training.features', 'dataset', 'zodiac.data.cache'} <= set(asked)


def test_only_changed_and_new_images_are_computed(photos):
    network = Network()
    for mode, count in (('train', TRAIN), ('valid', VALID)):
        kept(network, mode=mode)
        picture(99, (12, 12)).save(f'{mode}/3.png')
        assert computed(kept(network, mode=mode)[1]) == 1
        picture(98, (12, 12)).save(f'{mode}/0_new.png')
        index = Path(f'{mode}.txt')
        lines = index.read_text().splitlines(keepends=True)
        index.write_text(''.join([lines[0], f'{mode}/0_new.png\t1\n', *lines[1:]]))
        images, said = kept(network, mode=mode)
        assert computed(said) == (1 if mode == 'valid' else count - 1 + 1), 'an augmentation depends on the place'
        shutil.copytree('cache', f'cache_{mode}')
        shutil.rmtree('cache')
        assert np.allclose(images.features[0], kept(network, mode=mode)[0].features[0], atol=1e-5)


def test_features_drawn_by_content_do_not_depend_on_the_place_in_the_list(photos):
    network = Network()

    def keep():
        images, said = kept(network, 'train.head=linear', views=2)
        return [np.asarray(view) for view in images.features], computed(said)

    before, _ = keep()
    Path('train.txt').write_text(''.join(reversed(Path('train.txt').read_text().splitlines(keepends=True))))
    after, count = keep()
    assert count == 0 and all(np.array_equal(one, other[::-1]) for one, other in zip(before, after))
    shutil.rmtree('cache')
    again, count = keep()
    assert count == 2 * TRAIN and all(np.allclose(one, other, atol=1e-5) for one, other in zip(after, again))


def test_mirrored_features_are_those_of_the_mirror_image(photos):
    network = Network()
    images, _ = kept(network, mode='valid', mirror=True)
    inputs = paddle.to_tensor(np.stack([images[number][0] for number in range(VALID)]))
    expected = features.Backbone(network).layer(inputs.flip(3)).numpy()
    assert np.allclose(images.features[0], expected, atol=1e-4)


@pytest.mark.parametrize('name', ['values', 'keys', 'about.json'])
@pytest.mark.parametrize('damage', ['gone', 'empty', 'cut', 'long', 'noise', 'bit'])
def test_damaged_features_are_computed_again(photos, name, damage):
    network = Network()
    before = np.array(kept(network)[0].features[0])
    (path,) = Path('cache').glob(f'*/{name}')
    content = path.read_bytes()
    path.unlink()
    if damage != 'gone':
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 128
        noise = np.random.default_rng(0).bytes(len(content))
        path.write_bytes(
            {'empty': b'', 'cut': content[:-1], 'long': content + b'}', 'noise': noise, 'bit': flipped}[damage]
        )
    images, said = kept(network)
    assert np.array_equal(images.features[0], before)
    assert computed(said) == TRAIN and ('is damaged' in said[0])


def test_features_can_be_deleted_while_a_training_uses_them(photos):
    images, _ = kept(Network())
    before = np.array(images.features[0])
    shutil.rmtree('cache')
    assert np.array_equal(images.features[0], before)


# Errors


@pytest.mark.parametrize('workers', [0, 1])
def test_a_file_that_is_not_an_image_is_named_and_nothing_is_cached(photos, workers):
    Path('train/4.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='train/4.png.*run annotate.py'):
        kept(Network(), f'data.num_workers={workers}')
    assert os.listdir('cache') == ['lock']


def test_features_that_exceed_the_cache_are_refused_before_anything_is_written(fit):
    run = fit('train.views=1')
    shutil.rmtree('cache')
    with pytest.raises(UserError, match='train.views: .*data.cache_gb = 1e-05.*train.views=0'):
        fit('train.views=40', 'train.epochs=40', 'data.cache_gb=0.00001')
    assert run.is_dir() and not Path(f'{run}.previous').exists()


def test_a_cache_folder_that_cannot_be_written_is_named(photos):
    Path('cache').write_text('a file')
    with pytest.raises(UserError, match='cache: .*data.cache=FOLDER, or train.views=0'):
        kept(Network())


@pytest.mark.parametrize(
    ('overrides', 'word'),
    [
        (['model.freeze=none'], 'model.freeze is backbone'),
        (['model.freeze=layer3'], 'model.freeze is backbone'),
        (['model.unfreeze_epoch=2'], 'model.unfreeze_epoch'),
        (['train.mixup=0.2'], 'mix the pixels'),
        (['train.cutmix=1'], 'mix the pixels'),
    ],
)
def test_settings_incompatible_with_features_are_refused(overrides, word):
    with pytest.raises(UsageError, match=f'train.views = 2: must be 0 .*{word}'):
        config.load(overrides=['model.freeze=backbone', 'train.views=2', *overrides])


def test_views_with_several_processes_are_refused(photos):
    done = run_script('train.py', '--nproc', '2', '-o', *FEATURES, 'train.views=1', cwd='.')
    assert_message(done, 2, 'train.views', '--nproc')


def test_paddle_inference_gives_what_the_network_gives(photos):
    backbone = features.Backbone(frozen_network())
    images = paddle.randn([3, 3, 32, 32])
    assert np.allclose(backbone.run(images), backbone.run_network(images), atol=1e-4)


def test_the_backbone_files_exist_when_onednn_fails_later(workdir, monkeypatch):
    backbone = features.Backbone(Network())
    images = paddle.rand([2, 3, 8, 8])
    expected, load = backbone.run(images), paddle_engine._predictor

    def fail(batch):
        raise RuntimeError('could not execute a primitive')

    backbone = features.Backbone(backbone.network)
    monkeypatch.setattr(paddle_engine, '_predictor', lambda *files, **how: fail if how else load(*files))
    assert np.allclose(backbone.run(images), expected, atol=1e-5)


def test_many_images_are_run_by_another_engine_and_later_few_as_well(photos, monkeypatch):
    if not (convert.can_save_onnx() and engines.installed('onnxruntime')):
        pytest.skip('needs requirements-deploy.txt')
    monkeypatch.setattr(features, 'ENGINE', 'onnxruntime')
    backbone = features.Backbone(frozen_network())
    images = paddle.randn([3, 3, 32, 32])
    assert backbone.fastest(features.MANY - 1, 'cache') is backbone.run
    run = backbone.fastest(features.MANY, 'cache')
    assert run is not backbone.run and np.allclose(run(images), backbone.run(images), atol=1e-4)
    backbone.check(images, run)
    monkeypatch.setattr(convert, 'save_onnx', None)
    again = features.Backbone(backbone.network)
    assert np.array_equal(again.fastest(1, 'cache')(images), run(images))
    (path,) = Path('cache').glob('*/onnx')
    path.write_bytes(path.read_bytes()[:-1])
    later = features.Backbone(backbone.network)
    assert later.fastest(features.FEW + 1, 'cache') is later.run, 'a damaged one is not used'


def test_few_images_need_no_static_graph(photos, monkeypatch):
    monkeypatch.setattr(convert, 'save_static', None)
    backbone = features.Backbone(frozen_network())
    images = paddle.randn([3, 3, 32, 32])
    with paddle.no_grad():
        expected = backbone.layer(images).numpy()
    assert np.array_equal(backbone.fastest(features.FEW, 'cache')(images), expected)


@pytest.mark.parametrize('wrong', [lambda images: np.zeros([len(images), 144], np.float32), None])
def test_an_engine_that_fails_or_gives_other_features_is_replaced_by_paddle(photos, wrong):
    def fail(images):
        raise UserError('cannot run it')

    backbone = features.Backbone(Network())
    images = paddle.rand([2, 3, 8, 8])
    assert backbone.checked(images, wrong or fail) is backbone.run


def test_where_no_other_engine_works_paddle_runs_the_backbone(photos, monkeypatch):
    def fail(*_):
        raise UserError('no')

    monkeypatch.setattr(convert, 'can_save_onnx', lambda: True)
    monkeypatch.setattr(engines, 'installed', lambda name: name == 'openvino')
    monkeypatch.setattr(convert, 'save_onnx', fail)
    backbone = features.Backbone(Network())
    assert backbone.fastest(features.MANY, 'cache') is backbone.run
