"""What happens during `paddle.Model.fit`: epochs numbered, progress shown, logs written, checkpoints kept, faults stopped."""

import csv
import math
import os
import signal
import sys
import threading
import time

import numpy as np
from paddle.callbacks import Callback
from tqdm import tqdm

from zodiac import checkpoint, device, files, model
from zodiac.errors import UserError

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


class Epochs(Callback):
    """Makes an epoch a function of (seed, epoch, process): its order, its augmentation, and the draws of its dropout."""

    def __init__(self, loader):
        super().__init__()
        self.loader = loader

    def on_epoch_begin(self, epoch, logs=None):
        import paddle

        self.loader.set_epoch(epoch)
        draws = np.random.SeedSequence([self.loader.images.seed, epoch, device.rank()])
        paddle.seed(int(draws.generate_state(1)[0]))


class StopOnBadLoss(Callback):
    """Ends the run at the first loss that is not finite, before a checkpoint of it is kept."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, step, logs=None):
        loss = logs['loss'][0]
        if not math.isfinite(loss):
            raise UserError(
                f'the loss is {loss} at epoch {self.epoch + 1}, step {step + 1} of that epoch; lower optim.lr, raise '
                'optim.warmup_epochs or check the images. The checkpoints of the epochs before are kept'
            )


class Interrupts(Callback):
    """Turns Ctrl-C into a KeyboardInterrupt between two batches, when the weights are whole; a second one acts at once."""

    def __init__(self):
        super().__init__()
        self.asked = False

    def on_train_begin(self, logs=None):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._ask)  # after Paddle's import, which sets its own

    def on_train_end(self, logs=None):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask(self, number, frame):
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print('\nstopping after this step; press Ctrl-C again to leave at once', file=sys.stderr)

    def on_train_batch_end(self, step, logs=None):
        if self.asked:
            raise KeyboardInterrupt

    on_eval_batch_end = on_train_batch_end


class Progress(Callback):
    """A progress bar on a terminal; elsewhere a line every `every` seconds."""

    def __init__(self, every=20.0):
        super().__init__()
        self.every = every

    def on_epoch_begin(self, epoch, logs=None):
        title = f'epoch {epoch + 1}/{self.params["epochs"]}'
        self.bar = tqdm(total=self.params['steps'], desc=title, unit='step', leave=False, disable=None)
        self.title = title
        self.said = time.monotonic()

    def on_train_batch_end(self, step, logs=None):
        scores = f'loss {logs["loss"][0]:.3f} top1 {logs["acc_top1"]:.3f}'
        self.bar.set_postfix_str(scores, refresh=False)
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.said > self.every:
            self.said = time.monotonic()
            print(f'{self.title}, step {step + 1}/{self.params["steps"]}: {scores}', file=sys.stderr, flush=True)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()


class RunLog(Callback):
    """Writes log.csv and VisualDL scalars, and tells the scores of each epoch.

    Args:
        run_dir: folder of the run; None on a process that does not write.
        epochs: number of epochs of the run.
        samples: uint8 array [N, height, width, 3] of training images for VisualDL.
    """

    def __init__(self, run_dir, epochs, samples=()):
        super().__init__()
        self.epochs = epochs
        self.run_dir = run_dir
        self.samples = samples
        self.rows = []
        self.row = {'epoch': 0, 'step': 0}  # of a validation before the first step
        self.step = 0
        self.writer = None

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
        self.images, self.loss_sum, self.started = 0, 0.0, time.perf_counter()

    def on_train_batch_begin(self, step, logs=None):
        self.lr = self.model._optimizer.get_lr()  # the rate of this step; the schedule moves on right after it

    def on_train_batch_end(self, step, logs=None):
        self.step += 1
        self.images += logs['batch_size']
        self.loss_sum += logs['loss'][0] * logs['batch_size']
        self._scalars({'train/loss': logs['loss'][0], 'train/top1': logs['acc_top1'], 'train/lr': self.lr})

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.started
        self.row = {
            'epoch': epoch + 1,
            'step': self.step,
            'lr': self.lr,
            'train_loss': mean_over_processes(self.loss_sum / self.images),
            'train_top1': mean_over_processes(logs['acc_top1']),
            'seconds': seconds,
            'images_per_second': self.images / seconds,
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
                f'epoch {row["epoch"]}/{self.epochs}: {train}valid loss {row["valid_loss"]:.4f} top1 {row["valid_top1"]:.4f}',
                file=sys.stderr,
            )

    def _scalars(self, values):
        if self.writer:
            for tag, value in values.items():
                self.writer.add_scalar(tag, float(value), self.step)

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
        self.sign = -1 if monitor.endswith('loss') else 1
        self.row = None
        self.improved = False

    def on_eval_end(self, logs=None):
        row = self.log.rows[-1]
        best = math.nan if self.row is None else self.row[self.monitor]
        self.improved = math.isnan(best) or self.sign * row[self.monitor] > self.sign * best
        if self.improved:
            self.row = row
        elif self.patience and row['epoch'] - self.row['epoch'] >= self.patience:
            self.model.stop_training = True
            if self.log.run_dir:
                print(
                    f'stopping: {self.monitor} has not been better than {self.row[self.monitor]:.4f} (epoch '
                    f'{self.row["epoch"]}) for {self.patience} epochs (train.patience)',
                    file=sys.stderr,
                )


class Unfreeze(Callback):
    """Lets the named parameters learn from an epoch on, counted from 1."""

    def __init__(self, epoch, frozen):
        super().__init__()
        self.epoch = epoch
        self.frozen = frozen

    def on_epoch_begin(self, epoch, logs=None):
        if epoch + 1 != self.epoch:
            return
        model.unfreeze(self.model.network, self.frozen)
        adapter = self.model._adapter
        if adapter._nranks > 1:  # the exchange of gradients is set up for the parameters that learn at that time
            import paddle

            self.before = adapter.ddp_model  # Paddle's hooks on the parameters point into it as long as they live
            adapter.ddp_model = paddle.DataParallel(self.model.network)


class Ema(Callback):
    """An exponential moving average of the weights and BatchNorm statistics, in the network from each validation until the
    next epoch.

    average = d average + (1 - d) weights after every step t of the optimizer, with d = min(decay, (1 + t) / (10 + t)), as
    in TensorFlow's ExponentialMovingAverage.

    Args:
        parts: batches a step of the optimizer.
    """

    def __init__(self, decay, parts=1):
        super().__init__()
        self.decay = decay
        self.parts = parts
        self.step = 0
        self.average = None
        self.weights = None  # those of the training, while the averaged ones are in the network

    def on_train_begin(self, logs=None):
        self.average = {name: value.clone() for name, value in self.model.network.state_dict().items()}

    def on_train_batch_end(self, step, logs=None):
        if (step + 1) % self.parts and step + 1 != self.params['steps']:
            return
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.network.state_dict().items():
            average = self.average[name]
            self.average[name] = average + (value.detach() - average) * (1 - decay)

    def on_eval_begin(self, logs=None):
        self.weights = {name: value.clone() for name, value in self.model.network.state_dict().items()}
        self.model.network.set_state_dict(self.average)

    def on_epoch_begin(self, epoch, logs=None):
        self._back_to_training()

    def on_train_end(self, logs=None):
        self._back_to_training()

    def _back_to_training(self):
        if self.weights:
            self.model.network.set_state_dict(self.weights)
            self.weights = None


class Checkpoints(Callback):
    """Keeps a checkpoint of each epoch and of each `save_steps` steps, the newest `keep`, and that of the best epoch.

    Args:
        save_steps: 0 for none within an epoch.
        facts: JSON-ready dict that goes into each checkpoint.
        best: the `Best` that is asked after each validation.
        ema: the `Ema` whose average is the model to use, or None.
    """

    def __init__(self, run_dir, keep, save_steps, facts, best, ema=None):
        super().__init__()
        self.run_dir = run_dir
        self.keep = keep
        self.save_steps = save_steps
        self.facts = facts
        self.best = best
        self.ema = ema
        self.step = 0
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, step, logs=None):
        self.step += 1
        if self.save_steps and self.step % self.save_steps == 0:
            self.save_last(epoch=self.epoch)

    def on_eval_end(self, logs=None):
        row = self.best.log.rows[-1]
        self.save_last(epoch=row['epoch'], valid_top1=row['valid_top1'], valid_loss=row['valid_loss'])
        if self.best.improved:
            contents = {checkpoint.WEIGHTS: self.model.network.state_dict()}
            checkpoint.save(f'{self.run_dir}/best', contents, {**self.facts, **self.best.row})

    def save_last(self, epoch, **metrics):
        """Write checkpoints/step_<step>: weights and optimizer after the step just done, `epoch` of them complete."""
        weights = self.model.network.state_dict()
        contents = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: self.model._optimizer.state_dict()}
        if self.ema and self.ema.average:
            contents[checkpoint.WEIGHTS] = self.ema.average
            contents[checkpoint.LEARNING] = self.ema.weights or weights
        folder = os.path.join(self.run_dir, 'checkpoints', f'step_{self.step:07d}')
        checkpoint.save(folder, contents, {**self.facts, 'epoch': epoch, 'step': self.step, **metrics})
        checkpoint.prune(self.run_dir, self.keep)
        return folder
