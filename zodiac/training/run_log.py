"""The numbers of a run while it trains: log.csv, VisualDL, and which epoch is the best."""

import contextlib
import csv
import io
import math
import os
import sys
import time

from paddle.callbacks import Callback

from zodiac.base import files
from zodiac.base.errors import UserError
from zodiac.report import metrics

LOG_COLUMNS = (
    'epoch',
    'step',
    'lr',
    'train_loss',
    'train_top1',
    'valid_loss',
    'valid_top1',
    'seconds',
    'images_per_second',
)
COUNTED = ('loss_sum', 'weight', 'hits', 'images')  # of an epoch so far, as Trainer.read has them of a batch


class RunLog(Callback):
    """Writes log.csv and VisualDL scalars, tells the scores of each epoch, and ends the run at a loss that is not finite.

    Args:
        run_dir: folder of the run; None on a process that does not write.
        clock: the `Clock` of the run.
        samples: uint8 array [N, height, width, 3] of training images for VisualDL.
    """

    def __init__(self, run_dir, clock, samples=()):
        super().__init__()
        self.clock = clock
        self.run_dir = run_dir
        self.samples = samples
        self.rows = []
        self.row = {'epoch': 0, 'step': 0}  # of a validation before the first step
        self.so_far = {}  # what the row of this epoch is made of, see `sums`
        self.unread = []  # learning rates of the steps that are not in it yet
        self.loss = self.top1 = math.nan  # of the step last read, and of the epoch up to there
        self.writer = None

    def go_on(self, rows, sums, written):
        """Take up the log of a stopped run: its rows, what `sums` gave if it was stopped within an epoch, and `written`."""
        self.rows = list(rows)
        if sums:
            sums = dict(sums)
            if 'by_process' in sums:  # of an earlier version: (images, loss_sum, hits) of each process
                images, loss_sum, hits = map(sum, zip(*sums.pop('by_process')))
                sums.update(loss_sum=loss_sum, weight=images, hits=hits, images=images)
            self.so_far = sums
        for name, size in self._records().items() if self.run_dir else ():
            if name in written:
                os.truncate(f'{self.run_dir}/visualdl/{name}', min(written[name], size))
            else:
                os.unlink(f'{self.run_dir}/visualdl/{name}')

    def sums(self):
        """What the row of this epoch is made of so far, as JSON-ready values; all processes must call it."""
        self.read()
        return self.so_far

    def written(self):
        """{file: bytes} of what VisualDL has of the run so far."""
        if not self.writer:
            return {}
        self.writer._get_file_writer().flush()
        return self._records()

    def _records(self):
        """{name: bytes} of VisualDL's files of the run; evaluate.py has a folder of its own among them."""
        folder = f'{self.run_dir}/visualdl'
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths = {name: f'{folder}/{name}' for name in names}
        return {name: os.path.getsize(path) for name, path in paths.items() if os.path.isfile(path)}

    def _open(self):
        if not self.run_dir or self.writer:
            return
        from visualdl import LogWriter

        folder, first = f'{self.run_dir}/visualdl', 'vdlrecords.0000000000.log'
        # a run that goes on adds to its file: of several in a folder VisualDL's page shows the last one alone
        with contextlib.redirect_stdout(io.StringIO()):  # it says that there is a file
            self.writer = LogWriter(folder, file_name=max(self._records(), default=first))
        if self.clock.step == 0:
            for number, image in enumerate(self.samples):
                self.writer.add_image(f'train images/{number}', image, step=0)
        self._write_csv()

    def on_train_begin(self, logs=None):
        self._open()

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()

    def on_epoch_begin(self, epoch, logs=None):
        if self.clock.images == 0:
            self.so_far = {**dict.fromkeys(COUNTED, 0.0), 'seconds': 0.0}
        self.started = time.perf_counter() - self.so_far['seconds']

    def on_train_batch_begin(self, step, logs=None):
        self.lr = self.model._optimizer.get_lr()  # the rate of this step; the schedule moves on right after it

    def on_train_batch_end(self, step, logs=None):
        self.unread.append(self.lr)
        if self.clock.reading:
            self.read()

    def read(self):
        """Take up the steps that have not been read yet. Raises UserError for a loss that is not finite, before a checkpoint of
        it is kept."""
        first = self.clock.step - len(self.unread) + 1
        for number, (lr, counted) in enumerate(zip(self.unread, self.model.read().tolist())):
            loss = counted[0] / counted[1]
            if not math.isfinite(loss):
                back = len(self.unread) - 1 - number
                raise UserError(
                    f'the loss is {loss} at epoch {self.clock.epoch + 1}, step {self.clock.done - back} of that epoch; lower '
                    'optim.lr, raise optim.warmup_epochs or check the images. The checkpoints of the epochs before are kept'
                )
            sums = {name: self.so_far[name] + value for name, value in zip(COUNTED, counted)}
            self.so_far = {**self.so_far, **sums, 'lr': lr}
            self.loss, self.top1 = loss, sums['hits'] / sums['images']
            self._scalars({'train/loss': loss, 'train/top1': self.top1, 'train/lr': lr}, first + number)
        self.so_far['seconds'] = time.perf_counter() - self.started
        self.unread = []

    def on_epoch_end(self, epoch, logs=None):
        loss_sum, weight, hits, images = (self.so_far[name] for name in COUNTED)
        seconds = self.so_far['seconds']
        self.row = {
            'epoch': self.clock.epoch + 1,
            'step': self.clock.step,
            'lr': self.so_far['lr'],
            'train_loss': loss_sum / weight,
            'train_top1': hits / images,
            'seconds': seconds,
            'images_per_second': images / seconds,
        }

    def on_eval_begin(self, logs=None):
        self._open()

    def on_eval_end(self, logs=None):
        row = {**self.row, 'valid_loss': logs['loss'], 'valid_top1': logs['top1']}
        self.rows.append(row)
        self._scalars({'valid/loss': row['valid_loss'], 'valid/top1': row['valid_top1']})
        if row['epoch']:
            self._scalars({'train/images_per_second': row['images_per_second']})
        if not self.run_dir:
            return
        self._write_csv()
        train = (
            f'train loss {row["train_loss"]:.4f} top1 {row["train_top1"]:.4f}, {row["images_per_second"]:.1f} images/s, '
            if row['epoch']
            else ''
        )
        print(
            f'epoch {row["epoch"]}/{self.clock.epochs}: {train}valid loss {row["valid_loss"]:.4f} top1 {row["valid_top1"]:.4f}',
            file=sys.stderr,
        )

    def _scalars(self, values, step=None):
        if self.writer:
            for tag, value in values.items():
                self.writer.add_scalar(tag, float(value), self.clock.step if step is None else step)

    def _write_csv(self):
        with files.atomic_write(f'{self.run_dir}/log.csv') as file:
            table = csv.DictWriter(file, LOG_COLUMNS, lineterminator='\n')
            table.writeheader()
            table.writerows(
                {key: f'{value:.6g}' if isinstance(value, float) else value for key, value in row.items()}
                for row in self.rows
            )


class Best(Callback):
    """Remembers the best epoch by one column of log.csv, and stops the run when `patience` epochs bring no better one.

    A loss is better when it is lower, an accuracy when it is higher. After each validation `improved` tells whether it was
    the best so far; `row` is the row of log.csv of the best one.
    """

    def __init__(self, log, monitor, patience=0):
        super().__init__()
        self.log = log
        self.monitor = monitor
        self.patience = patience
        self.sign = -1 if metrics.lower_is_better(monitor) else 1
        self.row = None
        self.improved = False

    def on_eval_end(self, logs=None):
        self.consider(self.log.rows[-1])
        if self.exhausted:
            self.model.stop_training = True
            if self.log.run_dir:
                print(f'stopping: {self.exhausted}', file=sys.stderr)

    def consider(self, row):
        """Compare the row of an epoch with the best one so far."""
        best = math.nan if self.row is None else self.row[self.monitor]
        self.improved = math.isnan(best) or self.sign * row[self.monitor] > self.sign * best
        if self.improved:
            self.row = row

    @property
    def exhausted(self):
        """Why the run is to stop, a text for the user: `patience` epochs have passed without a better one. '' where they have not."""
        waited = self.log.rows[-1]['epoch'] - self.row['epoch'] if self.row else 0
        if not self.patience or waited < self.patience:
            return ''
        return (
            f'{self.monitor} has not been better than {self.row[self.monitor]:.4f} (epoch {self.row["epoch"]}) for '
            f'{waited} epochs (train.patience = {self.patience})'
        )
