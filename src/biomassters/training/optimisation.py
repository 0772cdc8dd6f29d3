"""What of a training its epochs change, and how a gradient becomes a step of AdamW.

Not torch's schedulers and clipping: a scheduler counts its calls, and would have to be restored by
a checkpoint, where a schedule that is a function of the moment needs no state; and torch's clipping
is a pass of its own over all gradients, beside the one that scales them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


def build_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW without weight decay on biases and norms (tensors of one dimension)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def scale_gradients(optimizer: torch.optim.Optimizer, factor: Tensor, clip_norm: float) -> None:
    """Multiply the gradients by a factor, and clip the norm of all of them together.

    Both in one pass over them, on their device: the host waits for nothing.

    Args:
        optimizer: Of the parameters; those without a gradient are left out.
        factor: A scalar.
        clip_norm: The largest norm after the multiplication.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients) * factor
    # As in torch's clip_grad_norm_, so that a factor of 1 gives its very bytes.
    clipping = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, clipping * factor)
