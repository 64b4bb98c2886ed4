"""Files that hold the same picture: equal pixels, whatever the format.

The hash of a large JPEG is of its pixels at reduced size, which other JPEGs may share and no other format has. So those that may
have a twin are decoded in full too, and compared by that.
"""

import array
import collections
import itertools

from zodiac.data import file_facts


def undecided(entries):
    """The usable entries whose exact hash is needed: decoded at reduced size, and another image was decoded to the same pixels at
    that size, or is of the same size and no such JPEG.

    The exact hashes of others, left from an earlier run, are forgotten, so that the outcome is that of a first run.
    """
    reduced = [entry for entry in entries if entry.verdict.reduced]
    if not reduced:
        return []
    in_full = {entry.picture[:8] for entry in entries if not entry.verdict.reduced}  # sizes
    twice = _twice(hash(file_facts.pixels(entry.picture)) for entry in reduced)
    found = []
    for entry in reduced:
        if entry.picture[:8] in in_full or hash(file_facts.pixels(entry.picture)) in twice:
            found.append(entry)
        elif file_facts.exact(entry.picture) != file_facts.UNKNOWN:
            entry.picture = file_facts.with_exact(entry.picture, file_facts.UNKNOWN)
    return found


def repeated(entries):
    """Lists of two or more usable entries that hold the same picture, in the order of the first of each."""
    twice = _twice(hash(file_facts.same_as(entry.picture)) for entry in entries)
    groups = collections.defaultdict(list)
    if twice:
        for entry in entries:
            key = file_facts.same_as(entry.picture)
            if hash(key) in twice:
                groups[key].append(entry)
    return [same for same in groups.values() if len(same) > 1]


def _twice(numbers):
    """The set of those that occur twice; sorting them takes far less memory than a table of all entries."""
    ordered = array.array('q', sorted(numbers))
    return {one for one, following in zip(ordered, itertools.islice(ordered, 1, None)) if one == following}
