"""Which weights a training hands over: the best by validation, the last, or an average.

A keeper sees the model after each epoch, a moving average after each step; what they keep travels
in the checkpoint. With a moving average, that is the model which a keeper sees.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from biomassters.errors import TrainingError

Weights = dict[str, Tensor]


class Keeper(Protocol):
    """Chooses weights while a training runs."""

    @property
    def weights(self) -> Weights:
        """What the training hands over.

        Raises:
            TrainingError: Nothing was kept.
        """

    def update(self, epoch: int, model: nn.Module, scores: Mapping[str, float]) -> None:
        """See the model after `epoch`, with the scores of its validation, if it had one."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


class BestWeights:
    """The weights of the epoch with the lowest score; of two that tie, the earlier."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.score = float("inf")
        self.epoch = -1
        self._kept: Weights | None = None

    @property
    def weights(self) -> Weights:
        """The best weights.

        Raises:
            TrainingError: No epoch had a score.
        """
        if self._kept is None:
            raise TrainingError(
                f"expected a finite {self.metric} after some epoch, got none;"
                " do the validation chips have targets?"
            )
        return self._kept

    def update(self, epoch: int, model: nn.Module, scores: Mapping[str, float]) -> None:
        """Keep the model if it scores lower than any before."""
        if scores.get(self.metric, float("inf")) < self.score:
            self.score, self.epoch = scores[self.metric], epoch
            self._kept = copy_weights(model)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"score": self.score, "epoch": self.epoch, "weights": self._kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.score, self.epoch, self._kept = state["score"], state["epoch"], state["weights"]


class AverageWeights:
    """The plain average over the models after the epochs from `first_epoch` on.

    With the last epoch as the first, it is the last weights.
    """

    def __init__(self, first_epoch: int) -> None:
        self.first_epoch = first_epoch
        self.count = 0
        self._mean: Weights = {}

    @property
    def weights(self) -> Weights:
        """The average.

        Raises:
            TrainingError: No epoch was averaged.
        """
        if not self._mean:
            raise TrainingError(
                f"expected epochs from {self.first_epoch} on, got none; train for longer"
            )
        return self._mean

    def update(self, epoch: int, model: nn.Module, scores: Mapping[str, float]) -> None:  # noqa: ARG002
        """Add the model to the average."""
        if epoch < self.first_epoch:
            return
        self.count += 1
        new = copy_weights(model)
        if not self._mean:
            self._mean = new
            return
        for name, mean in self._mean.items():
            if mean.is_floating_point():
                mean += (new[name] - mean) / self.count
            else:
                mean.copy_(new[name])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"count": self.count, "weights": self._mean}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.count, self._mean = state["count"], state["weights"]


class MovingAverage:
    """The moving average of a model's weights and running statistics, on the model's device.

    After its n-th update it is d · average + (1 - d) · weights, with d the lower of `decay` and
    (1 + n) / (10 + n): the first weights are soon forgotten.

    Not torch's `AveragedModel`: its first update forgets the start altogether, it averages the
    running statistics either not at all or with the counters, and it is a second model, where
    validation and the keeper know one.

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


@torch.no_grad()
def copy_weights(model: nn.Module) -> Weights:
    """Copy a model's weights and buffers to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
