"""Figures whose labels need a font with Chinese."""

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from zodiac.report import figure


def title_fonts(path, title):
    """Save a figure with a title; returns the title's fonts."""
    with figure.png(str(path), 2, 2) as (_, axis):
        axis.set_title(title)
    return axis.title.get_fontfamily()


def test_the_settings_of_matplotlib_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    title_fonts(tmp_path / 'a.png', '$x$')
    assert dict(matplotlib.rcParams) == before


def test_a_font_installed_after_matplotlib_cached_its_list_is_found(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'new.ttf'
    write_font(path, '狗猫 cat')
    fonts = font_manager.fontManager
    monkeypatch.setattr(fonts, 'ttflist', list(fonts.ttflist))
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [str(tmp_path / 'broken.ttf'), str(path)])
    (tmp_path / 'broken.ttf').write_bytes(b'no font')
    monkeypatch.setattr(figure, 'CJK_FONTS', ('Just Installed',))
    for once in (figure._add_new_fonts, figure._warn_of_boxes):
        once.cache_clear()
    for number in range(2):
        assert 'Just Installed' in title_fonts(tmp_path / f'{number}.png', '狗猫')
    assert capsys.readouterr().err == ''
    figure._add_new_fonts.cache_clear()


def test_a_font_of_any_name_is_found_by_its_characters(tmp_path, monkeypatch, capsys):
    write_font(tmp_path / 'new.ttf', '狗猫')
    fonts = font_manager.fontManager
    monkeypatch.setattr(fonts, 'ttflist', [font for font in fonts.ttflist if font.name == 'DejaVu Sans'])
    monkeypatch.setattr(figure, 'CJK_FONTS', ())
    fonts.addfont(str(tmp_path / 'new.ttf'))
    figure._families_with.cache_clear()
    assert 'Just Installed' in title_fonts(tmp_path / 'a.png', '狗猫')
    assert capsys.readouterr().err == ''
    figure._families_with.cache_clear()


def test_fonts_are_not_searched_if_none_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(figure, 'CJK_FONTS', ())
    monkeypatch.setattr(figure, '_add_new_fonts', lambda: pytest.fail('searched'))
    title_fonts(tmp_path / 'a.png', 'dog')


def write_font(path, characters):
    """A font of the family Just Installed in which each of the characters is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = ['.notdef', *(f'u{ord(character):04X}' for character in sorted(set(characters)))]
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({int(name[1:], 16): name for name in names[1:]})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({'familyName': 'Just Installed', 'styleName': 'Regular'})
    font.setupOS2()
    font.setupPost()
    font.save(path)
