"""Find out why another program gets other numbers from an export: usual mistakes are tried, one by one and in pairs.

    zodiac explain pets photos/a.jpg photos/b.jpg photos/c.jpg --theirs numbers.json
    zodiac explain output/pets/infer photos/ --theirs numbers.csv --out why.png

FILE holds what the other program said of the same photos, in any of these forms:

    {"a.jpg": [0.1, 0.7, 0.2], ...}            numbers in the order of the classes
    {"a.jpg": {"cat": 0.1, "dog": 0.7}, ...}   numbers by class; {"a.jpg": "dog", ...}: classes alone, which tell less
    [[0.1, 0.7, 0.2], ...]                     in the order of the photos
    the output of predict.py --json or --csv, the answers of serve.py
    CSV with the column path and one per class; .npy or .npz, [photos, classes]

Give three photos or more: one large and far from square, one from a phone with an EXIF orientation, and if your program gets such files one
with transparent parts; photos that the model is not quite sure of tell most. Probabilities with many digits tell more than rounded ones.

Prints the fewest mistakes that give these numbers, and writes a picture of what the network sees here and there. Exit status 1 if
nothing that was tried gives them.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-base.txt', 'numpy scipy PIL yaml')

import argparse
import os
import sys

from zodiac.base import calls, files, formatting, photos
from zodiac.base.errors import UsageError, UserError, run

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')
MOST_PHOTOS, SHOWN = 20, 8
AS_FAR = ['', ', as closely as libraries round pixels', ', as closely as JPEG decoders agree']  # by search.Result.level


def make_parser():
    parser = argparse.ArgumentParser(**calls.how_called(__doc__))
    parser.add_argument(
        'infer_dir', metavar='RUN', help='a run, such as pets or output/pets, or the folder that export.py wrote'
    )
    parser.add_argument('paths', nargs='+', metavar='PHOTO', help='the photos, or folders of them')
    parser.add_argument(
        '--theirs',
        required=True,
        metavar='FILE',
        help='what the other program said of the photos: JSON, CSV, .npy or .npz',
    )
    parser.add_argument(
        '--out', default='explain.png', metavar='FILE', help='picture of what the network sees (default: explain.png)'
    )
    return parser


if __name__ == '__main__':
    make_parser().parse_args()  # ends here for --help and wrong usage, before slow imports

from zodiac.explain import programs, running, search, sheet, theirs
from zodiac.inference import export_folder, exported_model, image_batches


def main():
    args = make_parser().parse_args()
    if not args.out.lower().endswith(SUFFIXES) and not files.is_stream(args.out):
        raise UsageError(f'--out {args.out}: must end in {", ".join(SUFFIXES)}')
    for path in args.paths:
        photos.require_there(path)
    folder = export_folder.find(args.infer_dir)
    manifest = export_folder.read_manifest(folder)
    own = programs.of_export(manifest, os.path.join(folder, export_folder.MANIFEST))
    paths = find(args.paths)
    given = theirs.read(args.theirs, paths, manifest['labels'])
    size = manifest['input']['shape'][2]
    looked_at = [programs.Photo(path, size) for path in paths]
    model = exported_model.load(folder, 'auto', 'auto', 'fp32')

    runner = running.Runner(model, manifest, looked_at)
    noise = running.noise(runner, own)
    result = search.explain(runner, own, manifest, given, noise)
    best = (result.fits or result.closest)[0]
    show(result, best, runner, own, manifest, given, noise)
    save(args.out, sheet.draw(runner, own, best.program, best.text or 'the same', manifest['transform'][-1]))
    if not result.fits:
        raise UserError(
            f'none of the {result.tried:,} explanations gives the numbers of {args.theirs}: check that the other program has this '
            'model and these photos, in this order'
        )


def find(paths):
    """The photos that are named, or in folders that are named. Raises UserError for one that cannot be read, and for too many."""
    found = []
    for path in image_batches.find(paths, lambda text: print(files.printable(text), file=sys.stderr)):
        if isinstance(path, UserError):
            raise path
        found.append(path)
    if len(found) > MOST_PHOTOS:
        raise UserError(f'{len(found)} photos; three or four are enough, {MOST_PHOTOS} are the most')
    return found


def show(result, best, runner, own, manifest, given, noise):
    """Print the numbers of both programs, the explanation, and how far to trust it."""
    model, labels = runner.model, [str(label) for label in manifest['labels']]
    print(
        f'{model.name}: {model.engine}, {model.precision}; numbers of {formatting.count(len(runner.photos), "photo")}\n'
    )
    for line in formatting.table(both(runner, own, labels, given), formatting.columns()):
        print(line)
    print()
    for line in verdict(result, best, given):
        print(files.printable(line))
    for line in limits(result, given, noise):
        print(files.printable(line))


def both(runner, own, labels, given):
    """Rows of a table: the most probable class and its number, here and there."""
    rows = [['photo', 'here', '', 'there', '']]
    for number, photo in enumerate(runner.photos[:SHOWN]):
        values, _ = programs.reported(own, runner.logits(number, [own]))
        best, their = int(values[0].argmax()), int(given.best[number])
        value = '' if given.only_labels else f'{given.values[number, their]:.4f}'
        rows.append([f'{number + 1}  {photo.path}', labels[best], f'{values[0, best]:.4f}', labels[their], value])
    return [[files.printable(cell) for cell in row] for row in rows]


def verdict(result, best, given):
    """Lines: the explanation, or the closest ones."""
    if not result.fits:
        yield 'No explanation found. The closest:'
        for fit in result.closest:
            yield f'  {fit.text or "no mistake"}: the numbers differ by up to {fit.largest:.2g}'
        return
    how = 'yours are the same classes' if given.only_labels else f'your numbers match within {best.largest:.1g}'
    if not best.mistakes:
        yield f'No difference to explain: {how}{AS_FAR[result.level]}.'
    else:
        yield f'{best.text}: {how}{AS_FAR[result.level]}.'
    others = result.fits[1:]
    if others:
        yield f'These fit as well ({len(others)}):'
        for fit in others[:SHOWN]:
            yield f'  {fit.text}'
        if len(others) > SHOWN:
            yield f'  and {len(others) - SHOWN} more'
        kinds = {mistake.tells for fit in result.fits for mistake in fit.mistakes}
        advice = (
            'probabilities instead of classes' if given.only_labels else f'a photo {" or one ".join(sorted(kinds))}'
        )
        yield f'To tell them apart, add {advice}.'


def limits(result, given, noise):
    """Lines: what these photos cannot show, and how much numbers differ without a mistake."""
    if result.unseen:
        kinds = {}
        for mistake in result.unseen:
            kinds.setdefault(mistake.tells, []).append(mistake.text)
        yield 'Without effect on these photos, so neither found nor excluded:'
        for tells, texts in kinds.items():
            yield f'  {"; ".join(texts)} (would show on a photo {tells})'
    engine = f'another engine ({noise.other}) by up to {noise.engine:.1g}, ' if noise.other else ''
    yield (
        f'Without any mistake, a probability of these photos moves: {engine}rounding of pixels by up to {noise.rounding:.1g}, '
        f'another JPEG decoder by up to {noise.decoder:.1g}.'
    )
    yield f'Tried: {formatting.count(result.tried, "explanation")}, {result.passes:,} inputs of the network.'


def save(path, image):
    with files.atomic_write(path, binary=True) as file:
        image.save(
            file,
            format='JPEG'
            if path.lower().endswith(('.jpg', '.jpeg'))
            else 'WEBP'
            if path.lower().endswith('.webp')
            else 'PNG',
        )
    print(f'written: {path}')


if __name__ == '__main__':
    run(main)
