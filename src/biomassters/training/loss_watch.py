"""The losses of an epoch: their mean, and an end to the training when one is not finite."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from biomassters.batches.distributed import Processes
from biomassters.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """What a step minimised.

    Attributes:
        total: Of all processes: Σ of the chips' losses, and how many chips had one; (2,).
        chip_losses: Of this process's chips, (B,).
        chip_indices: Their positions in the store.
    """

    total: Tensor
    chip_losses: Tensor
    chip_indices: list[int]


class LossWatch:
    """Sees the losses of an epoch, step by step.

    A loss is looked at one step late, when it has long been copied: a GPU never waits for the host.
    As it is that of all processes, all of them stop at the same step, with the same error.
    """

    def __init__(self, processes: Processes, chip_ids: Sequence[str], epoch: int) -> None:
        self.processes = processes
        self.chip_ids = chip_ids
        self.epoch = epoch
        self._means: list[float] = []
        self._last: tuple[StepLosses, Tensor, torch.cuda.Event | None] | None = None

    def add(self, losses: StepLosses) -> None:
        """See a step's losses; check those of the step before.

        Raises:
            TrainingError: Those of the step before are not finite.
        """
        total = losses.total.to("cpu", non_blocking=True)
        copied = torch.cuda.current_stream().record_event() if losses.total.is_cuda else None
        self._check_last()
        self._last = losses, total, copied

    def finish(self) -> float:
        """Return the mean over the epoch's steps.

        Raises:
            TrainingError: The losses of the last step are not finite.
        """
        self._check_last()
        self._last = None
        return math.fsum(self._means) / len(self._means)

    def _check_last(self) -> None:
        if self._last is None:
            return
        losses, total, copied = self._last
        if copied is not None:
            copied.synchronize()
        loss_sum, n_chips = total.tolist()
        if not math.isfinite(loss_sum):
            self._refuse(losses, step=len(self._means))
        self._means.append(loss_sum / max(n_chips, 1))

    def _refuse(self, losses: StepLosses, step: int) -> None:
        spoilt = [
            (value, self.chip_ids[index])
            for value, index in zip(losses.chip_losses.tolist(), losses.chip_indices, strict=True)
            if not math.isfinite(value)
        ]
        everywhere = [found for of_one in self.processes.gather(spoilt) for found in of_one]
        value = everywhere[0][0] if everywhere else math.inf  # finite losses may have no finite sum
        chips = ", ".join(chip_id for _, chip_id in everywhere) or "all of the step"
        raise TrainingError(
            f"expected a finite loss, got {value} at epoch {self.epoch}, step {step}, chips"
            f" {chips}; look at these chips or lower lr: the checkpoint of the epoch before is kept"
        )
