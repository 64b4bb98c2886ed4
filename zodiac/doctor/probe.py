"""Look at this Python, its packages, the machine, its disks and the images; `check_packages` and `check_machine` judge the results.

Uses the standard library only: doctor.py must work where nothing else can be imported. Anything that may crash or hang runs in a
child process.
"""

import collections
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile

from zodiac.base import device, home, stops
from zodiac.base.calls import ROOT
from zodiac.base.errors import UserError
from zodiac.base.fonts import CJK_FONTS
from zodiac.data import scan

TRY = 'import sys; sys.path[0] = sys.argv[1]; from zodiac.doctor import probe; probe.try_imports(sys.argv[2:])'
IMPORT_SECONDS = 120  # for all of them; the first import of Paddle after a boot reads half a gigabyte


def run_child(command, seconds, cwd=None):
    """Run a command and end all that it starts; returns (status, stdout, stderr), status None if it took too long."""
    options = {'start_new_session': True} if hasattr(os, 'killpg') else {}
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    child = subprocess.Popen(command, cwd=cwd, **pipes, **options)
    with stops.at_stop(lambda: _end(child)):
        try:
            output = child.communicate(timeout=seconds)
            status = child.returncode
        except subprocess.TimeoutExpired:
            _end(child)
            output, status = child.communicate(), None
        finally:
            _end(child)
    return (status, *(text.decode('utf-8', 'replace') for text in output))


def _end(child):
    """Kill a child and all that it has started."""
    try:
        if hasattr(os, 'killpg'):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except OSError:  # it has ended
        pass


def imports(modules, seconds=IMPORT_SECONDS):
    """Import modules one after another in a child process; after one that ends it, go on with the rest in another child.

    Returns: {module: {'version': str, ...}}, see `ABOUT` for what else; or {'error': str, 'file': path of the module}.
    """
    found, rest = {}, list(modules)
    while rest:
        status, out, err = run_child([sys.executable, '-W', 'ignore', '-c', TRY, ROOT, *rest], seconds)
        if not out:
            raise RuntimeError(last_line(err) or 'the process for the imports did not start')
        for line in out.splitlines():
            about = json.loads(line)
            found[about.pop('name')] = about
        found.update({name: {'error': how_it_ended(status, err, seconds)} for name in rest if found.get(name) == {}})
        rest = [name for name in rest if name not in found]
    return found


def how_it_ended(status, err, seconds):
    """One line about a process that failed, from its exit status (None: it took too long) and its stderr."""
    if status is None:
        return f'not done after {seconds} seconds'
    if status < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f'killed by {names.get(-status, -status)}'
    return last_line(err) or f'ended with status {status} and no output'


def last_line(text):
    """The last line that begins with `error: `, else the last one."""
    lines = [' '.join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('error: ')]
    return (errors or lines or [''])[-1][:300]


def try_imports(modules):
    """In the child: import each, and print one line of JSON before and one after, with the result."""
    with os.fdopen(os.dup(1), 'w') as out:
        os.dup2(2, 1)  # some modules print when they are imported

        def report(**about):
            print(json.dumps(about), file=out, flush=True)

        home.ensure()
        for name in modules:
            report(name=name)
            try:
                module = importlib.import_module(name)
                about = ABOUT.get(name, lambda module: {})(module)
                report(name=name, version=str(getattr(module, '__version__', '')), **about)
            except BaseException as error:  # a package may raise anything, even SystemExit
                text = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
                report(name=name, error=text, file=_file_of(name))


def _file_of(module):
    """The path of a module, '' if Python does not find it."""
    try:
        return importlib.util.find_spec(module).origin or ''
    except (AttributeError, ImportError, ValueError):
        return ''


def _about_paddle(paddle):
    """cuda: the version it is built for, '' without; gpus: how many it sees."""
    if not paddle.device.is_compiled_with_cuda():
        return {'cuda': '', 'gpus': 0}
    return {'cuda': str(paddle.version.cuda()), 'gpus': paddle.device.cuda.device_count()}


def _about_matplotlib(matplotlib):
    """fonts: families for Chinese; cache: the folder in which Matplotlib keeps its list of fonts."""
    from matplotlib import font_manager  # in the child only, after Matplotlib itself could be imported

    present = {font.name for font in font_manager.fontManager.ttflist}
    return {'fonts': [name for name in CJK_FONTS if name in present], 'cache': matplotlib.get_cachedir()}


ABOUT = {'paddle': _about_paddle, 'matplotlib': _about_matplotlib}


def nvidia_smi():
    """{'cards': [name and driver of each GPU]}; {'error': str} if there is none; None without the program."""
    if not shutil.which('nvidia-smi'):
        return None
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    status, out, err = run_child(query, 30)
    if status != 0:
        return {'error': last_line(out + err) or how_it_ended(status, err, 30)}
    return {'cards': out.strip().splitlines()} if out.strip() else {'error': 'its list is empty'}


def machine(proc='/proc', cgroup='/sys/fs/cgroup'):
    """cores: how many this process may use; quota: how many its control group may keep busy, None for all; memory, available: bytes
    of the machine or the group, whichever is less, None if unknown; omp: OMP_NUM_THREADS."""
    memory = {}
    for line in _read(f'{proc}/meminfo').splitlines():
        name, _, value = line.partition(':')
        if value.split()[1:] == ['kB']:
            memory[name] = int(value.split()[0]) * 1024
    quota, limit, used = _limits(_read(f'{proc}/self/cgroup'), cgroup)
    total, available = memory.get('MemTotal'), memory.get('MemAvailable')
    if limit and total and limit < total:
        total, available = limit, min(available or limit, max(0, limit - used))
    return {
        'cores': device.cores(),
        'quota': quota,
        'memory': total,
        'available': available,
        'omp': os.environ.get('OMP_NUM_THREADS', ''),
        'system': platform.system(),
    }


def _limits(own, base):
    """(cores, bytes, bytes used) that the control groups of this process, of version 1 or 2, allow; None for no limit."""

    def number(path):
        text = _read(path).strip()
        return int(text) if text.isdigit() else 0

    parts = next((line[3:].strip('/').split('/') for line in own.splitlines() if line.startswith('0::')), [''])
    cores, limits = [], []
    for depth in range(len(parts) + 1):
        folder = os.path.join(base, *parts[:depth])
        allowed, _, period = _read(f'{folder}/cpu.max').partition(' ')
        if allowed.isdigit():
            cores.append(int(allowed) / int(period))
        limits.append((number(f'{folder}/memory.max'), number(f'{folder}/memory.current')))
    quota, period = (number(f'{base}/cpu/cpu.cfs_{name}_us') for name in ('quota', 'period'))
    if quota and period:
        cores.append(quota / period)
    limits.append((number(f'{base}/memory/memory.limit_in_bytes'), number(f'{base}/memory/memory.usage_in_bytes')))
    size, used = min((pair for pair in limits if pair[0]), default=(None, 0))
    return min(cores, default=None), size, used


def _read(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read(1 << 20)
    except OSError:
        return ''


def space(path):
    """{'folder': the nearest folder that exists, 'free': bytes, 'problem': why no file can be written there, or ''}."""
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
    """{'found': number of files per class, 'problem': why annotate.py would stop, or ''}, by names alone; None without that folder."""
    if not os.path.isdir(root):
        return None
    try:
        tree = scan.scan(root, labels, unknown_class)
    except UserError as error:
        return {'found': {}, 'problem': str(error)}
    return {'found': dict(collections.Counter(entry.label for entry in tree.entries)), 'problem': ''}
