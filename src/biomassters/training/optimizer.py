"""AdamW, and the gradients that it gets."""

import torch
from torch import Tensor, nn


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
