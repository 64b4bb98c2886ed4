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
    from zodiac import start

    start.prepare()  # before the other imports, which take long

import contextlib
import os
import sys

import config
from zodiac import deploy, device, engines, files, inference
from zodiac.errors import UserError, run

REDUCED = {'bf16': ('paddle', 'openvino'), 'int8': ('onnxruntime', 'openvino')}  # which engines run in that precision


def main():
    export(config.from_command_line(__doc__))


def export(cfg):
    """Do what this script does, with the settings of a `config.Config`. Raises UserError."""
    device.import_paddle()
    from dataset import Loader, ZodiacDataset
    from zodiac import calibration, checkpoint, model, networks

    with_onnx = cfg.export.onnx is not False and deploy.can_save_onnx()
    if (cfg.export.onnx is True or cfg.export.precision == 'int8') and not with_onnx:
        raise UserError(
            'export.onnx=true and export.precision=int8 need more packages: pip install -r requirements-deploy.txt (with Paddle 2.6 '
            'paddle2onnx<2); see docs/troubleshooting.md#onnx-export'
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
        probabilities = model.predict(network, Loader(dataset, cfg.evaluate.batch_size, cfg), len(dataset))
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
    layer = networks.Deployed(network, cfg.image.mean, cfg.image.std, *around)
    layer.eval()
    manifest = describe(cfg, origin, temperature, with_onnx)
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
        inference.write_manifest(unfinished, manifest)
    tell(manifest['parity'], names)
    if without:
        print(
            f'warning: {before} of the older export is gone: the packages to make it anew are not installed; pip install -r '
            'requirements-deploy.txt and export again, or set export.onnx=false',
            file=sys.stderr,
        )
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'try it: python predict.py {folder} IMAGE_OR_FOLDER')


def describe(cfg, origin, temperature, with_onnx):
    """The content of inference.yaml but for the hashes and the parity."""
    from dataset import eval_transform

    size, classes = cfg.image.size, len(cfg.data.labels)
    transform = eval_transform(cfg)
    normalised = {'name': 'image', 'shape': [-1, 3, size, size], 'dtype': 'float32', 'layout': 'NCHW'}
    pixels = {'name': 'image', 'shape': [-1, size, size, 3], 'dtype': 'uint8', 'layout': 'NHWC'}
    output = 'probabilities' if cfg.export.softmax else 'logits'
    return {
        'name': cfg.name,
        'labels': cfg.data.labels,
        'transform': transform[:-1] if cfg.export.preprocess else transform,
        'input': pixels if cfg.export.preprocess else normalised,
        'output': {'name': output, 'shape': [-1, classes], 'dtype': 'float32'},
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
    return inference.sound_batches([training.paths[i] for i in chosen], manifest['transform'], 8)


def write_models(layer, manifest, folder, with_onnx, examples=()):
    """Write the static model, and the same as ONNX, and inference.yaml with their hashes.

    Args:
        examples: batches of what the network sees; only taken where `precision` is int8.
    """
    path = os.path.join(folder, manifest['name'])
    deploy.save_static(layer, path, manifest['input']['shape'], manifest['input']['dtype'])
    if with_onnx:
        deploy.save_onnx(path, manifest['output']['name'])
        if manifest['precision'] == 'int8':
            deploy.quantize_onnx(f'{path}.onnx', examples)
    manifest['sha256'] = {name: files.sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
    inference.write_manifest(folder, manifest)


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

    Returns: JSON-ready dict: images, tolerance, top1 of the network; for each engine top1, largest_difference of a probability and
        top1_agreement; and the worst of both over the engines.
    """
    import numpy as np
    import paddle
    from scipy.special import softmax

    from dataset import eval_transform

    chosen = dataset.spread(cfg.export.parity_images)
    paths = [dataset.paths[i] for i in chosen]
    seen = inference.sound_batches(paths, eval_transform(cfg), 8)
    with paddle.no_grad():
        logits = np.concatenate([network(paddle.to_tensor(part)).numpy() for part in seen])
    expected = softmax(logits / manifest['temperature'], axis=1)
    parts = list(inference.sound_batches(paths, manifest['transform'], 8))
    labels = dataset.labels[chosen]
    parity = {
        'images': len(chosen),
        'tolerance': cfg.export.tolerance,
        'network': {'top1': float((expected.argmax(1) == labels).mean())},
    }
    figures = {}
    for engine in names:
        try:
            place = cfg.device if engine == 'paddle' and cfg.export.precision != 'bf16' else 'cpu'
            exported = inference.load(folder, place, engine, compared=False)
            got = np.concatenate([exported.predict(part) for part in parts])
            found = agreement(engine, expected, got, cfg.export)
        except UserError as error:
            if engine != 'openvino':
                raise UserError(f'{cfg.run_dir}/infer: not exported: {error}; an older export is kept') from None
            said = str(error).replace(folder, f'{cfg.run_dir}/infer')
            print(f'warning: {said}; predict.py and serve.py will not choose openvino on their own', file=sys.stderr)
        else:
            figures[engine] = {'top1': float((got.argmax(1) == labels).mean()), **found}
    return {
        **parity,
        **figures,
        'largest_difference': max(values['largest_difference'] for values in figures.values()),
        'top1_agreement': min(values['top1_agreement'] for values in figures.values()),
    }


def agreement(engine, expected, got, settings):
    """How far the probabilities of an engine, [N, classes], are from those of the network. Raises UserError when it is too far.

    Returns: {'largest_difference': of a probability, 'top1_agreement': share of the images}.
    """
    import numpy as np

    difference = np.abs(expected - got).max()
    same = got.argmax(1) == expected.argmax(1)
    figures = {
        'largest_difference': float(difference) if np.isfinite(difference) else float('inf'),
        'top1_agreement': float(same.mean()),
    }
    if engine in REDUCED.get(settings.precision, ()):
        kept = np.isfinite(difference) and same.mean() >= settings.agreement
        allowed = f'export.agreement = {settings.agreement:g}'
    else:
        kept = difference <= settings.tolerance and same.all()
        allowed = f'export.tolerance = {settings.tolerance:g}, and none'
    if not kept:
        raise UserError(
            f'the model as {engine} runs it differs from the network by {figures["largest_difference"]:.2e} and in the top-1 of '
            f'{int((~same).sum())} of {len(same)} images (allowed: {allowed})'
        )
    return figures


def tell(parity, names):
    for engine in filter(parity.get, names):
        print(
            f'{engine} and network on {parity["images"]} validation images: largest difference of a probability '
            f'{parity[engine]["largest_difference"]:.2e}, same top-1 on {parity[engine]["top1_agreement"]:.1%}; accuracy '
            f'{parity[engine]["top1"]:.4f} and {parity["network"]["top1"]:.4f}'
        )


if __name__ == '__main__':
    run(main)
