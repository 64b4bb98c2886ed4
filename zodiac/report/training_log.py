"""Read a run's log.csv for its plot."""

import csv
import os
import sys

from zodiac.base import columns
from zodiac.base.errors import one_line


def read(path):
    """Rows of log.csv as dicts {column: int, float, or None for an empty cell}.

    A missing file (weights trained elsewhere) gives no rows; a damaged one gives none either, with a warning.
    """
    if not os.path.isfile(path):
        return []
    try:
        with open(path, encoding='utf-8', newline='') as file:
            return [_parse(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f'warning: {path}: is damaged ({one_line(error)}); the report will have no curves', file=sys.stderr)
        return []


def _parse(row):
    values = {column: None if row[column] == '' else float(row[column]) for column in columns.TAGS}
    return {'epoch': int(row['epoch']), 'step': int(row['step']), **values}
