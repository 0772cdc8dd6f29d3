"""Which chips each process computes, when: an order that only seed and epoch decide.

A *step* of the optimizer sees `batch_size` chips, whatever the number of processes, as
micro-batches of `micro_batch_size` chips: a micro-batch is what one forward pass sees, and what
batch normalisation averages over. Processes share a step's micro-batches; where there are more
processes than these, they share the chips of each.

A step of 8 chips in micro-batches of 4, `abcd` and `efgh`, is shared so:

    1 process     rank 0: abcd, then efgh
    2 processes   rank 0: abcd    rank 1: efgh
    4 processes   rank 0: ab      rank 1: cd      rank 2: ef      rank 3: gh

Of 4 processes, ranks 0 and 1 are the *sharers* of the first micro-batch, each with a *part* of it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from biomassters.errors import ParamsError


class EpochOrder(Sampler[list[int]]):
    """One process's micro-batches of store positions, drawn anew each epoch from (seed, epoch).

    Laws: the chips of a step are the same for every number of processes; its micro-batches, in
    the order of the processes, too.

    A step that is not full is dropped (it would weigh its chips more), unless it is the only one:
    then its chips are shared evenly among as few micro-batches as can be.

    Attributes:
        epoch: Which epoch the next iteration is.
        batch_size: Chips a step, of all processes.
        steps: Steps an epoch.
        micro_batches_per_step: Of this process.
        smallest_micro_batch: Chips of a step's smallest, of all processes that share it.
        first_micro_batch: Which of a step's micro-batches is this process's first.
        sharers: Processes that share each micro-batch.
        part: Which of their parts is this process's.
    """

    def __init__(
        self,
        indices: Sequence[int],
        *,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """Share the chips.

        Args:
            indices: Positions in the store.
            batch_size: Chips a step, of all processes.
            micro_batch_size: Chips a forward pass.
            seed: Of the order.
            rank: This process, of `size`.
            size: Processes that train together.

        Raises:
            ParamsError: The chips of a step cannot be shared evenly among the processes.
        """
        _check_micro_batches(batch_size, micro_batch_size, size)
        _check_chips(len(indices), batch_size, size)
        self.indices = np.asarray(indices)
        self.seed = seed
        self.epoch = 0
        self.batch_size = min(batch_size, len(indices))
        self.steps = len(indices) // self.batch_size
        # Of all processes; rounded up for the only step of a few chips that is not full.
        self._n_micro_batches = -(-self.batch_size // micro_batch_size)
        self.smallest_micro_batch = self.batch_size // self._n_micro_batches
        # One of the two numbers is a multiple of the other, so that one of these is 1: either
        # processes share a micro-batch, or a process has several.
        self.sharers = max(1, size // self._n_micro_batches)
        self.micro_batches_per_step = max(1, self._n_micro_batches // size)
        # Sharers are consecutive ranks, most likely of one machine: they talk at every batch norm.
        self.first_micro_batch = rank * self.micro_batches_per_step // self.sharers
        self.part = rank % self.sharers

    def __len__(self) -> int:
        return self.steps * self.micro_batches_per_step

    def __iter__(self) -> Iterator[list[int]]:
        # All processes draw the same order, and each takes its own part: none has to be told.
        random = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = random.permutation(self.indices)
        mine = slice(self.first_micro_batch, self.first_micro_batch + self.micro_batches_per_step)
        for step in range(self.steps):
            chips = order[step * self.batch_size : (step + 1) * self.batch_size]
            for micro_batch in np.array_split(chips, self._n_micro_batches)[mine]:
                yield np.array_split(micro_batch, self.sharers)[self.part].tolist()


class StoreOrder(Sampler[list[int]]):
    """Batches of store positions, each once, as given; of several processes, every size-th."""

    def __init__(
        self, indices: Sequence[int], batch_size: int, *, rank: int = 0, size: int = 1
    ) -> None:
        self.indices = list(indices)
        self.batch_size = batch_size
        self._firsts = range(rank * batch_size, len(self.indices), size * batch_size)

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[list[int]]:
        for first in self._firsts:
            yield self.indices[first : first + self.batch_size]


def _check_micro_batches(batch_size: int, micro_batch_size: int, size: int) -> None:
    where = "at optimisation.micro_batch_size"
    n_micro_batches, rest = divmod(batch_size, micro_batch_size)
    if rest:
        raise ParamsError(
            f"expected a divisor of optimisation.batch_size ({batch_size}), got"
            f" {micro_batch_size}, {where}; set it to {batch_size} for one forward pass a step"
        )
    if n_micro_batches % size == 0:
        return
    if size % n_micro_batches or micro_batch_size % (size // n_micro_batches):
        raise ParamsError(
            f"expected micro-batches that {size} processes can share evenly, got"
            f" {n_micro_batches} a step of {micro_batch_size} chips each, {where};"
            f" set it to optimisation.batch_size divided by {size}, or run another number of"
            " processes"
        )


def _check_chips(n_chips: int, batch_size: int, size: int) -> None:
    if size > 1 and n_chips < batch_size:
        raise ParamsError(
            f"expected at least {batch_size} chips to train on with {size} processes, got"
            f" {n_chips}, at optimisation.batch_size; lower it, or run one process"
        )
