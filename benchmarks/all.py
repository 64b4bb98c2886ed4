"""Run the benchmarks one after another and print one table of what they found, with the targets.

    make bench                                                    # about a quarter of an hour on two cores; draws what it needs
    python benchmarks/all.py --only predict serve                 # some of them
    python benchmarks/all.py --only photos --photos animals8 --torch PYTHON       # what needs your photos, or PyTorch
    python benchmarks/all.py --record docs/results/speed.json     # also keep the results, in place of earlier ones of the same commands
    python benchmarks/all.py --record docs/results/speed.json --page docs/performance.md      # run nothing: write the page's tables

A target that is missed is reported; only a benchmark that fails makes the exit status 1.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ratios import NEEDED, ROOT, command_line, machine, run

from zodiac.base import files
from zodiac.base.errors import UsageError, UserError

BENCH = {  # name: command; WORK, PHOTOS and TORCH stand for the options of these names
    'annotate': ['annotate.py', '--photos', '2000', '--pairs', '3'],
    'loader': ['loader.py', '--pairs', '3'],
    'predict': ['predict.py', 'WORK'],
    'engines': ['engines.py', 'WORK/infer:plain', 'WORK/infer', '--batches', '1', '8', '32', '--rounds', '7'],
    'start': ['start.py', 'WORK/infer'],
    'serve': ['serve.py', 'WORK/infer'],
    'training': ['training.py', '--pairs', '2'],
    'index': ['index.py', '--lines', '1000000', '10000000'],
    'growth': ['growth.py'],
}
OTHER = {  # only with --only: take longer, or need photos or PyTorch
    'photos': ['photos_to_classifier.py', 'PHOTOS', '--torch', 'TORCH'],
    'photos_run': ['photos_to_classifier.py', 'PHOTOS', '--run'],
    'annotate_photos': ['annotate.py', 'PHOTOS'],
    'training_torch': ['training.py', '--torch', 'TORCH'],
    'serve_memory': ['serve.py', 'WORK/infer', '--minutes', '10'],
    'growth_100k': ['growth.py', '--images', '1000', '10000', '100000', '--picture', 'docs/images/growth.png'],
    'annotate_scale': ['annotate_scale.py'],
    'uploads': ['uploads.py'],
    'survive': ['survive.py'],
}
COMMANDS = {'exports': ['exports.py', 'WORK'], **BENCH, **OTHER}  # the first makes the network that others use
TEXTS = {  # benchmark: what is measured, and compared with what; filled from its JSON line, and {part}: what follows a colon in its name
    'annotate': ('`annotate.py`, {run}: {accepted} images ({data})', "the notebook's loop"),
    'loader_cold': ('loading training images, {size} px, {workers} worker', "paddle.vision's transforms"),
    'loader_cached': ('the same with `data.cache`', "paddle.vision's transforms"),
    'predict': ('`predict.py`, {ours}: {photos} photos', '{against}'),
    'engines': ('network alone, {part}', 'OpenVINO without this project'),
    'start': ('{part}: time allowed, over time taken', ''),
    'serve': ('`serve.py`, {clients} clients, p99 {p99_ms} ms', '{against}'),
    'serve_memory': ('`serve.py`, growth of its memory over {minutes} minutes', ''),
    'training': ('training ResNet50 at {size} px, batch {batch}, {device}', '{against}'),
    'index': ('index of {lines} lines, {processes} processes: {what}', ''),
    'growth': ('growth of {what} up to {images} images, as a power; steepest: {script}', ''),
    'photos_to_classifier': ('photos to exported classifier, {run}', ''),
    'time_to_accuracy': ('photos to a top-1 of {top1}', 'PyTorch, head or all, the faster'),
    'annotate_scale': ('memory of `annotate.py` per file up to {files} files, {run}', ''),
    'transfer': ('head of a frozen network, {size} px, {views} views', '{against}'),
    'uploads': ('hostile uploads: wrong answers among {malformed} malformed requests', ''),
    'survive': ('runs that survive being stopped and damaged', ''),
}
TITLES = ('what', 'compared with', 'measured', 'n', 'target', '')
BEGIN, END = '<!-- the following is written by benchmarks/all.py --page -->\n', '<!-- end -->\n'


def main():
    parser = command_line(__doc__)
    names = [name for name in COMMANDS if name != 'exports']
    parser.add_argument('--only', nargs='+', choices=names, metavar='NAME', help=f'some of: {", ".join(names)}')
    parser.add_argument('--work', default='output/bench', help='folder for what is drawn (default: output/bench)')
    parser.add_argument('--photos', help='a folder with one folder of photos per class')
    parser.add_argument('--torch', help='a Python that has PyTorch')
    parser.add_argument('--record', metavar='FILE', help='JSON file that keeps the results')
    parser.add_argument('--page', metavar='FILE', help='only write the tables of --record into this Markdown page')
    args = parser.parse_args()
    recorded = (files.read_json(args.record) or []) if args.record else []
    if args.page and not recorded:
        raise UsageError(f'--page {args.page}: needs --record FILE with the results of an earlier run')
    if args.page:
        return write_page(args.page, recorded)
    commands = [complete(name, args) for name in args.only or BENCH]
    if any(args.work in word for command in commands for word in command):
        commands.insert(0, complete('exports', args))
    started, runs = time.perf_counter(), []
    for command in commands:
        runs.append(measure(command))
        if args.record and not runs[-1]['failed']:
            recorded = [found for found in recorded if found['command'] != runs[-1]['command']] + [runs[-1]]
            with files.atomic_write(args.record) as file:
                json.dump(recorded, file, indent=1, ensure_ascii=False)
    print_table(runs, time.perf_counter() - started)
    return int(any(found['failed'] for found in runs))


def complete(name, args):
    """A command with the paths in place of WORK, PHOTOS and TORCH. Raises UsageError if --photos is needed; PyTorch may be missing."""
    command = COMMANDS[name]
    given = {'WORK': args.work, 'PHOTOS': args.photos, 'TORCH': args.torch}
    if 'PHOTOS' in command and not args.photos:
        raise UsageError(f'{name}: needs --photos FOLDER')
    if 'TORCH' in command and not args.torch:
        command = command[: command.index('TORCH') - 1]
    return [re.sub('^(WORK|PHOTOS|TORCH)', lambda found: given[found[0]], word) for word in command]


def measure(command):
    """Run a benchmark; its tables go to stderr.

    Returns: JSON-ready dict: command, as it is shown; machine; seconds; lines, the JSON lines that it printed; failed.
    """
    shown = shlex.join(['python', f'benchmarks/{command[0]}', *map(relative, command[1:])])
    print(f'\n$ {shown}', file=sys.stderr, flush=True)
    started, lines = time.perf_counter(), []
    whole = [sys.executable, str(ROOT / 'benchmarks' / command[0]), *command[1:]]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith('{"benchmark"'):
                lines.append(json.loads(line))
            else:
                print(line, end='', file=sys.stderr, flush=True)
    seconds = round(time.perf_counter() - started)
    return {
        'command': shown,
        'machine': machine(),
        'seconds': seconds,
        'lines': lines,
        'failed': process.returncode != 0,
    }


def relative(word):
    """A word of a command without the folders of this machine."""
    return Path(word).name if word.startswith('/') else word


def print_table(runs, seconds):
    rows = [row for found in runs for row in rows_of(found)]
    cells = [[cell.replace('`', '') for cell in row] for row in [TITLES, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print(f'\n{describe(machine())}\n')
    for row in cells:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    verdicts = [row[-1] for row in rows]
    missed = verdicts.count('missed')
    impossible = len(verdicts) - missed - verdicts.count('')
    print(
        f'\nfigures: {len(rows)}; targets missed: {missed}, not applicable: {impossible}; minutes: {seconds / 60:.0f}'
    )
    for found in runs:
        if found['failed']:
            print(f'error: {found["command"]} failed', file=sys.stderr)


def describe(about):
    """The facts of `ratios.machine` as a sentence."""
    packages = ', '.join(f'{name} {about[name]}' for name in about if name not in ('processor', 'features', 'cores'))
    return f'{about["cores"]} cores of {about["processor"]} ({" ".join(about["features"]) or "no AVX2"}); {packages}'


def rows_of(found):
    """The rows of the table, as in TITLES, of what `measure` returned; lines without a figure have none."""
    lines = [line for line in found['lines'] if not {'ratio', 'value', 'lost'}.isdisjoint(line)]
    return [row_of(line, found['machine']['features']) for line in lines]


def row_of(line, features):
    """A row of the table for the JSON line of a benchmark on a processor with these features."""
    name, _, part = line['benchmark'].partition(': ')
    fields = Fields(line, part=part)
    what, against = (text.format_map(fields) for text in TEXTS.get(name, (line['benchmark'], '')))
    if 'ratio' in line:
        measured, target = spread(line, 'ratio', ''), line['target']
        met, wanted = target is None or line['ratio'] >= target, f'≥ {target:g}' if target is not None else ''
    else:
        line = {'value': line.get('lost'), 'unit': '', 'most': 0, **line}
        unit, most = f' {line["unit"]}' if line['unit'] else '', line['most']
        measured = spread(line, 'value', unit)
        met, wanted = most is None or line['value'] <= most, f'≤ {most:g}{unit}' if most is not None else ''
    needs = line.get('needs')
    verdict = '' if met else 'missed'
    if needs and not set(NEEDED[needs]) & set(features):
        verdict = f'not applicable: no {needs}'
    return what, against, measured, str(line.get('pairs', 1)), wanted, verdict


class Fields(dict):
    """The fields of a JSON line, for str.format_map; a benchmark need not have each."""

    def __missing__(self, name):
        return '?'


def spread(line, name, unit):
    """'2.07 (1.82 to 2.12)'; without the range if there is none."""
    low, high = (line.get(f'{name}_{end}', line[name]) for end in ('min', 'max'))
    return f'{line[name]:g}{unit}' + (f' ({low:g} to {high:g})' if low != high else '')


def markdown(recorded):
    """The tables of recorded runs, one per machine."""
    parts = []
    machines = [found['machine'] for found in recorded]
    for about in [one for number, one in enumerate(machines) if one not in machines[:number]]:
        titles = [*TITLES[:-1], '', 'command']
        lines = [f'{describe(about)}.', '', f'| {" | ".join(titles)} |', '| --- ' * len(titles) + '|']
        for found in recorded:
            for number, row in enumerate(rows_of(found) if found['machine'] == about else ()):
                command = '' if number else f'`{found["command"].replace("python benchmarks/", "")}`'
                lines.append(f'| {" | ".join([*row, command])} |')
        parts.append('\n'.join(lines) + '\n')
    return '\n'.join(parts)


def write_page(path, recorded):
    """Write the tables into a page, between BEGIN and END."""
    text = Path(path).read_text(encoding='utf-8')
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f'{path}: has no lines {BEGIN.strip()} and {END.strip()} for the tables')
    with files.atomic_write(path) as file:
        file.write(f'{before}{begin}\n{markdown(recorded)}\n{end}{after}')


if __name__ == '__main__':
    run(main)
