"""How numbers are written on pages, in plots and on the console."""


def percent(share):
    """0.975 -> '97.5 %'."""
    return f'{share:.1%}'.replace('%', ' %')


def decimals(value):
    """0.975 -> '0.9750'; None -> '–'."""
    return '–' if value is None else f'{value:.4f}'


def points(difference):
    """Percentage points of a difference of two shares: 0.025 -> '+2.5', -0.025 -> '−2.5' with a minus sign, not a hyphen."""
    return f'{100 * difference:+.1f}'.replace('-', '−')


def p_value(p):
    """A p-value and its meaning at the 5 % level."""
    number = 'p < 0.001' if p < 0.001 else f'p = {p:.2g}'
    meaning = 'the difference may be chance' if p >= 0.05 else 'so large a difference would rarely be chance'
    return f'{number}: {meaning}'


def count(number, noun):
    """(1, 'image') -> '1 image'; (7096, 'image') -> '7,096 images'."""
    return f'{number:,} {noun}' if number == 1 else f'{number:,} {noun}s'
