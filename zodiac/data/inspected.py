"""What annotate.py found each file to be, kept in data.root/.inspected, so that a second run reads only files that have changed.

It may be deleted at any time. One that is damaged, made by other code or with other settings counts as none. It holds, in this
order: the SHA-256 of the header; the header, a line of JSON; the paths below data.root, a line each; the stamp of each file
(see `file_facts`); the number of its verdict, uint32; the pictures of the usable ones.
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

from zodiac.base import files, sources
from zodiac.data import file_facts
from zodiac.data.file_facts import PICTURE, STAMP, Verdict

NAME = '.inspected'
LIBRARIES = {
    'PIL': 'pillow',
    'numpy': 'numpy',
    'simplejpeg': 'simplejpeg',
}  # that decide about a file: {module: package}


class Record(NamedTuple):
    """`outcome` is what the run has written, as `save` was told; `paths` (UTF-8 text) and `stamps` have one for each file."""

    path: str
    outcome: dict
    verdicts: list
    paths: bytes
    stamps: bytes
    findings: int  # where the verdicts begin
    findings_sha256: str


def made_by(*settings):
    """Hash of what findings depend on beside the files: our own code, the libraries, `settings`, the order of bytes."""
    versions = [_installed(*library) for library in LIBRARIES.items()]
    parts = [sources.code_hash('annotate'), versions, sys.byteorder, *settings]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _installed(module, package):
    """What stands for the version of a package, [] where it is not installed; importlib.metadata takes longer than all else here."""
    spec = importlib.util.find_spec(module)
    folder = os.path.dirname(os.path.dirname(spec.origin)) if spec and spec.origin else None
    return sorted(name for name in os.listdir(folder) if name.lower().startswith(f'{package}-')) if folder else []


def load(root, maker):
    """The `Record` of an earlier run by the same `maker`; None where there is none that is whole."""
    path = f'{root}/{NAME}'
    try:
        with open(path, 'rb') as file:
            told, line = file.readline().strip(), file.readline()
            if hashlib.sha256(line).hexdigest().encode() != told:
                return None
            header = json.loads(line)
            if header['maker'] != maker:
                return None
            paths, stamps = file.read(header['path_bytes']), file.read(header['files'] * STAMP.size)
            if _sha256([paths, stamps]) != header['listing_sha256']:
                return None
            verdicts = [Verdict(*verdict) for verdict in header['verdicts']]
            return Record(path, header['outcome'], verdicts, paths, stamps, file.tell(), header['findings_sha256'])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _sha256(parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def listing(root, entries):
    """The paths of entries below `root` as UTF-8 text, a line each."""
    start, text = len(root) + 1, bytearray()
    for entry in entries:
        text += entry.path[start:].encode() + b'\n'
    return text


def stamps(entries):
    """The stamps of files as they are now, one after another."""
    found = bytearray()
    for entry in entries:
        try:
            found += file_facts.stamp(os.stat(entry.path))
        except OSError:
            found += file_facts.NEVER
    return found


def recall(record, root, entries, now):
    """Fill in what is known of those entries whose stamps are as they were; returns the numbers of the others.

    Args:
        now: the stamps of the entries.
    """
    known = bytearray(len(entries))
    with contextlib.suppress(OSError), open(record.path, 'rb') as file:
        file.seek(record.findings)
        if files.sha256_of(file) == record.findings_sha256:
            file.seek(record.findings)
            numbers = array.array('I', file.read(len(record.stamps) // STAMP.size * 4))
            for at, number in enumerate(_positions(record, root, entries)):
                verdict = record.verdicts[numbers[at]]
                picture = b'' if verdict.reason else file.read(PICTURE.size)
                if number is not None and _at(record.stamps, at) == _at(now, number) != file_facts.NEVER:
                    entries[number].verdict, entries[number].picture = verdict, picture
                    known[number] = True
    return [number for number, is_known in enumerate(known) if not is_known]


def _at(stamps, number):
    return stamps[number * STAMP.size : (number + 1) * STAMP.size]


def _positions(record, root, entries):
    """For each file of the record the number of the entry of that path, or None."""
    paths = listing(root, entries)
    if paths == record.paths:
        return range(len(entries))
    return map({path: number for number, path in enumerate(io.BytesIO(paths))}.get, io.BytesIO(record.paths))


def save(root, maker, outcome, entries, stamps):
    """Write the record of a run. Raises UserError when it cannot be written."""
    numbers = {}
    verdicts = array.array('I', [numbers.setdefault(entry.verdict, len(numbers)) for entry in entries])
    paths = listing(root, entries)
    header = {
        'maker': maker,
        'outcome': outcome,
        'files': len(entries),
        'path_bytes': len(paths),
        'verdicts': list(numbers),
        'listing_sha256': _sha256([paths, stamps]),
        'findings_sha256': _sha256(itertools.chain([verdicts], (entry.picture for entry in entries))),
    }
    line = json.dumps(header).encode() + b'\n'
    with files.atomic_write(f'{root}/{NAME}', binary=True) as file:
        file.write(hashlib.sha256(line).hexdigest().encode() + b'\n' + line)
        file.writelines((paths, stamps, verdicts))
        file.writelines(entry.picture for entry in entries)
