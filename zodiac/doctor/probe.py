"""What there is: this Python, its packages, the machine, its disks, the images. Judged in `check_packages` and `check_machine`.

Only the standard library, and syntax of Python 3.8: doctor.py must speak where nothing else can be imported. What may crash or
hang is tried in a process of its own.
"""

import collections
import glob
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from zodiac.base import device, files, home, stops
from zodiac.base.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRY = 'import sys; sys.path[0] = sys.argv[1]; from zodiac.doctor import probe; probe.try_imports(sys.argv[2:])'
IMPORT_SECONDS = 120  # for all of them; the first import of Paddle after a start of the machine reads half a gigabyte
LOOKED_AT = 512  # paths of an index, at most twice as many


def requirements(name):
    """The text of a requirements file of this project, without the lines that are for an older Python than this one."""
    with open(os.path.join(ROOT, name), encoding='utf-8') as file:
        return ''.join(line for line in file if sys.version_info < _first_python_without(line))


def _first_python_without(line):
    """(major, minor) of the marker `python_version < '3.13'`; beyond any where the line has none."""
    match = re.search(r"; python_version < '(\d+)\.(\d+)'", line)
    return tuple(map(int, match.groups())) if match else (99,)


def installed(names):
    """{package: version} of those that are installed, by what pip has left beside them; nothing is imported."""
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_child(command, seconds, cwd=None):
    """Run a command in a session of its own, which ends with it; returns (status, stdout, stderr), status None where time was up."""
    options = {'start_new_session': True} if hasattr(os, 'killpg') else {}
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    child = subprocess.Popen(command, cwd=cwd, **pipes, **options)
    with stops.at_stop(lambda: _end(child)):
        try:
            said = child.communicate(timeout=seconds)
            status = child.returncode
        except subprocess.TimeoutExpired:
            _end(child)
            said, status = child.communicate(), None
        finally:
            _end(child)
    return (status, *(text.decode('utf-8', 'replace') for text in said))


def _end(child):
    """End a child and all that it has started."""
    try:
        if hasattr(os, 'killpg'):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except OSError:  # there is none left
        pass


def imports(modules, seconds=IMPORT_SECONDS):
    """Import modules one after another in a child process, and in another one those behind a module that ends it.

    Returns: {module: {'version': str, ...}}, or {'error': str, 'file': where it lies}; see `ABOUT` for what else is told.
    """
    found, rest = {}, list(modules)
    while rest:
        status, out, said = run_child([sys.executable, '-W', 'ignore', '-c', TRY, ROOT, *rest], seconds)
        for line in out.splitlines():
            told = json.loads(line)
            found[told.pop('name')] = told
        started = [name for name in rest if name in found]
        if not started:
            raise RuntimeError(last_line(said) or 'the process for the imports did not start')
        if 'version' not in found[started[-1]] and 'error' not in found[started[-1]]:
            found[started[-1]] = {'error': how_it_ended(status, said, seconds)}
        elif len(started) < len(rest):  # ended between two modules
            found[rest[len(started)]] = {'error': how_it_ended(status, said, seconds)}
        rest = [name for name in rest if name not in found]
    return found


def how_it_ended(status, said, seconds):
    """One line on a process that did not do its work."""
    if status is None:
        return f'not done after {seconds} seconds'
    if status < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f'killed by {names.get(-status, -status)}'
    return last_line(said) or f'ended with status {status} without a word'


def last_line(text):
    """The error in what a process has said: its last line that begins with `error: `, else the last one."""
    lines = [' '.join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('error: ')]
    return (errors or lines or [''])[-1][:300]


def try_imports(modules):
    """In the child: import each, and print what becomes of it as a line of JSON before and after."""
    with os.fdopen(os.dup(1), 'w') as out:
        os.dup2(2, 1)  # some print at their import

        def say(**told):
            print(json.dumps(told), file=out, flush=True)

        home.ensure()
        for name in modules:
            say(name=name)
            try:
                module = importlib.import_module(name)
                about = ABOUT.get(name, lambda module: {})(module)
                say(name=name, version=str(getattr(module, '__version__', '')), **about)
            except BaseException as error:  # a package may raise anything, SystemExit too
                text = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
                say(name=name, error=text, file=_file_of(name))


def _file_of(module):
    """Where Python finds a module, '' where it does not."""
    try:
        return importlib.util.find_spec(module).origin or ''
    except (AttributeError, ImportError, ValueError):
        return ''


def _about_paddle(paddle):
    """cuda, cudnn: versions it is built for, '' without; archs: of the kernels, such as 80; gpus: how many it sees; libraries: of
    CUDA, not found."""
    if not paddle.device.is_compiled_with_cuda():
        return {'cuda': '', 'cudnn': '', 'archs': [], 'gpus': 0, 'missing': []}
    cuda, cudnn = str(paddle.version.cuda()), str(paddle.version.cudnn())
    wanted = [f'libcublas.so.{cuda.split(".")[0]}', f'libcudnn.so.{cudnn.split(".")[0]}']
    return {
        'cuda': cuda,
        'cudnn': cudnn,
        'archs': list(getattr(paddle.version, 'cuda_archs', list)() or []),  # Paddle 3.3 tells them
        'gpus': paddle.device.cuda.device_count(),
        'missing': [name for name in wanted if sys.platform == 'linux' and not _library(name, paddle)],
    }


def _library(name, paddle):
    """Whether a library is where the loader, Paddle's own packages or CUDA have it."""
    import ctypes

    packages = os.path.dirname(os.path.dirname(paddle.__file__))
    if any(glob.glob(f'{place}/{name}*') for place in (f'{packages}/nvidia/*/lib', '/usr/local/cuda*/lib64')):
        return True
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _about_matplotlib(matplotlib):
    """fonts: families of those for Chinese; cache: the folder in which Matplotlib keeps its list of fonts."""
    from matplotlib import font_manager

    from zodiac.base.fonts import CJK_FONTS

    present = {font.name for font in font_manager.fontManager.ttflist}
    return {'fonts': [name for name in CJK_FONTS if name in present], 'cache': matplotlib.get_cachedir()}


ABOUT = {'paddle': _about_paddle, 'matplotlib': _about_matplotlib}


def nvidia_smi():
    """{'header': what nvidia-smi prints, 'table': name, compute capability, driver, memory as CSV}; None where there is none;
    {'error': str} where it fails."""
    if not shutil.which('nvidia-smi'):
        return None
    status, header, said = run_child(['nvidia-smi'], 30)
    if status:
        return {'error': last_line(header + said) or how_it_ended(status, said, 30)}
    if status is None:
        return {'error': 'not done after 30 seconds'}
    table = ''
    for fields in (
        'name,compute_cap,driver_version,memory.total',
        'name,driver_version',
    ):  # older drivers know no compute_cap
        status, table, _ = run_child(['nvidia-smi', f'--query-gpu={fields}', '--format=csv'], 30)
        if status == 0:
            break
    return {'header': header, 'table': table}


def machine(proc='/proc', cgroup='/sys/fs/cgroup'):
    """cores: that this process may use; quota: cores that its control group may keep busy, None for all; memory: bytes, the least of
    the machine's and the group's; available; avx: None where it is not told; omp: OMP_NUM_THREADS."""
    memory = {}
    for line in _read(f'{proc}/meminfo').splitlines():
        name, _, value = line.partition(':')
        if value.split()[1:] == ['kB']:
            memory[name] = int(value.split()[0]) * 1024
    quota, limit, used = _limits(_read(f'{proc}/self/cgroup'), cgroup)
    total, available = memory.get('MemTotal'), memory.get('MemAvailable')
    if limit and total and limit < total:
        total, available = limit, min(available or limit, max(0, limit - used))
    flags = _read(f'{proc}/cpuinfo').partition('\nflags')[2].partition('\n')[0]
    return {
        'cores': device.cores(),
        'quota': quota,
        'memory': total,
        'available': available,
        'avx': ' avx ' in f'{flags} ' if flags else None,
        'omp': os.environ.get('OMP_NUM_THREADS', ''),
        'system': platform.system(),
    }


def _limits(own, base):
    """(cores, bytes, bytes used) of the tightest control group above this process: version 2, else version 1; None without."""
    cores, limit, used = [], [], 0
    path = next((line[3:] for line in own.splitlines() if line.startswith('0::')), '/')
    groups = [path]
    while groups[-1].strip('/'):
        groups.append(os.path.dirname(groups[-1].rstrip('/')))
    for group in groups:
        folder = f'{base}/{group.strip("/")}'.rstrip('/')
        allowed, _, period = _read(f'{folder}/cpu.max').partition(' ')
        if allowed.isdigit() and period.strip().isdigit():
            cores.append(int(allowed) / int(period))
        if _read(f'{folder}/memory.max').strip().isdigit():
            limit.append((int(_read(f'{folder}/memory.max')), int(_read(f'{folder}/memory.current').strip() or 0)))
    quota, period = (_read(f'{base}/cpu/cpu.cfs_{name}_us').strip() for name in ('quota', 'period'))
    if quota.isdigit() and period.isdigit() and int(period):
        cores.append(int(quota) / int(period))
    old = _read(f'{base}/memory/memory.limit_in_bytes').strip()
    if old.isdigit():
        limit.append((int(old), int(_read(f'{base}/memory/memory.usage_in_bytes').strip() or 0)))
    size, used = min(limit) if limit else (None, 0)
    return min(cores) if cores else None, size, used


def _read(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read(1 << 20)
    except OSError:
        return ''


def space(path):
    """{'folder': the nearest folder that exists, 'free': bytes, 'problem': why no file can be made there, ''}. Leaves nothing."""
    folder = os.path.abspath(path)
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    problem = ''
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = error.strerror or str(error)
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        free = None
    return {'folder': folder, 'free': free, 'problem': problem}


def images(root, labels, unknown_class='stop'):
    """What lies below data.root by names alone: {'found': files of each class, 'problem': what annotate.py would stop at}, or None
    without such a folder."""
    from zodiac.data import scan

    if not os.path.isdir(root):
        return None
    try:
        tree = scan.scan(root, labels, unknown_class)
    except UserError as error:
        return {'found': {}, 'problem': str(error)}
    return {'found': dict(collections.Counter(entry.label for entry in tree.entries)), 'problem': ''}


def index(path, num_classes):
    """What an index file holds, read line by line: {'lines': int, 'classes': numbers that occur, 'bad': the first line that is none,
    '', 'looked_at': int, 'missing': those of them that are no file}; None where there is no such file."""
    if not os.path.isfile(path):
        return None
    lines, bad, classes, some, step = 0, '', set(), [], 1
    with open(path, encoding='utf-8-sig', errors='surrogateescape') as file:
        for number, line in enumerate(file, 1):
            if not line.strip('\r\n'):
                continue
            image, _, label = line.rstrip('\r\n').rpartition('\t')
            if not image or not label.isdecimal() or int(label) >= num_classes:
                bad = bad or f'line {number}: {line.strip()[:80]!r}'
                continue
            classes.add(int(label))
            if lines % step == 0:
                some.append(image)
                if len(some) > 2 * LOOKED_AT:
                    some, step = some[::2], 2 * step
            lines += 1
    place = files.moved(os.path.dirname(path), some)
    missing = [image for image in some if not os.path.isfile(files.at(image, place))]
    return {'lines': lines, 'classes': sorted(classes), 'bad': bad, 'looked_at': len(some), 'missing': missing}


def annotation(path):
    """The content of annotation.json; None where there is none, {} where it cannot be read."""
    if not os.path.isfile(path):
        return None
    content = files.read_json(path)
    return content if isinstance(content, dict) else {}
