"""An exponential moving average of a model's weights, which often predicts better than they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """The moving average of a model's weights and running statistics, on the model's device.

    After its n-th update it is d · average + (1 - d) · weights, with d the lower of `decay` and
    (1 + n) / (10 + n): the first weights are soon forgotten.

    Source of this ramp: TensorFlow's `tf.train.ExponentialMovingAverage`.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from a model as it is; its tensors must stay where they are in memory."""
        self.decay = decay
        self.n_updates = 0
        self._weights = model.state_dict()
        self._average = {name: tensor.clone() for name, tensor in self._weights.items()}
        floats = [name for name, tensor in self._weights.items() if tensor.is_floating_point()]
        self._pairs = [(self._average[name], self._weights[name]) for name in floats]
        self._counters = [name for name in self._weights if name not in set(floats)]

    @torch.no_grad()
    def update(self) -> None:
        """Let the average follow the model; counters are copied."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        averages, weights = zip(*self._pairs, strict=True)
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for name in self._counters:
            self._average[name].copy_(self._weights[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average as its weights for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average."""
        for name, weights in self._weights.items():
            held = weights.clone()
            weights.copy_(self._average[name])
            self._average[name].copy_(held)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"n_updates": self.n_updates, "weights": self._average}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.n_updates = state["n_updates"]
        for name, tensor in state["weights"].items():
            self._average[name].copy_(tensor)
