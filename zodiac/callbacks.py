"""What happens during `paddle.Model.fit`: steps numbered, progress shown, weights averaged and kept, faults stopped."""

import math
import os
import signal
import sys
import threading
import time

import numpy as np
from paddle.callbacks import Callback
from tqdm import tqdm

from zodiac import checkpoint, device, model
from zodiac.errors import UserError


class Clock(Callback):
    """Where the run stands, for the others to read; comes first among the callbacks.

    Makes each step a function of (seed, epoch, batch, process) alone: the order of the images, their augmentation and the
    draws of dropout. So a run that goes on in the middle of an epoch does what it would have done.

    Attributes: epoch, from 0; done, batches of this epoch that are behind; steps, batches of a whole epoch; step, batches of
    the run that are behind; epochs, of the whole run.

    Args:
        parts: batches a step of the optimizer.
    """

    def __init__(self, loader, epochs, parts=1):
        super().__init__()
        self.loader = loader
        self.epochs = epochs
        self.parts = parts
        self.steps = len(loader)
        self.epoch, self.done, self.step = 0, 0, 0
        self.first = 0

    def start_from(self, epoch, step):
        """Begin at a step of the run of which `epoch` epochs are complete."""
        self.first = self.epoch = epoch
        self.step, self.done = step, step - epoch * self.steps
        self.loader.set_epoch(epoch, skip=self.done)

    @property
    def between_updates(self):
        """Whether gradients wait for more batches before the optimizer moves."""
        return self.done % self.parts != 0 and self.done != self.steps

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = self.first + epoch
        self.done = self.step - self.epoch * self.steps
        self.loader.set_epoch(self.epoch, skip=self.done)

    def on_train_batch_begin(self, step, logs=None):
        import paddle

        draws = np.random.SeedSequence([self.loader.images.seed, self.epoch, self.done, device.rank()])
        paddle.seed(int(draws.generate_state(1)[0]))

    def on_train_batch_end(self, step, logs=None):
        self.done += 1
        self.step += 1


class StopOnBadLoss(Callback):
    """Ends the run at the first loss that is not finite, before a checkpoint of it is kept."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, step, logs=None):
        loss = logs['loss'][0]
        if not math.isfinite(loss):
            raise UserError(
                f'the loss is {loss} at epoch {self.clock.epoch + 1}, step {self.clock.done} of that epoch; lower optim.lr, '
                'raise optim.warmup_epochs or check the images. The checkpoints of the epochs before are kept'
            )


class Interrupts(Callback):
    """Turns Ctrl-C into a KeyboardInterrupt between two steps, when the weights are whole; a second one acts at once."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
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
        if self.asked and not self.clock.between_updates:
            raise KeyboardInterrupt

    on_eval_batch_end = on_train_batch_end


class Progress(Callback):
    """A progress bar on a terminal; elsewhere a line every `every` seconds."""

    def __init__(self, clock, every=20.0):
        super().__init__()
        self.clock = clock
        self.every = every

    def on_epoch_begin(self, epoch, logs=None):
        clock = self.clock
        self.title = f'epoch {clock.epoch + 1}/{clock.epochs}'
        self.bar = tqdm(total=clock.steps, initial=clock.done, desc=self.title, unit='step', leave=False, disable=None)
        self.said = time.monotonic()

    def on_train_batch_end(self, step, logs=None):
        scores = f'loss {logs["loss"][0]:.3f} top1 {logs["acc_top1"]:.3f}'
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
        model.unfreeze(self.model.network, self.frozen)
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
    """Keeps a checkpoint of each epoch and of each `save_steps` steps, the newest `keep`, and that of the best epoch.

    Args:
        save_steps: 0 for none within an epoch.
        facts: JSON-ready dict that goes into each checkpoint.
        log: the `RunLog` of the run.
        best: the `Best` that is asked after each validation.
        ema: the `Ema` whose average is the model to use, or None.
    """

    def __init__(self, run_dir, clock, keep, save_steps, facts, log, best, ema=None):
        super().__init__()
        self.run_dir = run_dir
        self.clock = clock
        self.keep = keep
        self.save_steps = save_steps
        self.facts = facts
        self.log = log
        self.best = best
        self.ema = ema
        self.saved = clock.step

    def on_train_batch_end(self, step, logs=None):
        due = self.save_steps and self.clock.step - self.saved >= self.save_steps
        if due and not self.clock.between_updates and self.clock.done < self.clock.steps:
            self.save_last(self.clock.epoch, sums=self.log.sums())

    def on_eval_end(self, logs=None):
        row = self.log.rows[-1]
        if self.best.improved:  # first: a run that is killed in between comes here again
            contents = {checkpoint.WEIGHTS: self.model.network.state_dict()}
            checkpoint.save(f'{self.run_dir}/best', contents, {**self.facts, **self.best.row})
        self.save_last(row['epoch'], valid_top1=row['valid_top1'], valid_loss=row['valid_loss'])

    def save_last(self, epoch, **more):
        """Write checkpoints/step_<step>: weights and optimizer after the step just done, `epoch` of them complete."""
        rows = [row for row in self.log.rows if row['epoch'] <= epoch]
        state = {**self.facts, 'epoch': epoch, 'step': self.clock.step, 'rows': rows, **more}
        weights = self.model.network.state_dict()
        contents = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: self.model._optimizer.state_dict()}
        if self.ema and self.ema.average:
            contents[checkpoint.WEIGHTS] = self.ema.average
            contents[checkpoint.LEARNING] = self.ema.weights or weights
            state['ema_step'] = self.ema.step
        folder = os.path.join(self.run_dir, 'checkpoints', f'step_{self.clock.step:07d}')
        checkpoint.save(folder, contents, state)
        checkpoint.prune(self.run_dir, self.keep)
        self.saved = self.clock.step
        return folder
