"""Small networks and their exports."""

import numpy as np
import pytest
from conftest import picture

import config
import export
from zodiac.base.paddle_setup import paddle
from zodiac.images import transforms
from zodiac.inference import engines, export_folder, exported_model, unknown
from zodiac.models import builder, convert, wrappers

LABELS = ['a', 'b', 'c', 'd']
PICTURES = [picture(number) for number in range(5)]
HAS_OPENVINO = convert.can_save_onnx() and engines.installed('openvino')
ONNX = pytest.mark.skipif(not convert.can_save_onnx(), reason='requirements-deploy.txt is not installed')
OPENVINO = pytest.mark.skipif(not HAS_OPENVINO, reason='openvino is not installed')
ENGINES = ['paddle', pytest.param('onnxruntime', marks=ONNX), pytest.param('openvino', marks=OPENVINO)]
VARIANTS = {  # overrides and temperature of an export
    'plain': ([], 1.0),
    'pixels': (['export.preprocess=true'], 1.0),
    'logits': (['export.softmax=false'], 1.0),
    'everything': (['export.preprocess=true', 'export.softmax=false', 'export.temperature=true'], 1.7),
}


class Small(paddle.nn.Layer):
    """The mean red, green and blue of the four quarters, mixed at random."""

    def __init__(self):
        super().__init__()
        self.pool, self.mix = paddle.nn.AdaptiveAvgPool2D(2), paddle.nn.Linear(12, 4)

    def forward(self, x):
        return self.mix(self.pool(x).flatten(1))


def network_of(kind):
    paddle.seed(0)
    if kind == 'small':
        return Small()
    if kind == 'flip average':
        return wrappers.FlipAverage(builder.build('cifarnet', 4, 32))
    head = ['flatten', {'dropout': 0.5}, {'linear': 'classes'}] if kind == 'headed' else 'auto'
    return builder.build('cifarnet' if kind == 'cifarnet' else 'resnet18', 4, 32, head)


def settings(*overrides):
    common = ['name=small', f'data.labels={LABELS}', 'image.size=32', 'image.resize=32', 'image.std=[0.2,0.3,0.4]']
    return config.load(overrides=[*common, *overrides])


def write(folder, network, cfg, temperature=1.0, with_onnx=None, examples=None):
    """Write the export of a network; returns its manifest."""
    with_onnx = convert.can_save_onnx() if with_onnx is None else with_onnx
    how = cfg.export
    deployed = wrappers.WithFeatures if cfg.exports_features else wrappers.Deployed
    layer = deployed(network, cfg.image.mean, cfg.image.std, how.preprocess, how.softmax, temperature)
    layer.eval()
    folder.mkdir(exist_ok=True)
    manifest = export.describe(cfg, {}, temperature, with_onnx)
    export.write_models(layer, manifest, str(folder), with_onnx, examples)
    return manifest


def write_sealed(folder, network, cfg, engines=('paddle',), with_onnx=None, examples=None, rejection=None):
    """Write the export of a network with its reference, compared on eight photos drawn in the folder above, and with an unknown.Rejection;
    returns its manifest."""
    manifest, photos = write(folder, network, cfg, 1.0, with_onnx, examples), Photos(folder.parent)
    network.eval()
    manifest['parity'] = export.compare(network, manifest, str(folder), list(engines), photos, cfg)
    if rejection:
        export.write_sealed(str(folder), manifest, unknown.file_name(manifest), unknown.pack(rejection))
    export.seal(network, manifest, str(folder), photos, cfg, rejecting=rejection)
    export_folder.write_manifest(folder, manifest)
    return manifest


def write_all(tmp_path_factory):
    """{variant: folder} of the small network."""
    folders = {name: tmp_path_factory.mktemp(name) for name in VARIANTS}
    for name, (overrides, temperature) in VARIANTS.items():
        write(folders[name], network_of('small'), settings(*overrides), temperature)
    return folders


def logits_of(network, cfg, pictures):
    transform = transforms.eval_transform(32, cfg.image.mean, cfg.image.std, 32)
    batch = np.stack([transforms.apply(transform, image) for image in pictures])
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(batch)).numpy()


def predict(folder, engine, pictures):
    model = exported_model.load(str(folder), 'cpu', engine, 'fp32', checked=False)
    return model.predict(np.stack([transforms.apply(model.transform, image) for image in pictures]))


class Photos:
    """Eight drawn photos, as a dataset that export.py compares on."""

    def __init__(self, folder):
        self.paths, self.labels = [], np.arange(8) % 4
        for number in range(8):
            self.paths.append(str(folder / f'{number}.png'))
            picture(number).save(self.paths[-1])

    def spread(self, count):
        return list(range(min(count, 8)))
