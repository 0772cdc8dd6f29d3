"""What of a training changes with its epochs: learning rate, frozen encoder, augmentation."""

import math
from dataclasses import dataclass

from biomassters.params.sections import PhaseParams


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The course of a training.

    Attributes:
        lr: Peak learning rate.
        phase: Section `train` or `finetune` of params.yaml: the epochs, and their special ones.
    """

    lr: float
    phase: PhaseParams

    def learning_rate(self, moment: float) -> float:
        """Return the learning rate at a moment, in epochs since the start.

        It rises linearly from 0 over the warm-up, and a cosine leads it from its peak to `lr_min`
        over the epochs that are left; a peak below `lr_min` stays as it is.
        """
        warmup = self.phase.warmup_epochs
        if moment < warmup:
            return self.lr * moment / warmup
        lr_min = min(self.phase.lr_min, self.lr)
        share = (moment - warmup) / (self.phase.epochs - warmup)
        return lr_min + (self.lr - lr_min) * (1 + math.cos(math.pi * share)) / 2

    def is_encoder_frozen(self, epoch: int) -> bool:
        """Whether the encoder stays as it is in an epoch."""
        return epoch < self.phase.frozen_encoder_epochs

    def is_plain(self, epoch: int) -> bool:
        """Whether an epoch has no augmentation."""
        return epoch >= self.phase.epochs - self.phase.plain_epochs

    def is_last(self, epoch: int) -> bool:
        """Whether no epoch follows."""
        return epoch + 1 == self.phase.epochs
