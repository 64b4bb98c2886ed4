"""The numbers of a run while it trains: log.csv, VisualDL, and which epoch is the best."""

import csv
import math
import sys
import time

from paddle.callbacks import Callback

from zodiac import files, metrics

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


def mean_over_processes(value):
    """The mean of a number over the processes of a distributed run; all of them must call it."""
    import paddle

    if paddle.distributed.get_world_size() == 1:
        return float(value)
    total = paddle.to_tensor([float(value)])
    paddle.distributed.all_reduce(total)
    return total.item() / paddle.distributed.get_world_size()


class RunLog(Callback):
    """Writes log.csv and VisualDL scalars, and tells the scores of each epoch.

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
        self.writer = None

    def go_on(self, rows, sums):
        """Take up the log of a stopped run: its rows, and what `sums` gave if it was stopped within an epoch."""
        self.rows = list(rows)
        self.so_far = sums

    def sums(self):
        """What the row of this epoch is made of so far, as JSON-ready values; of this process."""
        return dict(self.so_far)

    def _open(self):
        if not self.run_dir or self.writer:
            return
        from visualdl import LogWriter

        self.writer = LogWriter(logdir=f'{self.run_dir}/visualdl')
        for number, image in enumerate(self.samples):
            self.writer.add_image(f'train images/{number}', image, step=0)
        self._write_csv()

    def on_train_begin(self, logs=None):
        self._open()

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()

    def on_epoch_begin(self, epoch, logs=None):
        if self.clock.done == 0:
            self.so_far = {'images': 0, 'loss_sum': 0.0, 'seconds': 0.0}
        else:
            metric = self.model._metrics[0]
            metric.total, metric.count = list(self.so_far['hits']), list(self.so_far['hits_of'])
        self.started = time.perf_counter() - self.so_far['seconds']

    def on_train_batch_begin(self, step, logs=None):
        self.lr = self.model._optimizer.get_lr()  # the rate of this step; the schedule moves on right after it

    def on_train_batch_end(self, step, logs=None):
        metric = self.model._metrics[0]
        self.so_far = {
            'images': self.so_far['images'] + logs['batch_size'],
            'loss_sum': self.so_far['loss_sum'] + logs['loss'][0] * logs['batch_size'],
            'seconds': time.perf_counter() - self.started,
            'lr': self.lr,
            'hits': [float(total) for total in metric.total],
            'hits_of': [int(count) for count in metric.count],
        }
        self._scalars({'train/loss': logs['loss'][0], 'train/top1': logs['acc_top1'], 'train/lr': self.lr})

    def on_epoch_end(self, epoch, logs=None):
        done = self.so_far
        self.row = {
            'epoch': self.clock.epoch + 1,
            'step': self.clock.step,
            'lr': done['lr'],
            'train_loss': mean_over_processes(done['loss_sum'] / done['images']),
            'train_top1': mean_over_processes(done['hits'][0] / done['hits_of'][0]),
            'seconds': done['seconds'],
            'images_per_second': done['images'] / done['seconds'],
        }

    def on_eval_begin(self, logs=None):
        self._open()
        self.images, self.loss_sum = 0, 0.0

    def on_eval_batch_end(self, step, logs=None):
        self.images += logs['batch_size']
        self.loss_sum += logs['loss'][0] * logs['batch_size']

    def on_eval_end(self, logs=None):
        row = {
            **self.row,
            'valid_loss': mean_over_processes(self.loss_sum / self.images),
            'valid_top1': float(logs['acc_top1']),
        }
        self.rows.append(row)
        self._scalars({'valid/loss': row['valid_loss'], 'valid/top1': row['valid_top1']})
        if row['epoch']:
            self._scalars({'train/images_per_second': row['images_per_second']})
        if self.run_dir:
            self._write_csv()
            train = (
                f'train loss {row["train_loss"]:.4f} top1 {row["train_top1"]:.4f}, '
                f'{row["images_per_second"]:.1f} images/s, '
                if row['epoch']
                else ''
            )
            print(
                f'epoch {row["epoch"]}/{self.clock.epochs}: {train}valid loss {row["valid_loss"]:.4f} top1 {row["valid_top1"]:.4f}',
                file=sys.stderr,
            )

    def _scalars(self, values):
        if self.writer:
            for tag, value in values.items():
                self.writer.add_scalar(tag, float(value), self.clock.step)

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
                print(
                    f'stopping: {self.monitor} has not been better than {self.row[self.monitor]:.4f} (epoch '
                    f'{self.row["epoch"]}) for {self.patience} epochs (train.patience)',
                    file=sys.stderr,
                )

    def consider(self, row):
        """Compare the row of an epoch with the best one so far."""
        best = math.nan if self.row is None else self.row[self.monitor]
        self.improved = math.isnan(best) or self.sign * row[self.monitor] > self.sign * best
        if self.improved:
            self.row = row

    @property
    def exhausted(self):
        """Whether `patience` epochs have passed without a better one."""
        waited = self.log.rows[-1]['epoch'] - self.row['epoch'] if self.row else 0
        return self.patience > 0 and waited >= self.patience
