"""Classify images with an exported model.

    python predict.py zodiac cat.jpg photos/                              # the run output/zodiac
    python predict.py output/zodiac/infer photos/ --top 3 --csv result.csv
    python predict.py zodiac photos/ --sort-into sorted/                  # copies them into sorted/<class>/
    python predict.py zodiac photos/ --features features.npz              # paths and features, for other programs

Prints one line per image: path, label, probability, separated by tabs; with --top N the N most probable labels. A model that was exported
with reject.keep says `none of these (nearest: dog 0.41)` for a photo that is not like those it was trained on, and adds `dog or ox` where
it hesitates. Folders may be of
any size: images are decoded a few batches ahead of the network. Files and folders that cannot be read are reported on stderr and
counted; the exit status is then 1.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare('requirements-serve.txt', 'numpy PIL yaml tqdm')

import argparse
import codecs
import contextlib
import itertools
import json
import os
import re
import sys

import numpy as np
from tqdm import tqdm

from zodiac.base import calls, device, files, photos
from zodiac.base.errors import UsageError, UserError, run
from zodiac.inference import choice, exported_model, image_batches, sorting

NONE = 'none of these'


def main():
    parser = make_parser()
    args = parser.parse_args()
    if args.explain:
        print(exported_model.explain(args.infer_dir, args.device, args.engine, args.precision))
        return
    if not args.paths:
        parser.error('the following arguments are required: PATH')
    for path in args.paths:
        photos.require_there(path)
        if args.sort_into and is_inside(args.sort_into, path):
            raise UsageError(f'--sort-into {args.sort_into}: must not be inside {path}, which is searched for photos')
    classified = unread = copied = 0
    # result lines on the same terminal are progress enough
    quiet = None if args.csv or not sys.stdout.isatty() else True
    bar = tqdm(desc='classifying', unit='image', leave=False, disable=quiet)
    with output(args) as write, feature_file(args.features) as keep, bar:
        model = exported_model.load(args.infer_dir, args.device, args.engine, args.precision)
        if args.features:
            model.require_features('--features')
        found = image_batches.find(args.paths, lambda text: bar.write(files.printable(text), file=sys.stderr))
        for paths, batch, errors in image_batches.read(found, model.transform, args.batch_size):
            for error in errors:
                bar.write(f'error: {files.printable(str(error))}', file=sys.stderr)
            unread += len(errors)
            if len(batch):
                for path, answer in zip(paths, model.answers(batch)):
                    guesses = exported_model.top_labels(answer.probabilities, model.labels, args.top)
                    write((path, guesses, answer, model))
                    keep(path, answer.features)
                    if args.sort_into and os.path.isfile(path):  # a pipe has been read
                        label = NONE if answer.known is False else guesses[0][0]
                        copied += sorting.copy_into(args.sort_into, label, path)
                classified += len(paths)
            bar.update(len(paths) + len(errors))
        if not classified:  # raised inside, so that no empty CSV file is written
            raise UserError(f'{unread} of {unread} files or folders could not be read')
    if args.csv and not files.is_stream(args.csv):
        print(f'{classified} prediction{"" if classified == 1 else "s"} written to {args.csv}')
    if args.features:
        print(f'features of {classified} image{"" if classified == 1 else "s"}: {args.features}', file=sys.stderr)
    if args.sort_into:
        print(f'copied into {args.sort_into}/: {copied}, already there: {classified - copied}', file=sys.stderr)
    if unread:
        raise UserError(
            f'{unread} of {classified + unread} files or folders could not be read; the others were classified'
        )


def make_parser():
    parser = argparse.ArgumentParser(**calls.how_called(__doc__))
    add = parser.add_argument
    add('infer_dir', metavar='RUN', help='a run, such as pets or output/pets, or the folder that export.py wrote')
    add('paths', nargs='*', metavar='PATH', help='image files, or folders to search for images')
    add('--top', type=_positive, default=1, metavar='N', help='labels per image (default: 1)')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print one JSON object per line')
    form.add_argument('--csv', metavar='FILE', help='write a CSV file instead of printing lines')
    add('--sort-into', metavar='DIR', help='also copy each photo into a folder of its class in DIR, or "none of these"')
    add('--features', metavar='FILE', help='also write paths and features to a .npz file (needs export.features=true)')
    add('--batch-size', type=_positive, default=16, metavar='N', help='images per run of the network (default: 16)')
    add('--device', type=device.checked, default='auto', help='auto, cpu, gpu or gpu:N (default: auto)')
    choice.add_options(parser)
    return parser


def is_inside(folder, other):
    """Whether a folder is the same as another one, or below it."""
    folder, other = (os.path.join(os.path.realpath(path), '') for path in (folder, other))
    return folder.startswith(other)


def _positive(text):
    if not re.fullmatch('0*[1-9][0-9]{0,8}', text, re.ASCII):
        raise argparse.ArgumentTypeError(f'must be a number, 1 or more, not {text!r}')
    return int(text)


def as_line(row):
    path, guesses, answer, model = row
    cells = [path, *(cell for label, probability in guesses for cell in (label, f'{probability:.4f}'))]
    if answer.known is False:
        nearest = ', '.join(f'{label} {probability:.2f}' for label, probability in guesses)
        cells = [path, f'{NONE} (nearest: {nearest})']
    elif answer.known and len(answer.labels) > 1:
        cells.append(' or '.join(model.labels[number] for number in answer.labels))
    return '\t'.join(map(files.printable, cells))


def as_json(row):
    path, guesses, answer, model = row
    escaped = codecs.lookup(sys.stdout.encoding or 'ascii').name != 'utf-8'  # other encodings lack some characters
    return json.dumps({'path': path, **exported_model.as_dict(guesses, answer, model)}, ensure_ascii=escaped)


@contextlib.contextmanager
def output(args):
    """Yield a function that takes the row of an image, (path, result of top_labels, Answer, model), and prints it, or adds it to the CSV
    file, which appears at the end.

    Raises UserError at once if the file cannot be written.
    """
    if not args.csv:
        yield lambda row: print(as_json(row) if args.json else as_line(row))
        return
    with files.atomic_write(args.csv) as file:
        write_row, titles = files.csv_table(file), []

        def write(row):
            path, guesses, answer, model = row
            judged = exported_model.judgement(answer, model.labels)
            if not titles:
                ranks = ['', *range(2, len(guesses) + 1)]
                titles.extend(
                    ['path', *(f'{name}{rank}' for rank in ranks for name in ('label', 'probability')), *judged]
                )
                write_row(titles)
            cells = ((label, f'{probability:.6f}') for label, probability in guesses)
            if judged:
                judged = [int(judged['known']), f'{judged["score"]:.4f}', ' or '.join(judged['set'])]
            write_row([path, *itertools.chain.from_iterable(cells), *judged])

        yield write


@contextlib.contextmanager
def feature_file(path):
    """Yield a function that takes the path of an image and its features, float32 [D]. Without `path` it does nothing; else it keeps both in
    memory, and at the end they are written to the .npz file `path`: `paths`, str [n], and `features`, float32 [n, D].

    Raises UserError at once if the file cannot be written.
    """
    if not path:
        yield lambda *_: None
        return
    with files.atomic_write(path, binary=True) as file:
        kept = []
        yield lambda *row: kept.append(row)
        paths, features = zip(*kept)
        np.savez(file, paths=np.array(paths), features=np.stack(features))


if __name__ == '__main__':
    run(main)
