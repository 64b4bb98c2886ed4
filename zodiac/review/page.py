"""report/review.html: the photos to look at, with the nearest photo of the suggested class beside each. One file, loads nothing."""

import os

from zodiac.base import files
from zodiac.pages import render
from zodiac.report import gallery, mistakes
from zodiac.review import listing

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'list.html')
SHOWN = 200  # photos; review.csv has all


def write(path, name, found, photos, neighbours, command, arch, language=None):
    """Write the page.

    Args:
        name: of the run; found: see `listing.rows`; photos: a `Photos`; neighbours: a `findings.Neighbours`.
        command: that opens the page on which people decide.
        arch: the network whose features were used.
        language: in which it opens, one of `render.LANGUAGES`; None for that of the browser.
    """
    folder, todo = os.path.dirname(path), listing.open_findings(found)
    shown = [_shown(row, photos, neighbours, folder) for row in todo[:SHOWN]]
    page = render.render(
        PAGE,
        language,
        name=name,
        n=len(found),
        kinds={kind: sum(row['kind'] == kind for row in todo) for kind in listing.ORDER},
        decided=sum(bool(row['decision']) for row in found),
        rows=shown,
        all=len(todo),
        command=command,
        arch=arch,
    )
    with files.atomic_write(path) as file:
        file.write(page)


def _shown(row, photos, neighbours, folder):
    other = row['twin']
    if other is None:
        other = next(iter(neighbours.of(row['number'], photos.names.index(row['suggested']), 1)), None)
    return {
        **row,
        'address': mistakes.address(row['path'], folder),
        'picture': gallery.thumbnail_of(row['path']),
        'other_label': None if other is None else photos.names[photos.labels[other]],
        'other_picture': None if other is None else gallery.thumbnail_of(photos.paths[other]),
    }
