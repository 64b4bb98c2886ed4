"""Classify images with an exported model.

    python predict.py output/zodiac/infer cat.jpg photos/
    python predict.py output/zodiac/infer photos/ --top 3 --csv result.csv

Prints a line an image: path, label, probability, separated by tabs; with --top N the N most probable labels. Folders may be of any
size: images are decoded while the network runs, a few batches ahead. Files and folders that cannot be read are named on stderr and
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

from zodiac.base import device, files, walk
from zodiac.base.errors import UserError, run
from zodiac.images import decoding
from zodiac.inference import runtime


def main():
    args = parse()
    from tqdm import tqdm

    require(args.paths)
    classified = unread = 0
    # lines on the same terminal show the progress themselves
    quiet = None if args.csv or not sys.stdout.isatty() else True
    with output(args) as write, tqdm(desc='classifying', unit='image', leave=False, disable=quiet) as bar:
        model = runtime.load(args.infer_dir, args.device, args.engine)
        found = find_images(args.paths, lambda text: bar.write(files.printable(text), file=sys.stderr))
        for paths, batch, errors in runtime.batches(found, model.transform, args.batch_size):
            for error in errors:
                bar.write(f'error: {files.printable(str(error))}', file=sys.stderr)
            unread += len(errors)
            if len(batch):
                for path, probabilities in zip(paths, model.predict(batch)):
                    write((path, runtime.best(probabilities, model.labels, args.top)))
                classified += len(paths)
            bar.update(len(paths) + len(errors))
        if not classified:  # within: no table without a row
            raise UserError(f'{unread} of {unread} files or folders could not be read')
    if args.csv and not files.is_stream(args.csv):
        print(f'{classified} predictions written to {args.csv}')
    if unread:
        raise UserError(
            f'{unread} of {classified + unread} files or folders could not be read; the others were classified'
        )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('infer_dir', help='folder that export.py wrote')
    parser.add_argument('paths', nargs='+', metavar='PATH', help='image files, or folders that are searched for images')
    parser.add_argument('--top', type=_positive, default=1, metavar='N', help='how many labels an image (default: 1)')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print a JSON object a line')
    form.add_argument('--csv', metavar='FILE', help='write a CSV file instead of printing lines')
    parser.add_argument(
        '--batch-size', type=_positive, default=16, metavar='N', help='images a run of the network (default: 16)'
    )
    parser.add_argument('--device', type=device.checked, default='auto', help='auto, cpu, gpu or gpu:N (default: auto)')
    engines = ['auto', *runtime.ENGINES]
    help_on_engine = 'what runs the model; auto is the fastest that export.py has checked (default: auto)'
    parser.add_argument('--engine', choices=engines, default='auto', help=help_on_engine)
    return parser.parse_args()


def _positive(text):
    if not re.fullmatch('0*[1-9][0-9]{0,8}', text, re.ASCII):
        raise argparse.ArgumentTypeError(f'must be a number, 1 or more, not {text!r}')
    return int(text)


def require(paths):
    """Raise UserError for a path that is not there, before the work begins."""
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f'{path}: no such file or folder')


def find_images(paths, say):
    """Yield files as they are named, and the images in folders, sorted; of links too, each folder once.

    For what is no image there, a UserError is yielded: a pipe or a device, a folder that cannot be read, a folder without images.
    `say` takes a text about files of a folder that are passed over.
    """
    for path in paths:
        yield from _images_in(path, say) if os.path.isdir(path) else [path]


def _images_in(folder, say):
    found, other, example, errors = 0, 0, None, []

    def pass_over(path):
        nonlocal other, example
        other, example = other + 1, example or path

    def note(path, why):
        if isinstance(why, OSError):
            errors.append(UserError(f'{path}: cannot be read ({why.strerror})'))
        elif why == 'no file' and path.lower().endswith(decoding.IMAGE_SUFFIXES):
            # one that the user names is read, one that lies in a folder would wait for ever
            errors.append(UserError(f'{path}: is no file, but a pipe or a device'))
        elif why == 'no file':
            pass_over(path)

    for path in walk.walk(folder, note):
        if is_image(path):
            found += 1
            yield path
        else:
            pass_over(path)
    yield from errors
    if found and other:
        say(f'{folder}: {other} file{"s" if other > 1 else ""} passed over, no image, for example {example}')
    if not found and not errors:
        yield UserError(f'{folder}: no images in this folder ({other} other file{"" if other == 1 else "s"})')


def is_image(path):
    """Whether a file in a folder is to be classified: it is called an image, or is one whatever its name."""
    if path.lower().endswith(decoding.IMAGE_SUFFIXES):
        return True
    try:
        with decoding.open_image(path):
            return True
    except decoding.ImageError as error:
        return error.reason not in ('not an image', 'no such file')


def as_line(row):
    path, guesses = row
    cells = [path, *(cell for label, probability in guesses for cell in (label, f'{probability:.4f}'))]
    return '\t'.join(map(files.printable, cells))


def as_json(row):
    path, guesses = row
    escaped = codecs.lookup(sys.stdout.encoding or 'ascii').name != 'utf-8'  # else not all of it could be written
    return json.dumps({'path': path, **runtime.as_dict(guesses)}, ensure_ascii=escaped)


@contextlib.contextmanager
def output(args):
    """Yield what takes the row of each image: it prints a line, or adds one to the CSV file, which appears at the end.

    Raises UserError at once where that cannot be written.
    """
    if not args.csv:
        yield lambda row: print(as_json(row) if args.json else as_line(row))
        return
    with files.atomic_write(args.csv) as file:
        write_row, titles = files.csv_table(file), []

        def write(row):
            path, guesses = row
            if not titles:
                ranks = ['', *range(2, len(guesses) + 1)]
                titles.extend(['path', *(f'{name}{rank}' for rank in ranks for name in ('label', 'probability'))])
                write_row(titles)
            cells = ((label, f'{probability:.6f}') for label, probability in guesses)
            write_row([path, *itertools.chain.from_iterable(cells)])

        yield write


if __name__ == '__main__':
    run(main)
