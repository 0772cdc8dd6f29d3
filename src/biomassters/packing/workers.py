"""Chips on their way from a source to scratch, in one process or in several.

Each worker fetches, verifies, decodes and stages chips by itself, and asks its parent for the next
one over a pipe of its own: so nothing is shared that a killed process could leave locked. The
parent sees a worker's end at the end of its pipe; a worker ends when its parent does.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeAlias

from biomassters.dataset.files import BadFile, ChipRecord
from biomassters.errors import BiomasstersError
from biomassters.packing.decoding import decode_chip
from biomassters.packing.staging import SavedChip, discard_incomplete, fingerprint_chip, stage_chip
from biomassters.processes.ending import end_with_parent
from biomassters.processes.environment import WORKERS_VARIABLE
from biomassters.sources.source import FetchedChip, Source
from biomassters.store.chips import Chip

CHIPS_A_WORKER: Final = 8
"""Fewer are packed in less time than a process takes to start."""
GRACE_S: Final = 10
"""How long a worker may take to end when its work is done."""
WORKER_ENVIRONMENT: Final = {
    # The processes are as many as the cores already.
    "GDAL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # The C library keeps freed memory for the next arrays: blocks of up to 32 MiB (the most that it
    # takes), 64 MiB in each of two pools. Otherwise every array of some megabytes costs a page
    # fault each 4 KiB. Source: glibc's manual, Memory Allocation Tunables; others do not heed it.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}


class StagedChip(NamedTuple):
    """What became of a chip.

    Attributes:
        chip_id: Which one.
        saved: Where it lies in scratch; None where files are bad.
        bad_files: Those that could not be had or used.
        n_bytes: Size of all files that the source had.
    """

    chip_id: str
    saved: SavedChip | None
    bad_files: tuple[BadFile, ...]
    n_bytes: int


class _Request(NamedTuple):
    """A worker asks for its next chip."""


class _Finish(NamedTuple):
    """A worker has no more to do."""


class _Failure(NamedTuple):
    """A worker cannot go on."""

    error: BaseException


_Message: TypeAlias = _Request | _Finish | _Failure | StagedChip


def stage_chips(
    source: Source,
    chips: Iterable[ChipRecord],
    scratch: Path,
    *,
    chip_size: int,
    n_workers: int,
) -> Generator[StagedChip, None, None]:
    """Fetch chips and stage them; yield what became of each, in any order.

    Close the iterator to end the work early. What is staged by then is kept.

    Args:
        source: Has the files, and is prepared.
        chips: Which chips.
        scratch: Folder for staged chips.
        chip_size: Side of a chip, pixels.
        n_workers: Processes to start; 0 or 1 = none, all is done in this one.

    Raises:
        SourceError: The place cannot be used at all.
        BiomasstersError: A worker was killed.
    """
    if n_workers > 1:
        yield from _stage_in_workers(source, iter(chips), scratch, chip_size, n_workers)
    else:
        yield from _stage_here(source, chips, scratch, chip_size)


def choose_workers(n_workers: int, n_chips: int) -> int:
    """Return how many processes are worth their start, of `n_workers` at most."""
    return min(n_workers, n_chips // CHIPS_A_WORKER)


def _stage_here(
    source: Source, chips: Iterable[ChipRecord], scratch: Path, chip_size: int
) -> Iterator[StagedChip]:
    # By map, which keeps no chip in memory while the source fetches the next.
    stage = partial(_stage, source_kind=source.kind, scratch=scratch, chip_size=chip_size)
    return map(stage, source.fetch_chips(chips))


def _stage(fetched: FetchedChip, *, source_kind: str, scratch: Path, chip_size: int) -> StagedChip:
    chip, files, absent = fetched
    n_bytes = sum(map(len, files.values()))
    decoded = decode_chip(chip, files, chip_size, absent)
    if not isinstance(decoded, Chip):
        return StagedChip(chip.chip_id, None, tuple(decoded), n_bytes)
    fingerprint = fingerprint_chip(chip, source_kind, chip_size)
    return StagedChip(chip.chip_id, stage_chip(decoded, fingerprint, scratch), (), n_bytes)


def _stage_in_workers(
    source: Source, chips: Iterator[ChipRecord], scratch: Path, chip_size: int, n_workers: int
) -> Iterator[StagedChip]:
    workers: dict[Connection, SpawnProcess] = {}
    try:
        with _inherited_by_workers():
            for _ in range(n_workers):
                connection, process = _start_worker(source, scratch, chip_size)
                workers[connection] = process
        yield from _serve(workers, chips)
        for process in workers.values():
            process.join(GRACE_S)
    finally:
        for connection, process in workers.items():
            process.kill()
            process.join()
            process.close()
            connection.close()
        discard_incomplete(scratch)


def _start_worker(source: Source, scratch: Path, chip_size: int) -> tuple[Connection, SpawnProcess]:
    # Spawned, not forked: a source or a library may hold threads and locks.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, source, scratch, chip_size), name="packer", daemon=True
    )
    process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return ours, process


def _serve(
    workers: Mapping[Connection, SpawnProcess], chips: Iterator[ChipRecord]
) -> Iterator[StagedChip]:
    """Give workers chips as they ask for them, and yield what they tell, until all finish."""
    busy = set(workers)
    while busy:
        for connection in busy.intersection(wait(list(busy))):
            try:
                message: _Message = connection.recv()
                if isinstance(message, _Request):
                    connection.send(next(chips, None))
            except (EOFError, OSError):
                raise _describe_end(workers[connection]) from None
            if isinstance(message, StagedChip):
                yield message
            elif isinstance(message, _Finish):
                busy.remove(connection)
            elif isinstance(message, _Failure):
                raise message.error


def _describe_end(process: SpawnProcess) -> BiomasstersError:
    process.join(GRACE_S)
    code = process.exitcode
    how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with {code}"
    return BiomasstersError(
        f"expected all packing processes to finish, got one that ended {how} (by the kernel, if"
        " the memory was full); run the same command again, and it goes on where it stopped,"
        f" perhaps with fewer processes: set the environment variable {WORKERS_VARIABLE}"
    )


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """Start processes that use one thread each, keep memory and leave Ctrl-C to their parent."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if is_main:
            signal.signal(signal.SIGINT, handler)


def _work(connection: Connection, source: Source, scratch: Path, chip_size: int) -> None:
    """Stage the chips that the parent hands out: what a worker does."""
    # blosc makes a lock; one for processes to be spawned would have a name, and a killed worker
    # would leave it to be complained of.
    multiprocessing.set_start_method("fork", force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    link = _Link(connection)
    try:
        for staged in _stage_here(source, link, scratch, chip_size):
            link.tell(staged)
        link.tell(_Finish())
    except BaseException as error:
        link.tell(_Failure(_make_portable(error)))


class _Link:
    """A worker's end of its pipe; an iterator of chips, which any one thread may advance."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._telling, self._asking = threading.Lock(), threading.Lock()
        self._is_over = False

    def tell(self, message: _Message) -> None:
        try:
            with self._telling:
                self._connection.send(message)
        except OSError:
            self._end()

    def __iter__(self) -> Iterator[ChipRecord]:
        return self

    def __next__(self) -> ChipRecord:
        with self._asking:
            chip = None if self._is_over else self._ask()
            self._is_over = chip is None
        if chip is None:
            raise StopIteration
        return chip

    def _ask(self) -> ChipRecord | None:
        self.tell(_Request())
        try:
            chip: ChipRecord | None = self._connection.recv()
        except (EOFError, OSError):
            self._end()
        return chip

    def _end(self) -> NoReturn:
        # The parent is gone. No exception, which a source could take for one of its own.
        os._exit(1)


def _make_portable(error: BaseException) -> BaseException:
    """Return an error that can be sent to another process; a programmer's with its traceback."""
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, BiomasstersError):
        error.add_note(text)
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    except Exception:
        known = isinstance(error, BiomasstersError)
        return BiomasstersError(str(error)) if known else RuntimeError(text)
    return error
