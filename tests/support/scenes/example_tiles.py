"""Small maps of plausible forest: tiles with intervals, a lake and a hole."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from biomassters.mapping.layout import tile_path
from biomassters.mapping.tiles import write_tile
from biomassters.prediction.maps import Map, PixelIntervals
from biomassters.scenes.grid import Box, Grid

TAGS = {"SCENE": "toy", "PERIOD": "2020-09-01/2021-08-31"}


def lay_metres(height: int, width: int) -> Grid:
    """Return pixels of 10 m in EPSG:3067."""
    return Grid("EPSG:3067", 10.0, Box(-688_640, 44_800, height, width))


def lay_degrees(height: int, width: int, resolution: float = 1e-4) -> Grid:
    """Return pixels from 25.1° E, 62.3° N on to the east and the south."""
    row, column = round(-62.3 / resolution), round(25.1 / resolution)
    return Grid("EPSG:4326", resolution, Box(row, column, height, width))


def grow_forest(height: int, width: int, smooth: float = 4.0) -> Map:
    """Return AGBM, (H, W), t/ha: 0 to some 300, with some nodata."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(height, width)), smooth)
    forest = 90 * np.exp(0.6 * noise / noise.std()) - 25
    forest[noise < np.quantile(noise, 0.06)] = np.nan
    return np.asarray(np.clip(forest, 0, None), np.float32)


def surround(agbm: Map) -> PixelIntervals:
    """Return intervals that grow with AGBM."""
    deviation = 12 + 0.25 * agbm
    return PixelIntervals(deviation, np.maximum(agbm - 1.6 * deviation, 0), agbm + 1.8 * deviation)


def write_tiles(
    folder: Path,
    grid: Grid,
    agbm: Map,
    side: int,
    *,
    calibrated: bool = True,
    tags: Mapping[str, str] = TAGS,
) -> list[tuple[Path, Box]]:
    """Write a map's tiles, and return them with their boxes."""
    tiles = []
    for box in grid.extent.split(side):
        part = agbm[box.within(grid.extent)]
        path = tile_path(folder, grid, box)
        write_tile(path, grid, box, part, surround(part) if calibrated else None, tags)
        tiles.append((path, box))
    return tiles
