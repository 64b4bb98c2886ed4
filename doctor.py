"""Check Python, Paddle, the GPU, packages, memory, disks and images, and say how to fix what is wrong.

    python doctor.py                                    # one line per check, then ten seconds of training, export and prediction
    python doctor.py -c configs/flowers.yaml            # with the settings of a run
    python doctor.py --json --no-self-test

It needs no packages. Each line is ok, a warning (works, but slower or with less) or a failure, with the fix. The self-test works in a
temporary folder and leaves nothing behind. Exit status: 1 if there is a failure, else 0.
"""

import sys

if sys.version_info < (3, 9):  # noqa: UP036  # the other modules cannot even be read
    print('python: Python ' + '.'.join(map(str, sys.version_info[:2])) + ' is too old, use 3.9 or newer')
    sys.exit(1)

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare()  # before the other imports, which take long

import functools
import json
import os
import random
import tempfile
import time

import config
from zodiac.base import calls, class_names, device, errors, files, home, options, packages
from zodiac.doctor import check_machine, check_packages, probe
from zodiac.doctor.check_packages import FAILURE, OK, WARNING, Finding
from zodiac.training import processes

MARKS = {OK: ('✓', '32'), WARNING: ('!', '33'), FAILURE: ('✗', '31')}  # with ANSI colours
SPLITS = ('train', 'valid', 'test')
SELF_TEST_SECONDS = 180
SELF_TEST = [
    *('name=self_test', 'data.root=drawn', 'data.labels=[dark,light]', 'image.size=32', 'model.arch=resnet18'),
    *('model.pretrained=false', 'train.epochs=1', 'train.batch_size=8', 'optim.lr=0.001', 'export.onnx=false'),
]


def main():
    parser = config.parser(__doc__)
    parser.add_argument('--json', action='store_true', help='print one JSON document')
    parser.add_argument('--no-self-test', action='store_true', help='leave out the ten seconds of training')
    args = parser.parse_args()
    cfg, readable = settings(args)
    findings = []

    def report(checks):
        for name, check in checks:
            for finding in examine(name, check):
                finding = finding._replace(found=calls.as_called(finding.found), mend=calls.as_called(finding.mend))
                findings.append(finding)
                if not args.json:
                    print(line(finding), flush=True)

    report([*installation(cfg), ('settings', lambda: readable)])
    works = not any(finding.state == FAILURE for finding in findings if finding.name != 'gpu')
    report(machine(cfg))
    report(data(cfg, annotate_command(args)))
    if not args.no_self_test:
        report([('self-test', (lambda: self_test(cfg.device)) if works else skipped)])
    states = [finding.state for finding in findings]
    failures, warnings = states.count(FAILURE), states.count(WARNING)
    if args.json:
        document = {'failures': failures, 'warnings': warnings, 'checks': [finding._asdict() for finding in findings]}
        print(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        print(f'checks: {len(findings)}, warnings: {warnings}, failures: {failures}')
    return 1 if failures else 0


def settings(args):
    """The settings and a Finding on them; without PyYAML they cannot be read, and the defaults are used."""
    try:
        cfg = config.use(args.config, config.overrides_of(args))
    except errors.UserError:
        raise
    except Exception as error:
        found = f'cannot be read ({errors.one_line(error)}); the checks below are for the defaults'
        return config.Config(), Finding('settings', FAILURE, found, 'install the packages above')
    return cfg, Finding('settings', OK, args.config or 'configs/zodiac.yaml')


def annotate_command(args):
    """The call of annotate.py with the settings of this one, for a shell."""
    return calls.command('annotate', *options.again(args))


def examine(name, check):
    """The findings of a check as a list; a check that raises anything has failed."""
    try:
        found = check()
    except Exception as error:
        what = f'the check itself failed: {type(error).__name__}: {errors.one_line(error)}'
        return [Finding(name, FAILURE, what, 'the rest may be fine; please report this line')]
    return found if isinstance(found, list) else [found]


def line(finding):
    """A finding as a line of text, in colour on a terminal."""
    mark, colour = MARKS[finding.state]
    try:
        mark.encode(sys.stdout.encoding or 'ascii')
    except UnicodeEncodeError:
        mark = finding.state
    if sys.stdout.isatty() and not os.environ.get('NO_COLOR'):
        mark = f'\033[{colour}m{mark}\033[0m'
    return f'{mark} {finding.name}: {finding.found}' + (f' -> {finding.mend}' if finding.mend else '')


def installation(cfg):
    """[(name, function that returns a Finding or a list of them)] for Python, its packages and the GPU."""
    base, deploy, serve = packages.BASE, packages.DEPLOY, packages.SERVE
    required = check_packages.required
    return [
        ('python', lambda: check_packages.python(sys.version_info[:2])),
        ('paddle', lambda: check_packages.paddle(imported().get('paddle', {}))),
        ('base packages', lambda: required(base, imported())),
        ('deploy packages', lambda: required(deploy, imported(), [base], optional=True)),
        ('serve packages', lambda: required(serve, imported(), [base, deploy], optional=True)),
        ('prediction', lambda: check_packages.prediction(device.has_bf16())),
        ('gpu', lambda: check_packages.gpu(probe.nvidia_smi(), imported().get('paddle', {}), cfg.device)),
        ('home', lambda: check_machine.home(home.problem())),
    ]


@functools.cache
def imported():
    """The results of importing Paddle and the packages of training and export, see `probe.imports`."""
    _progress('importing Paddle and the other packages ...')
    listed = {**packages.requirements(packages.BASE), **packages.requirements(packages.DEPLOY)}
    names = [packages.module_of(name) for name in listed if packages.installed_version(name)]
    return check_packages.without_consequences(probe.imports(list(dict.fromkeys(['numpy', 'paddle', *names]))))


def machine(cfg):
    """As `installation`, for cores, memory and disks."""
    batch = cfg.train.batch_size
    number = processes.suited(cfg.device, batch)
    on_gpu = not device.is_cpu(cfg.device)
    workers = cfg.data.num_workers
    if workers == 'auto':  # several processes share the cores
        workers = device.loader_workers('auto', on_gpu) if number == 1 else min(device.cores() // number - 1, 1)

    def memory():
        return check_machine.memory(probe.machine(), cfg.model.arch, cfg.image.size, batch, 0 if on_gpu else number)

    def shared_memory():
        need = 2 * number * workers * -(-batch // number) * 3 * cfg.image.size**2
        return check_machine.shared_memory(need, cfg.data.shared_memory)

    def disks():
        fix = 'free some space, or run in another folder: output/ is in the working directory'
        run_bytes = check_machine.run_bytes(cfg.model.arch, cfg.train.keep_checkpoints)
        places = [('output', cfg.run_dir, run_bytes, fix)]
        if cfg.data.cache:
            cache_bytes = cfg.data.cache_gb * check_machine.GB
            places.append(('cache', cfg.cache_dir, cache_bytes, 'free some space, or set data.cache=FOLDER'))
        places.append(('temporary files', tempfile.gettempdir(), 100 * check_machine.MB, 'export TMPDIR=FOLDER'))
        return [check_machine.disk(name, probe.space(path), need, fix) for name, path, need, fix in places]

    def fonts():
        return check_machine.fonts(_labels(cfg), imported().get('matplotlib', {}))

    return [
        ('cores', lambda: check_machine.threads(probe.machine())),
        ('memory', memory),
        ('shared memory', shared_memory),
        ('output', disks),
        ('fonts', fonts),
    ]


def _labels(cfg):
    """The class names; with data.labels=auto those that annotate.py has found, if any."""
    return (class_names.annotated(cfg) or []) if cfg.data.labels == 'auto' else cfg.data.labels


def data(cfg, annotate):
    """As `installation`, for the images and the index files; annotate: the command."""
    root, labels = cfg.data.root.rstrip('/'), _labels(cfg)

    @functools.cache
    def tree():
        return probe.images(root, cfg.data.labels, cfg.annotate.unknown_class)

    def index():
        if not any(os.path.isfile(f'{root}/{split}.txt') for split in SPLITS):
            return Finding('index', WARNING, f'{root}: not annotated yet', annotate)
        if 'version' not in imported().get('numpy', {}):
            return Finding('index', WARNING, 'not checked, because NumPy cannot be imported', 'fix numpy first')
        from zodiac.data.index import read  # needs NumPy

        try:
            splits = {split: read(f'{root}/{split}.txt', len(labels))[0] for split in SPLITS}
        except errors.UserError as error:
            return Finding('index', FAILURE, str(error), annotate)
        return check_machine.index(root, tree(), splits, annotate)

    return [
        ('images', lambda: check_machine.images(root, labels, tree(), annotate)),
        ('index', index),
    ]


def skipped():
    again = f'fix the failures above, then: {calls.command("doctor")}'
    return Finding('self-test', WARNING, 'not run', again)


def self_test(place):
    """Draw images, train a step, export and predict on a device, in a child process and a temporary folder."""
    _progress('self-test: drawing, training, exporting, predicting ...')
    started = time.monotonic()
    code = (
        'import sys; sys.path[0] = sys.argv[1]; from zodiac.base import calls, errors; '
        "errors.run(lambda: calls.load('doctor').walk_through(sys.argv[2]))"
    )
    with files.temporary_folder() as folder:
        command = [sys.executable, '-c', code, probe.ROOT, place]
        status, _, err = probe.run_child(command, SELF_TEST_SECONDS, cwd=folder)
    error = '' if status == 0 else probe.how_it_ended(status, err, SELF_TEST_SECONDS)
    return check_machine.self_test(status, time.monotonic() - started, error)


def walk_through(place):
    """Run the scripts one after another in the working directory, as a user does."""
    draw('drawn')
    steps = {
        'annotate': ['-o', *SELF_TEST],
        'train': ['--nproc', '1', '-o', *SELF_TEST, f'device={place}'],
        'export': ['-o', *SELF_TEST, f'device={place}'],
        'predict': ['output/self_test/infer', 'drawn/test', '--engine', 'paddle', '--device', place],
    }
    for script, arguments in steps.items():
        sys.argv = [f'{script}.py', *arguments]
        calls.load(script).main()


def draw(root):
    """Draw a few dark and a few light images into root/<split>/<class>/."""
    from PIL import Image  # this script starts without it

    rng = random.Random(0)
    for split, count in (('train', 4), ('valid', 2), ('test', 1)):
        for label, lowest in (('dark', 0), ('light', 128)):
            os.makedirs(f'{root}/{split}/{label}')
            for number in range(count):
                pixels = bytes(rng.randrange(lowest, lowest + 128) for _ in range(6 * 6 * 3))
                Image.frombytes('RGB', (6, 6), pixels).resize((48, 40)).save(f'{root}/{split}/{label}/{number}.jpg')


def _progress(text):
    """Print to stderr if it is a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


if __name__ == '__main__':
    errors.run(main)
