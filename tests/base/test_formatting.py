"""How numbers are written."""

import pytest

from zodiac.base import formatting


@pytest.mark.parametrize(
    ('written', 'expected'),
    [
        (formatting.percent(0.975), '97.5%'),
        (formatting.percent(1), '100.0%'),
        (formatting.decimals(0.5), '0.500'),
        (formatting.decimals(None), '–'),
        (formatting.percent(None), '–'),
        (formatting.points(-0.0001), '0.0'),
        (formatting.points(0.025), '+2.5'),
        (formatting.points(-0.025), '−2.5'),
        (formatting.count(1, 'image'), '1 image'),
        (formatting.count(7096, 'image'), '7,096 images'),
        (formatting.p_value(0.21), 'p = 0.21'),
        (formatting.p_value(0.0321), 'p = 0.032'),
        (formatting.p_value(1e-9), 'p < 0.001'),
    ],
)
def test_a_number_is_written_as_everywhere(written, expected):
    assert written == expected


def test_a_table_is_aligned_also_with_chinese_names():
    lines = formatting.table([['class', 'images'], ['猫', '12'], ['a dog', '1,234']])
    assert lines == ['class  images', '猫         12', 'a dog   1,234']


def test_a_table_fits_a_narrow_terminal():
    rows = [
        ['class', 'precision', 'recall'],
        ['a very long name of a class, 1', '97.5%', '100.0%'],
        ['猫' * 30, '1.0%', '2.0%'],
    ]
    lines = formatting.table(rows, 40)
    assert [formatting.width(line) for line in lines] == [formatting.width(lines[0])] * 3 and formatting.width(
        lines[0]
    ) <= 40
    assert '…' in lines[1] and lines[1].endswith('97.5%  100.0%')


@pytest.mark.parametrize(
    ('text', 'cut'), [('abcdefghij', 'abcdefghij'), ('abcdefghijkl', 'abcdef…jkl'), ('猫' * 6, '猫猫猫…猫')]
)
def test_a_text_is_cut_in_the_middle(text, cut):
    assert formatting.short(text, 10) == cut
