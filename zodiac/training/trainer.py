"""`paddle.Model` with steps that several batches and processes can share, and metrics that are computed lazily."""

import numpy as np

from zodiac.base.paddle_setup import paddle
from zodiac.training import collectives

LOSS_SCALE = (
    2.0**10
)  # initial loss scale of float16; Paddle's default of 2 ** 16 is for a mean over the batch, ours is for a sum


class Trainer(paddle.Model):
    """A paddle.Model whose optimizer steps by the mean over all images of a step, and whose `train_batch` does not wait for the device.

    A step can have several batches (gradient accumulation) and several processes. The gradients of the summed losses add up and are
    divided by the sum of the weights before the optimizer steps, so the result does not depend on how the step was divided.

    Args:
        network: float32 [N, 3, H, W] -> logits float32 [N, classes].
        amp: 'O0', or 'O1' for mixed precision (see paddle.amp.auto_cast); weights and optimizer state stay in float32.
        amp_dtype: 'float16' with loss scaling, or 'bfloat16' without.

    Attribute `waiting`: true while the gradients of the current batch are kept for the next one.
    """

    def __init__(self, network, amp='O0', amp_dtype='float16'):
        with collectives.connecting():
            super().__init__(network)
        self._amp = {'enable': amp != 'O0', 'level': 'O1', 'dtype': amp_dtype}
        self._head = None
        self._weight, self._unread, self._replaced = 0.0, [], []
        self.waiting = False

    def prepare(self, optimizer=None, loss=None):
        """Set the optimizer and the loss, (logits, labels) -> (sum over the images, sum of their weights), see soft_labels.Loss."""
        super().prepare(optimizer, loss)
        scaled = self._amp['enable'] and self._amp['dtype'] == 'float16'
        self._scaler = paddle.amp.GradScaler(init_loss_scaling=LOSS_SCALE) if scaled else None

    @property
    def optimizer(self):
        return self._optimizer

    def train_on_features(self, head):
        """From now on batches hold features instead of images, and only `head` runs, a part of the network."""
        self._head = head

    def logits(self, images):
        """float32 [N, classes] of a batch, float32 [N, 3, H, W] or features."""
        return self._run(self._head or self.network, images)

    def _run(self, network, images):
        with paddle.amp.auto_cast(**self._amp):
            return network(images).astype('float32')

    def train_batch(self, inputs, labels=None, update=True):
        """Add the gradients of a batch; then step the optimizer, unless the trainer is `waiting`.

        Args:
            inputs, labels: lists of one Tensor each: float32 [N, 3, H, W], and labels as the loss takes them.
        Returns: [0.0], for paddle.Model; `read` gives the metrics.
        """
        self.network.train()
        (images,), (labels,) = inputs, labels
        network = self._adapter.ddp_model if self._adapter._nranks > 1 else self._head or self.network
        logits = self._run(network, paddle.to_tensor(images))
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
            # Paddle has averaged the gradients over the processes
            factor = self._adapter._nranks / collectives.add_up(self._weight)
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
        """Metrics of the batches since the last call, summed over the processes: float64 [batches, 4], columns sum of losses (nats),
        sum of weights, hits, images. Waits for the device. Every process must call it."""
        batches, self._unread = self._unread, []
        if not batches:
            return np.zeros((0, 4))
        return collectives.add_up(paddle.stack(batches)).numpy().astype(np.float64)

    def exchange_all_gradients(self):
        """Let several processes exchange the gradients of parameters too that began to learn after the start."""
        if self._adapter._nranks > 1:
            self._replaced.append(self._adapter.ddp_model)  # Paddle's hooks on the parameters need it to stay alive
            self._adapter.ddp_model = paddle.DataParallel(self.network)

    def loss_scale(self):
        """State of the loss scaling, as a JSON-ready dict; None without."""
        if not self._scaler:
            return None
        return {name: np.asarray(value).item() for name, value in self._scaler.state_dict().items()}

    def restore_loss_scale(self, state):
        """Set what `loss_scale` returned."""
        if state and self._scaler:
            self._scaler.load_state_dict({**state, 'scale': np.array([state['scale']], np.float32)})
