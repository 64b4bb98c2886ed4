"""Find the ImageNet weights of a network: in an installed package, in a folder, or at Paddle's address.

Imports Paddle only where its addresses are needed: demo.py asks whether weights are here, and must not import it.
"""

import importlib.util
import os
import sys

from zodiac.base import device, files, networks, packages
from zodiac.base.errors import UsageError, UserError

FOLDER = '~/.cache/paddle/hapi/weights'  # where Paddle keeps what it downloads


def find(arch):
    """Path of the weights. Raises UsageError when there are none, UserError when they cannot be had here; both name the next step."""
    source = networks.NETWORKS[arch].imagenet
    if source is None:
        raise UsageError(
            f'model.pretrained = true: no ImageNet weights of {arch} can be installed or downloaded; set model.pretrained=FILE (.pth, '
            f'.safetensors, .pdparams), or model.pretrained=false to train from scratch; {installable()}'
        )
    return _packaged(arch, source) if isinstance(source, networks.Package) else _downloaded(arch)


def is_here(arch):
    """Whether the weights can be had without a download. Their hash is not checked."""
    source = networks.NETWORKS[arch].imagenet
    if isinstance(source, networks.Package):
        return any(map(os.path.isfile, _places(source)))
    return bool(source) and os.path.isfile(os.path.join(folder(), os.path.basename(_address(arch)[0])))


def installable():
    """str, for a message: the networks whose ImageNet weights are packages, and how to install them."""
    names = [name for name, facts in networks.NETWORKS.items() if isinstance(facts.imagenet, networks.Package)]
    return (
        f'weights of {", ".join(names)} can be installed: {packages.pip()} install -r {packages.here(packages.WEIGHTS)}'
    )


def folder():
    """Path of the folder where weight files are looked for and kept."""
    return os.path.expanduser(FOLDER)


def _packaged(arch, package):
    path = next(filter(os.path.isfile, _places(package)), None)
    install = f"{packages.pip()} install '{package.name}=={package.version}'"
    if path is None:
        raise UserError(
            f'model.pretrained = true: the ImageNet weights of {arch} are not installed: {install}; or copy '
            f'{os.path.basename(package.file)} to {folder()}; or set model.pretrained=false to train from scratch'
        )
    found = files.sha256(path)
    if found != package.sha256:
        raise UserError(
            f'{path}: is not the file of {package.name} {package.version} (SHA-256 {found[:8]}… instead of {package.sha256[:8]}…), or '
            f'is damaged; remove it, then: {install} --force-reinstall --no-deps'
        )
    return path


def _places(package):
    """Paths where the file of a package can be."""
    spec = importlib.util.find_spec(package.module)
    paths = [os.path.join(place, package.file) for place in (spec.submodule_search_locations if spec else [])]
    return [*paths, os.path.join(folder(), os.path.basename(package.file))]


def _address(arch):
    """(URL, MD5) of Paddle's weights."""
    from zodiac.base.paddle_setup import paddle  # see the top

    models = paddle.vision.models
    urls = {**models.resnet.model_urls, 'mobilenet_v3_large': models.mobilenetv3.model_urls['mobilenet_v3_large_x1.0']}
    return urls[arch]


def _downloaded(arch):
    from zodiac.base.paddle_setup import paddle  # see the top

    download = paddle.utils.download
    url, md5 = _address(arch)
    path = os.path.join(folder(), os.path.basename(url))
    if not os.path.isfile(path) and device.rank() == 0:
        print(f'model.pretrained = true: downloading the ImageNet weights of {arch} from {url}', file=sys.stderr)
    try:
        return download.get_weights_path_from_url(url, md5)
    except Exception as error:  # Paddle raises many kinds
        reason = ' '.join(str(error).split())[:120]
        raise UserError(
            f'model.pretrained = true: cannot download the ImageNet weights of {arch} ({reason}); download {url} on another machine '
            f'and copy it to {path}, or set model.pretrained=PATH, or model.pretrained=false to train from scratch; '
            f'{installable()}; see docs/troubleshooting.md#no-network'
        ) from None
