"""Only says what `python sweep.py` is called now."""

import sys

from zodiac.base import calls

print(f'error: sweep.py has moved; run: {calls.command("sweep", *sys.argv[1:])}', file=sys.stderr)
sys.exit(2)
