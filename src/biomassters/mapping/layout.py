"""What a folder of a map holds: the names of its files, and what a tile says of itself."""

from pathlib import Path
from typing import Final

from biomassters.scenes.grid import Box, Grid

TILES: Final = "tiles"
"""The folder of the tiles within that of the map."""

NODATA: Final = float("nan")
"""Of a tile: where no input is valid."""

FINGERPRINT_TAG: Final = "MAP_FINGERPRINT"
"""The tag with a digest of all that decides a tile: one that has it is not made again."""

SCENE_TAG: Final = "SCENE"
PERIOD_TAG: Final = "PERIOD"
"""The tag with the scene's first and last day, as `2020-09-01/2021-08-31`."""


def name_tile(grid: Grid, box: Box) -> str:
    """Return a tile's file name, by its north-west corner in the CRS's unit."""
    west, _, _, north = grid.bounds(box)
    return f"x{west:.10g}_y{north:.10g}.tif"


def tile_path(folder: Path, grid: Grid, box: Box) -> Path:
    """Return where a tile lies in the folder of a map."""
    return folder / TILES / name_tile(grid, box)


def list_tiles(folder: Path) -> list[Path]:
    """Return the tiles that lie in the folder of a map, by name."""
    return sorted((folder / TILES).glob("x*_y*.tif"))
