"""Checks before a training: images for BatchNorm, settings without effect; and the folder of a run."""

import subprocess
from types import SimpleNamespace

import pytest
from conftest import ROOT

import config
from zodiac.base.errors import UsageError
from zodiac.data.sampler import BatchSampler
from zodiac.models import builder, freezing
from zodiac.training import checks, collectives, run_folder


@pytest.mark.parametrize(
    ('images', 'size', 'number', 'overrides', 'words'),
    [
        (40, 2, 1, [], None),
        (41, 2, 1, [], None),  # the last batch has 3
        (40, 1, 1, [], 'set train.batch_size to 2 or more, or set train.batch_norm=keep'),
        (40, 1, 1, ['model.pretrained=false'], 'set train.batch_size to 2 or more, or set model.freeze=backbone'),
        (40, 1, 1, ['train.batch_norm=keep'], None),
        (1, 1, 1, ['train.batch_norm=keep', 'model.freeze=layer2', 'model.unfreeze_epoch=2'], None),
        (3, 2, 2, ['train.batch_norm=keep'], None),
        (40, 1, 1, ['train.accumulate=4'], 'set train.batch_size to 2 or more'),
        (40, 1, 1, ['model.freeze=backbone'], None),
        (40, 1, 1, ['model.freeze=backbone', 'model.unfreeze_epoch=2'], 'set train.batch_size to 2 or more'),
        (40, 3, 2, [], 'set train.batch_size to 4 or more, or start fewer processes'),
        (40, 4, 2, [], None),
        (3, 32, 2, [], 'add images, or start fewer processes'),
        (3, 32, 1, [], None),
        (1, 32, 1, [], 'add images'),
    ],
)
def test_batch_norm_statistics_from_single_images_are_refused(monkeypatch, images, size, number, overrides, words):
    cfg = config.load(overrides=[f'train.batch_size={size}', 'image.size=32', *overrides])
    batches = BatchSampler(images, size, number, 0, cfg.train.accumulate)
    loader = SimpleNamespace(images=range(images), batch_sampler=batches)
    network = builder.build('resnet18', 2, image_size=32)
    freezing.freeze(network, cfg.model.freeze, cfg.train.batch_norm == 'keep')
    monkeypatch.setattr(collectives, 'count', lambda: number)
    if not words:
        checks.check_batch_norm(cfg, network, loader)
        return
    with pytest.raises(UsageError, match=f'train.batch_size = {size}: BatchNorm .*{words}'):
        checks.check_batch_norm(cfg, network, loader)


GRADUAL = ['model.freeze=backbone', 'model.unfreeze_epoch=2', 'model.unfreeze_every=1']


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (['optim.warmup_epochs=5'], ['optim.warmup_epochs = 5', 'train.epochs = 2', 'optim.lr']),
        (['optim.warmup_epochs=2'], ['optim.warmup_epochs = 2']),
        (['optim.schedule=step'], ['optim.step_epochs = 30', 'never falls']),
        (['optim.schedule=step', 'optim.step_epochs=1.5', 'optim.warmup_epochs=0.5'], ['optim.step_epochs = 1.5']),
        (['model.freeze=backbone', 'model.unfreeze_epoch=3'], ['model.unfreeze_epoch = 3', 'never learns']),
        (GRADUAL, ['model.unfreeze_every = 1', 'first stages never learn']),
        ([*GRADUAL, 'train.epochs=6'], None),
        (['optim.warmup_epochs=1.9'], None),
        (['optim.schedule=step', 'optim.step_epochs=1.9'], None),
        (['model.freeze=backbone', 'model.unfreeze_epoch=2'], None),
    ],
)
def test_a_setting_that_takes_effect_after_the_last_epoch_is_warned_about(settings, words):
    cfg = config.load(overrides=['train.epochs=2', *settings])
    network = builder.build('resnet18', 2, image_size=32)
    frozen = freezing.freeze(network, cfg.model.freeze)
    epochs = freezing.unfreezing(network, frozen, cfg.model.unfreeze_epoch, cfg.model.unfreeze_every)
    found = checks.unreached(cfg, epochs)
    assert len(found) == (words is not None)
    for word in words or ():
        assert word in found[0]


def test_no_recipe_has_a_setting_that_takes_effect_after_its_last_epoch():
    for path in sorted((ROOT / 'configs').glob('*.yaml')):
        assert checks.unreached(config.load(path)) == [], path


def test_earlier_runs_of_a_name_are_kept_and_the_message_says_how_to_remove_them(workdir):
    said = []
    for number in range(4):
        run_folder.create('output/a run', '', said.append)
        (workdir / 'output/a run/number').write_text(str(number))
    names = ['a run.previous', 'a run.previous-2', 'a run.previous-3', 'a run']
    assert [(workdir / 'output' / name / 'number').read_text() for name in names] == ['0', '1', '2', '3']
    assert len(said) == 5 and 'is now output/a run.previous-3' in said[-2]
    (workdir / 'output/a run.previous-of-mine').mkdir()
    subprocess.run(said[-1].rpartition('to remove them: ')[2], shell=True, check=True)
    left = {path.name for path in (workdir / 'output').iterdir()}
    assert left == {'a run', 'a run.previous-3', 'a run.previous-of-mine'}
