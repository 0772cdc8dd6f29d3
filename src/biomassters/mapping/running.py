"""A map from its beginning to its end, by one process, several, or a cluster."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rasterio
from tqdm import tqdm

from biomassters.errors import UnreadableRasterError, name_few
from biomassters.mapping.finishing import add_up_zones, finish_map
from biomassters.mapping.job import MapJob, Mapper, open_mapper
from biomassters.mapping.making import Outcome, list_pending, make_tiles
from biomassters.mapping.memory import LEAST_CACHE
from biomassters.mapping.parts import WHOLE, Shard, cut_tiles
from biomassters.mapping.pixel_areas import measure_box
from biomassters.mapping.workers import make_with_workers
from biomassters.mapping.zones.polygons import read_zones
from biomassters.scenes.grid import Box

KM2: Final = 1e6


@dataclass(frozen=True, kw_only=True)
class Means:
    """Who makes a map; it changes no byte of it.

    Attributes:
        shard: The part that this process is to make.
        workers: Processes on this machine.
        dask: The address of a Dask scheduler; None = no cluster.
        memory: Of each process, bytes; None = by default.
    """

    shard: Shard = WHOLE
    workers: int = 1
    dask: str | None = None
    memory: int | None = None


@dataclass(frozen=True, kw_only=True)
class MapRun:
    """What a run has done.

    Attributes:
        n_tiles: Of the whole map.
        outcome: Of this run's tiles.
        seconds: That these took, models and all.
        is_complete: Whether all tiles are there now, whoever made them.
    """

    n_tiles: int
    outcome: Outcome
    seconds: float
    is_complete: bool

    def describe(self) -> str:
        """Return a line for people."""
        outcome = self.outcome
        text = f"{len(outcome.made)} of {self.n_tiles} tiles made"
        if outcome.made:
            waited = outcome.waiting_s / outcome.seconds
            text += f" in {self.seconds:.1f} s (waiting for input: {waited:.0%} of it)"
        return text + ("" if self.is_complete else "; not all of the map is there yet")


def make_map(job: MapJob, means: Means, zones: Path | None = None) -> MapRun:
    """Make what is missing of a map and, once all tiles are there, what lies beside them.

    Args:
        job: What to make.
        means: Who makes it.
        zones: A GeoJSON of polygons whose biomass is added up; None = none.

    Raises:
        SceneError: The scene cannot be used.
        UnreadableRasterError: Some tiles' rasters cannot be read; all others are made.
        ModelError, ChipDataError, ParamsError, BusyError: As the modules say that are used.
    """
    mapper = open_mapper(job)
    read = None if zones is None else read_zones(zones, mapper.scene.grid)
    tiles = cut_tiles(mapper.scene.grid, job.tile_size)
    started = time.monotonic()
    outcome = _make(mapper, means.shard.pick(tiles), means)
    seconds = time.monotonic() - started
    if outcome.failed:
        raise UnreadableRasterError(
            f"expected to read what all tiles need, got {len(outcome.failed)} of {len(tiles)} tiles"
            f" ({name_few(outcome.failed)}) without it ({next(iter(outcome.failed.values()))}), at"
            f" {job.folder}; run the same command again, which makes these alone"
        )
    is_complete = not list_pending(mapper, tiles)
    if is_complete:
        with rasterio.Env(GDAL_CACHEMAX=LEAST_CACHE):  # the whole map is read once more
            finish_map(mapper, tiles)
            if read is not None:
                add_up_zones(mapper, read)
    return MapRun(n_tiles=len(tiles), outcome=outcome, seconds=seconds, is_complete=is_complete)


def _make(mapper: Mapper, tiles: Sequence[Box], means: Means) -> Outcome:
    """Make what is missing of some tiles, with a bar if at a terminal."""
    pending = list_pending(mapper, tiles)
    areas = {box: measure_box(mapper.scene.grid, box) / KM2 for box in tiles}
    total = Outcome()
    with tqdm(total=sum(areas.values()), unit="km²", unit_scale=True, disable=None) as bar:
        bar.update(sum(areas[box] for box in set(tiles) - set(pending)))
        for outcome in _start(mapper, pending, means):
            total.add(outcome)
            n_done = len(tiles) - len(pending) + len(total.made)
            bar.set_postfix_str(f"{n_done}/{len(tiles)} tiles", refresh=False)
            bar.update(sum(areas[box] for box in outcome.made))
    return total


def _start(mapper: Mapper, pending: Sequence[Box], means: Means) -> Iterator[Outcome]:
    if not pending:
        return iter(())
    if means.dask is not None:
        from biomassters.mapping.cluster import make_with_dask  # Dask, which few need

        return make_with_dask(mapper.job, pending, means.dask, means.memory, mapper.fingerprint)
    if means.workers > 1:
        return make_with_workers(mapper.job, pending, means.workers, means.memory)
    return make_tiles(mapper, pending, memory=means.memory)
