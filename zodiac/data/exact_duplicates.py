"""Files with equal pixels, in any format.

A large JPEG is hashed at reduced size. Different JPEGs may share that hash, and no other format has it. So a JPEG that may have a
duplicate is decoded again in full, and its exact hash is compared.
"""

import array
import collections
import itertools

from zodiac.data.entry import UNKNOWN, exact, identity, pixels, with_exact


def need_exact_hash(entries):
    """The usable entries whose exact hash is needed: decoded at reduced size, and another JPEG has the same pixels at that size or
    another file the same full size.

    Exact hashes of other entries, from an earlier run, are dropped, so that the result is that of a first run.
    """
    reduced = [entry for entry in entries if entry.verdict.reduced]
    if not reduced:
        return []
    sizes_in_full = {entry.fingerprint[:8] for entry in entries if not entry.verdict.reduced}
    repeated = _repeated(hash(pixels(entry.fingerprint)) for entry in reduced)
    found = []
    for entry in reduced:
        if entry.fingerprint[:8] in sizes_in_full or hash(pixels(entry.fingerprint)) in repeated:
            found.append(entry)
        elif exact(entry.fingerprint) != UNKNOWN:
            entry.fingerprint = with_exact(entry.fingerprint, UNKNOWN)
    return found


def groups(entries):
    """Lists of two or more usable entries with equal pixels, in the order of the first entry of each."""
    repeated = _repeated(hash(identity(entry.fingerprint)) for entry in entries)
    found = collections.defaultdict(list)
    if repeated:
        for entry in entries:
            key = identity(entry.fingerprint)
            if hash(key) in repeated:
                found[key].append(entry)
    return [same for same in found.values() if len(same) > 1]


def _repeated(numbers):
    """The set of numbers that occur more than once. Sorting needs far less memory than a table of all entries."""
    ordered = array.array('q', sorted(numbers))
    return {one for one, following in zip(ordered, itertools.islice(ordered, 1, None)) if one == following}
