"""Cached inspection results, in data.root/.inspected: a second run reads only files that have changed.

The file may be deleted at any time, and one that is damaged or was made by other code or settings is ignored. It holds, in this order:
the SHA-256 of the header; the header, one line of JSON; the paths below data.root, one per line; the stamp of each file (see `entry`);
the number of its verdict, uint32; the fingerprints of the usable images.
"""

import array
import contextlib
import hashlib
import importlib.util
import io
import itertools
import json
import os
import sys
from typing import NamedTuple

from zodiac.base import calls, files, sources
from zodiac.data.entry import FINGERPRINT, NEVER, STAMP, Verdict, stamp

NAME = '.inspected'
LIBRARIES = {'PIL': 'pillow', 'numpy': 'numpy', 'simplejpeg': 'simplejpeg'}  # that decode: {module: package}


class Cached(NamedTuple):
    """A loaded cache, up to its results. `run`: what `save` was given; `paths`: UTF-8 text; `stamps`: one per path."""

    path: str
    run: dict
    verdicts: list
    paths: bytes
    stamps: bytes
    results: int  # offset of the verdict numbers
    results_sha256: str


def key(*settings):
    """Hash of all that decides an inspection except the file: our code, the libraries, `settings`, the byte order."""
    versions = [_installed(*library) for library in LIBRARIES.items()]
    parts = [sources.code_hash(calls.module('annotate')), versions, sys.byteorder, *settings]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _installed(module, package):
    """The names of a package's metadata folders, which hold its version; [] if it is not installed. importlib.metadata is slow."""
    spec = importlib.util.find_spec(module)
    folder = os.path.dirname(os.path.dirname(spec.origin)) if spec and spec.origin else None
    return sorted(name for name in os.listdir(folder) if name.lower().startswith(f'{package}-')) if folder else []


def load(root, key):
    """The `Cached` results of an earlier run with the same `key`; None if there are none or they are damaged."""
    path = f'{root}/{NAME}'
    try:
        with open(path, 'rb') as file:
            header_sha256, line = file.readline().strip(), file.readline()
            if hashlib.sha256(line).hexdigest().encode() != header_sha256:
                return None
            header = json.loads(line)
            if header['key'] != key:
                return None
            paths, stamps = file.read(header['path_bytes']), file.read(header['files'] * STAMP.size)
            if _sha256([paths, stamps]) != header['listing_sha256']:
                return None
            verdicts = [Verdict(*verdict) for verdict in header['verdicts']]
            return Cached(path, header['run'], verdicts, paths, stamps, file.tell(), header['results_sha256'])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _sha256(parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def listing(root, entries):
    """The paths of entries below `root` as UTF-8 text, one per line; those of files elsewhere, which a list may name, after a slash."""
    below, text = f'{root.rstrip("/")}/', bytearray()
    start = len(below)
    for entry in entries:
        path = entry.path[start:] if entry.path.startswith(below) else f'/{entry.path}'
        text += path.encode() + b'\n'
    return text


def stamps(entries):
    """The current stamps of files, one after another."""
    found = bytearray()
    for entry in entries:
        try:
            found += stamp(os.stat(entry.path))
        except OSError:
            found += NEVER
    return found


def restore(cached, root, entries, now):
    """Fill in the cached results of entries whose stamps have not changed; returns the numbers of the other entries.

    Args:
        now: the current stamps of the entries.
    """
    known = bytearray(len(entries))
    with contextlib.suppress(OSError), open(cached.path, 'rb') as file:
        file.seek(cached.results)
        if files.sha256_of(file) == cached.results_sha256:
            file.seek(cached.results)
            numbers = array.array('I', file.read(len(cached.stamps) // STAMP.size * 4))
            for at, number in enumerate(_positions(cached, root, entries)):
                verdict = cached.verdicts[numbers[at]]
                fingerprint = b'' if verdict.reason else file.read(FINGERPRINT.size)
                if number is not None and _at(cached.stamps, at) == _at(now, number) != NEVER:
                    entries[number].verdict, entries[number].fingerprint = verdict, fingerprint
                    known[number] = True
    return [number for number, is_known in enumerate(known) if not is_known]


def _at(stamps, number):
    return stamps[number * STAMP.size : (number + 1) * STAMP.size]


def _positions(cached, root, entries):
    """For each cached file the number of the entry with that path, or None."""
    paths = listing(root, entries)
    if paths == cached.paths:
        return range(len(entries))
    return map({path: number for number, path in enumerate(io.BytesIO(paths))}.get, io.BytesIO(cached.paths))


def save(root, key, run, entries, stamps):
    """Write the cache.

    Args:
        run: a JSON-ready value to keep beside the results.
    Raises: UserError if the file cannot be written.
    """
    numbers = {}
    verdicts = array.array('I', [numbers.setdefault(entry.verdict, len(numbers)) for entry in entries])
    paths = listing(root, entries)
    header = {
        'key': key,
        'run': run,
        'files': len(entries),
        'path_bytes': len(paths),
        'verdicts': list(numbers),
        'listing_sha256': _sha256([paths, stamps]),
        'results_sha256': _sha256(itertools.chain([verdicts], (entry.fingerprint for entry in entries))),
    }
    line = json.dumps(header).encode() + b'\n'
    with files.atomic_write(f'{root}/{NAME}', binary=True) as file:
        file.write(hashlib.sha256(line).hexdigest().encode() + b'\n' + line)
        file.writelines((paths, stamps, verdicts))
        file.writelines(entry.fingerprint for entry in entries)
