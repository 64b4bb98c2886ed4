"""Metadata of a weight file, such as its class names, appended to the file so that it survives copying and renaming.

It consists of JSON, its length, and MARK. `paddle.load` and `paddle.Model.load` ignore it: they stop at the end of the pickle.
"""

import json
import os
import struct
import unicodedata

MARK = b'zodiac 1'
TAIL = struct.Struct(f'<Q{len(MARK)}s')


def appended(facts):
    """The bytes to append to a weight file for `facts`, a dict that JSON can represent."""
    text = json.dumps(facts, ensure_ascii=False).encode()
    return text + TAIL.pack(len(text), MARK)


def read(path):
    """The facts of a file; {} if it does not exist or was written by another program."""
    try:
        with open(path, 'rb') as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL.size))
            length, mark = TAIL.unpack(file.read())
            if mark != MARK or length > size - TAIL.size:
                return {}
            file.seek(size - TAIL.size - length)
            facts = json.loads(file.read(length))
    except (OSError, ValueError, struct.error):
        return {}
    return normal(facts) if isinstance(facts, dict) else {}


def normal(facts):
    """`facts` with class names in Unicode NFC, like those of the settings; earlier versions stored NFD names on macOS."""
    names = labels(facts)
    if names:
        facts['identity']['data.labels'] = [unicodedata.normalize('NFC', name) for name in names]
    return facts


def labels(facts):
    """Class names, in order, that the weights were trained for; None if unknown."""
    identity = facts.get('identity')
    names = identity.get('data.labels') if isinstance(identity, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
