"""`paddle.Model` whose training steps do not wait for the device: what they have come to is read when it is asked for."""

import numpy as np
import paddle

from zodiac.training import processes

LOSS_SCALE = 2.0**10  # to begin with, of float16: Paddle's 2 ** 16 is for the mean over a batch, this is for the sum


class Trainer(paddle.Model):
    """A paddle.Model whose step is the mean over all of its images, and whose `train_batch` leaves its numbers where they were
    computed.

    The images of a step may come in several batches, and from several processes: the gradients of their summed losses add
    up, and are divided by the sum of the weights before the optimizer moves. So a step does not depend on how it was cut.

    Args:
        network: float32 [N, 3, H, W] -> logits float32 [N, classes].
        amp: 'O0', or 'O1' for mixed precision, see paddle.amp.auto_cast; weights and optimizer stay in float32.
        amp_dtype: 'float16', whose loss is scaled, or 'bfloat16', which needs no scaling.

    Attribute `waiting`: whether the gradients of the batch at hand are kept for the next one.
    """

    def __init__(self, network, amp='O0', amp_dtype='float16'):
        with processes.meeting():
            super().__init__(network)
        self._amp = {'enable': amp != 'O0', 'level': 'O1', 'dtype': amp_dtype}
        self._weight, self._unread = 0.0, []
        self.waiting = False

    def prepare(self, optimizer=None, loss=None):
        """Take an optimizer and a loss, (logits, labels) -> (sum over the images, sum of their weights), see soft_labels.Loss."""
        super().prepare(optimizer, loss)
        scaled = self._amp['enable'] and self._amp['dtype'] == 'float16'
        self._scaler = paddle.amp.GradScaler(init_loss_scaling=LOSS_SCALE) if scaled else None

    def auto_cast(self):
        """The context in which the network runs."""
        return paddle.amp.auto_cast(**self._amp)

    def train_batch(self, inputs, labels=None, update=True):
        """A batch, as lists of one Tensor each, float32 [N, 3, H, W] and labels as the loss takes them, and a step of the
        optimizer, unless it is `waiting`. Returns no number of it, which would have to be waited for: see `read`."""
        self.network.train()
        (images,), (labels,) = inputs, labels
        with self.auto_cast():
            network = self._adapter.ddp_model if self._adapter._nranks > 1 else self.network
            logits = network(paddle.to_tensor(images)).astype('float32')
        labels = paddle.to_tensor(labels)
        loss, weight = self._loss(logits, labels)
        scaled = self._scaler.scale(loss) if self._scaler else loss
        scaled.backward()
        with paddle.no_grad():
            classes = labels if labels.ndim == 1 else labels.argmax(1)
            hits = (logits.argmax(1) == classes).astype('float32').sum()
            self._unread.append(paddle.stack([loss.detach(), weight, hits, paddle.full([], float(len(labels)))]))
            self._weight = self._weight + weight
        if update and not self.waiting:
            self._step(scaled)
        return [0.0]

    def _step(self, scaled):
        with paddle.no_grad():
            # Paddle's exchange has averaged the gradients over the processes
            factor = self._adapter._nranks / processes.add_up(self._weight)
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad.multiply_(factor)
        if self._scaler:
            self._scaler.minimize(self._optimizer, scaled)
        else:
            self._optimizer.minimize(scaled)
        self.network.clear_gradients()
        self._weight = 0.0

    def read(self):
        """What the batches since the last call have come to over all processes, all of which must call it: float64
        [batches, 4], the sum of the losses, that of the weights, hits, images. Waits for the device, once."""
        batches, self._unread = self._unread, []
        if not batches:
            return np.zeros((0, 4))
        return processes.add_up(paddle.stack(batches)).numpy().astype(np.float64)
