"""The engine and the precision that run an exported model on this machine: each that is installed is checked here, and timed.

An engine in a precision is a candidate if it reproduces the logits that the export has sealed (reference.py): at most LIMIT of the
answers could change. The fastest of them is taken, and the choice is kept for the next start.
"""

import collections
import contextlib
import hashlib
import json
import os
import platform
import re
import sys
import time

import numpy as np

from zodiac.base import device, files, home, packages, sources
from zodiac.base.errors import UsageError, UserError, one_line
from zodiac.inference import engines, export_folder, reference, unknown

LIMIT = 0.005  # share of the answers that may change
BATCHES = (1, 16)  # images per run that are timed
RUNS, SECONDS = 3, 2.0  # at most so many runs, and seconds, for each
CANDIDATES = [
    ('openvino', 'bf16'),
    ('openvino', 'fp32'),
    ('openvino', 'int8'),
    ('onnxruntime', 'fp32'),
    ('onnxruntime', 'int8'),
    ('paddle', 'bf16'),
    ('paddle', 'fp32'),
]
PRECISIONS = ('fp32', 'bf16', 'int8')
NO_BF16 = 'this processor has no bfloat16 (avx512_bf16 or amx_bf16)'
Choice = collections.namedtuple('Choice', 'engine precision')


def add_options(parser):
    """Add --engine, --precision and --explain to an argparse parser."""
    add = parser.add_argument
    help_on_engine = (
        'what runs the model; auto: the fastest that agrees with the network on this machine (default: auto)'
    )
    help_on_precision = (
        'in which it runs; auto: bf16 where the processor has it and it agrees, else fp32 (default: auto)'
    )
    help_on_explain = 'print how each engine and precision agrees and how fast it is, and stop'
    add('--engine', choices=['auto', *engines.ENGINES], default='auto', help=help_on_engine)
    add('--precision', choices=['auto', *PRECISIONS], default='auto', help=help_on_precision)
    add('--explain', action='store_true', help=help_on_explain)


def choose(folder, manifest, contents, place, engine='auto', precision='auto', checked=True):
    """The Choice for this machine, from the cache if it was made before with the same model, machine and packages.

    Args:
        contents: {file name: bytes} of the ONNX files and the reference, as far as the export has them.
        place: 'auto', 'cpu', 'gpu' or 'gpu:N'. On a GPU the model runs in float32, by Paddle unless `engine` names another.
        engine, precision: what the user asks for; 'auto' leaves it open. int8 is only taken if it is asked for.
        checked: false to take `engine` and `precision`, both named, as they are; an export of an earlier version has its own precision.
    Raises: UsageError for a precision that this machine or export does not have; UserError if nothing that was asked for
        reproduces the logits.
    """
    if not checked and 'precision' in manifest:
        precision = 'auto'
    elif not checked:
        _require_bf16(precision)
        return Choice(engine, precision)
    fixed = _without_measuring(manifest, place, engine, precision)
    if fixed:
        return fixed[0]
    path = _cache_path(manifest, engine, precision)
    choice = _kept(path)
    if choice:
        return choice
    started = time.perf_counter()
    rows = measure(folder, manifest, contents, engine, precision)
    choice = _kept(path) or taken(rows)  # another process may have been faster: all use the same
    if choice is None:
        reasons = '; '.join(f'{row["engine"]} in {row["precision"]}: {row["problem"]}' for row in rows)
        raise UserError(
            f'{folder}: nothing that --engine {engine} --precision {precision} allows gives the logits of the network on this machine '
            f'({reasons}); allow more, or export the model again; see docs/deployment.md#engines-and-precision'
        )
    print(
        f'{manifest["name"]}: checked on this machine, once, in {time.perf_counter() - started:.1f} s: runs in {choice.engine}, '
        f'{choice.precision} (--explain shows why)',
        file=sys.stderr,
    )
    _keep(path, choice)
    return choice


def explain(folder, manifest, contents, place, engine='auto', precision='auto'):
    """A table, as text, of everything that could run the model here, measured anew, and of what is taken. Raises as `choose` does."""
    fixed = _without_measuring(manifest, place, engine, precision)
    if fixed:
        choice, why = fixed
        return f'{manifest["name"]}: runs in {choice.engine}, {choice.precision}; not measured: {why}'
    rows = measure(folder, manifest, contents, 'auto', 'all')
    asked = [row for row in rows if _is_asked(row['engine'], row['precision'], engine, precision)]
    choice = taken(asked)
    if choice:
        _keep(_cache_path(manifest, engine, precision), choice)
    lines = [
        f'{"engine":<13}{"precision":<11}{"difference":>10}{"could change":>14}{"ms, batch 1":>13}{"batch 16":>10}  taken'
    ]
    for row in rows:
        numbers = (
            _number(row['difference'], '.2g'),
            _number(row['share'], '.2%'),
            *(_number(ms, '.2f') for ms in row['ms']),
        )
        cells = ''.join(f'{number:>{width}}' for number, width in zip(numbers, (10, 14, 13, 10)))
        lines.append(f'{row["engine"]:<13}{row["precision"]:<11}{cells}  {_verdict(row, choice, row in asked)}')
    lines.append(
        f'difference: the most by which the distance of two logits changes on the pictures of the export; could change: share of answers, '
        f'at most {LIMIT:.1%} (int8: above that of the export); ms: per image'
    )
    return '\n'.join(lines)


def measure(folder, manifest, contents, engine='auto', precision='auto'):
    """Check and time each candidate that `engine` and `precision` ('all': int8 too) allow; Paddle, which takes seconds to import, only
    if it is asked for or if no other passes. An engine that crashes the process is not caught: name another with --engine.

    Returns: list of dict: engine, precision; difference, the largest of `reference.differences`; share, see
        `reference.changed_share`; ms, per image at each of BATCHES; problem, why it cannot be taken, '' if it can. None: not known.
    """
    content = contents[reference.file_name(manifest)]
    known = reference.unpack(content, manifest['input']['shape'][2])
    scored = None
    if unknown.file_name(manifest) in contents:
        rejection = unknown.unpack(contents[unknown.file_name(manifest)])
        scored = (rejection.score, *reference.unpack_scores(content))
    rows = []
    for name, kind in CANDIDATES:
        late = name == 'paddle' and engine == 'auto' and precision != 'all'
        if not _is_asked(name, kind, engine, precision) or late and taken(rows):
            continue
        row = {'engine': name, 'precision': kind, 'difference': None, 'share': None, 'ms': [None] * len(BATCHES)}
        row['problem'] = _missing(name, kind, manifest)
        if not row['problem']:
            try:
                onnx = contents.get(engines.onnx_name(manifest, kind))
                run = engines.ENGINES[name](engines.Source(folder, manifest, onnx, kind), 'cpu')
                row.update(_measured(run, manifest, known, _allowed(manifest, kind), scored))
            except Exception as error:  # whatever an engine raises, the others are tried
                row['problem'] = one_line(error)
        rows.append(row)
    return rows


def _measured(run, manifest, known, allowed, scored=None):
    """difference, share, ms and problem of an engine that is loaded; scored: (function, features -> scores; scores of the network; margins)
    of an export that knows unknown photos."""
    (pixels, expected, margins), names = known, export_folder.output_names(manifest)
    most = max(BATCHES)
    batches = [reference.inputs(manifest, pixels[start : start + most]) for start in range(0, len(pixels), most)]
    run(batches[0][:1])  # first, so that OpenVINO compiles for single images too
    outputs = dict(zip(names, map(np.concatenate, zip(*map(run, batches)))))
    logits = outputs['logits']
    if logits.shape != expected.shape:
        return {'problem': f'gives logits of shape {list(logits.shape)}, not {list(expected.shape)}'}
    found = reference.differences(expected, logits)
    about = {'difference': float(found.max(initial=0)), 'share': reference.changed_share(found, margins)}
    if scored:
        score, of_network, score_margins = scored
        moved = reference.changed_known_share(of_network, score(outputs['features']), score_margins)
        about['share'] = max(about['share'], moved)
    if about['share'] > allowed:
        return {**about, 'problem': f'could change {about["share"]:.2%} of the answers, more than {allowed:.2%}'}
    return {**about, 'ms': [_timed(run, batches[0][:size]) for size in BATCHES]}


def _timed(run, batch):
    """Milliseconds per image: the fastest of a few runs after one that is not counted."""
    run(batch)
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < RUNS and (not times or time.perf_counter() < end):
        started = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - started)
    return 1000 * min(times) / len(batch)


def taken(rows):
    """The Choice with the least time (the geometric mean over BATCHES) among those without a problem; Paddle only if no other is
    there. None if there is none."""
    passed = [row for row in rows if not row['problem']]
    best = min(passed, key=lambda row: (row['engine'] == 'paddle', np.prod(row['ms'])), default=None)
    return best and Choice(best['engine'], best['precision'])


def _allowed(manifest, precision):
    """The share of answers that may change: for int8, above what export.py measured of the int8 file."""
    shares = manifest.get('parity', {}).get('int8', {}) if precision == 'int8' else {}
    return LIMIT + max((found.get('share', 0.0) for found in shares.values()), default=0.0)


def _is_asked(name, kind, engine, precision):
    return engine in ('auto', name) and (precision in ('all', kind) or precision == 'auto' and kind != 'int8')


def _missing(name, kind, manifest):
    """Why an engine cannot be tried in a precision; '' if it can."""
    if kind == 'bf16' and not device.has_bf16():
        return NO_BF16
    if name != 'paddle' and engines.onnx_name(manifest, kind) not in manifest['sha256']:
        return f'the export has no {engines.onnx_name(manifest, kind)}'
    if not packages.is_there(name):
        return 'not installed'
    return (
        'export.py found that it differs from the network'
        if name in manifest.get('parity', {}).get('differs', ())
        else ''
    )


def _without_measuring(manifest, place, engine, precision):
    """(Choice, why) where there is nothing to measure: on a GPU, or for an export of an earlier version; None otherwise.

    Raises: UsageError for a precision that cannot run.
    """
    if place.startswith('gpu') or engine in ('auto', 'paddle') and not device.is_cpu(place):
        if precision not in ('auto', 'fp32'):
            raise UsageError(f'precision {precision}: a GPU runs the model in fp32; use the device cpu, or fp32')
        return Choice('paddle' if engine == 'auto' else engine, 'fp32'), 'on a GPU'
    _require_bf16(precision)
    if reference.file_name(manifest) not in manifest['sha256']:
        return _of_older(manifest, engine, precision), 'the export has no reference logits; export the model again'
    if (engine, precision) in (('paddle', 'int8'), ('onnxruntime', 'bf16')):
        raise UsageError(f'precision {precision}: the engine {engine} does not run it; use another --engine')
    _require_onnx(manifest, engine, precision)
    return None


def _require_onnx(manifest, engine, precision):
    """Raise UsageError, with the setting of export.py, if what is asked for needs an ONNX file that the export lacks."""
    kind = 'int8' if precision == 'int8' else 'fp32'
    needed = kind == 'int8' or engine not in ('auto', 'paddle')
    if needed and engines.onnx_name(manifest, kind) not in manifest['sha256']:
        asked, setting = (f'precision {kind}', 'int8') if kind == 'int8' else (f'engine {engine}', 'onnx')
        raise UsageError(
            f'{asked}: the export has no {engines.onnx_name(manifest, kind)}; export with export.{setting}=true'
        )


def _require_bf16(precision):
    if precision == 'bf16' and not device.has_bf16():
        raise UsageError(f'precision bf16: {NO_BF16}; use fp32')


def _of_older(manifest, engine, precision):
    """The Choice for an export without a reference, whose precision export.py fixed: the first engine that it compared."""
    written, parity = manifest.get('precision', 'fp32'), manifest.get('parity', {})

    def runs_in(name):
        if written == 'bf16':
            return 'bf16' if name != 'onnxruntime' and name in parity and device.has_bf16() else 'fp32'
        return 'int8' if written == 'int8' and name != 'paddle' else 'fp32'

    usable = [name for name in ('openvino', 'onnxruntime') if name in parity and engines.installed(name)] + ['paddle']
    if engine == 'auto':
        engine = next((name for name in usable if written == 'bf16' and runs_in(name) == 'bf16'), usable[0])
    runs = runs_in(engine)
    if precision not in ('auto', runs) and not (precision == 'fp32' and runs == 'bf16'):
        raise UsageError(
            f'precision {precision}: the export was made for {runs} in {engine}, and has no reference logits to check another with; use '
            'auto, or export the model again'
        )
    return Choice(engine, runs if precision == 'auto' else precision)


def _number(value, form):
    return '-' if value is None else format(value, form)


def _verdict(row, choice, asked):
    if row['problem']:
        return f'no: {row["problem"]}'
    if (row['engine'], row['precision']) == choice:
        return 'yes'
    if not asked:
        return 'no: only with --precision int8' if row['precision'] == 'int8' else 'no: not asked for'
    return 'no: takes seconds to start' if row['engine'] == 'paddle' != choice.engine else 'no: slower'


def _cache_path(manifest, engine, precision):
    return os.path.join(home.cache_folder(), 'choices', f'{_key(manifest, engine, precision)}.json')


def compiled_path(manifest, choice):
    """Where OpenVINO's compiled network is kept, so that it starts faster; None for another engine."""
    if choice.engine != 'openvino':
        return None
    return os.path.join(home.cache_folder(), 'openvino', f'{_key(manifest, *choice)}.blob')


def _key(manifest, *more):
    """Hash of the model, the machine, the installed engines, our own code, and `more`."""
    about = re.findall(r'^(?:model name|stepping|microcode|flags)\s*:.*', device.about_processor(), re.MULTILINE)
    versions = [
        packages.installed_version(*names)
        for names in (('openvino',), ('onnxruntime', 'onnxruntime-gpu'), packages.BUILDS)
    ]
    code = sources.code_hash('zodiac.inference.choice', 'zodiac.inference.paddle_engine')
    parts = [manifest, about, platform.machine(), device.cores(), versions, code, more]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _kept(path):
    """The Choice in a file of the cache; None without a valid one."""
    choice = files.read_json(path)
    if isinstance(choice, dict) and (choice.get('engine'), choice.get('precision')) in CANDIDATES:
        return Choice(choice['engine'], choice['precision'])
    return None


def _keep(path, choice):
    # a read-only or full disk: the next start measures again
    with contextlib.suppress(UserError), files.atomic_write(path) as file:
        json.dump(choice._asdict(), file)
