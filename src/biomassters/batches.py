"""From a chip store to batches of stored integers, in an order that only seed and epoch decide."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from biomassters.chips import ChipStore
from biomassters.errors import BiomasstersError, ParamsError

WORKERS_VARIABLE = "BIOMASSTERS_WORKERS"


class Batch(NamedTuple):
    """Chips as stored.

    Attributes:
        chip_index: Positions in the store, (B,).
        s1: Backscatter, (B, T, 4, H, W), int16, 0.01 dB.
        s2: Reflectance and cloud probability, (B, T, 11, H, W), uint16.
        s2_present: (B, T) bool; False = absent month.
        target: AGBM, (B, H, W), float32, t/ha; NaN = no target.
    """

    chip_index: Tensor
    s1: Tensor
    s2: Tensor
    s2_present: Tensor
    target: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, without waiting where the memory is pinned."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class EpochOrder(Sampler[list[int]]):
    """Batches of store positions, drawn anew each epoch from (seed, epoch) alone.

    A batch that is not full is dropped (batch normalisation would weigh its chips more), unless
    it is the only one.
    """

    def __init__(self, indices: Sequence[int], batch_size: int, seed: int) -> None:
        self.indices = np.asarray(indices)
        self.batch_size = min(batch_size, len(indices))
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.indices) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = random.permutation(self.indices)
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


class StoreOrder(Sampler[list[int]]):
    """Batches of store positions, each once, as given."""

    def __init__(self, indices: Sequence[int], batch_size: int) -> None:
        self.indices = list(indices)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield self.indices[first : first + self.batch_size]


class _StoredChips(Dataset[Any]):
    def __init__(self, store: ChipStore) -> None:
        self.store = store

    def __getitems__(self, indices: list[int]) -> Batch | BiomasstersError:
        """Read a batch; the loader asks for all its chips at once."""
        try:
            columns = zip(*map(self._read_columns, indices), strict=True)
            return Batch(*(torch.from_numpy(np.stack(column)) for column in columns))
        except BiomasstersError as error:
            return error  # raised in a worker, it would come with the worker's traceback

    def _read_columns(self, index: int) -> tuple[Any, ...]:
        chip = self.store.read_chip(index)
        size = self.store.chip_size
        target = np.full((size, size), np.nan, np.float32) if chip.agbm is None else chip.agbm
        return index, chip.s1, chip.s2, chip.s2_present, target


class _Batches(DataLoader[Batch]):
    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # all that is asked of it
        for batch in super().__iter__():
            if isinstance(batch, BiomasstersError):
                raise batch
            yield batch


def open_batches(store: ChipStore, order: Sampler[list[int]]) -> "DataLoader[Batch]":
    """Read batches in worker processes, as many as this machine has cores to spare.

    The environment variable BIOMASSTERS_WORKERS sets another number; it changes no result.

    Raises:
        ParamsError: That variable is no number of processes.
    """
    workers = _count_workers()
    return _Batches(
        _StoredChips(store),
        batch_sampler=order,
        collate_fn=_pass_on,  # type: ignore[arg-type]  # batches come whole
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Its own, lest the number of workers decide what is drawn from torch's global generator.
        generator=torch.Generator(),
    )


def _count_workers() -> int:
    default = min(len(os.sched_getaffinity(0)) - 1, 8)
    value = os.environ.get(WORKERS_VARIABLE, str(default))
    if not value.isdecimal():
        raise ParamsError(
            f"expected a number of processes, got {value!r}, at the environment variable"
            f" {WORKERS_VARIABLE}; set it to 0 or more"
        )
    return int(value)


def _pass_on(batch: Batch | BiomasstersError) -> Batch | BiomasstersError:
    return batch
