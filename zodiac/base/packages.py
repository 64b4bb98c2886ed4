"""Which packages a script needs, and the command that installs what is missing or repairs what is broken.

Only the standard library, and syntax of Python 3.8: this speaks where nothing else can be imported.
"""

import importlib.machinery
import importlib.util
import os
import re
import shlex
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASE, SERVE, DEPLOY, DEVELOP, WEIGHTS = (
    f'requirements-{name}.txt' for name in ('base', 'serve', 'deploy', 'dev', 'weights')
)
BUILDS = ('paddlepaddle', 'paddlepaddle-gpu')
MODULES = {'pillow': 'PIL', 'pyyaml': 'yaml', 'scikit-learn': 'sklearn', 'paddlepaddle': 'paddle'}
NEWEST_FOR_ONNX = (3, 12)  # Python that paddle2onnx, and the onnx that it works with, are published for
LIBRARIES = {'libgomp.so.1': 'libgomp1', 'libGL.so.1': 'libgl1', 'libstdc++.so.6': 'libstdc++6'}  # Debian's packages


def require(file, modules):
    """End the script with one line and status 1 where a module is missing; from now on also where one cannot be imported.

    Args:
        file: the requirements file that lists the packages.
        modules: list of str, top-level modules.
    """
    missing = [name for name in modules if not is_there(name)]
    if missing:
        sys.exit(f'error: {not_installed(missing, file)}')

    def show(kind, error, trace):
        said = diagnose(error, file)
        if said:
            print(f'error: {said}', file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = show


def is_there(module):
    """Whether Python finds a top-level module; nothing is imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # imported, by other means than a file
        return True


def module_of(package):
    """The name under which a package is imported."""
    return MODULES.get(package, package.replace('-', '_'))


def package_of(module):
    """The package that pip installs for a module."""
    return next((package for package, name in MODULES.items() if name == module), module.replace('_', '-'))


def diagnose(error, file=BASE):
    """One line, with the next step, on an exception raised by an import: of a package that is missing, or one that is broken.

    Args:
        file: the requirements file to look in first.
    Returns: str, '' where the exception is of no such import.
    """
    return absent(error, file) or broken(error)


def absent(error, file=BASE):
    """The same for a package that is missing."""
    name = (error.name or '').partition('.')[0] if isinstance(error, ModuleNotFoundError) else ''
    if not name or is_there(name) or os.path.exists(os.path.join(ROOT, f'{name}.py')):
        return ''
    user = _package_being_imported(error)
    if not user:
        return not_installed([name], file)
    return f'{package_of(user)} needs {name}, which is not installed; {install([user], file)}'


def broken(error):
    """The same for a package that is there, in its own words."""
    module = _package_being_imported(error)
    if not module or isinstance(error, MemoryError):
        return ''
    said = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
    package = next((build for build in BUILDS if installed_version(build)), '') if module == 'paddle' else ''
    package = package or package_of(module)
    place = getattr(importlib.util.find_spec(module), 'origin', None) or ''
    name = ' '.join(filter(None, [package, installed_version(package)]))
    return f'{name} cannot be imported ({said}); {remedy(said, place, pip(), reinstall(package))}'


def _package_being_imported(error):
    """The outermost package outside this project whose code was being imported when an exception was raised, '' without one."""
    known = {'paddle', *(module_of(name) for file in (BASE, SERVE, DEPLOY) for name in listed(file))}
    trace = error.__traceback__
    while trace:
        code, name = trace.tb_frame.f_code, trace.tb_frame.f_globals.get('__name__', '')
        if code.co_name == '<module>' and not code.co_filename.startswith(ROOT + os.sep + 'zodiac'):
            top = name.partition('.')[0]
            if '-packages' in code.co_filename or top in known:
                return top
        trace = trace.tb_next
    return ''


def remedy(said, place, pip, again):
    """What to do about a package that cannot be imported.

    Args:
        said: the exception; place: the file that Python took for the package, '' where not known.
        pip: how the user calls it; again: the command that installs the package again, where nothing else is known to help.
    """
    library = next((file for file in LIBRARIES if file in said), None)
    if place and '-packages' not in place:
        return f'rename {place}, which takes the place of the package'
    if 'Descriptors cannot' in said:
        return f"{pip} install 'protobuf>=3.20.2,<4'; see docs/troubleshooting.md#protobuf"
    if 'protobuf' in said:
        return f'{pip} install --upgrade protobuf; see docs/troubleshooting.md#protobuf'
    if any(words in said for words in ('numpy.core.multiarray', '_ARRAY_API', 'NumPy 1.x')):
        return f"{pip} install 'numpy<2'; see docs/troubleshooting.md#numpy-2"
    return f'apt-get install {LIBRARIES[library]}' if library else again


# The commands


def not_installed(missing, file=BASE):
    """What to say of modules that are missing; file: the requirements file to look in first."""
    names = ['Paddle' if name == 'paddle' else package_of(name) for name in missing]
    return f'not installed: {", ".join(names)}; {install(missing, file)}'


def install(missing, file=BASE):
    """The command that installs modules, ready to be pasted into a shell in the working directory.

    Paddle comes with the set for this machine, where there is none yet: AI Studio has its own. Beside Paddle 2, other packages are
    held to the versions that go with it.
    """
    files, others = [], []
    for module in missing:
        having = [name for name in (file, BASE, SERVE, DEPLOY, DEVELOP) if package_of(module) in listed(name)]
        if module == 'paddle':
            files.insert(0, paddle_set())
        elif having:
            files.append(having[0])
        else:
            others.append(package_of(module))
    if 'paddle' in missing:  # its set has the base
        files = [name for name in files if name != BASE]
    elif installed_version(*BUILDS).startswith('2.') and files:
        others += ["'numpy<2'", *(["'paddle2onnx<2'"] if DEPLOY in files else [])]
    return ' '.join([pip(), 'install', *(f'-r {here(name)}' for name in dict.fromkeys(files)), *dict.fromkeys(others)])


def reinstall(package):
    """The command that puts a package in place of what is left of it."""
    if package in BUILDS:
        return f'{pip()} uninstall -y {" ".join(BUILDS)} && {pip()} install -r {here(paddle_set())}'
    version = installed_version(package)
    return f'{pip()} install --force-reinstall --no-deps {package}' + (f'=={version}' if version else '')


def paddle_set():
    """The requirements file that has Paddle for this machine."""
    return 'requirements.txt' if shutil.which('nvidia-smi') else 'requirements-cpu.txt'


def pip():
    """How the user calls pip of this Python; where it has none, as in environments that uv makes, it is put there first."""
    call = f'{python()} -m pip'
    found = importlib.machinery.PathFinder.find_spec('pip')  # of setuptools' own finder the question has side effects
    return call if found else f'{python()} -m ensurepip && {call}'


def python():
    """How the user calls this Python: its name where that finds it, else its path."""
    for name in ('python', 'python3'):
        found = shutil.which(name)
        if found and os.path.abspath(found) == os.path.abspath(sys.executable):
            return name
    return shlex.quote(sys.executable)


def here(name):
    """A file of this project, as it is written in a shell in the working directory."""
    path = os.path.join(ROOT, name)
    return shlex.quote(min(os.path.relpath(path), path, key=len))


def listed(file):
    """The packages that a requirements file names, in its order; none for one that is not there, as on a server."""
    try:
        with open(os.path.join(ROOT, file), encoding='utf-8') as lines:
            found = [re.match(r'[A-Za-z][\w.-]*', line) for line in lines]
    except OSError:
        return []
    return [match.group().lower() for match in found if match]


def installed_version(*names):
    """The version of the first of some packages that is installed, '' without."""
    from importlib import metadata  # 40 ms, for errors only

    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ''
