"""What the benchmarks say of a comparison in turns, and how they end."""

import shlex
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zodiac.base import errors


def summary(ratios):
    """The median and the range of the ratios of each turn, for the JSON line."""
    found = {'ratio': statistics.median(ratios), 'ratio_min': min(ratios), 'ratio_max': max(ratios)}
    return {name: round(value, 2) for name, value in found.items()}


def run(main):
    """`errors.run`, where a script that was measured and has failed is told in a line too."""

    def told():
        try:
            return main()
        except subprocess.CalledProcessError as error:
            said = str(error.stderr or '').strip().splitlines()[-1:]
            command = shlex.join(map(str, error.cmd))
            raise errors.UserError(': '.join([f'{command} ended with status {error.returncode}', *said])) from None

    errors.run(told)
