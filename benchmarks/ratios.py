"""What the benchmarks say of a comparison in turns."""

import statistics


def summary(ratios):
    """The median and the range of the ratios of each turn, for the JSON line."""
    found = {'ratio': statistics.median(ratios), 'ratio_min': min(ratios), 'ratio_max': max(ratios)}
    return {name: round(value, 2) for name, value in found.items()}
