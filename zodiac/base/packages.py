"""Find missing and broken packages, and the command that installs or repairs them.

Uses the standard library only, because it must work where nothing else can be imported.
"""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import sys

from zodiac.base.calls import FOLDER, ROOT, here, python

BASE, SERVE, DEPLOY, SWEEP, REVIEW, DEMO, WEIGHTS = (
    f'requirements-{name}.txt' for name in ('base', 'serve', 'deploy', 'sweep', 'review', 'demo', 'weights')
)
NEWEST_PYTHON = (3, 13)  # for which Paddle is published
BUILDS = ('paddlepaddle', 'paddlepaddle-gpu')
MODULES = {'pillow': 'PIL', 'pyyaml': 'yaml', 'scikit-learn': 'sklearn', 'paddlepaddle': 'paddle'}
LIBRARIES = {'libgomp.so.1': 'libgomp1', 'libGL.so.1': 'libgl1', 'libstdc++.so.6': 'libstdc++6'}  # packages of Debian
INCOMPATIBLE = (  # (parts of a message, any of them; how to fix it)
    (('Descriptors cannot',), "{pip} install 'protobuf>=3.20.2,<4'; see docs/troubleshooting.md#protobuf"),
    (
        ("Couldn't build proto file", 'google.protobuf'),
        '{pip} install --upgrade protobuf; see docs/troubleshooting.md#protobuf',
    ),
    (
        ('numpy.core.multiarray', '_ARRAY_API', 'NumPy 1.x', 'numpy.dtype size', "module 'numpy' has no attribute"),
        "{pip} install 'numpy<2'; see docs/troubleshooting.md#numpy-2",
    ),
)


def require(file, modules):
    """End the script with a one-line message and status 1 if one of `modules`, which the requirements `file` lists, is missing."""
    missing = [name for name in modules if not is_there(name)]
    if missing:
        sys.exit(f'error: {not_installed(missing, file)}')


def is_there(module):
    """Whether a top-level module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # imported from something other than a file
        return True


def module_of(package):
    """The import name of a package."""
    return MODULES.get(package, package.replace('-', '_'))


def package_of(module):
    """The package that contains a module."""
    return next((package for package, name in MODULES.items() if name == module), module.replace('_', '-'))


def diagnose(error, file=BASE):
    """A one-line message, with the next step, for an import error of a missing or broken package; '' for other exceptions.

    Args:
        file: the requirements file to look in first.
    """
    return absent(error, file) or broken(error)


def absent(error, file=BASE):
    """`diagnose` for missing packages."""
    name = (error.name or '').partition('.')[0] if isinstance(error, ModuleNotFoundError) else ''
    if not name or is_there(name) or os.path.exists(os.path.join(ROOT, f'{name}.py')):
        return ''
    user = _package_being_imported(error)
    if not user:
        return not_installed([name], file)
    return f'{package_of(user)} needs {name}, which is not installed; {install([user], file)}'


def broken(error):
    """`diagnose` for installed packages that cannot be imported, with the original message."""
    module = _package_being_imported(error)
    if not module or isinstance(error, MemoryError):
        return ''
    message = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
    package = next((build for build in BUILDS if installed_version(build)), '') if module == 'paddle' else ''
    package = package or package_of(module)
    place = getattr(importlib.util.find_spec(module), 'origin', None) or ''
    name = ' '.join(filter(None, [package, installed_version(package)]))
    return f'{name} cannot be imported ({message}); {remedy(message, place, package)}'


def _package_being_imported(error):
    """The outermost package outside this project that was being imported when an exception was raised; '' if there is none."""
    known = {'paddle', *(module_of(name) for file in (BASE, SERVE, DEPLOY) for name in requirements(file))}
    trace = error.__traceback__
    while trace:
        code, name = trace.tb_frame.f_code, trace.tb_frame.f_globals.get('__name__', '')
        imported = code.co_name == '<module>' and name != '__main__'  # python -m pytest is run, not imported
        if imported and not code.co_filename.startswith(ROOT + os.sep + 'zodiac'):
            top = name.partition('.')[0]
            if '-packages' in code.co_filename or top in known:
                return top
        trace = trace.tb_next
    return ''


def remedy(message, place, package):
    """How to repair a package that cannot be imported.

    Args:
        message: the exception; place: the file that Python found for the package, '' if unknown.
    """
    library = next((file for file in LIBRARIES if file in message), None)
    if place and '-packages' not in place:
        return f'rename {place}, which hides the package'
    if 'SIGILL' in message:
        return 'this processor lacks instructions that the package needs, such as AVX: use another machine'
    fix = fix_versions(message, pip())
    return fix or (f'apt-get install {LIBRARIES[library]}' if library else reinstall(package))


def fix_versions(message, pip):
    """The command that repairs incompatible versions of packages, from the message of an exception; '' for others."""
    found = (fix for words, fix in INCOMPATIBLE if any(word in message for word in words))
    return next(found, '').format(pip=pip)


def why_no_onnx():
    """(why no ONNX file can be written here, how to fix it); () if one can. ONNX Runtime compares it with the network."""
    missing = [name for name in ('onnx', 'onnxruntime') if not installed_version(name)]
    return (f'not installed: {", ".join(missing)}', install(missing, DEPLOY)) if missing else ()


# The commands


def not_installed(missing, file=BASE):
    """The message for missing modules; file: the requirements file to look in first."""
    names = ['Paddle' if name == 'paddle' else package_of(name) for name in missing]
    if 'paddle' in missing and sys.version_info[:2] > NEWEST_PYTHON:
        this, newest = ('.'.join(map(str, version)) for version in (sys.version_info[:2], NEWEST_PYTHON))
        return f'not installed: Paddle, which is not published for Python {this}; use Python 3.9 to {newest}'
    return f'not installed: {", ".join(names)}; {install(missing, file)}'


def install(missing, file=BASE):
    """The shell command that installs missing modules, for the working directory.

    A missing Paddle is installed from the requirements file for this machine; otherwise (as on AI Studio) it is left alone. With
    Paddle 2, other packages are limited to compatible versions.
    """
    files, others = [], []
    for module in missing:
        having = [
            name
            for name in (file, BASE, SERVE, DEPLOY, SWEEP, REVIEW, DEMO)
            if package_of(module) in requirements(name)
        ]
        if module == 'paddle':
            files.insert(0, paddle_set())
        elif having:
            files.append(having[0])
        else:
            others.append(package_of(module))
    if 'paddle' in missing:  # its requirements file includes the base
        files = [name for name in files if name != BASE]
    elif installed_version(*BUILDS).startswith('2.') and files:
        others.append("'numpy<2'")
    return ' '.join([pip(), 'install', *(f'-r {here(name)}' for name in dict.fromkeys(files)), *dict.fromkeys(others)])


def reinstall(package):
    """The command that reinstalls a package."""
    if package in BUILDS:
        return f'{pip()} uninstall -y {" ".join(BUILDS)} && {pip()} install -r {here(paddle_set())}'
    version = installed_version(package)
    return f'{pip()} install --force-reinstall --no-deps {package}' + (f'=={version}' if version else '')


def paddle_set():
    """The requirements file that includes the Paddle for this machine."""
    return 'requirements.txt' if shutil.which('nvidia-smi') else 'requirements-cpu.txt'


def pip():
    """The command for the pip of this Python; if it has none, as in environments made by uv, one that installs it first."""
    call = f'{python()} -m pip'
    found = importlib.machinery.PathFinder.find_spec('pip')  # not via setuptools' finder, which has side effects
    return call if found else f'{python()} -m ensurepip && {call}'


def requirements(file):
    """{package: its bounds, such as '>=1.24,<3'} of a requirements file, empty if there is no such file, as on a server.

    Lines for older versions of Python than this one are left out.
    """
    line = re.compile(r"([A-Za-z][\w.-]*)(?:\[[\w,-]+\])?([<>=!][^;#\s]*)?(?:\s*;\s*python_version < '(\d+)\.(\d+)')?")
    try:
        with open(os.path.join(FOLDER, file), encoding='utf-8') as lines:
            found = [match for match in map(line.match, lines) if match]
    except OSError:
        return {}
    return {
        name.lower().replace('_', '-'): bounds or ''
        for name, bounds, *below in (match.groups() for match in found)
        if not below[0] or sys.version_info < tuple(map(int, below))
    }


def installed_version(*names):
    """The version of the first of the packages that is installed; '' if none is."""
    from importlib import metadata  # takes 30 ms, which --help does without

    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ''
