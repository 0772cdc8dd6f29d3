"""Several processes of one machine that make a map together."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Final

import torch

from biomassters.batches.distributed import Processes
from biomassters.errors import BusyError
from biomassters.mapping.job import MapJob, Mapper, open_mapper
from biomassters.mapping.making import Outcome, make_tiles
from biomassters.mapping.parts import Shard
from biomassters.processes.counts import count_cores
from biomassters.processes.ending import end_with_parent
from biomassters.scenes.grid import Box

PARTS_PER_WORKER: Final = 4
"""Runs of tiles that a worker takes one after the other: ends differ by a part, not by a worker."""

_mapper: Mapper | None = None


def make_with_workers(
    job: MapJob, tiles: Sequence[Box], n_workers: int, memory: int | None
) -> Iterator[Outcome]:
    """Make tiles in several processes, which share the cores and the GPUs; yield part by part.

    Args:
        job: What to make.
        tiles: Which are to be made.
        n_workers: Processes.
        memory: Of each process, bytes; None = by default.

    Raises:
        BusyError: A worker was killed; what is made stays.
    """
    n_parts = min(PARTS_PER_WORKER * n_workers, len(tiles))
    parts = [Shard(part, n_parts).pick(tiles) for part in range(n_parts)]
    # Spawned, since threads and GPUs do not survive a fork.
    context = multiprocessing.get_context("spawn")
    numbers = context.Value("i", 0)
    with ProcessPoolExecutor(n_workers, context, _start, (job, numbers, n_workers)) as workers:
        try:
            futures = [workers.submit(_make_part, part, memory) for part in parts]
            for done in as_completed(futures):
                yield done.result()
        except BrokenProcessPool:
            raise BusyError(
                f"expected {n_workers} workers to stay, got one that was killed, at {job.folder};"
                " run the same command again, which makes what is missing (with fewer --workers"
                " where memory was short)"
            ) from None
        finally:
            workers.shutdown(cancel_futures=True)


def _start(job: MapJob, numbers: object, n_workers: int) -> None:
    global _mapper
    end_with_parent()
    with numbers.get_lock():  # type: ignore[attr-defined]
        number = numbers.value  # type: ignore[attr-defined]
        numbers.value += 1  # type: ignore[attr-defined]
    torch.set_num_threads(max(1, count_cores() // n_workers))
    _mapper = open_mapper(job, Processes(local_rank=number).device)


def _make_part(tiles: list[Box], memory: int | None) -> Outcome:
    assert _mapper is not None  # noqa: S101
    total = Outcome()
    for outcome in make_tiles(_mapper, tiles, memory=memory):
        total.add(outcome)
    return total
