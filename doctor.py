"""Tell whether everything is in place: Python, Paddle, the GPU, packages, memory, disks, images; and what mends what is not.

    python doctor.py                                    # a line a check, then ten seconds of training, export and prediction
    python doctor.py -c configs/flowers.yaml            # for the settings of a run
    python doctor.py --json --no-self-test

It needs no package to be installed. Each line is ok, a warning (works, but slower or less) or a failure, with what mends it. Nothing
is left behind; the self-test works in a temporary folder. Exit status: 1 where something will fail, else 0.
"""

import sys

if sys.version_info < (3, 8):  # noqa: UP036  # where not even the rooms of this script can be read
    print('python: Python ' + '.'.join(map(str, sys.version_info[:2])) + ' is too old, 3.9 or newer')
    sys.exit(1)

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare()  # before the other imports, which take long

import functools
import json
import os
import random
import shlex
import tempfile
import time

import config
from zodiac.base import class_names, device, errors, files, home, packages
from zodiac.doctor import check_machine, check_packages, probe
from zodiac.training import processes

MARKS = {
    check_packages.OK: ('✓', '32'),
    check_packages.WARNING: ('!', '33'),
    check_packages.FAILURE: ('✗', '31'),
}  # and ANSI colours
SPLITS = ('train', 'valid', 'test')
OPTIONAL = (packages.DEPLOY, packages.SERVE)
REQUIREMENTS = (packages.BASE, *OPTIONAL)
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

    def tell(checks):
        for name, check in checks:
            for finding in examine(name, check):
                findings.append(finding)
                if not args.json:
                    print(line(finding), flush=True)

    tell([*environment(cfg), ('settings', lambda: readable)])
    runs = not any(finding.state == check_packages.FAILURE for finding in findings if finding.name != 'gpu')
    given = [
        *(['-c', args.config] if args.config else []),
        *(['-o', *config.overrides_of(args)] if args.override else []),
    ]
    tell(around(cfg, given))
    if not args.no_self_test:
        tell([('self-test', (lambda: self_test(cfg.device)) if runs else skipped)])
    failures, warnings = (
        sum(finding.state == state for finding in findings)
        for state in (check_packages.FAILURE, check_packages.WARNING)
    )
    if args.json:
        checks = [finding._asdict() for finding in findings]
        document = {'failures': failures, 'warnings': warnings, 'checks': checks}
        print(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        print(f'{len(findings)} checks, {warnings} warnings, {failures} failures')
    return 1 if failures else 0


def settings(args):
    """The settings, and a Finding on them: where PyYAML is missing they cannot be read, and the defaults stand for them."""
    try:
        cfg = config.use(args.config, config.overrides_of(args))
    except errors.UserError:
        raise
    except Exception as error:
        found = f'cannot be read ({errors.one_line(error)}); what follows is for the defaults'
        return config.Config(), check_packages.Finding(
            'settings', check_packages.FAILURE, found, 'install the packages above'
        )
    return cfg, check_packages.Finding('settings', check_packages.OK, args.config or 'configs/zodiac.yaml')


def examine(name, check):
    """The findings of a check as a list; one that raises has failed, whatever it raises."""
    try:
        found = check()
    except Exception as error:
        what = f'the check itself failed: {type(error).__name__}: {errors.one_line(error)}'
        return [
            check_packages.Finding(
                name, check_packages.FAILURE, what, 'everything else may be well; please report this line'
            )
        ]
    return found if isinstance(found, list) else [found]


def line(finding):
    """A finding as a line for people."""
    mark, colour = MARKS[finding.state]
    if not _can_print(mark):
        mark = finding.state
    if sys.stdout.isatty() and not os.environ.get('NO_COLOR'):
        mark = f'\033[{colour}m{mark}\033[0m'
    return f'{mark} {finding.name}: {finding.found}' + (f' -> {finding.mend}' if finding.mend else '')


def _can_print(text):
    try:
        text.encode(sys.stdout.encoding or 'ascii')
    except UnicodeEncodeError:
        return False
    return True


def environment(cfg):
    """[(name, function that returns a Finding or a list of them)]: Python and its packages, without which nothing runs."""
    pip = packages.pip()
    whole = f'{pip} install -r {packages.here(packages.paddle_set())}'

    def about(module):
        return imported().get(module, {})

    def paddle():
        bounds = check_packages.requirements(probe.requirements('requirements.txt'))['paddlepaddle-gpu']
        avx = probe.machine()['avx']
        return check_packages.paddle(versions(), imported(), bounds, avx, whole, f'{pip} uninstall -y')

    def listed(file):
        has_paddle = any(build in versions() for build in check_packages.BUILDS) or 'version' in about('paddle')
        install = f'{pip} install -r {packages.here(file)}' if has_paddle or file in OPTIONAL else whole
        worst = check_packages.WARNING if file in OPTIONAL else check_packages.FAILURE
        return check_packages.packages(file, own(file), versions(), imported(), install, worst)

    def gpu():
        exchange = f'{pip} uninstall -y {" ".join(check_packages.BUILDS)} && {pip} install -r {packages.here("requirements.txt")}'
        return check_packages.gpu(probe.nvidia_smi(), about('paddle'), cfg.device, exchange)

    return [
        ('python', lambda: check_packages.python(sys.version_info[:2], _paddle_version())),
        ('paddle', paddle),
        ('base packages', lambda: listed(packages.BASE)),
        ('deploy packages', lambda: listed(packages.DEPLOY)),
        (
            'onnx export',
            lambda: check_packages.converter(versions(), _paddle_version(), f'{pip} install', sys.version_info[:2]),
        ),
        ('serve packages', lambda: listed(packages.SERVE)),
        ('gpu', gpu),
        ('home', lambda: check_machine.home(home.problem())),
    ]


def own(file):
    """The lines of a requirements file but for the packages that one before it has too."""
    before = {name for earlier in REQUIREMENTS[: REQUIREMENTS.index(file)] for name in packages.listed(earlier)}
    lines = probe.requirements(file).splitlines()
    return '\n'.join(line for line in lines if not before & check_packages.requirements(line).keys())


@functools.lru_cache  # not functools.cache, which Python 3.8 has not
def versions():
    """{package: version} of what is installed, of Paddle and the packages of the requirements."""
    wanted = [name for file in REQUIREMENTS for name in check_packages.requirements(probe.requirements(file))]
    return probe.installed([*check_packages.BUILDS, *wanted])


@functools.lru_cache  # not functools.cache, which Python 3.8 has not
def imported():
    """What becomes of importing them, see `probe.imports`; those of serve.py start nothing that could break."""
    _note('importing Paddle and its companions ...')
    names = [
        name
        for name in versions()
        if name not in check_packages.BUILDS and name not in check_packages.requirements(own(packages.SERVE))
    ]
    modules = [packages.module_of(name) for name in names if name != 'numpy']
    return check_packages.causes(probe.imports(['numpy', 'paddle', *modules]))


def _paddle_version():
    return next((versions()[build] for build in check_packages.BUILDS if build in versions()), '')


def around(cfg, given):
    """The same of the machine, the disks and the images, for the settings of a run; given: those of the command line."""
    data, batch, root = cfg.data, cfg.train.batch_size, cfg.data.root.rstrip('/')
    number = processes.suited(cfg.device, batch)
    on_gpu = not device.is_cpu(cfg.device)
    workers = data.num_workers
    if workers == 'auto':  # as zodiac.device has it, where several processes share the cores
        workers = device.loader_workers('auto', on_gpu) if number == 1 else min(device.cores() // number - 1, 1)
    annotate = ' '.join([packages.python(), packages.here('annotate.py'), *map(shlex.quote, given)])
    need = check_machine.run_bytes(cfg.model.arch, cfg.train.keep_checkpoints)
    cache = data.cache_gb * check_machine.GB if data.cache else 0

    def memory():
        return check_machine.memory(probe.machine(), cfg.model.arch, cfg.image.size, batch, 0 if on_gpu else number)

    def shared_memory():
        shm = probe.space('/dev/shm') if os.path.isdir('/dev/shm') else None
        image_bytes = 3 * cfg.image.size**2
        return check_machine.shared_memory(shm, number * workers, -(-batch // number) * image_bytes, data.shared_memory)

    def disks():
        elsewhere = 'free some space, or run in another folder: output/ is made in the working directory'
        found = [check_machine.disk('output', probe.space(cfg.run_dir), need, elsewhere)]
        if cache:
            found.append(
                check_machine.disk(
                    'cache', probe.space(cfg.cache_dir), cache, 'free some space, or set data.cache=FOLDER'
                )
            )
        temporary = probe.space(tempfile.gettempdir())
        return [
            *found,
            check_machine.disk('temporary files', temporary, 100 * check_machine.MB, 'export TMPDIR=FOLDER'),
        ]

    @functools.lru_cache  # not functools.cache, which Python 3.8 has not
    def tree():
        return probe.images(root, data.labels, cfg.annotate.unknown_class)

    def labels():
        if data.labels != 'auto':
            return data.labels
        return class_names.annotated(cfg) or sorted((tree() or {'found': ()})['found'])

    def index():
        splits = {split: probe.index(f'{root}/{split}.txt', len(labels())) for split in SPLITS}
        annotation = probe.annotation(f'{root}/annotation.json')
        return check_machine.index(root, labels(), tree(), splits, annotation, annotate)

    return [
        ('cores', lambda: check_machine.threads(probe.machine())),
        ('memory', memory),
        ('shared memory', shared_memory),
        ('output', disks),
        ('fonts', lambda: check_machine.fonts(labels(), imported().get('matplotlib', {}))),
        ('images', lambda: check_machine.images(root, labels(), tree(), probe.space(root), annotate)),
        ('index', index),
    ]


def skipped():
    again = f'fix what is above, then: {packages.python()} {packages.here("doctor.py")}'
    return check_packages.Finding('self-test', check_packages.WARNING, 'not run', again)


def self_test(place):
    """Draw, train a step, export and predict in a process of its own, in a temporary folder.

    Args:
        place: the device.
    """
    _note('self-test: drawing, training, exporting, predicting ...')
    started = time.monotonic()
    code = 'import sys; sys.path[0] = sys.argv[1]; import doctor; doctor.errors.run(lambda: doctor.walk_through(sys.argv[2]))'
    with files.temporary_folder() as folder:
        command = [sys.executable, '-c', code, probe.ROOT, place]
        status, _, said = probe.run_child(command, SELF_TEST_SECONDS, cwd=folder)
    what = '' if status == 0 else probe.how_it_ended(status, said, SELF_TEST_SECONDS)
    return check_machine.self_test(status, time.monotonic() - started, what)


def walk_through(place):
    """What the self-test does, in the working directory: the scripts one after another, as a user runs them."""
    import annotate
    import export
    import predict
    import train

    draw('drawn')
    steps = (
        (annotate, ['-o', *SELF_TEST]),
        (train, ['--nproc', '1', '-o', *SELF_TEST, f'device={place}']),
        (export, ['-o', *SELF_TEST, f'device={place}']),
        (predict, ['output/self_test/infer', 'drawn/test', '--engine', 'paddle', '--device', place]),
    )
    for script, arguments in steps:
        sys.argv = [f'{script.__name__}.py', *arguments]
        script.main()


def draw(root):
    """Draw a few images of two classes, dark ones and light ones, into root/<split>/<class>/."""
    from PIL import Image

    rng = random.Random(0)
    for split, count in (('train', 4), ('valid', 2), ('test', 1)):
        for label, lowest in (('dark', 0), ('light', 128)):
            os.makedirs(f'{root}/{split}/{label}')
            for number in range(count):
                pixels = bytes(rng.randrange(lowest, lowest + 128) for _ in range(6 * 6 * 3))
                Image.frombytes('RGB', (6, 6), pixels).resize((48, 40)).save(f'{root}/{split}/{label}/{number}.jpg')


def _note(text):
    """Say on a terminal what is going on."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


if __name__ == '__main__':
    errors.run(main)
