"""Hash the source code of modules and all that they import, so that changed code invalidates cached results."""

import functools
import hashlib
import os
import re

from zodiac.base.packages import ROOT

# Import statements; the ast module would take ten times as long.
IMPORTS = re.compile(r'^ *(?:from (\S+) import (\([^)]*\)|[^\n]*)|import ([^\n]*))', re.MULTILINE)


@functools.cache
def code_hash(*modules):
    """Hex digest of the source code of modules of this project, such as 'zodiac.data.cache' or 'dataset', and of those they import.

    It belongs in the cache key of whatever the modules compute. Raises ModuleNotFoundError.
    """
    digest = hashlib.sha256()
    for _, content in sorted(source_files(*modules).items()):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def source_files(*modules):
    """{path: bytes} of the modules and of every module of this project that they import, directly or indirectly."""
    found, seen, waiting = {}, set(), [*modules]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = os.path.join(ROOT, *name.split('.'))
        path = next(filter(os.path.isfile, (f'{path}.py', os.path.join(path, '__init__.py'))), None)
        if path is None and name in modules:
            raise ModuleNotFoundError(f'{name}: no such module in {ROOT}')
        if path is None or path in found:
            continue
        with open(path, 'rb') as file:
            found[path] = file.read()
        for package, names, alone in IMPORTS.findall(found[path].decode()):
            waiting += [package, *(f'{package}.{name}' for name in re.findall(r'\w+', names))]
            waiting += re.findall(r'[\w.]+', alone)
    return found
