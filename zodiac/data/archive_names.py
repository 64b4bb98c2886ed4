"""The encoding of names in archives that do not declare one."""

import re
import unicodedata

# Shift-JIS, Big5 and EUC-KR as on Windows, and others in use; chosen only if they give names that are looked for
OTHER_ENCODINGS = ('cp932', 'cp950', 'cp949', 'euc_jp', 'cp850', 'cp1252', 'cp866', 'cp1251')


def folded(name):
    """A name for comparison: lower case, and accents combined (macOS stores them as separate characters, NFD)."""
    return unicodedata.normalize('NFC', name).lower()


class NameDecoder:
    """Chooses the encoding of an archive's names.

    Args:
        wanted: an encoding, or 'auto'.
        known: folded names that are looked for.
        refuse: callable, text -> UserError about the archive.
    Attributes: encoding, the one chosen; '' if all names are ASCII or no encoding fits.
    """

    def __init__(self, wanted, known, refuse):
        self.wanted = wanted
        self.known = known
        self.refuse = refuse
        self.encoding = ''

    def choose(self, raw_names, prefer_gbk):
        """The encoding for all of an archive's names, as single short names are valid in several; None if none fits.

        Args:
            raw_names: bytes; those that do not declare their encoding.
            prefer_gbk: try GBK before UTF-8.
        Raises: UserError if `wanted` cannot decode a name.
        """
        raw_names = [raw for raw in raw_names if not raw.isascii()]
        if not raw_names:
            return 'utf-8'
        if self.wanted != 'auto':
            self._require(raw_names)
            self.encoding = self.wanted
            return self.wanted
        usual = ('gbk', 'utf-8') if prefer_gbk else ('utf-8', 'gbk')
        found = {encoding: self._count_known(raw_names, encoding) for encoding in (*usual, *OTHER_ENCODINGS)}
        best = max(found, key=found.get)  # the first of equals
        if found[best] <= 0:
            best = next((encoding for encoding in usual if found[encoding] == 0), '')
        self.encoding = best
        return best or None

    def _count_known(self, raw_names, encoding):
        """How many of the known names that are not ASCII appear in this encoding; -1 if a name cannot be decoded."""
        try:
            parts = {
                part for raw in raw_names for part in re.split(r'[/\\]', raw.decode(encoding)) if not part.isascii()
            }
        except UnicodeDecodeError:
            return -1
        return len(self.known & set(map(folded, parts)))

    def _require(self, raw_names):
        for raw in raw_names:
            try:
                raw.decode(self.wanted)
            except UnicodeDecodeError:
                raise self.refuse(
                    f'annotate.encoding = {self.wanted} cannot decode the name {raw!r}; set another encoding'
                ) from None
