"""Measure the trained network on a split; writes output/<name>/report/ (of other splits report-valid/, report-train/).

    python evaluate.py                                            # the best checkpoint on the test split
    python evaluate.py pets -o evaluate.split=valid evaluate.weights=last     # the run output/pets, with its settings
    python evaluate.py -o evaluate.weights=output/zodiac/infer evaluate.engine=onnxruntime     # an exported model
    python evaluate.py pets --data new_photos                     # other photos, in folders of the same classes
    python evaluate.py pets --slices cameras.csv                  # accuracy by its columns, beside size, brightness and sharpness
    python evaluate.py --compare demo demo_longer                 # two evaluated runs side by side
    python evaluate.py pets --lang zh                             # the page opens in Chinese; it has both languages

report.html shows everything and works offline. metrics.json holds all numbers; metrics.csv, per_class.csv and
confusion_matrix.csv hold them as tables, predictions.csv has one row per image, slices.csv the accuracy of parts of the
images, and the plots are PNG files. A simple random sample of the split is printed as in the notebook.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare(
        'requirements-base.txt', 'paddle numpy PIL yaml scipy sklearn threadpoolctl matplotlib jinja2 tqdm visualdl'
    )

    import config

    parser = config.parser(__doc__, takes='run')
    parser.add_argument(
        '--data', metavar='FOLDER', help='evaluate these labelled photos, <class>/*, instead of a split'
    )
    parser.add_argument(
        '--slices',
        metavar='FILE',
        help='CSV with a column path and others; the accuracy is measured for each of their values',
    )
    parser.add_argument('--compare', nargs=2, metavar='RUN', help='compare two evaluated runs (names or folders)')
    parser.add_argument('--lang', choices=('zh', 'en'), help='language of the page; without it, that of the browser')
    args = parser.parse_args()
    config.run_of(args)  # a missing run ends here, before Paddle is imported

import filecmp
import os
import sys

import numpy as np
from tqdm import tqdm

import config
from dataset import Loader, ZodiacDataset
from zodiac.base import calls, class_names, device, files, formatting, options, photos, runs, schema
from zodiac.base.errors import UsageError, UserError, run
from zodiac.base.paddle_setup import paddle
from zodiac.data import inspection, left_out, near_duplicates, photo_columns
from zodiac.data.entry import NEVER, UNREAD
from zodiac.data.folders import SPLITS
from zodiac.data.index import read as read_index
from zodiac.data.scan import scan
from zodiac.inference import export_folder, exported_model, image_batches
from zodiac.report import annotation, calibration, compare, console, metrics, slices, small_data, training_log, writer
from zodiac.training import checkpoint, features, linear_head, optim, rejection, solved_run
from zodiac.training.progress import note


def main():
    if args.compare:
        compare_runs(*args.compare, args.lang)
    else:
        table = photo_columns.read(args.slices) if args.slices else None
        cfg = config.from_arguments(args)
        evaluate(cfg, args.data, args.lang, table)
        if export_folder.is_export(cfg.evaluate.weights):
            following = ['serve', cfg.evaluate.weights]
        elif runs.is_run(cfg.run_dir):
            following = ['export', *config.to_export(cfg)]
        else:  # a weight file, with the settings of this command
            following = ['export', *options.again(args)]
        print(f'next: {calls.command(*following)}')


def evaluate(cfg, data=None, language=None, table=None):
    """Measure the network and write its report, with the settings of a `config.Config`.

    Args:
        data: a folder of other labelled photos to measure it on; None: evaluate.split.
        language: 'zh' or 'en', in which report.html opens; None for that of the browser. It can be switched in the page.
        table: a `photo_columns.Table` of further facts, for `slices.measure`; None for none.
    Raises: UserError.
    """
    cfg = class_names.resolve(cfg)
    device.choose(cfg.device)
    dataset = labelled(cfg, data) if data else ZodiacDataset(cfg.evaluate.split, augment=False, cfg=cfg)
    split = photos.name_of(data) if data else cfg.evaluate.split
    predict, origin, network, extractor = predictor(cfg)
    probabilities = predict(dataset)
    require_finite(probabilities, origin['weights'])

    annotated = annotation.read(f'{cfg.data.root}/annotation.json', near_duplicates.BITS)
    right = probabilities.argmax(1) == dataset.labels
    names = cfg.data.labels
    result = {
        'split': split,
        **metrics.evaluate(dataset.labels, probabilities, names),
        'calibration': calibration.evaluate(dataset.labels, probabilities, temperature(dataset, predict, cfg, data)),
        'near_duplicates': annotation.without_near_duplicates(annotated['paths'], dataset.paths, right),
        **metrics.random_sample(dataset.paths, dataset.labels, probabilities, names, cfg.evaluate.sample, cfg.seed),
        **origin,
        'paddle': paddle.__version__,
    }
    measured, folds = over_folds(cfg, extractor, origin) if cfg.evaluate.folds and not data else ({}, None)
    result.update(measured)
    if cfg.reject.keep and not data:
        result.update(unknown_photos(cfg, dataset, probabilities, extractor))
    if extractor:
        extractor.say_total()
    parts = folds or (dataset.paths, dataset.labels, probabilities)
    columns = photo_columns.of_photos(table, parts[0], data or cfg.data.root, note) if table else None
    result['slices'] = {'over_folds': bool(folds), **slices.measure(*parts, names, cfg.seed, columns)}

    folder = f'{cfg.run_dir}/{report_of(cfg, data)}'
    log = training_log.read(f'{cfg.run_dir}/log.csv')
    with files.atomic_folder(folder) as unfinished:
        writer.write(
            unfinished,
            cfg.name,
            result,
            dataset,
            probabilities,
            network,
            counts={split: np.bincount(dataset.labels, minlength=len(names))} if data else class_counts(cfg),
            annotated=annotated,
            log=log,
            rates=learning_rates(log, cfg),
            seed=cfg.seed,
            folds=folds,
            language=language,
        )
    console.show(result)
    print(f'written: {folder}/ ({", ".join(sorted(os.listdir(folder)))})')
    print(f'look at: {folder}/report.html')
    writer.add_to_visualdl(
        f'{cfg.run_dir}/visualdl/{os.path.basename(folder).replace("report", "evaluation", 1)}', folder
    )


def report_of(cfg, data=None):
    """The name of the report's folder: report for the test split, report-valid and report-train; report-NAME for the folder `data`."""
    if not data:
        return 'report' if cfg.evaluate.split == 'test' else f'report-{cfg.evaluate.split}'
    name = photos.name_of(data)
    return (
        f'report-{photos.name_of(os.path.dirname(os.path.abspath(data)))}-{name}'
        if name in SPLITS
        else f'report-{name}'
    )


def labelled(cfg, folder):
    """The photos in the class folders of another folder, also those of its splits, as a `ZodiacDataset`; nothing is written there.

    Raises: UserError if a class is not one of data.labels, or more than annotate.max_left_out of the photos cannot be used.
    """
    photos.require_there(folder)
    if os.path.isfile(folder):
        raise UsageError(
            f'--data {folder}: must be a folder with a folder of photos for each class; unpack an archive, and copy the photos of a list '
            'into such folders'
        )
    tree = scan(folder, cfg.data.labels, cfg.annotate.unknown_class, trained=True)
    entries = [entry for entry in tree.entries if entry.verdict is UNREAD]
    stamps = bytearray(len(entries) * len(NEVER))
    convert = cfg.annotate.non_rgb == 'convert'
    inspection.inspect_entries(entries, range(len(entries)), stamps, convert, device.cores())
    left_out.require_few(tree, cfg.annotate.max_left_out, whole=False)
    lost = [entry for entry in tree.entries if entry.verdict.reason]
    if lost:
        print(f'left out: {left_out.in_words(lost)}', file=sys.stderr)
    if tree.stray:
        others = formatting.count(len(tree.stray), 'path')
        print(f'left out: {others} outside the class folders (such as {tree.stray[0]!r})', file=sys.stderr)
    number = {label: index for index, label in enumerate(cfg.data.labels)}
    with files.temporary_folder() as place:
        with files.atomic_write(f'{place}/index.txt') as file:
            file.writelines(
                f'{entry.path}\t{number[entry.label]}\n' for entry in tree.entries if not entry.verdict.reason
            )
        return ZodiacDataset('test', augment=False, cfg=cfg, index=f'{place}/index.txt')


def predictor(cfg):
    """What evaluate.weights names, ready to predict.

    Returns: (predict, origin, network, extractor): predict(dataset) -> float32 [n, classes], probabilities; origin, facts about the
        weights for metrics.json; network, the Layer in eval mode, or None for an exported model; extractor, see `features.predictor`.
    """
    if export_folder.is_export(cfg.evaluate.weights):
        return *predictor_of_export(cfg), None, None
    if cfg.evaluate.engine != 'paddle':
        infer = schema.override('evaluate.weights', f'{cfg.run_dir}/infer')
        raise UserError(
            f'evaluate.engine = {cfg.evaluate.engine} runs exported models, and evaluate.weights = {cfg.evaluate.weights} is not the '
            f'folder of one; -o {infer}'
        )
    network, origin = checkpoint.load_network(
        cfg.run_dir, cfg.evaluate.weights, cfg.identity, cfg.evaluate.flip_average
    )
    ours = {'arch': cfg.model.arch, 'image_size': cfg.image.size, 'flip_average': cfg.evaluate.flip_average}
    predict, extractor = features.predictor(cfg, network, origin, Loader, note)
    return predict, {**origin, **ours}, network, extractor


def predictor_of_export(cfg):
    """(predict, origin) of an exported model. Raises UserError if its classes are not data.labels."""
    folder = cfg.evaluate.weights
    exported = exported_model.load(folder, cfg.device, cfg.evaluate.engine, cfg.evaluate.precision, checked=False)
    if exported.labels != cfg.data.labels:
        raise UserError(
            f'{folder}: was exported with data.labels = {exported.labels}, now it is {cfg.data.labels} '
            f'({class_names.difference(exported.labels, cfg.data.labels)}); train and export again, or use -c with the configuration of '
            'that run'
        )

    def predict(dataset):
        outputs = []
        with tqdm(total=len(dataset), desc='evaluating', unit='image', leave=False, disable=None) as bar:
            for batch in image_batches.read_indexed(dataset.paths, exported.transform, cfg.evaluate.batch_size):
                outputs.append(exported.predict(batch))
                bar.update(len(batch))
        return np.concatenate(outputs)

    return predict, {'weights': folder, 'engine': exported.engine, 'precision': exported.precision, **exported.origin}


def require_finite(probabilities, weights):
    """Raise UserError if a network outputs NaN."""
    wrong = int((~np.isfinite(probabilities).all(1)).sum())
    if wrong:
        raise UserError(
            f'{weights}: outputs NaN for {wrong} of {len(probabilities)} images: the training diverged, or the file is damaged; '
            'train with a lower optim.lr, or choose other weights with evaluate.weights'
        )


def temperature(dataset, predict, cfg, data=None):
    """The temperature fitted on the validation images; None without any, or if they are among the evaluated images. Those of a run that
    is measured on the folder `data` may be gone, or have other classes by now."""
    if not os.path.isfile(f'{cfg.data.root}/valid.txt'):
        return None
    if data and class_names.annotated(cfg) not in (None, cfg.data.labels):
        return None
    valid = ZodiacDataset('valid', augment=False, cfg=cfg)
    if data and not all(map(os.path.isfile, valid.paths)):
        return None
    if set(valid.paths) & set(dataset.paths):
        return None
    return calibration.fit_temperature(valid.labels, predict(valid))


def over_folds(cfg, extractor, origin):
    """Measure the solved head over folds of all images, and its learning curve.

    Returns: ({'folds', 'learning_curve'} for metrics.json, (paths, labels, probabilities) of all images); ({}, None) for an exported
        model, and for a network that was fine-tuned on some of these images.
    """
    why = ''
    if 'engine' in origin:
        why = 'an exported model has no backbone to solve heads on'
    elif extractor is None:
        why = f'{origin["weights"]} is fine-tuned: its features would flatter the images that they were learned from'
    if why:
        print(f'evaluate.folds: not measured, {why}', file=sys.stderr)
        return {}, None
    solved_run.layer_of(extractor.backbone.rest)
    paths, labels, views, groups = all_features(cfg, extractor)
    names, number = cfg.data.labels, cfg.evaluate.folds
    linear_head.require_folds(labels, groups, number, names)
    how = {'balanced': cfg.train.class_weights == 'balanced', 'seed': cfg.seed, 'groups': groups}
    probabilities = linear_head.over_folds(views, labels, len(names), number, **how)
    curve = linear_head.learning_curve(views, labels, len(names), **how)
    measured = {
        'folds': small_data.over_folds(labels, probabilities, number),
        'learning_curve': small_data.learning_curve(curve, np.bincount(labels, minlength=len(names)), names),
    }
    return measured, (paths, labels, probabilities)


def require_folds(cfg):
    """Raise UserError if a class has too few photos for evaluate.folds; for run.py, before it trains."""
    label_of = {}
    for split in SPLITS:
        if os.path.isfile(f'{cfg.data.root}/{split}.txt'):
            images = ZodiacDataset(split, augment=False, cfg=cfg)
            label_of.update(zip(images.paths, images.labels))
    paths = list(label_of)
    together = solved_run.together(features.content_keys(paths), paths, cfg.data.root)
    linear_head.require_folds(list(label_of.values()), together, cfg.evaluate.folds, cfg.data.labels)


def unknown_photos(cfg, dataset, probabilities, extractor):
    """{'unknown': figures} for metrics.json: how an export with reject.keep judges the evaluated photos, see `rejection.measure`; {} for
    the training photos, on which it is calibrated, and for a network without a solved head, which only export.py calibrates.

    Args:
        probabilities: float [n, classes] of the photos in `dataset`.
    """
    split = cfg.evaluate.split
    if not extractor or cfg.train.head != 'linear' or split == 'train':
        what = (
            'the training photos are those it is fitted on'
            if split == 'train'
            else 'this needs a solved head (train.head=linear)'
        )
        print(f'reject.keep: not measured, {what}', file=sys.stderr)
        return {}
    training, augmented = (ZodiacDataset('train', augment=augment, cfg=cfg) for augment in (False, True))
    try:
        found, facts = solved_run.reject(cfg, extractor, training, augmented)
    except rejection.NoPhotos as error:
        print(f'reject.keep: not measured, {error}', file=sys.stderr)
        return {}
    values = np.asarray(solved_run.averaged(cfg, extractor, dataset, extractor.keys(dataset.paths))[0])
    return {'unknown': {**facts, **rejection.measure(found, values, probabilities, dataset.labels, cfg.data.labels)}}


def all_features(cfg, extractor):
    """(paths, labels, views, groups) of the images of all splits, each path once; for views and groups see `linear_head.solve`."""
    paths, labels, views, keys = [], [], [], []
    for split in SPLITS:
        if not os.path.isfile(f'{cfg.data.root}/{split}.txt'):
            continue
        plain, augmented = (ZodiacDataset(split, augment=augment, cfg=cfg) for augment in (False, True))
        own = extractor.keys(plain.paths)
        plain.use_features(extractor.features(plain, own))
        found = solved_run.views(cfg, extractor, plain, augmented, own)
        known = set(paths)
        new = [number for number, path in enumerate(plain.paths) if path not in known]  # annotate.valid_from=test
        paths += [plain.paths[number] for number in new]
        labels.append(plain.labels[new])
        views.append([np.asarray(view)[new] for view in found])
        keys.append(own[new])
    groups = solved_run.together(np.concatenate(keys), paths, cfg.data.root)
    return paths, np.concatenate(labels), list(map(np.concatenate, zip(*views))), groups


def class_counts(cfg):
    """{split: int [classes]}: images of each class, for the splits that have an index."""
    index = {split: f'{cfg.data.root}/{split}.txt' for split in SPLITS}
    index = {split: path for split, path in index.items() if os.path.isfile(path)}
    if 'valid' in index and 'test' in index and filecmp.cmp(index['valid'], index['test'], False):
        del index['valid']  # annotate.valid_from=test
    classes = len(cfg.data.labels)
    return {split: np.bincount(read_index(path, classes)[1], minlength=classes) for split, path in index.items()}


def learning_rates(log, cfg):
    """The learning rate of each step in log.csv, from the run's own settings; none if these cannot be read."""
    if not log or not log[-1]['epoch']:
        return []
    own = f'{cfg.run_dir}/config.yaml'
    try:
        trained = config.load(own) if os.path.isfile(own) else cfg
    except UserError as error:
        print(f'warning: {error}; the report shows the learning rate of each epoch only', file=sys.stderr)
        return []
    steps = log[-1]['step'] // log[-1]['epoch']
    rates = optim.rates(trained.optim, steps, trained.train.epochs)[: log[-1]['step']]
    if trained.train.head == 'linear':
        rates[:steps] = [0.0] * steps
    return rates


def compare_runs(first, second, language=None):
    """Write output/<first>_vs_<second>/ for two evaluated runs, given by name or folder."""
    runs = (run if os.path.isdir(run) else config.Config(name=run).run_dir for run in (first, second))
    first, second = compare.read_two(*runs)
    compare.write(config.Config(name=f'{first["name"]}_vs_{second["name"]}').run_dir, first, second, language)


if __name__ == '__main__':
    run(main)
