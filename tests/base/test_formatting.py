"""How numbers are written."""

import pytest

from zodiac.base import formatting


@pytest.mark.parametrize(
    ('written', 'expected'),
    [
        (formatting.percent(0.975), '97.5 %'),
        (formatting.percent(1), '100.0 %'),
        (formatting.decimals(0.5), '0.5000'),
        (formatting.decimals(None), '–'),
        (formatting.points(0.025), '+2.5'),
        (formatting.points(-0.025), '−2.5'),
        (formatting.count(1, 'image'), '1 image'),
        (formatting.count(7096, 'image'), '7,096 images'),
        (formatting.p_value(0.21), 'p = 0.21: the difference may be chance'),
        (formatting.p_value(0.0321), 'p = 0.032: so large a difference would rarely be chance'),
        (formatting.p_value(1e-9), 'p < 0.001: so large a difference would rarely be chance'),
    ],
)
def test_a_number_is_written_as_everywhere(written, expected):
    assert written == expected
