"""`paddle.Model` whose training steps do not wait for the device: what they have come to is read when it is asked for."""

import numpy as np
import paddle

from zodiac import processes


class Trainer(paddle.Model):
    """A paddle.Model with mixed precision of either kind, whose `train_batch` leaves loss and hits where they were computed.

    Args:
        network: float32 [N, 3, H, W] -> logits float32 [N, classes].
        amp: 'O0', 'O1' or 'O2', see paddle.amp.auto_cast.
        amp_dtype: 'float16', whose loss is scaled, or 'bfloat16', which needs no scaling.
    """

    def __init__(self, network, amp='O0', amp_dtype='float16'):
        with processes.meeting():
            super().__init__(network)
        self._amp = {'enable': amp != 'O0', 'level': 'O1' if amp == 'O0' else amp, 'dtype': amp_dtype}
        self._unread = []

    def prepare(self, optimizer=None, loss=None):
        """Take an optimizer and a loss, (logits, labels) -> scalar Tensor."""
        super().prepare(optimizer, loss)
        self._scaler = None
        if self._amp['enable'] and self._amp['level'] == 'O2':
            self.network, self._optimizer = paddle.amp.decorate(
                models=self.network, optimizers=self._optimizer, level='O2', dtype=self._amp['dtype']
            )
        if self._amp['enable'] and self._amp['dtype'] == 'float16':
            self._scaler = paddle.amp.GradScaler()

    def auto_cast(self):
        """The context in which the network runs."""
        return paddle.amp.auto_cast(**self._amp)

    def train_batch(self, inputs, labels=None, update=True):
        """A step on lists of one Tensor each, float32 [N, 3, H, W] and labels as the loss takes them; without `update` the
        gradients are kept for the next step. Returns nothing that could be waited for: see `read`."""
        self.network.train()
        (images,), (labels,) = inputs, labels
        with self.auto_cast():
            network = self._adapter.ddp_model if self._adapter._nranks > 1 else self.network
            logits = network(paddle.to_tensor(images))
        labels = paddle.to_tensor(labels)
        loss = self._loss(logits, labels)
        if self._scaler:
            scaled = self._scaler.scale(loss)
            scaled.backward()
            if update:
                self._scaler.minimize(self._optimizer, scaled)
        else:
            loss.backward()
            if update:
                self._optimizer.minimize(loss)
        if update:
            self.network.clear_gradients()
        with paddle.no_grad():
            classes = labels if labels.ndim == 1 else labels.argmax(1)
            hits = (logits.argmax(1) == classes).astype('float32').sum()
            self._unread.append(paddle.stack([loss.detach().astype('float32').reshape([]), hits]))
        return [0.0]

    def read(self):
        """Loss and number of hits of each step since the last call, float64 [steps, 2]; waits for the device, once."""
        steps, self._unread = self._unread, []
        return paddle.stack(steps).numpy().astype(np.float64) if steps else np.zeros((0, 2))
