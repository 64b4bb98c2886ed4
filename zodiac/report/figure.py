"""Matplotlib figures that can show Chinese, saved as PNG."""

import contextlib
import functools
import io
import re
import sys
import textwrap
import warnings

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from zodiac.base import files
from zodiac.base.fonts import CJK_FONTS


@contextlib.contextmanager
def png(path, width, height, rows=1, columns=1, layout='constrained', **shared):
    """Yield (figure, axes) of `width` x `height` inches to draw on; they are then saved as PNG.

    Neither pyplot nor matplotlib's settings, which belong to the user of a notebook, are changed.
    """
    settings = {'font.family': ['DejaVu Sans', *_installed_cjk_fonts()]}
    settings['text.parse_math'] = False  # a class name may contain dollar signs
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout=layout)
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, **shared)
        save(figure, path)


def set_title(figure, text):
    """Title of the whole figure, wrapped to its width."""
    columns = int((9 if text.isascii() else 5) * figure.get_figwidth())
    figure.suptitle(textwrap.fill(text, columns), fontsize='large')


def save(figure, path):
    """Write a figure as PNG. Warns once per process when no font has a character of it."""
    content, missing = _render(figure)
    if missing:
        _add_new_fonts()
        families = [*_installed_cjk_fonts(), *_families_with(missing)]
        if families:
            for text in figure.findobj(Text):
                text.set_fontfamily(['DejaVu Sans', *families])
            content, missing = _render(figure)
    if missing:
        _warn_of_boxes(missing)
    with files.atomic_write(path, binary=True) as file:
        file.write(content)


def _render(figure):
    """The PNG of a figure, and a character that no font has, or None."""
    buffer, missing = io.BytesIO(), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings('always', message='Glyph')
        figure.savefig(buffer, format='png', dpi=110)
    for warning in caught:
        glyph = re.match(r'Glyph (\d+)', str(warning.message))
        if glyph:
            missing = missing or chr(int(glyph[1]))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return buffer.getvalue(), missing


def _installed_cjk_fonts():
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in CJK_FONTS if name in installed]


@functools.lru_cache(maxsize=1)  # once per process
def _add_new_fonts():
    """Add the fonts installed since matplotlib cached its font list, which it does not refresh by itself."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(Exception):  # FreeType rejects a broken file; the other fonts still count
            font_manager.fontManager.addfont(path)


@functools.lru_cache(maxsize=64)
def _families_with(character):
    """Font families of any name that have a character; at most one."""
    for font in font_manager.fontManager.ttflist:
        with contextlib.suppress(OSError, RuntimeError):  # a font that is gone or damaged
            if font_manager.get_font(font.fname).get_char_index(ord(character)):
                return [font.name]
    return []


@functools.lru_cache(maxsize=1)  # once per process
def _warn_of_boxes(character):
    print(
        f'pictures: no installed font has {character!r} (U+{ord(character):04X}); a box is drawn in the PNG files instead (report.html has '
        'the fonts of the browser). Install one, for example fonts-noto-cjk; see docs/troubleshooting.md#chinese-fonts',
        file=sys.stderr,
    )
