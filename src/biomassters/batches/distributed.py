"""The processes that work on one stage together: who they are, and how they talk.

A process learns its place from the environment that torchrun sets. One alone is the ordinary case,
for which everything here does nothing. How they are started is in `processes.launching`.

Not torch's functions as they are, each of which has a catch: with one process there is no group to
call them in, `barrier` takes a GPU, and `all_gather` wants its room made beforehand.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from biomassters.processes.ending import end_with_dvc, end_with_parent

T = TypeVar("T")

PATIENCE: Final = timedelta(minutes=30)
"""How long a process waits for another, which may hash a store or write many files meanwhile.

A process that ended is noticed by torchrun in a moment, and not by this.
"""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that work together; one alone by default.

    All of them must call a method that talks, in the same order.

    Attributes:
        rank: The number of this process, 0...size - 1.
        size: How many there are, on all machines.
        local_rank: The number of this process among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that holds locks, writes files and shows progress."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes: its own GPU where there are some, else the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())

    def broadcast(self, value: T) -> T:
        """Return the first process's value: any that can be pickled, its tensors on the CPU."""
        if self.size == 1:
            return value
        values = [value if self.is_first else None]
        dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank: any that can be pickled, on the CPU."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def stack(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, (size, *shape); all have one shape and type."""
        if self.size == 1:
            return tensor[None]
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(tensors, tensor.contiguous())
        return torch.stack(tensors)

    def add(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all processes up, in place; return the same tensor."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # by gloo, where torch's barrier would take the GPU

    def divide(self, n_groups: int) -> dist.ProcessGroup:
        """Divide into groups of consecutive ranks, all of one size; return this process's.

        Args:
            n_groups: A divisor of `size`, which must be more than 1.
        """
        per_group = self.size // n_groups
        groups = [
            dist.new_group(list(range(first, first + per_group)), timeout=PATIENCE)
            for first in range(0, self.size, per_group)
        ]
        return groups[self.rank // per_group]  # type: ignore[return-value]  # it is a member


ALONE: Final = Processes()


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started, or be alone without it.

    This process ends when the DVC ends that started it, and with torchrun.
    """
    end_with_dvc()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" not in os.environ or size == 1:
        yield ALONE
        return
    end_with_parent()
    processes = Processes(
        rank=int(os.environ["RANK"]), size=size, local_rank=int(os.environ.get("LOCAL_RANK", "0"))
    )
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)
    dist.init_process_group(
        # Objects travel by gloo in any case, so that a checkpoint needs no room on the GPUs.
        "cpu:gloo,cuda:nccl" if processes.device.type == "cuda" else "gloo",
        timeout=PATIENCE,
    )
    yield processes
    # Not after an error: a rank that failed must not wait for others, which torchrun ends.
    dist.destroy_process_group()
