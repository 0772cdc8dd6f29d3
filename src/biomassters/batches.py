"""From a chip store to batches of stored integers, on the device before they are needed.

Knows nothing of which chips make a batch: that is for `epoch_order` to say.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from biomassters.chips import ChipStore
from biomassters.errors import BiomasstersError
from biomassters.worker_count import count_cores, count_workers


class Batch(NamedTuple):
    """Chips as stored.

    Attributes:
        chip_index: Positions in the store, (B,).
        s1: Backscatter, (B, T, 4, H, W), int16, 0.01 dB.
        s2: Reflectance and cloud probability, (B, T, 11, H, W), uint16.
        s2_present: (B, T) bool; False = absent month.
        target: AGBM, (B, H, W), float32, t/ha; NaN = no target.

    `chip_index` and `s2_present` stay on the CPU wherever the others are: what they decide (what to
    draw, which months to encode) is decided there, without waiting for a GPU.
    """

    chip_index: Tensor
    s1: Tensor
    s2: Tensor
    s2_present: Tensor
    target: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, without waiting where the memory is pinned."""
        s1, s2, target = (
            tensor.to(device, non_blocking=True) for tensor in (self.s1, self.s2, self.target)
        )
        return self._replace(s1=s1, s2=s2, target=target)


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
    """Read batches in worker processes, as many as this process has cores to spare.

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


def prefetch(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches on a device; a GPU copies the next one while it computes on this one.

    Args:
        batches: On the CPU, pinned where the device is a GPU (as `open_batches` gives them).
        device: Where they are needed.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            following = batch.to(device), stream.record_event()
        if waiting is not None:
            yield _hand_over(*waiting, device)
        waiting = following
    if waiting is not None:
        yield _hand_over(*waiting, device)


def _hand_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the stream that computes wait for a copy, and own its memory."""
    computing = torch.cuda.current_stream(device)
    computing.wait_event(copied)
    for tensor in (batch.s1, batch.s2, batch.target):
        tensor.record_stream(computing)
    return batch


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to a device; the host does not wait for a GPU's work."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def _count_workers() -> int:
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
    return count_workers(min(max(count_cores() // n_processes - 1, 0), 8))


def _pass_on(batch: Batch | BiomasstersError) -> Batch | BiomasstersError:
    return batch
