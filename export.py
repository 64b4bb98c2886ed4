"""Write the trained network as files that run without it: output/<name>/infer/.

    python export.py                                # the best checkpoint
    python export.py -c configs/demo.yaml -o evaluate.weights=last
    python export.py -o export.preprocess=true export.temperature=true export.onnx=true

The folder holds a static model for Paddle Inference, <name>.json (or .pdmodel with Paddle 2.6) and <name>.pdiparams; where the
packages for it are installed (requirements-deploy.txt), the same as <name>.onnx; and inference.yaml: labels, transform, shapes, and
the SHA-256 of each file. Each model is loaded again and must agree with the network on validation images; if one does not, the
export fails and an older one stays.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn tqdm')

import contextlib
import os
import shlex
import sys

import config
from zodiac.base import device, files
from zodiac.base.errors import UserError, run
from zodiac.inference import engines, parity, runtime
from zodiac.models import convert


def main():
    export(config.from_command_line(__doc__))


def export(cfg):
    """Do what this script does, with the settings of a `config.Config`. Raises UserError."""
    from dataset import Loader, ZodiacDataset
    from zodiac.base import paddle_setup  # noqa: F401  # before any other import of Paddle
    from zodiac.models import prediction, wrappers
    from zodiac.report import calibration
    from zodiac.training import checkpoint

    with_onnx = cfg.export.onnx is not False and convert.can_save_onnx()
    why, step = ('export.onnx=false', '') if cfg.export.onnx is False else convert.why_no_onnx() or ('', '')
    if (cfg.export.onnx is True or cfg.export.precision == 'int8') and not with_onnx:
        setting = 'export.onnx=true' if cfg.export.onnx is True else 'export.precision=int8'
        raise UserError(
            f'{setting} needs the packages of requirements-deploy.txt ({why}): {step}; see docs/troubleshooting.md#onnx-export'
        )
    device.choose(cfg.device)
    if cfg.export.precision == 'bf16' and not device.has_bf16():
        raise UserError(
            'export.precision = bf16: this processor does not have it (avx512_bf16 or amx_bf16), so nothing would show what it '
            'costs; export on one that has it, or set export.precision=fp32 or int8'
        )
    dataset = ZodiacDataset('valid', augment=False, cfg=cfg)
    network, origin = checkpoint.load_network(
        cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
    )
    temperature = 1.0
    if cfg.export.temperature:
        probabilities = prediction.predict(network, Loader(dataset, cfg.evaluate.batch_size, cfg), len(dataset))
        temperature = calibration.fit_temperature(dataset.labels, probabilities)
        if temperature is None:
            temperature = 1.0
            print(
                f'warning: export.temperature: the {len(dataset)} validation images do not tell one (all right, all wrong, or too few); '
                'the probabilities stay as they are',
                file=sys.stderr,
            )

    settings = cfg.export
    around = (settings.preprocess, settings.softmax, temperature)
    layer = wrappers.Deployed(network, cfg.image.mean, cfg.image.std, *around)
    layer.eval()
    manifest = describe(cfg, origin, temperature, with_onnx)
    if not with_onnx:
        manifest['without_onnx'] = why
    examples = training_images(manifest, cfg) if settings.precision == 'int8' else ()
    names = ['paddle', *(['onnxruntime'] if with_onnx else [])]
    if with_onnx and engines.installed('openvino'):
        names.append('openvino')
    folder = f'{cfg.run_dir}/infer'
    before = f'{folder}/{cfg.name}.onnx'
    without = cfg.export.onnx == 'auto' and not with_onnx and os.path.isfile(before)
    with files.atomic_folder(folder) as unfinished:
        write_models(layer, manifest, unfinished, with_onnx, examples)
        manifest['parity'] = compare(network, manifest, unfinished, names, dataset, cfg)
        runtime.write_manifest(unfinished, manifest)
    tell(manifest['parity'], names)
    if cfg.export.onnx == 'auto' and not with_onnx:
        older = f'warning: {before} of the older export is gone: ' if without else ''
        print(
            f'{older}no ONNX file was written, which needs requirements-deploy.txt ({why}); set export.onnx=false if none is wanted, '
            f'else: {step}',
            file=sys.stderr,
        )
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'try it: python predict.py {shlex.quote(folder)} IMAGE_OR_FOLDER')


def describe(cfg, origin, temperature, with_onnx):
    """The content of inference.yaml but for the hashes and the parity."""
    from dataset import eval_transform

    size, classes = cfg.image.size, len(cfg.data.labels)
    transform = eval_transform(cfg)
    normalised = {'name': 'image', 'shape': [-1, 3, size, size], 'dtype': 'float32', 'layout': 'NCHW'}
    pixels = {'name': 'image', 'shape': [-1, size, size, 3], 'dtype': 'uint8', 'layout': 'NHWC'}
    outputs = ['probabilities', 'logits'] if cfg.export.softmax else ['logits']
    return {
        'name': cfg.name,
        'labels': cfg.data.labels,
        'transform': transform[:-1] if cfg.export.preprocess else transform,
        'input': pixels if cfg.export.preprocess else normalised,
        'output': {'name': outputs[0], 'shape': [-1, classes], 'dtype': 'float32'},
        'outputs': outputs,
        'precision': cfg.export.precision,
        'temperature': temperature,
        'trained': {'arch': cfg.model.arch, 'flip_average': cfg.evaluate.flip_average, **origin},
        'versions': versions(with_onnx),
    }


def training_images(manifest, cfg):
    """What the network sees of some training images, in batches. Raises UserError where there is no index of them."""
    from dataset import ZodiacDataset

    training = ZodiacDataset('train', augment=False, cfg=cfg)
    chosen = training.spread(cfg.export.calibration_images)
    return runtime.sound_batches([training.paths[i] for i in chosen], manifest['transform'], 8)


def write_models(layer, manifest, folder, with_onnx, examples=()):
    """Write the static model, and the same as ONNX, and inference.yaml with their hashes.

    Args:
        examples: batches of what the network sees; only taken where `precision` is int8.
    """
    path = os.path.join(folder, manifest['name'])
    convert.save_static(layer, path, manifest['input']['shape'], manifest['input']['dtype'])
    if with_onnx:
        convert.save_onnx(path, manifest['outputs'])
        if manifest['precision'] == 'int8':
            convert.quantize_onnx(f'{path}.onnx', examples)
    manifest['sha256'] = {name: files.sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
    runtime.write_manifest(folder, manifest)


def versions(with_onnx):
    """Of Python and Paddle, and with ONNX of the packages that make and run it, as far as they are installed."""
    import importlib.metadata

    import paddle

    found = {'paddle': paddle.__version__, 'python': sys.version.split()[0]}
    for package in ('onnx', 'paddle2onnx', 'onnxruntime', 'openvino') if with_onnx else ():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def compare(network, manifest, folder, names, dataset, cfg):
    """Run validation images through each exported model, and through the network as evaluate.py measures it, so that a fault in
    what was put around it shows too. Raises UserError when one of them disagrees.

    OpenVINO, which nobody needs to have, is left out with a warning then; `--engine auto` takes only what stands here.

    Returns: JSON-ready dict: images; tolerance; top1, loss and logit_spread of the network; what parity.compare gives for each engine;
        and the worst over the engines of largest_difference, logit_difference and top1_agreement.
    """
    import numpy as np
    import paddle

    from dataset import eval_transform

    chosen = dataset.spread(cfg.export.parity_images)
    paths, labels = [dataset.paths[i] for i in chosen], dataset.labels[chosen]
    seen = runtime.sound_batches(paths, eval_transform(cfg), 8)
    with paddle.no_grad():
        expected = np.concatenate([network(paddle.to_tensor(part)).numpy() for part in seen]) / manifest['temperature']
    if not np.isfinite(expected).all():
        raise UserError(
            f'{cfg.run_dir}/infer: not exported: the network gives no numbers (NaN): its training has diverged; train with a lower '
            'optim.lr, or name other weights with evaluate.weights'
        )
    parts = list(runtime.sound_batches(paths, manifest['transform'], 8))
    figures = {}
    for engine in names:
        try:
            place = cfg.device if engine == 'paddle' and cfg.export.precision != 'bf16' else 'cpu'
            exported = runtime.load(folder, place, engine, compared=False)
            found = [exported.outputs(part) for part in parts]
            outputs = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
            figures[engine] = parity.compare(engine, expected, outputs, labels, cfg.export)
        except UserError as error:
            if engine != 'openvino':
                raise UserError(f'{cfg.run_dir}/infer: not exported: {error}; an older export is kept') from None
            said = str(error).replace(folder, f'{cfg.run_dir}/infer')
            print(f'warning: {said}; predict.py and serve.py will not choose openvino on their own', file=sys.stderr)
    return {
        'images': len(chosen),
        'tolerance': cfg.export.tolerance,
        'network': {**parity.quality(expected, labels), 'logit_spread': parity.spread(expected)},
        **figures,
        'largest_difference': max(values['largest_difference'] for values in figures.values()),
        'logit_difference': max(values['logit_difference'] for values in figures.values()),
        'top1_agreement': min(values['top1_agreement'] for values in figures.values()),
    }


def tell(measured, names):
    network = measured['network']
    for engine in filter(measured.get, names):
        found = measured[engine]
        print(
            f'{engine} ({found["precision"]}) and network on {measured["images"]} validation images: largest difference of a logit '
            f'{found["logit_difference"]:.2e} of their spread, of a probability {found["largest_difference"]:.2e}; same top-1 on '
            f'{found["top1_agreement"]:.1%}; accuracy {found["top1"]:.4f} and {network["top1"]:.4f}; loss {found["loss"]:.4f} and '
            f'{network["loss"]:.4f}'
        )


if __name__ == '__main__':
    run(main)
