"""How numbers are written on pages, in plots and on the console."""

import shutil
import unicodedata


def percent(share):
    """0.975 -> '97.5%'; None -> '–'."""
    return '–' if share is None else f'{share:.1%}'


def decimals(value):
    """0.97512 -> '0.975'; None -> '–'."""
    return '–' if value is None else f'{value:.3f}'


def points(difference):
    """Percentage points of a difference of two shares: 0.025 -> '+2.5', -0.025 -> '−2.5' with a minus sign, not a hyphen."""
    written = f'{100 * difference:+.1f}'.replace('-', '−')
    return '0.0' if written in ('+0.0', '−0.0') else written


def p_value(p):
    """0.0321 -> 'p = 0.032'; below 0.001 'p < 0.001'."""
    return 'p < 0.001' if p < 0.001 else f'p = {p:.2g}'


def count(number, noun):
    """(1, 'image') -> '1 image'; (7096, 'image') -> '7,096 images'."""
    return f'{number:,} {noun}' if number == 1 else f'{number:,} {noun}s'


def width(text):
    """Columns that a text takes on a terminal: two for a Chinese character."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in 'WF' else 1
        for character in text
    )


def columns():
    """Columns of the terminal; 80 where there is none, at least 40."""
    return max(40, shutil.get_terminal_size().columns)


def table(rows, columns=80):
    """Lines of a table, the first column to the left and the others to the right, for a terminal.

    Args:
        rows: lists of texts of equal length, the titles first.
        columns: of the terminal; if the table is wider, the texts of the first column are cut in the middle.
    """
    others = [max(width(row[place]) for row in rows) + 2 for place in range(1, len(rows[0]))]
    room = max(8, columns - sum(others))
    first = [short(row[0], room) for row in rows]
    most = max(map(width, first))
    return [
        name
        + ' ' * (most - width(name))
        + ''.join(' ' * (wide - width(cell)) + cell for cell, wide in zip(row[1:], others))
        for name, row in zip(first, rows)
    ]


def short(text, columns=24):
    """Text cut in the middle to at most `columns`; names often differ at the end. A Chinese character takes two columns."""
    if width(text) <= columns:
        return text
    tail_room = columns // 3
    head, tail = '', ''
    for character in text:
        if width(head + character) > columns - tail_room - 1:
            break
        head += character
    for character in reversed(text):
        if width(character + tail) > tail_room:
            break
        tail = character + tail
    return f'{head}…{tail}'
