"""From a chip store to batches, read ahead by threads, on the device before they are needed.

Which chips make a batch is for `order` to say, and what is made of a chip for a `Filling`: stored
integers (`StoredChips`), unless another one is given.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.utils.data import Sampler

from biomassters.processes.counts import count_cores, count_workers
from biomassters.store.bands import N_MONTHS
from biomassters.store.chips import Chip, ChipStore
from biomassters.store.layout import image_shapes


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


BatchT = TypeVar("BatchT")


class Filling(Protocol[BatchT]):
    """What is made of chips: a batch that is there before its chips, and filled row by row."""

    def make_room(self, indices: list[int]) -> BatchT:
        """Return a batch for chips at these positions of the store, to be filled."""
        ...

    def read_chip(self, index: int, batch: BatchT, row: int) -> None:
        """Read the chip at `index` into a row of a batch; in any thread, several at a time.

        Raises:
            StoreError: It is missing or damaged.
        """
        ...


def make_tensor(shape: tuple[int, ...], dtype: str, *, is_pinned: bool) -> Tensor:
    """Return a tensor of whatever values on the CPU.

    Args:
        shape: Of it.
        dtype: As numpy names it.
        is_pinned: Whether a GPU shall copy from it without the host's help.
    """
    if is_pinned:  # torch keeps such memory, and gives it out again
        return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
    return torch.from_numpy(np.empty(shape, dtype))  # numpy's lies in large pages


def write_cleaned(chip: Chip, s1: NDArray[np.int16], s2: NDArray[np.uint16]) -> None:
    """Copy the images that a cleaning gave a chip over those that it had; most have none."""
    if chip.s1 is not s1:
        s1[...] = chip.s1
    if chip.s2 is not s2:
        s2[...] = chip.s2


class StoredChips:
    """Chips as stored: decompressed straight into the batch."""

    def __init__(self, store: ChipStore) -> None:
        self._store = store
        self._pinned = torch.cuda.is_available()

    def make_room(self, indices: list[int]) -> Batch:
        """Return a batch of whatever values."""
        n_chips = len(indices)
        s1, s2, target = (
            make_tensor((n_chips, *shape), layout.dtype, is_pinned=self._pinned)
            for layout, shape in image_shapes(self._store.chip_size).items()
        )
        chip_index = torch.empty(n_chips, dtype=torch.int64)
        s2_present = torch.empty(n_chips, N_MONTHS, dtype=torch.bool)
        return Batch(chip_index, s1, s2, s2_present, target)

    def read_chip(self, index: int, batch: Batch, row: int) -> None:
        """Read a chip."""
        # Views of the batch's memory, which the store decompresses into; no copy, unless a chip is
        # cleaned, and then only of what the cleaning changed.
        s1, s2, target = (tensor.numpy()[row] for tensor in (batch.s1, batch.s2, batch.target))
        chip = self._store.read_chip(index, (s1, s2, target))
        write_cleaned(chip, s1, s2)
        if chip.agbm is None:
            target.fill(np.nan)
        batch.chip_index.numpy()[row] = index
        batch.s2_present.numpy()[row] = chip.s2_present


class Batches(Generic[BatchT]):
    """Batches of a store's chips, in an order that may be iterated over again and again.

    Threads read ahead: decompressing, which is nearly all of the work, needs no interpreter, so
    that several chips are read at once straight into the batch that is handed over. (Processes
    would have to hand it through shared memory, which takes longer than to decompress it.)

    Attributes:
        n_threads: That read chips; 0 = whoever iterates reads.
    """

    def __init__(self, filling: Filling[BatchT], order: Sampler[list[int]], n_threads: int) -> None:
        self.n_threads = n_threads
        self._filling = filling
        self._order = order

    def __len__(self) -> int:
        return len(self._order)  # type: ignore[arg-type]  # all of ours have a length

    def __iter__(self) -> Iterator[BatchT]:
        """Yield them.

        Raises:
            StoreError: A chip is missing or damaged.
        """
        if self.n_threads:
            yield from self._read_ahead()
            return
        for indices in self._order:
            batch = self._filling.make_room(indices)
            for row, index in enumerate(indices):
                self._filling.read_chip(index, batch, row)
            yield batch

    def _read_ahead(self) -> Iterator[BatchT]:
        under_way: deque[tuple[BatchT, list[Future[None]]]] = deque()
        threads = ThreadPoolExecutor(self.n_threads, "read-chips", _compute_alone)
        try:
            for indices in self._order:
                # The batch is there before its chips: each thread decompresses one into its row.
                batch = self._filling.make_room(indices)
                chips = [
                    threads.submit(self._filling.read_chip, index, batch, row)
                    for row, index in enumerate(indices)
                ]
                under_way.append((batch, chips))
                # While one is computed on, another is complete, or enough chips are read at once.
                if sum(len(chips) for _, chips in under_way) > max(
                    2 * len(indices), 2 * self.n_threads
                ):
                    yield _wait_for(*under_way.popleft())
            while under_way:
                yield _wait_for(*under_way.popleft())
        finally:
            threads.shutdown(cancel_futures=True)


def open_batches(store: ChipStore, order: Sampler[list[int]]) -> Batches[Batch]:
    """Read chips as stored in threads, as many as `count_threads` says.

    Raises:
        ParamsError: BIOMASSTERS_WORKERS is no number.
    """
    return Batches(StoredChips(store), order, count_threads())


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
    # Else a batch that is no longer referred to would make room for the next copy at once, though
    # the GPU may still compute on it.
    for tensor in (batch.s1, batch.s2, batch.target):
        tensor.record_stream(computing)
    return batch


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to a device; the host does not wait for a GPU's work."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def _wait_for(batch: BatchT, chips: Iterable["Future[None]"]) -> BatchT:
    for chip in chips:
        chip.result()
    return batch


def count_threads() -> int:
    """Return how many threads read chips: as many as this process has cores to spare.

    The environment variable BIOMASSTERS_WORKERS sets another number; it changes no result.

    Raises:
        ParamsError: That variable is no number.
    """
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
    return count_workers(min(max(count_cores() // n_processes - 1, 0), 8))


def _compute_alone() -> None:
    """Let this thread compute without helpers: the cores are the training's and the others'."""
    # How many helpers OpenMP gives out is each thread's own affair; torch decides on it once in a
    # thread, when it is first asked. `torch.set_num_threads` would set it for later threads, too.
    torch.get_num_threads()
    _find_openmp().limit(limits=1, user_api="openmp")


@cache
def _find_openmp() -> ThreadpoolController:
    return ThreadpoolController()
