"""The running statistics of batch normalisation, made one after each step of several processes.

They are those that one process would have that ran the step's micro-batches in order. Not what
DDP broadcasts: only the first process's would count, and depend on the number of processes.
What processes share within a micro-batch is `shared_norms`'s.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from biomassters.batches.distributed import Processes


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
