"""Find the images of a list: in which folder its paths begin, and where the files of Label Studio are."""

import os
import posixpath
import re
import unicodedata
import urllib.parse

from zodiac.base import files

ODD = re.compile(
    r'^/|/\.{0,2}/|^\.{1,2}/|\\|://'
)  # a whole path, one with segments that are empty, . or .., or an address
UPLOADED = re.compile(r'[0-9a-f]{8}-(?=.)')  # what Label Studio puts before the name of an uploaded file


class Search:
    """Find the images of a list.

    Args:
        folders: where relative paths may begin; the one with the most images of the sample is taken for all, the first of equals.
        sample: some of the paths.
    `told`: that folder, if it is not the first one.
    """

    def __init__(self, folders, sample):
        self.folders = list(
            dict.fromkeys('' if folder in ('', '.') else posixpath.normpath(folder) for folder in folders)
        )
        self.here = os.getcwd().replace(os.sep, '/').rstrip('/') + '/'
        counts = [
            sum(self._in(folder, path)[1] for path in sample if not _is_elsewhere(path)) for folder in self.folders
        ]
        best = counts.index(max(counts))
        self.folder = self.folders[best]
        self.told = (self.folder or 'the working directory') if best else ''

    def find(self, path):
        """(path for the index, whether there is such a file). Raises ValueError, with the reason, for a path that cannot be used."""
        if not ODD.search(path):
            return self._in(self.folder, path)
        if path.startswith('file://'):
            path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        elif '://' in path[:12]:
            raise ValueError(f'{files.printable(path)[:100]} is an address; download the images and list the files')
        if path.startswith('/data/'):
            name = _in_label_studio(path)
            if name and not os.path.isfile(path):
                return self._find_in_any(name)
        found, exists = self._in(self.folder, path)
        if '../' in path and not any(
            os.path.abspath(found).startswith(os.path.join(os.path.abspath(folder), ''))
            for folder in (*self.folders, '')
        ):
            raise ValueError(
                f'{files.printable(path)} leaves the folders of the list and of data.root; write the whole path'
            )
        return found, exists

    def _in(self, folder, path):
        """(path, whether it is a file) for a relative path that begins in a folder; a whole path stays."""
        found = (
            posixpath.normpath(posixpath.join(folder, path))
            if ODD.search(path)
            else f'{folder}/{path}'
            if folder
            else path
        )
        if os.path.isfile(found):
            return self._here(found), True
        for other in (found.replace('\\', '/'), *(unicodedata.normalize(form, found) for form in ('NFC', 'NFD'))):
            if other != found and os.path.isfile(other):
                return self._here(posixpath.normpath(other)), True
        return self._here(found), False

    def _here(self, path):
        return path[len(self.here) :] if path.startswith(self.here) else path

    def _find_in_any(self, name):
        """Like `find`, for a path whose first folders may be missing here, and which may have Label Studio's prefix before its name."""
        segments = name.strip('/').split('/')
        plain = UPLOADED.sub('', segments[-1], count=1) if UPLOADED.match(segments[-1]) else segments[-1]
        for last in dict.fromkeys((segments[-1], plain)):
            for start in range(len(segments)):
                for folder in self.folders:
                    found, exists = self._in(folder, '/'.join((*segments[start:-1], last)))
                    if exists:
                        return found, True
        whole = '/' + '/'.join(segments)
        return (whole, True) if os.path.isfile(whole) else (name, False)


def _is_elsewhere(path):
    return path.startswith('/') or '://' in path[:12]


def _in_label_studio(path):
    """The path of an image below Label Studio's storage, from the address that it exports; '' for any other path."""
    if path.startswith('/data/local-files/'):
        return urllib.parse.unquote(path.partition('?d=')[2])
    return urllib.parse.unquote(path[len('/data/') :]) if path.startswith('/data/upload/') else ''
