"""What lies beside the tiles of a map, once all of them are there."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shapely.geometry import box as make_rectangle

from biomassters.errors import SceneError
from biomassters.mapping.job import Mapper, fingerprint_code
from biomassters.mapping.layout import TILES, list_tiles, tile_path
from biomassters.mapping.preview import draw_preview
from biomassters.mapping.qgis_style import write_style
from biomassters.mapping.stac_items import MapFacts, write_catalogue
from biomassters.mapping.stac_model import ModelFacts, Weights
from biomassters.mapping.virtual_raster import write_vrt
from biomassters.mapping.zones.files import describe_sum, write_zones
from biomassters.mapping.zones.polygons import Zone, Zones
from biomassters.mapping.zones.sums import sum_zones
from biomassters.processes.writing import write_whole
from biomassters.scenes.grid import Box
from biomassters.store.bands import BANDS

log = logging.getLogger(__name__)

SUMMARY: Final = "map.json"
"""The file of a map with its figures, and with the fingerprint of what it was finished for."""


def finish_map(mapper: Mapper, tiles: Sequence[Box]) -> None:
    """Write what lies beside the tiles, and take away what belongs to another cut of the map.

    Args:
        mapper: The job, opened.
        tiles: All tiles of the map, which are there.
    """
    folder, grid = mapper.job.folder, mapper.scene.grid
    fingerprint = mapper.fingerprint_tiles(tiles)
    if read_summary(folder).get("fingerprint") == fingerprint:
        return
    paths = [tile_path(folder, grid, box) for box in tiles]
    for stale in set(list_tiles(folder)) - set(paths):
        stale.unlink(missing_ok=True)
        stale.with_suffix(".json").unlink(missing_ok=True)
    for partial in (folder / TILES).glob(".*.partial"):  # of killed processes
        partial.unlink(missing_ok=True)
    there = list(zip(paths, tiles, strict=True))
    write_vrt(folder, grid, there)
    write_style(folder)
    write_catalogue(folder, grid, there, _list_facts(mapper))
    draw_preview(folder, grid, name=mapper.scene.name, period=mapper.scene.period)
    summary = {
        "fingerprint": fingerprint,
        "scene": mapper.scene.name,
        "period": "/".join(mapper.scene.period),
        "crs": grid.crs,
        "tiles": len(tiles),
        **_sum_up(mapper),
    }
    write_whole(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the figures of a map; nothing where it was never finished."""
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return summary


def add_up_zones(mapper: Mapper, zones: Zones) -> None:
    """Write the biomass of each zone, with its interval, beside a whole map.

    Raises:
        SceneError: The map's CRS shows areas wrong.
    """
    folder, calibration = mapper.job.folder, mapper.calibration
    sums = sum_zones(zones, folder, mapper.scene.grid, calibration)
    write_zones(folder, zones, sums, calibration)


def _sum_up(mapper: Mapper) -> dict[str, float | None]:
    """Return what the whole map holds."""
    grid, calibration = mapper.scene.grid, mapper.calibration
    extent = Zone("map", make_rectangle(*grid.bounds(grid.extent)))
    zones = Zones(mapper.job.folder, {}, (extent,))
    try:
        (total,) = sum_zones(zones, mapper.job.folder, grid, calibration)
    except SceneError as error:  # a CRS of which areas are no areas: a map all the same
        log.warning("the map has no totals: %s", error)
        return {}
    return describe_sum(total, calibration.level if calibration else None)


def _list_facts(mapper: Mapper) -> MapFacts:
    job = mapper.job
    model = next(iter(mapper.models.values()))
    weights = [
        Weights(path.stem, identity, os.path.relpath(path, job.folder))
        for path, identity in zip(mapper.models, mapper.weights.values(), strict=True)
    ]
    return MapFacts(
        name=mapper.scene.name,
        period=mapper.scene.period,
        scene=mapper.scene.identity,
        code=fingerprint_code(),
        calibration=mapper.calibration.tags() if mapper.calibration else {},
        model=ModelFacts(
            weights=weights,
            architecture=model.architecture.backbone,
            bands=model.bands.pick(BANDS),
            window=job.window_size,
            tta=job.map.tta,
        ),
    )
