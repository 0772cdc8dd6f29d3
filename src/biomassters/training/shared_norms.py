"""Batch normalisation whose statistics, while training, are those of several processes' images.

Not torch's `SyncBatchNorm`: it refuses to train on a CPU, and conversion to it puts other modules
in the place of those that hooks refer to, without the activation that timm's norms have. On a GPU
its kernels do the work here too.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from biomassters.errors import ModelError


class Sharers:
    """The processes that share a micro-batch; a copy of a model shares the same, as it must.

    Torch's own group cannot be copied.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sharers":
        return self


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes of a group, when training."""

    sharers: Sharers

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images of the same shape, (B, C, H, W); B may differ by process."""
        if self.training:
            normalised: Tensor = _normalise(self, self.sharers.group, images)
        else:
            normalised = super().forward(images)
        return normalised


class SynchronisedBatchNormAct2d(BatchNormAct2d):
    """timm's batch normalisation with its activation, likewise."""

    sharers: Sharers

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised and activated images of the same shape, (B, C, H, W)."""
        if self.training:
            activated: Tensor = self.act(self.drop(_normalise(self, self.sharers.group, images)))
        else:
            activated = super().forward(images)  # type: ignore[no-untyped-call]
        return activated


SYNCHRONISED: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
    BatchNormAct2d: SynchronisedBatchNormAct2d,
}


def synchronise(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Let a model's batch norms normalise over the images of all processes of a group, in place.

    Gradients are exact: summed over the processes, they are those of one process that runs all
    the images. All processes of the group must run the same layers in the same order.

    Raises:
        ModelError: The model has a kind of batch norm that cannot.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if type(module) not in SYNCHRONISED:
            raise ModelError(
                f"expected batch norms that processes can share, got {type(module).__name__},"
                f" at {name} of model.backbone; use at most as many processes as a step has"
                " micro-batches"
            )
        # Not another module in its place: weights, hooks and what refers to it stay.
        module.__class__ = SYNCHRONISED[type(module)]  # type: ignore[assignment]
        module.sharers = Sharers(group)  # type: ignore[assignment]


@contextmanager
def normalise_alone(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let synchronised norms normalise over this process's images alone for a while."""
    plain = {synchronised: kind for kind, synchronised in SYNCHRONISED.items()}
    shared = [(norm, type(norm)) for norm in norms if type(norm) in plain]
    for norm, kind in shared:
        norm.__class__ = plain[kind]  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm, kind in shared:
            norm.__class__ = kind


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it cannot trace a process group
def _normalise(norm: _BatchNorm, group: dist.ProcessGroup, images: Tensor) -> Tensor:
    """Normalise over the images of all processes of a group, and update running statistics."""
    tracked = norm.track_running_stats and norm.running_mean is not None
    if tracked and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    if images.is_cuda:
        from torch.nn.modules._functions import SyncBatchNorm  # torch's, in one kernel each way

        normalised: Tensor = SyncBatchNorm.apply(
            images,
            norm.weight,
            norm.bias,
            norm.running_mean if tracked else None,
            norm.running_var if tracked else None,
            norm.eps,
            norm.momentum,
            group,
            group.size(),
        )
        return normalised
    normalised, mean, variance, n_pixels = _SharedNormalisation.apply(
        images, norm.weight, norm.bias, norm.eps, group
    )
    if tracked:
        _follow(norm.running_mean, mean, norm.momentum)
        # Torch normalises by the variance of the batch, and keeps the unbiased estimate.
        _follow(norm.running_var, variance * n_pixels / (n_pixels - 1).clamp(1), norm.momentum)
    return normalised


@torch.no_grad()
def _follow(running: Tensor | None, value: Tensor, momentum: float | None) -> None:
    if running is not None and momentum is not None:
        running.mul_(1 - momentum).add_(value, alpha=momentum)


class _SharedNormalisation(torch.autograd.Function):
    """Batch normalisation over a group's images, with exact gradients, for any device.

    Source of the gradient: Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return normalised images; mean and (biased) variance, (C,); the number of pixels."""
        exact = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        own_pixels = exact.new_full((1,), exact.numel() // exact.shape[1])
        sums = torch.cat([exact.sum((0, 2, 3)), own_pixels])
        dist.all_reduce(sums, group=group)
        n_pixels = sums[-1]
        mean = sums[:-1] / n_pixels
        # In a second pass: a difference of sums of squares would lose digits.
        squares = (exact - _by_channel(mean)).square().sum((0, 2, 3))
        dist.all_reduce(squares, group=group)
        variance = squares / n_pixels
        scale = (variance + eps).rsqrt()
        normalised = (exact - _by_channel(mean)) * _by_channel(scale)
        if weight is not None and bias is not None:
            normalised = normalised * _by_channel(weight) + _by_channel(bias)
        ctx.save_for_backward(images, weight, mean, scale, n_pixels)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, n_pixels)
        return normalised.to(images.dtype), mean, variance, n_pixels

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, weight and bias, the latter two of the own images."""
        # With x the standard images and means over all processes' pixels, the gradient of images is
        # weight * scale * (g - mean(g) - x * mean(g * x)): a shift and a stretch of all images
        # change nothing, so that nothing of g is left along these two.
        images, weight, mean, scale, n_pixels = ctx.saved_tensors
        standard = (images.to(mean.dtype) - _by_channel(mean)) * _by_channel(scale)
        gradient = gradient.to(mean.dtype)
        of_bias = gradient.sum((0, 2, 3))
        of_weight = (gradient * standard).sum((0, 2, 3))
        sums = torch.cat([of_bias, of_weight])  # both sums in one message
        dist.all_reduce(sums, group=ctx.group)
        mean_of_bias, mean_of_weight = (sums / n_pixels).chunk(2)
        of_images = gradient - _by_channel(mean_of_bias) - standard * _by_channel(mean_of_weight)
        of_images = of_images * _by_channel(scale if weight is None else scale * weight)
        if weight is None:
            return of_images.to(images.dtype), None, None, None, None
        return of_images.to(images.dtype), of_weight, of_bias, None, None


def _by_channel(values: Tensor) -> Tensor:
    # (C,) to (1, C, 1, 1)
    return values[None, :, None, None]
