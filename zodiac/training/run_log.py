"""The log of a training: log.csv, VisualDL, and the best epoch. The columns are declared in zodiac/base/columns.py."""

import contextlib
import csv
import io
import math
import os
import sys
import time

from zodiac.base import columns, files
from zodiac.base.errors import UserError
from zodiac.base.paddle_setup import paddle

COUNTED = ('loss_sum', 'weight', 'hits', 'images')  # of an epoch so far, as Trainer.read returns them for a batch


class RunLog(paddle.callbacks.Callback):
    """Writes log.csv and VisualDL's curves, prints the scores of each epoch, and ends the run when the loss is not finite.

    Args:
        run_dir: folder of the run; None in a process that does not write.
        clock: the `Clock` of the run.
        samples: uint8 [N, height, width, 3], training images for VisualDL.
    """

    def __init__(self, run_dir, clock, samples=()):
        super().__init__()
        self.clock = clock
        self.run_dir = run_dir
        self.samples = samples
        self.rows = []
        self.so_far = {}  # see `sums`
        self.unread = []  # learning rates of the steps whose metrics have not been read
        self.loss = self.top1 = math.nan  # of the last step that was read, and of the epoch up to it
        self.writer = None

    def restore(self, rows, sums, written):
        """Continue the log of a stopped run.

        Args:
            rows: its rows.
            sums: what `sums` returned, if it was stopped within an epoch; else None.
            written: what `written` returned.
        """
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
        """The sums of this epoch so far, as JSON-ready values. Every process must call it."""
        self.read()
        return self.so_far

    def written(self):
        """{file: bytes} that VisualDL has written for this run."""
        if not self.writer:
            return {}
        self.writer._get_file_writer().flush()
        return self._records()

    def _records(self):
        """{name: bytes} of VisualDL's files; not of the subfolder, which is evaluate.py's."""
        folder = f'{self.run_dir}/visualdl'
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths = {name: f'{folder}/{name}' for name in names}
        return {name: os.path.getsize(path) for name, path in paths.items() if os.path.isfile(path)}

    def on_train_begin(self, logs=None):
        if not self.run_dir:
            return
        from visualdl import LogWriter  # its import fails with some versions of protobuf, which errors.run explains

        # a resumed run appends to its file: VisualDL's page shows only the last file of a folder
        name = max(self._records(), default='vdlrecords.0000000000.log')
        with contextlib.redirect_stdout(io.StringIO()):  # VisualDL prints that the file exists
            self.writer = LogWriter(f'{self.run_dir}/visualdl', file_name=name)
        if self.clock.step == 0:
            for number, image in enumerate(self.samples):
                self.writer.add_image(f'train images/{number}', image, step=0)
        self._write_csv()

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()

    def on_epoch_begin(self, epoch, logs=None):
        if self.clock.images == 0:
            self.so_far = {**dict.fromkeys(COUNTED, 0.0), 'seconds': 0.0}
        self.started = time.perf_counter() - self.so_far['seconds']

    def on_train_batch_begin(self, step, logs=None):
        self.lr = self.model.optimizer.get_lr()  # of this step; the schedule moves on right after it

    def on_train_batch_end(self, step, logs=None):
        self.unread.append(self.lr)
        if self.clock.reading:
            self.read()

    def read(self):
        """Read the metrics of the steps since the last call. Raises UserError for a loss that is not finite, before a checkpoint
        of it is saved."""
        first = self.clock.step - len(self.unread) + 1
        for number, (lr, counted) in enumerate(zip(self.unread, self.model.read().tolist())):
            loss = counted[0] / counted[1]
            if not math.isfinite(loss):
                back = len(self.unread) - 1 - number
                raise UserError(
                    f'the loss is {loss} at epoch {self.clock.epoch + 1}, step {self.clock.done - back} of that epoch; lower '
                    'optim.lr, raise optim.warmup_epochs, or check the images. The checkpoints of earlier epochs are kept'
                )
            sums = {name: self.so_far[name] + value for name, value in zip(COUNTED, counted)}
            self.so_far = {**self.so_far, **sums, 'lr': lr}
            self.loss, self.top1 = loss, sums['hits'] / sums['images']
            # of this step alone, like the loss: the share of an epoch so far would drop where each epoch begins
            self._draw({'train_loss': loss, 'train_top1': counted[2] / counted[3], 'lr': lr}, first + number)
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

    def on_eval_end(self, logs=None):
        row = {**self.row, **logs}
        self.rows.append(row)
        speed = row['images_per_second']
        self._draw({**logs, 'images_per_second': speed}, self.clock.step)
        if not self.run_dir:
            return
        self._write_csv()
        print(
            f'epoch {row["epoch"]}/{self.clock.epochs}: train loss {row["train_loss"]:.4f} top1 {row["train_top1"]:.4f}, '
            f'{speed:.1f} images/s, valid loss {row["valid_loss"]:.4f} top1 {row["valid_top1"]:.4f}',
            file=sys.stderr,
        )

    def _draw(self, values, step):
        """Add values of columns to their curves in VisualDL."""
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(columns.TAGS[name], float(value), step)

    def _write_csv(self):
        with files.atomic_write(f'{self.run_dir}/log.csv') as file:
            table = csv.DictWriter(file, columns.NAMES, lineterminator='\n')
            table.writeheader()
            table.writerows(
                {key: f'{value:.6g}' if isinstance(value, float) else value for key, value in row.items()}
                for row in self.rows
            )


class Best(paddle.callbacks.Callback):
    """Finds the best epoch by one column of log.csv, and stops the run after `patience` epochs without a better one.

    Attributes, after each validation: improved, whether it was the best so far; row, the row of log.csv of the best epoch.

    Args:
        log: the `RunLog` of the run.
        monitor: one of `columns.SCORES`.
        waits_for: the first epoch that counts for patience.
    """

    def __init__(self, log, monitor, patience=0, waits_for=1):
        super().__init__()
        self.log = log
        self.monitor = monitor
        self.patience = patience
        self.waits_for = waits_for
        self.sign = -1 if columns.LOWER_IS_BETTER[monitor] else 1
        self.row = None
        self.improved = False

    def restore(self, row):
        """Continue with the best epoch of a stopped run; None if there is none."""
        self.row = row

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
        """Why the run should stop, a text for the user: `patience` epochs without a better one. '' if it should not."""
        waited = self.log.rows[-1]['epoch'] - max(self.row['epoch'], self.waits_for - 1) if self.row else 0
        if not self.patience or waited < self.patience:
            return ''
        return (
            f'no better {self.monitor} than {self.row[self.monitor]:.4f} (epoch {self.row["epoch"]}) for {waited} '
            f'epoch{"s" * (waited > 1)} (train.patience = {self.patience})'
        )
