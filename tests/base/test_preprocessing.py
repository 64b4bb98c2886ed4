"""Preprocessing comes from the table of networks, and a difference from pretrained weights is reported."""

import numpy as np
import pytest
from PIL import Image

import config
from dataset import eval_transform
from zodiac.base import networks, preprocessing
from zodiac.base.errors import UsageError
from zodiac.images import transforms


def image_of(*overrides, path=None):
    return config.load(path, overrides).image


@pytest.fixture
def empty(tmp_path):
    (tmp_path / 'empty.yaml').write_text('')
    return tmp_path / 'empty.yaml'


@pytest.mark.parametrize('arch', networks.NETWORKS)
@pytest.mark.parametrize(
    'given', [[], ['image.size=auto', 'image.mean=auto', 'image.std=auto', 'image.interpolation=auto']]
)
def test_what_is_not_set_or_auto_is_the_networks(empty, arch, given):
    image, facts = image_of(f'model.arch={arch}', *given, path=empty), networks.NETWORKS[arch]
    assert (image.size, image.interpolation) == (facts.size, facts.interpolation)
    assert (image.mean, image.std) == (list(facts.mean), list(facts.std))


def test_lite_pixels_are_minus_127_over_128(empty):
    cfg = config.load(empty, ['model.arch=efficientnet_lite0', 'data.reduced_decoding=false'])
    transform = eval_transform(cfg)
    assert transform[0] == {'op': 'center_crop', 'size': 224, 'resize': 256, 'interpolation': 'bicubic'}
    for value in (0, 127, 255):
        result = transforms.apply(transform, Image.new('RGB', (300, 260), (value, value, value)))
        np.testing.assert_allclose(result, (value - 127) / 128, atol=1e-6)


def test_what_is_set_wins_and_is_saved(empty, tmp_path):
    cfg = config.load(empty, ['model.arch=efficientnet_lite2', 'image.size=100', 'image.mean=[0,0,0]'])
    assert (cfg.image.size, cfg.image.mean, cfg.image.interpolation) == (100, [0, 0, 0], 'bicubic')
    (tmp_path / 'saved.yaml').write_text(cfg.to_yaml())
    assert config.load(tmp_path / 'saved.yaml') == cfg


def test_differences_from_pretrained_weights_are_reported(empty):
    lite = image_of('model.arch=efficientnet_lite0', path=empty)
    assert preprocessing.differences(lite, 'efficientnet_lite0') == []
    texts = preprocessing.differences(image_of(path=empty), 'efficientnet_lite0')
    assert [text.split(' ')[0] for text in texts] == ['image.mean', 'image.std', 'image.interpolation']
    assert "were trained with 'bicubic'" not in texts[2] and texts[2].endswith('trained with bicubic')
    assert preprocessing.differences(lite, 'resnet50', preprocessing.identity(lite)) == []
    old = {'size': 224, 'resize': 'auto', 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
    assert len(preprocessing.differences(lite, 'efficientnet_lite0', old)) == 3


def test_checkpoints_from_before_fit_and_interpolation_still_match(empty):
    assert preprocessing.identity(image_of(path=empty)) == {
        **{'size': 224, 'resize': 'auto', 'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225]}
    }
    assert preprocessing.identity(image_of('image.fit=squash', path=empty))['resize'] == 'squash'
    assert preprocessing.identity(image_of('image.fit=pad', path=empty))['fit'] == 'pad'


def test_squash_has_two_spellings_and_the_last_one_counts(empty):
    old, new = (image_of(setting, path=empty) for setting in ('image.resize=squash', 'image.fit=squash'))
    assert preprocessing.identity(old) == preprocessing.identity(new) and old.fit == new.fit == 'squash'
    assert image_of('image.resize=squash', 'image.fit=pad', path=empty).fit == 'pad'
    assert image_of('image.fit=pad', 'image.resize=squash', path=empty).fit == 'squash'
    with pytest.raises(UsageError, match=r'image\.resize = 256: must be auto unless image\.fit is crop'):
        image_of('image.fit=pad', 'image.resize=256', path=empty)


@pytest.mark.parametrize('shape', [(60, 30), (30, 60), (40, 40)])
def test_pad_shows_the_whole_image_on_the_mean_colour(empty, shape):
    cfg = config.load(empty, ['image.fit=pad', 'image.size=20'])
    picture = Image.new('RGB', shape, (255, 0, 0))
    result = transforms.apply(eval_transform(cfg)[1:-1], picture)
    assert result.shape == (20, 20, 3)
    red = (result == (255, 0, 0)).all(2)
    assert red.sum() == (20 * 20 if shape == (40, 40) else 20 * 10) and red[5:15, 5:15].all()
    assert (result[~red] == (124, 116, 104)).all()
    seen = transforms.apply(eval_transform(cfg), picture)
    assert np.abs(seen[:, ~red]).max(initial=0) < 0.02  # zero but for rounding
