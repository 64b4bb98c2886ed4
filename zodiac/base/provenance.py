"""What made a weight file, kept behind its content, so that a file that is copied or renamed still tells its classes.

`paddle.load` and `paddle.Model.load` read a file up to the end of its pickle and never see this: a line of JSON, its length, MARK.
"""

import json
import os
import struct
import unicodedata

MARK = b'zodiac 1'
TAIL = struct.Struct(f'<Q{len(MARK)}s')


def appended(facts):
    """bytes that go behind the content of a file, of JSON-ready `facts`."""
    text = json.dumps(facts, ensure_ascii=False).encode()
    return text + TAIL.pack(len(text), MARK)


def read(path):
    """The facts of a file; {} where it has none: it was written by another program, or is not there."""
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
    """The same facts with class names in Unicode's NFC, as the settings have them; earlier versions kept names as macOS spells them."""
    names = labels(facts)
    if names:
        facts['identity']['data.labels'] = [unicodedata.normalize('NFC', name) for name in names]
    return facts


def labels(facts):
    """Class names, in order, that weights with these facts were trained for; None where they are not known."""
    identity = facts.get('identity')
    names = identity.get('data.labels') if isinstance(identity, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
