"""Callbacks of `paddle.Model.fit`: count steps, validate, average and save the weights, stop on signals."""

import os
import signal
import threading
import time

import numpy as np

from zodiac.base import device, stops
from zodiac.base.errors import Stopped
from zodiac.base.paddle_setup import paddle
from zodiac.models import freezing
from zodiac.training import checkpoint, collectives, processes, progress

Callback = paddle.callbacks.Callback
LONG = 120  # seconds that a run may take without a forecast
SPARED = 30  # seconds between the checkpoints of a training on features


class Clock(Callback):
    """Counts epochs, steps and images for the other callbacks; the first of them.

    Seeds each step by (seed, epoch, images before it, process), which determines the order of the images, their augmentation and
    dropout: a run resumed within an epoch does what it would have done.

    Attributes:
        epoch: current epoch, from 0; epochs: of the whole run.
        images, done: images and batches of this epoch that are done; steps: batches per epoch.
        step: batches of the run that are done.

    Args:
        every: read the metrics from the device every so many steps.
    """

    def __init__(self, loader, epochs, every=1):
        super().__init__()
        self.loader = loader
        self.epochs = epochs
        self.every = every
        self.steps = len(loader)
        self.epoch, self.images, self.done, self.step = 0, 0, 0, 0
        self.first = 0

    def start_from(self, epoch, images, step):
        """Begin after `step` batches: `epoch` whole epochs and `images` of the next one."""
        self.first = self.epoch = epoch
        self.images, self.step = images, step
        self.loader.set_epoch(epoch, skip=images)
        self.done = max(0, self.steps - len(self.loader))  # batches of another size than before may leave more

    @property
    def between_updates(self):
        """Whether gradients are accumulated that the optimizer has not used yet."""
        return self.images not in self.ends

    @property
    def reading(self):
        """Whether the metrics are read from the device after this step."""
        return self.done % self.every == 0 or self.done == self.steps

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > 0:
            self.images, self.done = 0, 0
        self.epoch = self.first + epoch
        self.loader.set_epoch(self.epoch, skip=self.images)
        batches = self.loader.batch_sampler
        self.bounds, self.ends = batches.bounds(), batches.ends() | {self.images}

    def on_train_batch_begin(self, step, logs=None):
        draws = np.random.SeedSequence([self.loader.images.seed, self.epoch, self.images, device.rank()])
        paddle.seed(int(draws.generate_state(1)[0]))
        self.model.waiting = self.bounds[step][1] not in self.ends

    def on_train_batch_end(self, step, logs=None):
        self.images = self.bounds[step][1]
        self.done += 1
        self.step += 1


class BatchNormAverage(Callback):
    """Averages the running statistics of BatchNorm over the processes after each step."""

    def on_train_batch_end(self, step, logs=None):
        collectives.average(freezing.moving_statistics(self.model.network))


class Interrupts(Callback):
    """A context manager that turns SIGINT (Ctrl-C) and SIGTERM into `Stopped`, raised between two optimizer steps.

    A second signal does what it did before, and so does the first one if no step follows.
    """

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.asked = 0  # number of the signal
        self.before = {}  # {signal: its handler}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in stops.SIGNALS}
        return self

    def __exit__(self, kind, error, trace):
        self._restore()
        if self.asked and not isinstance(error, Stopped):
            signal.raise_signal(self.asked)

    def _restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame):
        if self.asked:
            if time.monotonic() - self.asked_at < 1 and processes.launched():
                return  # Paddle's launcher sends each SIGTERM three times
            self._restore()
            signal.raise_signal(number)
            return
        self.asked, self.asked_at = number, time.monotonic()
        if device.rank() == 0:
            stops.say('\nstopping after this step; press Ctrl-C or send SIGTERM again to stop at once')

    def on_train_batch_end(self, step, logs=None):
        if self.clock.reading and not self.clock.between_updates:
            self._stop_if_asked()

    def on_eval_batch_end(self, step, logs=None):
        if (step + 1) % self.clock.every == 0:
            self._stop_if_asked()

    def _stop_if_asked(self):
        asked = int(collectives.highest(self.asked))
        if asked:
            raise Stopped(asked)


class Validation(Callback):
    """Validates the network after each epoch; the last of the callbacks.

    Calls on_eval_begin, on_eval_batch_end and on_eval_end of the others, the last one with columns of log.csv: the mean loss in nats
    and the accuracy from 0 to 1. Several processes share the images and get the same numbers.
    """

    def __init__(self, loader, watchers):
        super().__init__()
        self.loader = loader
        self.watchers = watchers

    def on_epoch_end(self, epoch, logs=None):
        self.run(self.model)

    def run(self, trainer):
        """Validate the network of a `Trainer`."""
        for watcher in self.watchers:
            watcher.on_eval_begin()
        trainer.network.eval()
        batches = []  # read from the device at the end
        with paddle.no_grad():
            for number, (images, labels) in enumerate(self.loader):
                logits = trainer.logits(images)
                loss = paddle.nn.functional.cross_entropy(logits, labels, reduction='sum')
                hits = (logits.argmax(1) == labels).astype('float32').sum()
                batches.append(paddle.stack([paddle.full([], float(len(labels))), loss, hits]))
                for watcher in self.watchers:
                    watcher.on_eval_batch_end(number)
        trainer.network.train()
        images, loss_sum, hits = collectives.add_up(paddle.stack(batches).astype('float64').sum(0)).tolist()
        for watcher in self.watchers:
            watcher.on_eval_end({'valid_loss': loss_sum / images, 'valid_top1': hits / images})


class ProgressBar(Callback):
    """Shows the progress of each epoch."""

    def __init__(self, clock, log):
        super().__init__()
        self.clock = clock
        self.log = log

    def on_epoch_begin(self, epoch, logs=None):
        clock = self.clock
        self.bar = progress.Bar(f'epoch {clock.epoch + 1}/{clock.epochs}', clock.steps, clock.done)

    def on_train_batch_end(self, step, logs=None):
        self.bar.update(f'loss {self.log.loss:.3f} top1 {self.log.top1:.3f}')

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()


class Forecast(Callback):
    """Says once how long the rest of the run takes, if that is more than LONG.

    Args:
        start: first epoch that it is measured in, from 1.
    """

    def __init__(self, clock, start=1):
        super().__init__()
        self.clock = clock
        self.start = start
        self.steps, self.began = -1, None  # since `began`; the first step is slower

    def on_train_batch_end(self, step, logs=None):
        clock = self.clock
        if clock.epoch + 1 < self.start or self.steps >= 3 or not clock.reading:
            return
        self.steps += 1
        if self.steps == 0:
            self.began = clock.step, time.monotonic()
        elif self.steps == 3:
            step, began = self.began
            left = (clock.epochs - clock.epoch) * clock.steps - clock.done
            seconds = (time.monotonic() - began) / (clock.step - step) * left
            if seconds > LONG:
                progress.note(
                    f'training takes about {seconds / 60:.0f} minutes more; Ctrl-C stops it, best/ keeps the best epoch'
                )


class Unfreeze(Callback):
    """Unfreezes parts of the network at the beginning of their epochs; in a resumed run, all whose epochs have come.

    With several parts this is gradual unfreezing (Howard and Ruder 2018, "Universal Language Model Fine-tuning").

    Args:
        parts: {epoch, counted from 1: names of parameters}, see `freezing.unfreezing`.
        keep_statistics: see `freezing.freeze`.
    """

    def __init__(self, clock, parts, keep_statistics=False):
        super().__init__()
        self.clock = clock
        self.parts = dict(parts)
        self.keep_statistics = keep_statistics

    def on_epoch_begin(self, epoch, logs=None):
        due = [number for number in self.parts if number <= self.clock.epoch + 1]
        for number in due:
            names = self.parts.pop(number)
            freezing.unfreeze(self.model.network, names, self.keep_statistics)
            children = dict.fromkeys(name.split('.')[0] for name in names)
            progress.note(f'from epoch {number} on, these layers learn too: {", ".join(children)}')
        if due:
            self.model.exchange_all_gradients()


class Ema(Callback):
    """Exponential moving average of the weights and BatchNorm statistics; the network holds it from each validation to the next epoch.

    average = d average + (1 - d) weights after step t of the optimizer, with d = min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, clock, decay):
        super().__init__()
        self.clock = clock
        self.decay = decay
        self.step = 0  # of the optimizer
        self.average = None
        self.weights = None  # the training weights while the network holds the average

    def on_train_begin(self, logs=None):
        if self.average is None:
            self.average = {name: value.clone() for name, value in self.model.network.state_dict().items()}

    def restore(self, average, step):
        """Continue with the average of a checkpoint, {name: Tensor}, after `step` steps of the optimizer."""
        self.average, self.step = average, step

    def on_train_batch_end(self, step, logs=None):
        if self.clock.between_updates:
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
    """Saves a checkpoint at the end of each epoch and every so many steps or minutes, and best/ after each best epoch.

    On features (train.views) an epoch can be ten times as quick as its checkpoint: one is then saved every SPARED seconds.

    Args:
        run_dir: folder of the run; None in a process that does not write.
        settings: the section `train` of the configuration.
        facts: JSON-ready dict that goes into each checkpoint, see `resume.facts`.
        log: the `RunLog` of the run.
        best: the `Best` of the run.
        ema: the `Ema` whose average is saved as the weights to use, or None.
    """

    def __init__(self, run_dir, clock, settings, facts, log, best, ema=None):
        super().__init__()
        self.run_dir = run_dir
        self.clock = clock
        self.settings = settings
        self.facts = facts
        self.log = log
        self.best = best
        self.ema = ema
        self.saved, self.saved_at = clock.step, time.monotonic()

    def on_train_batch_end(self, step, logs=None):
        steps, minutes = self.settings.save_steps, self.settings.save_minutes
        due = steps and self.clock.step - self.saved >= steps
        if minutes and self.clock.reading:  # the first process decides
            late = self.run_dir is not None and time.monotonic() - self.saved_at >= 60 * minutes
            due = collectives.highest(late) or due
        if due and not self.clock.between_updates and self.clock.done < self.clock.steps:
            self.save_within_epoch()

    def on_eval_end(self, logs=None):
        row = self.log.rows[-1]
        if self.best.improved and self.run_dir:  # first: a run that is killed in between gets here again
            contents = {checkpoint.WEIGHTS: self.model.network.state_dict()}
            checkpoint.save(f'{self.run_dir}/best', contents, {**self.facts, **self.best.row})
        last = row['epoch'] == self.clock.epochs or self.best.exhausted
        if last or not self.settings.views or time.monotonic() - self.saved_at > SPARED:
            self._save(row['epoch'], 0, valid_top1=row['valid_top1'], valid_loss=row['valid_loss'])

    def save_within_epoch(self):
        """Save a checkpoint before the epoch is validated; returns its folder, None in a process that does not write."""
        return self._save(self.clock.epoch, self.clock.images, sums=self.log.sums())

    def _save(self, epoch, images, **more):
        """Save checkpoints/step_<step>, after `epoch` whole epochs and `images` of the next one."""
        self.saved, self.saved_at = self.clock.step, time.monotonic()
        if not self.run_dir:
            return None
        rows = [row for row in self.log.rows if row['epoch'] <= epoch]
        place = {'epoch': epoch, 'images': images, 'step': self.clock.step}
        state = {**self.facts, **place, 'rows': rows, 'best': self.best.row, 'written': self.log.written(), **more}
        weights = self.model.network.state_dict()
        contents = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: self.model.optimizer.state_dict()}
        if self.ema and self.ema.average:
            contents[checkpoint.WEIGHTS] = self.ema.average
            contents[checkpoint.LEARNING] = self.ema.weights or weights
            state['ema_step'] = self.ema.step
        if self.model.loss_scale():
            state['loss_scale'] = self.model.loss_scale()
        folder = os.path.join(self.run_dir, 'checkpoints', f'step_{self.clock.step:07d}')
        checkpoint.save(folder, contents, state)
        checkpoint.prune(self.run_dir, self.settings.keep_checkpoints)
        return folder
