"""Compare the page of `export.web=true`, in headless Chromium, with predict.py, and measure how large it is and how long it takes.

    python benchmarks/web.py output/animals8/infer animals8 --photos 200
    python benchmarks/web.py output/animals8/infer animals8 --photos 200 --record docs/results/web.json

Takes photos of each class in turn, as they are and saved as JPEG. Prints, for each format: top-1 that differ, the largest difference of a
probability, `known` and sets that differ; then the sizes of what a browser loads, seconds from opening the page to the first answer with
nothing kept from before and again without the server, and milliseconds per photo. Ends with one JSON line.

The export is compared in the precision of the page: int8 if it has that, else fp32.
"""

import contextlib
import gzip
import itertools
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from ratios import command_line, machine, record, run
from served import ASK, static

import zodiac
from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.images import decoding

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
QUALITY = 90  # of the JPEG copies
RUNS = 5  # of opening the page


def main():
    parser = command_line(__doc__)
    parser.add_argument('infer', metavar='INFER', help='an export with export.web=true')
    parser.add_argument('folder', metavar='FOLDER', help='photos, a folder for each class')
    parser.add_argument('--photos', type=int, default=200, help='how many (default: 200)')
    parser.add_argument('--record', metavar='FILE', help='write the result there too')
    args = parser.parse_args()
    page = Path(args.infer, 'web')
    if not (page / 'index.html').is_file():
        raise UserError(f'{args.infer}: has no web/; export it again with export.web=true')
    precision = files.read_json(page / 'model.json')['precision']
    with tempfile.TemporaryDirectory() as copies, static(page) as (address, served, stop), browser_of() as browser:
        photos = chosen(args.folder, args.photos, copies)
        served.update({str(number): path for number, (path, _) in enumerate(photos)})
        seconds = [first_answer(browser, address) for _ in range(RUNS)]
        found, again = answers(browser, address, len(photos), stop)
        model = zodiac.load(args.infer, precision=precision)
        expected = list(model.predict([path for path, _ in photos], top=5))
        result = {
            'command': f'python benchmarks/web.py {args.infer} {args.folder} --photos {args.photos}',
            'machine': {**machine(), 'browser': browser.version, 'system': platform.system()},
            'precision': precision,
            'agreement': agreement(photos, expected, found),
            'bytes': sizes(page),
            'first_answer_s': spread(seconds),
            'first_answer_offline_s': round(again, 2),
            'photo_ms': spread([one['time'] for one in found if 'time' in one]),
        }
    show(result)
    record(result, args.record)
    print(json.dumps({'benchmark': 'web', **result}))


def chosen(folder, count, copies):
    """[(path, format), ...]: `count` photos of the classes in turn, then the same saved as JPEG in the folder `copies`."""
    classes = [sorted(map(str, place.iterdir())) for place in sorted(Path(folder).iterdir()) if place.is_dir()]
    in_turn = [path for row in itertools.zip_longest(*classes) for path in row if path]
    found, saved = [], []
    for path in in_turn:
        try:
            with Image.open(path) as image:
                kind = image.format
            pixels = decoding.decode(path)
        except (OSError, UserError):
            continue
        copy = f'{copies}/{len(found)}.jpg'
        pixels.save(copy, quality=QUALITY)
        found.append((path, kind))
        saved.append((copy, f'saved as JPEG, quality {QUALITY}'))
        if len(found) == count:
            break
    return found + saved


@contextlib.contextmanager
def browser_of():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise UserError('there is no Chromium; install chromium')
    with sync_playwright() as started:
        yield started.chromium.launch(executable_path=path, args=['--no-sandbox'])


def first_answer(browser, address):
    """Seconds from opening the page in a new profile to an answer."""
    context = browser.new_context()
    page, start = context.new_page(), time.perf_counter()
    page.goto(address)
    page.evaluate(ASK, '0')
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def answers(browser, address, count, stop):
    """(the answers for all photos, seconds to the first answer of the page, opened once more after the server was stopped)."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    found = [page.evaluate(ASK, str(number)) for number in range(count)]
    page.wait_for_selector('#offline:not([hidden])')
    stop()
    start = time.perf_counter()
    page.goto(address)
    blank = 'const canvas = new OffscreenCanvas(99, 99); canvas.getContext("2d"); return (await ask(await canvas.convertToBlob())).answer'
    if not page.evaluate(f'async () => {{{blank}}}'):
        raise UserError('the page does not answer without its server')
    return found, time.perf_counter() - start


def agreement(photos, expected, found):
    """{format: n and how far the page is from predict.py}."""
    table = {}
    for kind in dict.fromkeys(kind for _, kind in photos):
        pairs = [(one, other) for one, other, (_, of) in zip(expected, found, photos) if of == kind]
        faults = [other['fault'] for _, other in pairs if other.get('fault')]
        pairs = [(one, other) for one, other in pairs if not other.get('fault')]
        apart = [difference(one, other) for one, other in pairs]
        table[kind] = {
            'n': len(pairs),
            'refused': len(faults),
            'top1_differs': sum(one.label != other['top'][0]['label'] for one, other in pairs),
            'known_differs': sum(one.known != other.get('known') for one, other in pairs),
            'set_differs': sum(sorted(one.set or []) != sorted(other.get('set', [])) for one, other in pairs),
            'probability_most': round(max(apart, default=0), 6),
            'probability_median': round(float(np.median(apart)), 6) if apart else None,
        }
    return table


def difference(one, other):
    """The largest difference of the probabilities that both give, of the five most probable classes."""
    theirs = {guess['label']: guess['probability'] for guess in other['top']}
    return max(abs(probability - theirs[label]) for label, probability in one.top if label in theirs)


def sizes(page):
    """{what: bytes}: of the files that every browser loads, as they are and as a server compresses them (gzip, level 6)."""
    for_gpu = ('gpu', 'check.bin')
    paths = [path for path in page.rglob('*') if path.is_file() and not any(word in path.name for word in for_gpu)]
    contents = {path.name: path.read_bytes() for path in paths}
    packed = {name: len(gzip.compress(content, 6)) for name, content in contents.items()}
    return {
        'plain': sum(map(len, contents.values())),
        'gzip': sum(packed.values()),
        'gzip_model': packed['model.onnx'],
        'gzip_runtime': packed['ort-wasm.wasm'],
    }


def spread(values):
    return {
        'min': round(min(values), 2),
        'median': round(statistics.median(values), 2),
        'max': round(max(values), 2),
        'n': len(values),
    }


def show(result):
    print(
        f'{"format":<28}{"n":>5}{"refused":>9}{"top-1":>7}{"known":>7}{"set":>5}{"probability, most":>19}{"median":>10}'
    )
    for kind, row in result['agreement'].items():
        counts = (
            f'{row["n"]:>5}{row["refused"]:>9}{row["top1_differs"]:>7}{row["known_differs"]:>7}{row["set_differs"]:>5}'
        )
        print(f'{kind:<28}{counts}{row["probability_most"]:>19}{row["probability_median"] or 0:>10}')
    print('top-1, known, set: how many differ from predict.py')
    print(json.dumps({key: result[key] for key in ('bytes', 'first_answer_s', 'first_answer_offline_s', 'photo_ms')}))


if __name__ == '__main__':
    run(main)
