"""Check what an export claims: its files, its photos and labels, and its accuracy, measured again.

    python -m zodiac verify pets                          # the export of the run output/pets, with the photos where they were
    python -m zodiac verify infer --data photos           # a copied export; the photos, found by their content
    python -m zodiac verify infer --fingerprint 3590d839  # compare with the fingerprint that export.py printed, all of it or its start
    python -m zodiac verify pets --retrain                # also train again with the same settings, photos and seed

One line per claim: `verified`, `differs`, with what and by how much, or `cannot be checked`, with the reason. The exit status is 0 only if
nothing differs. inference.yaml holds the hash of every other file and can itself be written anew by anyone: only its fingerprint, noted
where nobody else can change it, shows that.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'numpy PIL yaml scipy sklearn threadpoolctl jinja2 tqdm')

import argparse
import os
import re
import sys

from zodiac.base import calls
from zodiac.base.errors import UsageError, UserError, run

SHOWN = 5  # differences that are named in a line


def parse():
    """The parsed command line."""
    parser = argparse.ArgumentParser(**calls.how_called(__doc__))
    parser.add_argument('infer', metavar='RUN_OR_INFER', help='a run, or the folder that export.py wrote')
    parser.add_argument('--data', metavar='FOLDER', help='where the photos are now; without it, where they were')
    parser.add_argument('--fingerprint', metavar='HEX', help='compare with this one: 8 digits or more of its start')
    parser.add_argument('--retrain', action='store_true', help='also train again, and compare the result')
    return parser.parse_args()


if __name__ == '__main__':
    parse()  # ends here for --help and wrong usage, before the slow imports

import numpy as np

from zodiac.base import files, formatting
from zodiac.data import sealed
from zodiac.inference import every_engine, evidence, export_folder, exported_model
from zodiac.report import calibration, card, metrics, recorded
from zodiac.training import rejection

OLD = 'the export has no evidence: it is of an earlier version; export the model again'
CHANGED = 'the evidence was changed'


class Claims:
    """Prints one line per claim, and counts them by their state."""

    def __init__(self):
        self.counts = {'verified': 0, 'differs': 0, 'cannot be checked': 0}

    def say(self, state, what, detail=''):
        self.counts[state] += 1
        print(f'{state:<18} {what}{": " if detail else ""}{detail}', flush=True)

    def judge(self, what, differences, detail=''):
        """Say `verified`, with the detail, or name the first of a list of differences."""
        if differences:
            more = f'; and {len(differences) - SHOWN:,} more' if len(differences) > SHOWN else ''
            self.say('differs', what, f'{"; ".join(map(str, differences[:SHOWN]))}{more}')
        else:
            self.say('verified', what, detail)


def main():
    args = parse()
    if args.fingerprint is not None and not re.fullmatch(r'[0-9a-fA-F]{8,64}', args.fingerprint):
        raise UsageError(f'--fingerprint {args.fingerprint}: must be 8 to 64 digits 0-9, a-f, as export.py prints them')
    if args.data is not None and not os.path.isdir(args.data):
        raise UsageError(f'--data {args.data}: no such folder')
    folder, claims = export_folder.find(args.infer), Claims()
    verify(folder, claims, args.data, args.fingerprint, args.retrain)
    counts = ', '.join(f'{state}: {number}' for state, number in claims.counts.items())
    if claims.counts['differs']:
        raise UserError(f'{folder}: not what was exported ({counts})')
    print(f'nothing differs ({counts})')


def verify(folder, claims, data=None, fingerprint=None, retrain=False):
    """Check all that the export in a folder claims.

    Args:
        claims: `Claims` that are told.
        data: folder of the photos; None: data.root of the run.
        fingerprint: hexadecimal digits, of which that of the export must begin with; None: not compared.
        retrain: train again, too.
    Raises: UserError if the folder is not an export.
    """
    if not export_folder.is_export(folder):
        export_folder.read_manifest(folder)  # raises UserError
    found = evidence.fingerprint(folder)
    print(f'fingerprint: {found} (SHA-256 of {export_folder.MANIFEST})')
    if fingerprint is not None:
        other = [] if found.startswith(fingerprint.lower()) else [f'is {found}, not {fingerprint.lower()}']
        claims.judge('fingerprint', other, 'the same')
    try:
        manifest = export_folder.read_manifest(folder)
    except UserError as error:
        claims.say('differs', export_folder.MANIFEST, str(error))
        claims.say('cannot be checked', 'everything else', f'{export_folder.MANIFEST} was changed')
        return
    claims.say('verified', export_folder.MANIFEST, 'its last line is the SHA-256 of the others')
    wrong = evidence.changed(folder, manifest)
    names = evidence.sealed(manifest)
    for name in wrong:
        claims.say('differs', name, wrong[name])
    if len(wrong) < len(names):
        whole = formatting.count(len(names) - len(wrong), 'file')
        claims.say('verified', f'{whole}, by SHA-256', ', '.join(name for name in names if name not in wrong))
    if evidence.file_name(manifest) not in names:
        claims.say('cannot be checked', 'photos and accuracy', OLD)
    elif evidence.file_name(manifest) in wrong:
        claims.say('cannot be checked', 'photos and accuracy', CHANGED)
    else:
        of_evidence(folder, manifest, wrong, claims, data, retrain)


def of_evidence(folder, manifest, wrong, claims, data, retrain):
    """Check what the evidence says.

    Args:
        wrong: {name: what is wrong} of the files whose hashes differ; for the others see `verify`.
    """
    about, splits, predictions = evidence.read(folder, manifest)
    if predictions is not None:
        quoted = recorded.differences(recorded.quoted(about['metrics']), manifest.get('measured') or {}, all_of=True)
        claims.judge(f'accuracy in {export_folder.MANIFEST}', quoted, 'that of the evidence')
    if evidence.CARD not in wrong:
        check_card(folder, manifest, about, splits, claims)
    root = data or about['config']['data']['root']
    photos = None
    if not os.path.isdir(root):
        claims.say('cannot be checked', 'photos', f'{root}: no such folder; name theirs with --data FOLDER')
    else:
        photos = check_photos(root, splits, claims, [str(label) for label in manifest['labels']])
    models = [name for name in wrong if name in manifest['sha256']]
    if predictions is None:
        claims.say('cannot be checked', 'accuracy', about['not_measured'])
    elif models:
        claims.say('cannot be checked', 'accuracy', f'{", ".join(models)}: changed')
    elif not photos:
        claims.say('cannot be checked', 'accuracy', 'the photos are not there')
    else:
        check_accuracy(folder, manifest, about, splits['test'], predictions, photos, claims)
    check_training(manifest, about, splits, photos, claims, retrain)


def check_card(folder, manifest, about, splits, claims):
    """Write the model card again, and compare it."""
    if about['card'] != card.version():
        claims.say('cannot be checked', f'what {evidence.CARD} says', 'another version of Zodiac wrote it')
        return
    with open(os.path.join(folder, evidence.CARD), encoding='utf-8', errors='replace') as file:
        lines = file.read().splitlines()
    expected = card.write(manifest, about, splits).splitlines()
    other = [f'line {number}: {line}' for number, line in enumerate(lines, 1) if line not in expected]
    other = other or ([] if lines == expected else ['lines are missing or in another order'])
    claims.judge(f'what {evidence.CARD} says', other, 'it follows from the evidence')


def check_photos(root, splits, claims, class_names):
    """Find the photos by their content, and compare the index files in `root`. Returns `sealed.Photos`, None if there is not one."""
    everything = [photo for photos in splits.values() for photo in photos]
    photos = sealed.Photos(root, everything)
    if not photos.paths:
        what = f'none of them is in {root}; name their folder with --data FOLDER'
        claims.say('cannot be checked', 'photos', what)
        return None
    parts = ', '.join(f'{split} {len(each):,}' for split, each in splits.items())
    moved = f'; {len(photos.moved):,} under another path' if photos.moved else ''
    wrong = [f'{path} {why}' for path, why in photos.wrong.items()]
    claims.judge(f'photos in {root}', wrong, f'all {len(everything):,} found by content ({parts}){moved}')
    for split, each in splits.items():
        found = sealed.index_differences(split, each, photos, lambda path: evidence.below(path, root), class_names)
        if found is None:
            claims.say('cannot be checked', f'{split}.txt', f'there is none in {root}')
        else:
            claims.judge(f'{split}.txt', found, f'the same {formatting.count(len(each), "photo")} and labels')
    test = {photo.digest: photo for photo in splits.get('test', ())}
    both = [photo for photo in splits.get('train', ()) if photo.digest in test]
    shared = [f'{photo.path} is {test[photo.digest].path}' for photo in both]
    claims.judge('test photos are not training photos', shared, 'no two have the same content')
    return photos


def check_accuracy(folder, manifest, about, test, predictions, photos, claims):
    """Run the test photos through each engine, and compare with the predictions and numbers of the evidence.

    Args:
        test: list of `evidence.Photo`; predictions: [(class number, its probability)] of these.
        photos: `sealed.Photos`.
    """
    there = [number for number, photo in enumerate(test) if photo.digest in photos.paths]
    if not there:
        claims.say('cannot be checked', 'accuracy', 'no test photo was found')
        return
    try:
        paths = [photos.paths[test[number].digest] for number in there]
        models, outputs, problems = every_engine.outputs(folder, manifest, paths)
    except UserError as error:  # of a photo
        claims.say('cannot be checked', 'accuracy', str(error))
        return
    for name, why in problems.items():
        claims.say('cannot be checked', f'accuracy by {name}', why)
    labels = np.array([test[number].label for number in there])
    expected, probability = (np.array(column) for column in zip(*(predictions[number] for number in there)))
    names = [str(label) for label in manifest['labels']]
    for name, found in outputs.items():
        what = f'accuracy by {name}'
        # export.temperature divides the logits, which changes no top-1; the report is of the network without it
        if 'logits' not in found:
            claims.say('cannot be checked', what, 'the model returns no logits')
            continue
        logits = found['logits'] * manifest.get('temperature', 1.0)
        now = exported_model.softmax(logits)
        differences = [
            f'{test[there[i]].path}: {names[now[i].argmax()]} now, was {names[expected[i]]}'
            for i in np.flatnonzero(now.argmax(1) != expected)
        ]
        largest = float(np.abs(now[np.arange(len(now)), expected] - probability).max())
        if largest > recorded.CLOSE:
            differences.append(f'a probability by {largest:.2g}')
        right = int((now.argmax(1) == labels).sum())
        if len(there) < len(test):
            detail = f'the same prediction for the {len(there):,} of {len(test):,} test photos that were found'
            claims.judge(what, differences, detail)
            continue
        again = {**metrics.evaluate(labels, now, names), **unknown(models[name], about, labels, now, found, names)}
        again['calibration'] = calibration.evaluate(labels, now, about['metrics']['calibration'].get('temperature'))
        differences += recorded.differences(about['metrics'], again)
        detail = (
            f'top-1 {again["top1"]:.4f}, {right:,} of {formatting.count(len(labels), "test photo")}, the same prediction for each; '
            f'largest difference of a probability {largest:.1e}'
        )
        claims.judge(what, differences, detail)


def unknown(model, about, labels, probabilities, outputs, class_names):
    """{'unknown': figures} of the test photos, as evaluate.py measures them; {} where it did not, or a temperature makes other sets."""
    if not about['metrics'].get('unknown') or model.rejection is None or model.origin['temperature'] not in (None, 1.0):
        return {}
    return {'unknown': rejection.measure(model.rejection, outputs['features'], probabilities, labels, class_names)}


def check_training(manifest, about, splits, photos, claims, retrain):
    """Say with which code the numbers were made; with `retrain` train again, and compare weights and numbers."""
    if evidence.code() == about['code']:
        claims.say('verified', 'code', 'the same trained and measured it')
    else:
        claims.say('cannot be checked', 'code', 'another version of Zodiac trained and measured it')
    folds = (about['metrics'] or {}).get('folds')
    what = f'training and {folds["k"]} folds' if folds else 'training'
    if not retrain:
        claims.say('cannot be checked', what, '--retrain trains again')
    elif not photos or photos.wrong:
        claims.say('cannot be checked', what, 'not all photos are there')
    else:
        check_new_training(manifest, about, splits, photos, claims)


def check_new_training(manifest, about, splits, photos, claims):
    """Train again, and compare weights, predictions and numbers."""
    from zodiac.training import retraining  # imports Paddle, which everything else does without

    print('training again ...', file=sys.stderr)
    names = [str(label) for label in manifest['labels']]
    with files.temporary_folder() as folder:
        try:
            new = retraining.retrain(about, splits, photos.paths, names, folder)
            claims.judge('weights, trained again', retraining.weight_differences(new, about), 'identical')
        except UserError as error:
            claims.say('cannot be checked', 'training', str(error))
            return
        result, rows = recorded.read(f'{new}/report')
    if about['metrics'] is None:
        claims.say('cannot be checked', 'accuracy, trained again', about['not_measured'])
        return
    differences = recorded.differences(about['metrics'], result)
    folds = result.get('folds')
    detail = f'top-1 {result["top1"]:.4f}' + (f', over {folds["k"]} folds {folds["top1"]:.4f}' if folds else '')
    claims.judge('accuracy, trained again', differences, f'the same numbers, {detail}')


if __name__ == '__main__':
    run(main)
