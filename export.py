"""Write the trained network as a static model for Paddle Inference: output/<name>/infer/.

    python export.py                                # the best checkpoint
    python export.py -c configs/demo.yaml -o evaluate.weights=last

The folder holds <name>.json (or .pdmodel with Paddle 2.6), <name>.pdiparams and inference.yaml: labels, transform, shapes
and the SHA-256 of each file. It takes float32 [N, 3, size, size] and gives probabilities. The static model is loaded
again and must agree with the network on validation images; if it does not, the export fails and an older one stays.
"""

import os
import sys

import config
from zodiac import device, files
from zodiac.errors import UserError, run


def main():
    cfg = config.from_command_line(__doc__)
    device.import_paddle()
    from dataset import ZodiacDataset, eval_transform
    from zodiac import checkpoint

    device.choose(cfg.device)
    dataset = ZodiacDataset('valid', augment=False, cfg=cfg)
    network, origin = checkpoint.load_network(
        cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
    )
    folder = f'{cfg.run_dir}/infer'
    with files.atomic_folder(folder) as temporary:
        probabilities = save_static(network, os.path.join(temporary, cfg.name), cfg.image.size)
        manifest = describe(temporary, cfg, eval_transform(cfg), origin)
        manifest['parity'] = compare(probabilities, temporary, dataset, cfg)
        write_manifest(temporary, manifest)
    parity = manifest['parity']
    print(
        f'static model and network on {parity["images"]} validation images: largest difference of a probability '
        f'{parity["largest_difference"]:.2e}, same top-1 on all'
    )
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'try it: python predict.py {folder} IMAGE_OR_FOLDER')


def save_static(network, path, size):
    """Save `network` with a softmax behind it as a static graph at `path`; returns the dynamic one."""
    import paddle

    probabilities = paddle.nn.Sequential(network, paddle.nn.Softmax(axis=-1))
    probabilities.eval()
    shape = paddle.static.InputSpec([None, 3, size, size], 'float32', 'image')
    try:
        paddle.jit.save(probabilities, path, input_spec=[shape])
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f'{path}: Paddle could not save the static model ({str(error).strip().splitlines()[-1]}); check the free space'
        ) from None
    return probabilities


def describe(folder, cfg, transform, origin):
    """Write and return inference.yaml for the model files in `folder`."""
    import paddle

    for leftover in [name for name in os.listdir(folder) if name.endswith('.info')]:
        os.remove(os.path.join(folder, leftover))
    manifest = {
        'name': cfg.name,
        'labels': cfg.data.labels,
        'transform': transform,
        'input': {'name': 'image', 'shape': [-1, 3, cfg.image.size, cfg.image.size], 'dtype': 'float32'},
        'output': {'name': 'probabilities', 'shape': [-1, len(cfg.data.labels)], 'dtype': 'float32'},
        'trained': {'arch': cfg.model.arch, **origin},
        'versions': {'paddle': paddle.__version__, 'python': sys.version.split()[0]},
        'sha256': {name: files.sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))},
    }
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder, manifest):
    import yaml

    with open(os.path.join(folder, 'inference.yaml'), 'w', encoding='utf-8') as file:
        yaml.safe_dump(manifest, file, sort_keys=False, allow_unicode=True)


def compare(probabilities, folder, dataset, cfg):
    """Run validation images through the network and the static model. Raises UserError when they disagree."""
    import numpy as np
    import paddle

    from zodiac import inference

    exported = inference.load(folder, cfg.device)
    chosen = dataset.spread(cfg.export.parity_images)
    largest, differing = 0.0, 0
    for start in range(0, len(chosen), 8):
        batch = np.stack([dataset[index][0] for index in chosen[start : start + 8]])
        with paddle.no_grad():
            expected = probabilities(paddle.to_tensor(batch)).numpy()
        got = exported.predict(batch)
        difference = np.abs(expected - got).max()
        largest = max(largest, float(difference) if np.isfinite(difference) else float('inf'))
        differing += int((expected.argmax(1) != got.argmax(1)).sum())
    if largest > cfg.export.tolerance or differing:
        raise UserError(
            f'{cfg.run_dir}/infer: not exported: the static model differs from the network by {largest:.2e} (allowed: '
            f'export.tolerance = {cfg.export.tolerance:g}) and in the top-1 of {differing} of {len(chosen)} images; an older export is kept'
        )
    return {
        'images': len(chosen),
        'largest_difference': largest,
        'top1_agreement': 1.0,
        'tolerance': cfg.export.tolerance,
    }


if __name__ == '__main__':
    run(main)
