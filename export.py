"""Export the trained network to files that run without it: output/<name>/infer/.

    python export.py                                # the best checkpoint
    python export.py pets -o evaluate.weights=last  # the run output/pets, with its settings
    python export.py -o export.preprocess=true export.temperature=true export.onnx=true

The folder contains a static model for Paddle Inference, <name>.json (.pdmodel with Paddle 2.6) and <name>.pdiparams; the same model
as <name>.onnx where requirements-deploy.txt is installed, and with export.int8=true as <name>.int8.onnx; with
export.weights=safetensors, <name>.safetensors, the weights for PyTorch; <name>.reference.npz, with which predict.py and serve.py choose
engine and precision where they run; with reject.keep, <name>.unknown.npz, with which they tell photos of something else; with
export.web=true, web/, a page that runs the model in the browser; README.md, the model card; <name>.evidence.json, with which `zodiac
verify` measures the model again; and inference.yaml with labels, transform, shapes and the SHA-256 of each file. Each model is loaded
again and compared with the network on validation images. If one differs, the export fails and an older one is kept. The fingerprint is
the SHA-256 of inference.yaml.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn threadpoolctl jinja2 tqdm')
    import config

    config.run_of(config.parser(__doc__, takes='run').parse_args())  # --help, wrong usage and a missing run end here

import contextlib
import dataclasses
import importlib.metadata
import os
import sys

import numpy as np

import config
from dataset import Loader, ZodiacDataset, eval_transform
from zodiac.base import calls, class_names, device, files, networks, packages, runs
from zodiac.base.errors import UserError, run
from zodiac.base.paddle_setup import paddle
from zodiac.data import groups, index
from zodiac.data.folders import SPLITS
from zodiac.inference import engines, evidence, export_folder, exported_model, image_batches, parity, reference, unknown
from zodiac.models import convert, torch_names, wrappers
from zodiac.models import weights as weight_files
from zodiac.report import calibration, card, recorded
from zodiac.training import checkpoint, features, rejection, solved_run
from zodiac.training.progress import note
from zodiac.web import folder as web
from zodiac.web import runtime

BATCH = 8  # images per run in the comparison and in the calibration of int8
MARGINS = 512  # validation images whose margins are sealed


def main():
    export(config.from_command_line(__doc__, takes='run'))


def export(cfg):
    """Export the network of a run with the settings of a `config.Config`. Raises UserError."""
    cfg, settings = class_names.resolve(cfg), cfg.export
    no_onnx, fix = why_no_onnx(settings)
    if settings.weights == 'safetensors' and not packages.is_there('safetensors'):
        raise UserError(f'export.weights=safetensors: {packages.not_installed(["safetensors"], packages.DEPLOY)}')
    web_runtime, web_version = runtime.read(settings.web_runtime) if settings.web else (None, None)
    device.choose(cfg.device)
    dataset = ZodiacDataset('valid', augment=False, cfg=cfg)
    network, origin = checkpoint.load_network(
        cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
    )
    predict, extractor = features.predictor(cfg, network, origin, Loader, note)
    temperature = fit_temperature(predict, dataset) if settings.temperature else 1.0
    deployed = wrappers.WithFeatures if cfg.exports_features else wrappers.Deployed
    layer = deployed(network, cfg.image.mean, cfg.image.std, settings.preprocess, settings.softmax, temperature)
    layer.eval()
    manifest = describe(cfg, origin, temperature, not no_onnx)
    report = recorded.read(f'{cfg.run_dir}/report', origin['weights'])
    manifest['measured'] = recorded.summary(report)
    if no_onnx:
        manifest['without_onnx'] = no_onnx
    examples = None
    if settings.int8:
        training = ZodiacDataset('train', augment=False, cfg=cfg)
        paths = [training.paths[i] for i in training.spread(settings.calibration_images)]
        examples = image_batches.read_indexed(paths, manifest['transform'], BATCH)
    names = ['paddle', *([] if no_onnx else ['onnxruntime'])]
    if not no_onnx and engines.installed('openvino'):
        names.append('openvino')
    folder = f'{cfg.run_dir}/infer'
    older = f'{folder}/{engines.onnx_name(manifest)}'
    removed = f'{older} of the older export was removed; ' if no_onnx and os.path.isfile(older) else ''
    with files.atomic_folder(folder) as unfinished:
        write_models(layer, manifest, unfinished, not no_onnx, examples)
        if settings.weights == 'safetensors':
            plain = getattr(network, 'network', network)  # without the mean over mirror images
            content = torch_names.dump(plain, cfg.model.arch, cfg.model.head, cfg.data.labels)
            write_sealed(unfinished, manifest, f'{cfg.name}.safetensors', content)
        manifest['parity'] = compare(network, manifest, unfinished, names, dataset, cfg, extractor)
        rejecting = reject(manifest, unfinished, dataset, cfg, extractor) if cfg.reject.keep else None
        seal(network, manifest, unfinished, dataset, cfg, extractor, rejecting)
        if settings.web:
            add_page(manifest, unfinished, web_runtime, web_version)
        if extractor:
            extractor.say_total()
        document(manifest, unfinished, cfg, origin['weights'], report)
        export_folder.write_manifest(unfinished, manifest)
    print('\n'.join(parity.in_words(manifest['parity'], names)))
    if no_onnx and settings.onnx == 'auto':
        print(
            f'warning: {removed}no ONNX file was written, which needs requirements-deploy.txt ({no_onnx}); to export one: {fix}; to do '
            'without, set export.onnx=false',
            file=sys.stderr,
        )
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'fingerprint: {evidence.fingerprint(folder)}')
    print(f'next: {calls.command("predict", runs.shortest(cfg.run_dir), dataset.paths[0])}')


def why_no_onnx(settings):
    """(reason, how to fix it) if no ONNX file will be written, else ('', ''). Raises UserError where the settings need one."""
    if settings.onnx is False and settings.web:
        raise UserError('export.onnx=false: export.web=true needs the ONNX file; set export.onnx=auto')
    if settings.onnx is False:
        return 'export.onnx=false', ''
    why, fix = packages.why_no_onnx() or ('', '')
    needing = {
        'export.onnx=true': settings.onnx is True,
        'export.int8=true': settings.int8,
        'export.web=true': settings.web,
    }
    setting = next((setting for setting, needs in needing.items() if needs), None)
    if why and setting:
        raise UserError(
            f'{setting} needs the packages of requirements-deploy.txt ({why}): {fix}; see docs/troubleshooting.md#onnx-export'
        )
    return why, fix


def fit_temperature(predict, dataset):
    """The temperature that fits the validation images; 1.0, with a warning, where they do not determine one."""
    temperature = calibration.fit_temperature(dataset.labels, predict(dataset))
    if temperature is None:
        print(
            f'warning: export.temperature: the {len(dataset)} validation images do not determine a temperature (all right, all wrong, or '
            'too few); the probabilities are left unchanged',
            file=sys.stderr,
        )
        return 1.0
    return temperature


def describe(cfg, origin, temperature, with_onnx):
    """The content of inference.yaml without hashes and parity."""
    size, classes = cfg.image.size, len(cfg.data.labels)
    transform = eval_transform(cfg)
    normalised = {'name': 'image', 'shape': [-1, 3, size, size], 'dtype': 'float32', 'layout': 'NCHW'}
    pixels = {'name': 'image', 'shape': [-1, size, size, 3], 'dtype': 'uint8', 'layout': 'NHWC'}
    outputs = ['probabilities', 'logits'] if cfg.export.softmax else ['logits']
    outputs += ['features'] if cfg.exports_features else []
    credit = {'credit': networks.credit(cfg.model.arch)} if origin.get('pretrained') is True else {}
    return {
        'name': cfg.name,
        'labels': cfg.data.labels,
        'transform': transform[:-1] if cfg.export.preprocess else transform,
        'input': pixels if cfg.export.preprocess else normalised,
        'output': {'name': outputs[0], 'shape': [-1, classes], 'dtype': 'float32'},
        'outputs': outputs,
        'temperature': temperature,
        'trained': {'arch': cfg.model.arch, 'flip_average': cfg.evaluate.flip_average, **origin, **credit},
        'versions': versions(with_onnx),
    }


def versions(with_onnx):
    """Versions of Python and Paddle and, with ONNX, of the installed packages that write and run it."""
    found = {'paddle': paddle.__version__, 'python': sys.version.split()[0]}
    for package in ('onnx', 'onnxruntime', 'openvino') if with_onnx else ():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def write_models(layer, manifest, folder, with_onnx, examples=None):
    """Write the static model, the ONNX model, and inference.yaml with their hashes.

    Args:
        examples: batches of transformed images, to write the ONNX model in int8 too; None: it is not written.
    """
    path = os.path.join(folder, manifest['name'])
    convert.save_static(layer, path, manifest['input']['shape'], manifest['input']['dtype'])
    if with_onnx:
        convert.save_onnx(path, manifest['outputs'])
        if examples is not None:
            convert.quantize_onnx(f'{path}.onnx', f'{path}.int8.onnx', examples)
    manifest['sha256'] = {name: files.sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
    export_folder.write_manifest(folder, manifest)


def compare(network, manifest, folder, names, dataset, cfg, extractor=None):
    """Run validation images through each exported model and through the network as evaluate.py runs it, which also shows errors in
    the layers added around the network. Raises UserError when an engine differs.

    OpenVINO, which is optional, only causes a warning then; predict.py and serve.py do not take an engine that is among `differs`.

    Returns: JSON-ready dict: images; tolerance; top1, loss and logit_spread of the network; the result of parity.compare for each
        engine, and under `int8` for each that runs the int8 file; the worst over the engines (without int8) of largest_difference,
        logit_difference and top1_agreement; and `differs`, a list of engines.
    """
    chosen = dataset.spread(cfg.export.parity_images)
    paths, labels = [dataset.paths[i] for i in chosen], dataset.labels[chosen]
    images = image_batches.read_indexed(paths, eval_transform(cfg), BATCH)
    expected = logits_of(network, images, cfg, extractor) / manifest['temperature']
    if not np.isfinite(expected).all():
        raise UserError(
            f'{cfg.run_dir}/infer: not exported: the outputs of the network are NaN, its training has diverged; train with a lower '
            'optim.lr, or choose other weights with evaluate.weights'
        )
    batches = list(image_batches.read_indexed(paths, manifest['transform'], BATCH))
    found, in_int8, differs = {}, {}, []
    integers = engines.onnx_name(manifest, 'int8') in manifest['sha256']
    for precision, engine in [*(('fp32', name) for name in names), *(('int8', name) for name in names[1:] if integers)]:
        try:
            outputs = outputs_of(load(folder, cfg, engine, precision), batches)
            of_precision = in_int8 if precision == 'int8' else found
            of_precision[engine] = parity.compare(engine, precision, expected, outputs, labels, cfg.export)
        except UserError as error:
            if engine != 'openvino':
                raise UserError(f'{cfg.run_dir}/infer: not exported: {error}; an older export is kept') from None
            message = str(error).replace(folder, f'{cfg.run_dir}/infer')
            print(
                f'warning: {message}; predict.py and serve.py will not choose openvino by themselves', file=sys.stderr
            )
            differs.append('openvino')
    return {
        'images': len(chosen),
        'tolerance': cfg.export.tolerance,
        'network': {**parity.quality(expected, labels), 'logit_spread': parity.spread(expected)},
        **found,
        **({'int8': in_int8} if integers else {}),
        **({'differs': sorted(set(differs))} if differs else {}),
        'largest_difference': max(values['largest_difference'] for values in found.values()),
        'logit_difference': max(values['logit_difference'] for values in found.values()),
        'top1_agreement': min(values['top1_agreement'] for values in found.values()),
    }


def logits_of(network, batches, cfg=None, extractor=None):
    """The logits, float32 [N, classes], of a network for batches of normalised images; with its features.Extractor, which keeps them, the
    backbone runs only on images that are new to it."""
    if extractor:
        return extractor.logits_of(np.concatenate(list(batches)), cfg.evaluate.flip_average)
    with paddle.no_grad():
        return np.concatenate([network(paddle.to_tensor(batch)).numpy() for batch in batches])


def reject(manifest, folder, dataset, cfg, extractor=None):
    """Write the file that unknown.py describes, add its hash to the manifest, and under `unknown` what was asked for and reached.

    A solved head is calibrated over folds of the training images. A network that learned in steps knows those too well: it is calibrated
    on the validation images, with features by the fastest engine; so is a solved head without cached features, or with one image per class.

    Returns: unknown.Rejection.
    """
    training, found = ZodiacDataset('train', augment=False, cfg=cfg), None
    if extractor and cfg.train.head == 'linear':
        augmented = ZodiacDataset('train', augment=True, cfg=cfg)
        with contextlib.suppress(features.NoFeatures, rejection.NoPhotos):
            found, facts = solved_run.reject(cfg, extractor, training, augmented, manifest['temperature'])
    if found is None:
        model = fastest(manifest, folder, cfg)

        def run(paths):
            return outputs_of(model, image_batches.read_indexed(paths, manifest['transform'], BATCH))

        chosen = rejection.drawn(training.labels, cfg.seed)
        values = run([training.paths[i] for i in chosen])['features']
        of_training = rejection.reference(values, training.labels[chosen], cfg.seed)
        outputs = run(dataset.paths)
        held = rejection.apart(
            of_training, outputs['features'], exported_model.softmax(outputs['logits']), dataset.labels
        )
        found, facts = rejection.calibrate(of_training, held, cfg.reject.keep, cfg.reject.coverage, cfg.reject.sets)
    warning = rejection.too_few(cfg.reject, facts)
    if warning:
        print(f'warning: {warning}', file=sys.stderr)
    write_sealed(folder, manifest, unknown.file_name(manifest), unknown.pack(found))
    manifest['unknown'] = facts
    return found


def write_sealed(folder, manifest, name, content):
    """Write a file and add its hash to the manifest."""
    with open(os.path.join(folder, name), 'wb') as file:
        file.write(content)
    manifest['sha256'][name] = files.sha256(os.path.join(folder, name))


def add_page(manifest, folder, web_runtime, version):
    """Write web/, see zodiac/web/folder.py, and add its hashes to the manifest."""
    hashes = web.write(os.path.join(folder, export_folder.WEB), manifest, web_runtime)
    manifest['sha256'].update({f'{export_folder.WEB}/{name}': digest for name, digest in hashes.items()})
    if version:
        manifest['versions']['onnxruntime-web'] = version


def fastest(manifest, folder, cfg):
    """The exported_model.ExportedModel of the fastest engine that agrees with the network, in fp32."""
    engine = next(name for name in ('openvino', 'onnxruntime', 'paddle') if name in manifest['parity'])
    return load(folder, cfg, engine)


def load(folder, cfg, engine, precision='fp32'):
    return exported_model.load(folder, cfg.device if engine == 'paddle' else 'cpu', engine, precision, checked=False)


def outputs_of(model, batches):
    """{name of an output: float32 [N, ...]} of an exported_model.ExportedModel for batches of transformed images."""
    found = list(map(model.outputs, batches))
    return {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}


def seal(network, manifest, folder, dataset, cfg, extractor=None, rejecting=None):
    """Write the file that reference.py describes, add its hash to the manifest, and note under `parity` the share of answers that int8
    could change. The margins are those of up to MARGINS validation images, by the fastest engine that agrees with the network. With an
    unknown.Rejection, scores are sealed as logits are."""
    compared = manifest['parity']
    pixels = reference.pictures(cfg.image.size)
    paths = [dataset.paths[i] for i in dataset.spread(cfg.export.examples)] if cfg.export.examples else []
    *scaling, normalisation = eval_transform(cfg)
    examples = np.zeros((0, *pixels.shape[1:]), np.uint8)
    if paths:
        examples = np.concatenate(list(image_batches.read_indexed(paths, scaling, BATCH)))

    def normalised(images):
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return (reference.normalised(batch, normalisation) for batch in batches)

    def by_temperature(logits):
        return (logits / manifest['temperature']).astype(np.float32)

    logits = by_temperature(logits_of(network, normalised(pixels), cfg, extractor))
    chosen = [dataset.paths[i] for i in dataset.spread(MARGINS)]
    outputs = outputs_of(
        fastest(manifest, folder, cfg), image_batches.read_indexed(chosen, manifest['transform'], BATCH)
    )
    margins, scored = reference.margins(outputs['logits']), {}
    if rejecting:
        if extractor and cfg.train.head == 'linear':
            of_pictures = extractor.features_of(np.concatenate(list(normalised(pixels))), cfg.evaluate.flip_average)
        else:
            of_pictures = logits_of(wrappers.before_last(network)[0], normalised(pixels))
        if paths:
            more = logits_of(wrappers.before_last(network)[0], normalised(examples))
            of_pictures = np.concatenate([of_pictures, more])
        score_margins = np.abs(rejecting.score(outputs['features']))
        scored = {'scores': rejecting.score(of_pictures), 'score_margins': score_margins}
    given = reference.inputs(manifest, pixels)
    for name, found in compared.get('int8', {}).items():
        batches = [given[start : start + BATCH] for start in range(0, len(given), BATCH)]
        outputs = outputs_of(load(folder, cfg, name, 'int8'), batches)
        found['share'] = reference.changed_share(reference.differences(logits, outputs['logits']), margins)
        if rejecting:
            moved = rejecting.score(outputs['features'])
            known_share = reference.changed_known_share(scored['scores'][: len(moved)], moved, scored['score_margins'])
            found['share'] = max(found['share'], known_share)
    of_examples = by_temperature(logits_of(network, normalised(examples))) if paths else logits[:0]
    content = reference.pack(logits, margins, examples, of_examples, **scored)
    write_sealed(folder, manifest, reference.file_name(manifest), content)


def document(manifest, folder, cfg, weights, report):
    """Write what the model runs without, with hashes in the manifest: the evidence that verify.py checks, and README.md, the model card.

    Args:
        weights: path of the weight file; report: what `recorded.read` returned for it.
    """
    root, classes = cfg.data.root, len(cfg.data.labels)
    indexes = {split: f'{root}/{split}.txt' for split in SPLITS if os.path.isfile(f'{root}/{split}.txt')}
    splits = {split: evidence.photos(*index.read(path, classes), root) for split, path in indexes.items()}
    metrics, predictions, why = recorded.to_seal(
        report, splits.get('test', ()), lambda path: evidence.below(path, root), cfg.data.labels
    )
    about = {
        'config': dataclasses.asdict(cfg),
        'code': evidence.code(),
        'versions': {name: importlib.metadata.version(name) for name in ('numpy', 'pillow')},
        'weights': {'path': weights, 'values': weight_files.digest(weight_files.read(weights))},
        'groups': {evidence.below(path, root): group for path, group in groups.read(root).items()},
        'metrics': metrics,
        'not_measured': why,
        'annotation': card.of_annotation(files.read_json(f'{root}/annotation.json') or {}),
        'card': card.version(),
    }
    evidence.write(folder, manifest, evidence.file_name(manifest), evidence.pack(about, splits, predictions))
    evidence.write(folder, manifest, evidence.CARD, card.write(manifest, about, splits).encode())


if __name__ == '__main__':
    run(main)
