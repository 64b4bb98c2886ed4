"""What happens during `paddle.Model.fit`: steps numbered, progress shown, weights averaged and kept, faults stopped."""

import os
import signal
import sys
import threading
import time

import numpy as np
from paddle.callbacks import Callback
from tqdm import tqdm

from zodiac.base import device, stops
from zodiac.base.errors import Stopped
from zodiac.models import freezing
from zodiac.training import checkpoint, processes

SPARED = 30  # seconds of training on features that need no checkpoint


class Clock(Callback):
    """Where the run stands, for the others to read; comes first among the callbacks.

    Makes each step a function of (seed, epoch, batch, process) alone: the order of the images, their augmentation and the
    draws of dropout. So a run that goes on in the middle of an epoch does what it would have done.

    Attributes: epoch, from 0; images, of this epoch that are behind; done, batches of this epoch that are behind; steps,
    batches of a whole epoch; step, batches of the run that are behind; epochs, of the whole run.

    Args:
        every: steps after which the device is asked what they have come to.
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
        """Begin after `step` batches, of which `epoch` epochs are complete and `images` of the next one are behind."""
        self.first = self.epoch = epoch
        self.images, self.step = images, step
        self.loader.set_epoch(epoch, skip=images)
        self.done = max(0, self.steps - len(self.loader))  # with batches of another size than before, more may be left

    @property
    def between_updates(self):
        """Whether gradients wait for more batches before the optimizer moves."""
        return self.images not in self.ends

    @property
    def reading(self):
        """Whether this is a step after which the device is waited for."""
        return self.done % self.every == 0 or self.done == self.steps

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > 0:
            self.images, self.done = 0, 0
        self.epoch = self.first + epoch
        self.loader.set_epoch(self.epoch, skip=self.images)
        batches = self.loader.batch_sampler
        self.bounds, self.ends = batches.bounds(), batches.ends() | {self.images}

    def on_train_batch_begin(self, step, logs=None):
        import paddle

        draws = np.random.SeedSequence([self.loader.images.seed, self.epoch, self.images, device.rank()])
        paddle.seed(int(draws.generate_state(1)[0]))
        self.model.waiting = self.bounds[step][1] not in self.ends

    def on_train_batch_end(self, step, logs=None):
        self.images = self.bounds[step][1]
        self.done += 1
        self.step += 1


class Processes(Callback):
    """Keeps several processes alike: BatchNorm statistics are the mean over all after each step."""

    def on_train_batch_end(self, step, logs=None):
        processes.average(freezing.moving_statistics(self.model.network))


class Interrupts(Callback):
    """Turns SIGINT (Ctrl-C) and SIGTERM into `Stopped` between two steps, when the weights are whole. A second one does what
    these signals did before, and so does the first where there is no further step. Within a `with` statement only."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.asked = 0  # number of the signal
        self.before = {}  # handlers of the signals

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
            stops.say('\nstopping after this step; a second Ctrl-C or SIGTERM leaves at once')

    def on_train_batch_end(self, step, logs=None):
        if self.clock.reading and not self.clock.between_updates:
            self._stop_if_asked()

    def on_eval_batch_end(self, step, logs=None):
        if (step + 1) % self.clock.every == 0:
            self._stop_if_asked()

    def _stop_if_asked(self):
        asked = int(processes.highest(self.asked))
        if asked:
            raise Stopped(asked)


class Validation(Callback):
    """Measures the network after each epoch; comes last among the callbacks.

    Calls on_eval_begin, on_eval_batch_end and on_eval_end of the others, the last one with the mean loss in nats and the
    accuracy: {'loss': float, 'top1': float from 0 to 1}. Several processes share the images and get the same numbers.
    """

    def __init__(self, loader, watchers):
        super().__init__()
        self.loader = loader
        self.watchers = watchers

    def on_epoch_end(self, epoch, logs=None):
        self.run(self.model)

    def run(self, trainer):
        """Measure the network of a paddle.Model."""
        import paddle

        network = trainer.network
        for watcher in self.watchers:
            watcher.on_eval_begin()
        network.eval()
        batches = []  # read from the device at the end
        with paddle.no_grad(), trainer.auto_cast():
            for number, (images, labels) in enumerate(self.loader):
                logits = network(images).astype('float32')
                loss = paddle.nn.functional.cross_entropy(logits, labels, reduction='sum')
                hits = (logits.argmax(1) == labels).astype('float32').sum()
                batches.append(paddle.stack([paddle.full([], float(len(labels))), loss, hits]))
                for watcher in self.watchers:
                    watcher.on_eval_batch_end(number)
        network.train()
        images, loss_sum, hits = processes.add_up(paddle.stack(batches).astype('float64').sum(0)).tolist()
        for watcher in self.watchers:
            watcher.on_eval_end({'loss': loss_sum / images, 'top1': hits / images})


class Progress(Callback):
    """A progress bar on a terminal; elsewhere a line every `every` seconds."""

    def __init__(self, clock, log, every=20.0):
        super().__init__()
        self.clock = clock
        self.log = log
        self.every = every

    def on_epoch_begin(self, epoch, logs=None):
        clock = self.clock
        self.title = f'epoch {clock.epoch + 1}/{clock.epochs}'
        self.bar = tqdm(total=clock.steps, initial=clock.done, desc=self.title, unit='step', leave=False, disable=None)
        self.said = time.monotonic()

    def on_train_batch_end(self, step, logs=None):
        scores = f'loss {self.log.loss:.3f} top1 {self.log.top1:.3f}'
        self.bar.set_postfix_str(scores, refresh=False)
        self.bar.update()
        if self.bar.disable and time.monotonic() - self.said > self.every:
            self.said = time.monotonic()
            print(f'{self.title}, step {self.clock.done}/{self.clock.steps}: {scores}', file=sys.stderr, flush=True)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()


class Unfreeze(Callback):
    """Lets the named parameters learn from an epoch on, counted from 1."""

    def __init__(self, clock, epoch, frozen):
        super().__init__()
        self.clock = clock
        self.epoch = epoch
        self.frozen = frozen

    def on_epoch_begin(self, epoch, logs=None):
        if not self.frozen or self.clock.epoch + 1 < self.epoch:
            return
        freezing.unfreeze(self.model.network, self.frozen)
        self.frozen = []
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
    """

    def __init__(self, clock, decay):
        super().__init__()
        self.clock = clock
        self.decay = decay
        self.step = 0  # of the optimizer
        self.average = None
        self.weights = None  # those of the training, while the averaged ones are in the network

    def on_train_begin(self, logs=None):
        if self.average is None:
            self.average = {name: value.clone() for name, value in self.model.network.state_dict().items()}

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
    """Keeps a checkpoint of each epoch and of each so many steps or minutes, the newest ones, and that of the best epoch.

    With train.views an epoch may take a tenth of what its checkpoint takes: then one is kept each SPARED seconds.

    Args:
        run_dir: folder of the run; None on a process that does not write.
        settings: save_steps and save_minutes, 0 for none; keep_checkpoints; views.
        facts: JSON-ready dict that goes into each checkpoint.
        log: the `RunLog` of the run.
        best: the `Best` that is asked after each validation.
        ema: the `Ema` whose average is the model to use, or None.
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
            due = (
                processes.highest(self.run_dir is not None and time.monotonic() - self.saved_at >= 60 * minutes) or due
            )
        if due and not self.clock.between_updates and self.clock.done < self.clock.steps:
            self.save_within_epoch()

    def on_eval_end(self, logs=None):
        row = self.log.rows[-1]
        if self.best.improved and self.run_dir:  # first: a run that is killed in between comes here again
            contents = {checkpoint.WEIGHTS: self.model.network.state_dict()}
            checkpoint.save(f'{self.run_dir}/best', contents, {**self.facts, **self.best.row})
        last = row['epoch'] == self.clock.epochs or self.best.exhausted
        if last or not self.settings.views or time.monotonic() - self.saved_at > SPARED:
            self.save_last(row['epoch'], 0, valid_top1=row['valid_top1'], valid_loss=row['valid_loss'])

    def save_within_epoch(self):
        """Write a checkpoint after the step just done, before its epoch is validated; returns its folder."""
        return self.save_last(self.clock.epoch, self.clock.images, sums=self.log.sums())

    def save_last(self, epoch, images, **more):
        """Write checkpoints/step_<step>: weights and optimizer, `epoch` epochs and `images` of the next one behind."""
        self.saved, self.saved_at = self.clock.step, time.monotonic()
        if not self.run_dir:
            return None
        rows = [row for row in self.log.rows if row['epoch'] <= epoch]
        place = {'epoch': epoch, 'images': images, 'step': self.clock.step}
        state = {**self.facts, **place, 'rows': rows, 'best': self.best.row, 'written': self.log.written(), **more}
        weights = self.model.network.state_dict()
        contents = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: self.model._optimizer.state_dict()}
        if self.ema and self.ema.average:
            contents[checkpoint.WEIGHTS] = self.ema.average
            contents[checkpoint.LEARNING] = self.ema.weights or weights
            state['ema_step'] = self.ema.step
        scaler = getattr(self.model, '_scaler', None)  # of mixed precision
        if scaler:
            state['loss_scale'] = {name: np.asarray(value).item() for name, value in scaler.state_dict().items()}
        folder = os.path.join(self.run_dir, 'checkpoints', f'step_{self.clock.step:07d}')
        checkpoint.save(folder, contents, state)
        checkpoint.prune(self.run_dir, self.settings.keep_checkpoints)
        return folder
