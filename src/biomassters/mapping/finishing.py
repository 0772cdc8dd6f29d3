"""What lies beside the tiles of a map, once all of them are there."""

from collections.abc import Sequence

from biomassters.mapping.job import Mapper
from biomassters.mapping.layout import TILES, list_tiles, tile_path
from biomassters.mapping.qgis_style import write_style
from biomassters.mapping.virtual_raster import write_vrt
from biomassters.scenes.grid import Box


def finish_map(mapper: Mapper, tiles: Sequence[Box]) -> None:
    """Write what lies beside the tiles, and take away what belongs to another cut of the map.

    Args:
        mapper: The job, opened.
        tiles: All tiles of the map.
    """
    folder, grid = mapper.job.folder, mapper.scene.grid
    paths = [tile_path(folder, grid, box) for box in tiles]
    for stale in set(list_tiles(folder)) - set(paths):
        stale.unlink(missing_ok=True)
        stale.with_suffix(".json").unlink(missing_ok=True)
    for partial in (folder / TILES).glob(".*.partial"):  # of killed processes
        partial.unlink(missing_ok=True)
    write_vrt(folder, grid, list(zip(paths, tiles, strict=True)))
    write_style(folder)
