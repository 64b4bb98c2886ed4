"""The columns of log.csv. A new one is declared here; its value comes from `Validation` or `RunLog`."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Column:
    """A column of log.csv.

    Attributes:
        tag: name of its curve in VisualDL; None for no curve there and in the report.
        lower_is_better: for a score, which train.monitor can name; None for any other column.
    """

    name: str
    tag: Optional[str] = None
    lower_is_better: Optional[bool] = None


LOG = (
    Column('epoch'),
    Column('step'),
    Column('lr', 'train/lr'),
    Column('train_loss', 'train/loss', lower_is_better=True),  # nats
    Column('train_top1', 'train/top1', lower_is_better=False),
    Column('valid_loss', 'valid/loss', lower_is_better=True),
    Column('valid_top1', 'valid/top1', lower_is_better=False),
    Column('seconds'),
    Column('images_per_second', 'train/images_per_second'),
)
NAMES = tuple(column.name for column in LOG)
TAGS = {column.name: column.tag for column in LOG if column.tag}
LOWER_IS_BETTER = {column.name: column.lower_is_better for column in LOG if column.lower_is_better is not None}
SCORES = tuple(LOWER_IS_BETTER)  # the values of train.monitor
