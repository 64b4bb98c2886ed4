"""Find photos whose label is probably wrong, decide on them, and choose new photos to label.

    python -m zodiac review pets                       # output/pets/report/review.html, review.csv
    python -m zodiac review pets --serve               # a local page: the photo large, keep, relabel, drop, undo by keyboard
    python -m zodiac review pets --new photos_2026     # which photos without a label to label first; with --serve, label them
    python annotate.py photos                          # applies the decisions; then train again

Each photo of the run is judged by a model that did not learn from it. Decisions go to corrections.csv in the folder of the photos, one line
each; photos are never moved or changed. Needs requirements-review.txt.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare(
        'requirements-review.txt',
        'cleanlab fastapi uvicorn paddle numpy PIL yaml scipy sklearn threadpoolctl matplotlib jinja2 tqdm visualdl',
    )

import argparse
import dataclasses
import os
import sys

import config
from zodiac.base import calls, files
from zodiac.base.errors import UsageError, UserError, run


def parse():
    """The parsed command line."""
    parser = config.parser(__doc__, takes='run')
    add = parser.add_argument
    add('--serve', action='store_true', help='open a page on this machine on which to decide')
    add('--port', type=_port, default=8001, metavar='N', help='of the page; 0 picks a free one (default: 8001)')
    add('--new', metavar='FOLDER', help='rank photos without labels: which ones to label first')
    add('--count', type=_count, default=50, metavar='N', help='photos to choose with --new (default: 50)')
    add('--lang', choices=('zh', 'en'), help='language of the pages; without it, that of the browser')
    args = parser.parse_args()
    config.run_of(args)  # a missing run ends here, before Paddle is imported
    if args.new and not os.path.isdir(args.new):
        raise UsageError(f'--new {args.new}: no such folder; name the folder of the photos without labels')
    return args


def _port(text):
    return _from(text, 0, 65535)


def _count(text):
    return _from(text, 1, 10**6)


def _from(text, low, high):
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f'must be a whole number from {low} to {high}')
    return int(text)


def ends_without_paddle():
    """Whether this process only reports wrong usage; --help ends it here."""
    try:
        parse()
    except UserError:
        return True
    return False


if __name__ == '__main__' and ends_without_paddle():
    run(parse)

import numpy as np

import evaluate
import train
from dataset import Loader, ZodiacDataset
from zodiac.base import class_names, device, formatting, runs, walk
from zodiac.data import corrections, inspection
from zodiac.data.folders import SPLITS
from zodiac.data.scan import name_problem
from zodiac.review import choose, findings, listing, page, server, twins
from zodiac.review.photos import Photos
from zodiac.training import features, linear_head, solved_run
from zodiac.training.progress import note


def main():
    args = parse()
    review(config.from_arguments(args), args)


def review(cfg, args):
    """Write the list of a run, or of new photos, and serve the page if asked. Raises UserError."""
    cfg = class_names.resolve(cfg)
    device.choose(cfg.device)
    decisions = corrections.read(cfg.data.root)  # a bad line ends here, before the work
    cfg, extractor = backbone(cfg)
    photos = gather(cfg, extractor)
    folder = f'{cfg.run_dir}/report'
    os.makedirs(folder, exist_ok=True)
    if args.new:
        found, shown = rank_new(cfg, extractor, photos, args, decisions)
        listing.write_csv(f'{folder}/review_new.csv', found)
        print(f'photos to label first, {len(listing.open_findings(found))}: {folder}/review_new.csv')
    else:
        found, shown = rank(cfg, photos, args, decisions, folder)
    if args.serve:
        shown = server.Review(runs.shortest(cfg.run_dir), cfg.data.root, photos.names, *shown)
        server.serve(shown, args.port, args.lang, lambda address: print(f'open: {address} (Ctrl-C stops)', flush=True))
    else:
        print(f'decide: {calls.command("review", *sys.argv[1:], "--serve")}')


def backbone(cfg):
    """(settings, features.Extractor): whose features the photos are judged by. That of the run if its backbone is frozen. Features
    that were learned from these photos would confirm their labels, so for another run it is the network that it started from.

    Raises: UserError for a run that was trained from scratch.
    """
    _, origin, _, extractor = evaluate.predictor(cfg)
    if extractor is not None:
        return cfg, extractor
    if not cfg.model.pretrained:
        raise UserError(
            f'{cfg.run_dir}: was trained from random weights, so there is no network that does not know these photos; train one that '
            f'starts from ImageNet weights (-c configs/photos.yaml -o data.root={cfg.data.root}) and review that run'
        )
    model = dataclasses.replace(cfg.model, freeze='backbone', unfreeze_epoch=0)
    own = dataclasses.replace(cfg, model=model, train=dataclasses.replace(cfg.train, head='linear', views=0))
    note(
        f'{origin["weights"]} was trained on these photos and knows their labels; they are judged by its initial weights'
    )
    network, _ = train.build_network(own, ZodiacDataset('train', augment=False, cfg=own))
    return own, features.Extractor(own, network, Loader, note)


def gather(cfg, extractor):
    """The `Photos` of all splits."""
    paths, labels, views, groups = evaluate.all_features(cfg, extractor)
    split_of = {}
    for split in SPLITS:
        if os.path.isfile(f'{cfg.data.root}/{split}.txt'):
            for path in ZodiacDataset(split, augment=False, cfg=cfg).paths:
                split_of.setdefault(path, split)
    flat = [np.asarray(view, np.float32).reshape(len(paths), -1) for view in views]
    return Photos(list(paths), [split_of[path] for path in paths], labels, cfg.data.labels, flat, groups)


def rank(cfg, photos, args, decisions, folder):
    """(rows, (items, paths) for the page) of the labelled photos; writes review.csv and review.html."""
    note(f'judging {len(photos.paths)} photos over {findings.FOLDS} folds')
    balanced = cfg.train.class_weights == 'balanced'
    judged = findings.judge(photos.views, photos.labels, len(photos.names), balanced, cfg.seed, photos.groups)
    same = twins.find(photos, cfg.data.root, cfg.annotate.non_rgb, device.cores())
    found = listing.rows(judged, photos, same, decisions)
    neighbours = findings.Neighbours(photos.views[0], photos.labels, photos.groups)
    listing.write_csv(f'{folder}/review.csv', found)
    command = calls.command('review', *sys.argv[1:], *([] if args.serve else ['--serve']))
    page.write(f'{folder}/review.html', cfg.name, found, photos, neighbours, command, cfg.model.arch, args.lang)
    show(found, folder)
    items = [listing.item(row, judged.probabilities[row['number']], photos, neighbours) for row in found if row['kind']]
    return found, (items, photos.paths)


def show(found, folder):
    """Print how many photos were found, and the first of them."""
    todo = listing.open_findings(found)
    for kind, words in (
        (listing.LABEL, 'label probably wrong'),
        (listing.DOUBT, 'label in doubt'),
        (listing.COPY, 'the same photo with another label'),
        (listing.OUTLIER, 'unlike all classes'),
    ):
        print(f'{words}: {sum(row["kind"] == kind for row in todo)} of {len(found)}')
    for row in todo[:10]:
        looks = f' looks like {row["suggested"]}' if row['suggested'] != row['label'] else ''
        print(f'{row["rank"]:>4}  {files.printable(row["path"])}: {row["label"]}{looks}')
    print(f'written: {folder}/review.csv, {folder}/review.html')


def rank_new(cfg, extractor, photos, args, decisions):
    """(rows, (items, paths) for the page) of the photos in a folder that are not among those of the run."""
    paths, values = new_features(cfg, extractor, args.new, {os.path.realpath(path) for path in photos.paths})
    head = linear_head.solve(
        photos.views,
        photos.labels,
        len(photos.names),
        cfg.train.class_weights == 'balanced',
        cfg.seed,
        photos.groups,
        tolerance=linear_head.ROUGH,
    )
    likely = head.probabilities(values)
    done = np.array([bool(listing.decided(decisions.get(path))) for path in paths])
    left = np.flatnonzero(~done)
    order = np.concatenate([left[choose.rank(values[left], likely[left], args.count, cfg.seed)], np.flatnonzero(done)])
    found = listing.new_rows(paths, likely, order, photos.names, decisions)
    neighbours = findings.Neighbours(
        np.concatenate([values, photos.views[0]]),
        np.concatenate([np.full(len(paths), -1), photos.labels]),
        np.concatenate([np.arange(len(paths)), len(paths) + np.asarray(photos.groups)]),
    )
    items = [listing.item(row, likely[row['number']], photos, neighbours) for row in found]
    return found, (items, [*paths, *photos.paths])


def new_features(cfg, extractor, folder, known):
    """(paths, float32 [n, d]) of the usable photos below a folder, but for those whose real path is in `known`. Raises UserError if there
    are none."""

    def skip(path, why):
        if isinstance(why, OSError):
            raise why

    found = walk.walk(os.path.normpath(folder).replace(os.sep, '/'), skip)
    found = [path for path in found if os.path.realpath(path) not in known and not name_problem(path)]
    convert = cfg.annotate.non_rgb == 'convert'
    usable = [
        path
        for path, one in zip(
            found, inspection.inspect_all(found, convert, min(device.cores(), max(1, len(found) // 32)))
        )
        if not one.reason
    ]
    if not usable:
        raise UserError(
            f'{folder}: no photos there that can be used and are not in the run already; name another folder'
        )
    if len(usable) < len(found):
        note(f'{folder}: {formatting.count(len(found) - len(usable), "file")} cannot be used as photos')
    with files.temporary_folder() as place:
        with files.atomic_write(f'{place}/index.txt') as file:
            file.writelines(f'{path}\t0\n' for path in usable)
        images = ZodiacDataset('test', augment=False, cfg=cfg, index=f'{place}/index.txt')
        values = np.asarray(solved_run.averaged(cfg, extractor, images, extractor.keys(images.paths))[0])
    return usable, values.reshape(len(usable), -1)


if __name__ == '__main__':
    run(main)
