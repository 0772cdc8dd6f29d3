"""The tiles of a map: read ahead, computed block by block, put together, written whole.

A tile is the unit of work. It is skipped where it lies already with the same fingerprint, and one
whose rasters cannot be read is passed over: a rerun makes those that are missing.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import rasterio
from numpy.typing import NDArray

from biomassters.batches.reading import count_threads
from biomassters.errors import UnreadableRasterError
from biomassters.mapping.blocks import BlockSums, PreparedBlock
from biomassters.mapping.job import Mapper
from biomassters.mapping.layout import FINGERPRINT_TAG, name_tile, tile_path
from biomassters.mapping.memory import MemoryPlan, plan_memory
from biomassters.mapping.tiles import read_tile_tags, write_tile
from biomassters.model.quantile_head import MEDIAN
from biomassters.prediction.maps import PixelIntervals
from biomassters.scenes.grid import Box

Block = tuple[int, int]
Floats = NDArray[np.float32]


@dataclass
class Outcome:
    """What became of tiles.

    Attributes:
        made: Those that were made.
        failed: Why others were not, by their file names.
        seconds: That it took.
        waiting_s: Of these, that the models waited for their input.
        writing_s: Of these, that tiles were put together and written.
    """

    made: list[Box] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    waiting_s: float = 0.0
    writing_s: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Add what became of other tiles."""
        self.made += other.made
        self.failed |= other.failed
        self.seconds += other.seconds
        self.waiting_s += other.waiting_s
        self.writing_s += other.writing_s


def list_pending(mapper: Mapper, tiles: Sequence[Box]) -> list[Box]:
    """Return the tiles that are not there yet, or are of another fingerprint."""
    return [box for box in tiles if not is_made(mapper, box)]


def is_made(mapper: Mapper, box: Box) -> bool:
    """Tell whether a tile lies there, and is what it would be if it were made now."""
    tags = read_tile_tags(tile_path(mapper.job.folder, mapper.scene.grid, box))
    return tags is not None and tags.get(FINGERPRINT_TAG) == mapper.fingerprint_tile(box)


def make_tiles(
    mapper: Mapper, tiles: Sequence[Box], *, memory: int | None = None
) -> Iterator[Outcome]:
    """Make the tiles that are not there yet, and yield what became of each.

    Law: a tile's bytes depend neither on the other tiles, nor on their order, nor on `memory`.

    Args:
        mapper: The job, opened.
        tiles: In the order of their making; neighbours behind each other share blocks.
        memory: Of the whole process, bytes; see `plan_memory`.

    Raises:
        ParamsError: The memory is too little.
    """
    pending = list_pending(mapper, tiles)
    if not pending:
        return
    n_readers = max(1, count_threads())
    mapper.settle_engines()
    block_pixels = mapper.blocks.waiting_pixels
    plan = plan_memory(
        memory, block_pixels, mapper.job.tile_size, n_readers, mapper.scene.kept_bytes
    )
    with (
        rasterio.Env(GDAL_CACHEMAX=plan.cache_bytes),
        ThreadPoolExecutor(n_readers, "read-scene") as threads,
    ):
        blocks = _Blocks(mapper, pending, plan, threads)
        try:
            for box in pending:
                yield _make_tile(mapper, box, blocks)
        finally:
            blocks.cancel()


def _make_tile(mapper: Mapper, box: Box, blocks: "_Blocks") -> Outcome:
    started, waited = time.monotonic(), blocks.waiting_s
    outcome = Outcome()
    try:
        sums = list(blocks.iterate(box))
    except UnreadableRasterError as error:
        outcome.failed[name_tile(mapper.scene.grid, box)] = str(error)
    else:
        computed = time.monotonic()
        agbm, intervals = _put_together(mapper, box, sums)
        path = tile_path(mapper.job.folder, mapper.scene.grid, box)
        write_tile(path, mapper.scene.grid, box, agbm, intervals, mapper.tags(box))
        outcome.writing_s = time.monotonic() - computed
        outcome.made.append(box)
    outcome.seconds = time.monotonic() - started
    outcome.waiting_s = blocks.waiting_s - waited
    return outcome


def _put_together(
    mapper: Mapper, box: Box, sums: Sequence[BlockSums]
) -> tuple[Floats, PixelIntervals | None]:
    """Return a tile's AGBM and its intervals, (H, W), t/ha, NaN = nodata."""
    totals = np.zeros((mapper.blocks.n_outputs, *box.shape), np.float32)
    weights = np.zeros(box.shape, np.float32)
    valid = np.zeros(box.shape, np.bool_)
    for block in sums:
        common = block.box.intersect(box)
        if common is not None:
            here, there = common.within(box), common.within(block.box)
            totals[:, *here] += block.totals[:, *there]
            weights[here] += block.weights[there]
            valid[here] |= block.valid[there]
    outputs = np.divide(totals, weights, out=np.zeros_like(totals), where=valid)
    if mapper.job.predict.clamp:
        outputs = np.maximum(outputs, 0)
    of_quantiles = len(outputs) > 1
    agbm = outputs[MEDIAN if of_quantiles else 0]
    bounds = np.delete(outputs, MEDIAN, axis=0) if of_quantiles else None
    intervals = mapper.calibration.intervals(agbm, bounds) if mapper.calibration else None
    agbm, *others = (
        np.where(valid, image, np.float32(np.nan)) for image in (agbm, *(intervals or ()))
    )
    return agbm, PixelIntervals(*others) if others else None


class _Blocks:
    """The blocks of some tiles, each read in time and computed once, as long as memory lasts."""

    def __init__(
        self,
        mapper: Mapper,
        tiles: Sequence[Box],
        plan: MemoryPlan,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.waiting_s = 0.0
        self._mapper = mapper
        self._plan = plan
        self._threads = threads
        # Windows beyond all of the tiles are not needed.
        self._wanted = _surround(tiles)
        self._needs = {box: list(mapper.job.windows.list_blocks(box)) for box in tiles}
        self._uses = Counter(block for blocks in self._needs.values() for block in blocks)
        self._upcoming = iter([block for blocks in self._needs.values() for block in blocks])
        self._reading: dict[Block, Future[PreparedBlock]] = {}
        self._kept: dict[Block, BlockSums] = {}
        self._failed: dict[Block, UnreadableRasterError] = {}
        self._computing: Block | None = None

    def iterate(self, tile: Box) -> Iterator[BlockSums]:
        """Yield the blocks that reach into a tile.

        Raises:
            UnreadableRasterError: One of them cannot be read; what is needed of the others later
                is kept all the same.
        """
        failure: UnreadableRasterError | None = None
        for block in self._needs[tile]:
            self._uses[block] -= 1
            try:
                sums = self._kept.get(block) or self._compute(block)
            except UnreadableRasterError as error:
                failure = failure or error
                continue
            self._keep(block, sums)
            yield sums
        if failure is not None:
            raise failure

    def cancel(self) -> None:
        """Leave what waits to be read."""
        for future in self._reading.values():
            future.cancel()

    def _compute(self, block: Block) -> BlockSums:
        if block in self._failed:
            raise self._failed[block]
        self._read_ahead()
        future = self._reading.get(block) or self._submit(block)
        started = time.monotonic()
        try:
            prepared = future.result()
        except UnreadableRasterError as error:
            self._failed[block] = error
            raise
        finally:
            self.waiting_s += time.monotonic() - started
            self._reading.pop(block, None)
        self._computing = block
        self._read_ahead()
        return self._mapper.blocks.predict(prepared)

    def _submit(self, block: Block) -> Future[PreparedBlock]:
        return self._threads.submit(self._read, block)

    def _read(self, block: Block) -> PreparedBlock:
        pixels = self._mapper.scene.read(self._mapper.job.windows.block_box(block))
        return self._mapper.blocks.prepare(block, pixels, self._wanted)

    def _read_ahead(self) -> None:
        while len(self._reading) < self._plan.blocks_ahead:
            block = next(self._upcoming, None)
            if block is None:
                return
            known = block in self._reading or block in self._kept or block in self._failed
            if self._uses[block] and not known and block != self._computing:
                self._reading[block] = self._submit(block)

    def _keep(self, block: Block, sums: BlockSums) -> None:
        """Keep a block for later tiles, the newest first where there is no room for all."""
        self._kept.pop(block, None)
        if not self._uses[block]:
            return
        self._kept[block] = sums
        while len(self._kept) * sums.n_bytes > self._plan.kept_bytes:
            self._kept.pop(next(iter(self._kept)))


def _surround(tiles: Sequence[Box]) -> Box:
    """Return the smallest box around tiles."""
    row, column = min(box.row for box in tiles), min(box.column for box in tiles)
    end_row, end_column = max(box.end_row for box in tiles), max(box.end_column for box in tiles)
    return Box(row, column, end_row - row, end_column - column)
