"""Batch normalisation across processes: its statistics while training, and its running ones.

A micro-batch that several processes share is normalised over all its images (`synchronise`). And
after each step all processes hold the running statistics that one process would have that ran the
step's micro-batches in order (`RunningStatistics`).

Not torch's `SyncBatchNorm`: it refuses to train on a CPU, and conversion to it puts other modules
in the place of those that hooks refer to, without the activation that timm's norms have. On a GPU
its kernels do the work here too. Nor DDP's `broadcast_buffers`: only the first process's running
statistics would count, and depend on the number of processes.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from biomassters.batches.distributed import Processes
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


class RunningStatistics:
    """The running statistics of a model's batch norms, made one by its processes step by step.

    One process would run a step's micro-batches in order, r = (1 - a) r + a s for each. Here rank
    j runs k of them, all from the same r0, and arrives at (1 - a)^k r0 + S_j. So from r0, rank by
    rank, r = (1 - a)^k r + S_j leads to what that one process has, but for rounding.
    """

    def __init__(self, model: nn.Module) -> None:
        """Look after a model; its batch norms may be synchronised or frozen later."""
        self.model = model
        self._norms: list[_BatchNorm] = []
        self._before = torch.empty(0)

    def remember(self) -> None:
        """Remember the statistics; call it before a step."""
        self._norms = list_training_norms(self.model)
        self._before = flatten_statistics(self._norms)

    def combine(self, processes: Processes, n_micro_local: int) -> None:
        """Give all processes the same statistics; call it after a step, in all of them.

        Args:
            processes: Those that took the step.
            n_micro_local: Micro-batches that each of them ran, or ran a part of.
        """
        if processes.size == 1 or not self._norms:
            return
        # Those that share a micro-batch have the same statistics: one of each group counts.
        per_micro_batch = max(_count_sharers(norm) for norm in self._norms)
        arrived = processes.stack(flatten_statistics(self._norms))[::per_micro_batch].double()
        before = self._before.double()
        kept = self._list_decays().pow(n_micro_local)
        combined = before
        for after in arrived:  # after - kept * before is S_j
            combined = kept * combined + (after - kept * before)
        write_statistics(self._norms, combined.float())
        for norm in self._norms:
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(n_micro_local * (len(arrived) - 1))

    def _list_decays(self) -> Tensor:
        """Return 1 - momentum for each element of the flat statistics, float64."""
        decays = [
            buffer.new_full(buffer.shape, 1 - (norm.momentum or 0.0), dtype=torch.float64)
            for norm in self._norms
            for buffer in (norm.running_mean, norm.running_var)
            if buffer is not None
        ]
        return torch.cat(decays)


def list_training_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the norms of a model whose running statistics training changes."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.training  # a frozen one keeps its statistics to the last bit
        and module.running_mean is not None
    ]


def flatten_statistics(norms: Sequence[_BatchNorm]) -> Tensor:
    """Return a copy of the running means and variances of norms, one behind the other."""
    buffers = _list_buffers(norms)
    return torch.cat(buffers) if buffers else torch.empty(0)


@torch.no_grad()
def write_statistics(norms: Sequence[_BatchNorm], values: Tensor) -> None:
    """Write what `flatten_statistics` returned."""
    buffers = _list_buffers(norms)
    parts = torch.split(values, [buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part)


def _list_buffers(norms: Sequence[_BatchNorm]) -> list[Tensor]:
    return [
        buffer
        for norm in norms
        for buffer in (norm.running_mean, norm.running_var)
        if buffer is not None
    ]


def _count_sharers(norm: _BatchNorm) -> int:
    sharers = getattr(norm, "sharers", None)
    return 1 if sharers is None else int(sharers.group.size())
