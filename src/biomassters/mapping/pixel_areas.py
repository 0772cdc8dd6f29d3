"""How large pixels and polygons are on the ground.

In a CRS in degrees, areas are those of the ellipsoid, so that pixels of one map differ by row. In
any other they are those of the CRS's plane, as other tools have them.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from biomassters.scenes.grid import Box, Grid


def measure_rows(grid: Grid, box: Box) -> NDArray[np.float64]:
    """Return the area of a pixel of each row, (H,), m²."""
    if not grid.is_geographic:
        return np.full(box.height, (grid.resolution * _measure_unit(grid.crs)) ** 2)
    latitudes = -grid.resolution * np.arange(box.row, box.end_row + 1)
    to_plane = _open_equal_area(grid.crs)
    (west, east), _ = to_plane([0, grid.resolution], [0, 0])
    _, northing = to_plane(np.zeros(len(latitudes)), latitudes)
    return np.asarray(-np.diff(northing) * (east - west))


def measure_box(grid: Grid, box: Box) -> float:
    """Return the area of a box of pixels, m²."""
    return float(measure_rows(grid, box).sum()) * box.width


def measure_polygon(polygon: Any, grid: Grid) -> float:
    """Return the area of a shapely polygon, in the grid's CRS, m²."""
    if not grid.is_geographic:
        return float(polygon.area * _measure_unit(grid.crs) ** 2)
    to_plane = _open_equal_area(grid.crs)
    # Edges are straight in degrees, so they bend in the plane: cut to a hundred pixels they do not.
    pieces = shapely.segmentize(polygon, 100 * grid.resolution)
    plane = shapely.transform(pieces, lambda points: np.column_stack(to_plane(*points.T)))
    return float(plane.area)


def measure_sides(grid: Grid, box: Box) -> tuple[float, float]:
    """Return the height and the width of a pixel in the middle of a box, m."""
    if not grid.is_geographic:
        side = grid.resolution * _measure_unit(grid.crs)
        return side, side
    ellipsoid = _find_ellipsoid(grid.crs)
    west, south, east, north = grid.bounds(box)
    longitude, latitude, step = (west + east) / 2, (south + north) / 2, grid.resolution
    places = np.array([[longitude, latitude + step], [longitude + step, latitude]])
    *_, (height, width) = ellipsoid.inv([longitude] * 2, [latitude] * 2, *places.T)
    return float(height), float(width)


def measure_distortion(grid: Grid) -> float:
    """Return how many times too large the CRS shows areas in the middle of a map.

    It is 1 in degrees, of which areas are measured on the ellipsoid.
    """
    crs = pyproj.CRS.from_user_input(grid.crs)
    if grid.is_geographic or crs.geodetic_crs is None:
        return 1.0
    west, south, east, north = grid.bounds(grid.extent)
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    place = to_degrees.transform((west + east) / 2, (south + north) / 2)
    return float(pyproj.Proj(crs).get_factors(*place).areal_scale)


@lru_cache
def _measure_unit(crs: str) -> float:
    """Return the metres of the unit of a CRS."""
    return float(pyproj.CRS.from_user_input(crs).axis_info[0].unit_conversion_factor)


@lru_cache
def _open_equal_area(crs: str) -> pyproj.Proj:
    """Return the map from degrees to a plane in which areas are true.

    Source: Snyder, Map projections: a working manual (1987), cylindrical equal-area, by PROJ.
    """
    ellipsoid = _find_ellipsoid(crs)
    return pyproj.Proj(proj="cea", a=ellipsoid.a, b=ellipsoid.b)


def _find_ellipsoid(crs: str) -> pyproj.Geod:
    ellipsoid = pyproj.CRS.from_user_input(crs).get_geod()
    assert ellipsoid is not None  # noqa: S101  # each CRS in degrees has one
    return ellipsoid
