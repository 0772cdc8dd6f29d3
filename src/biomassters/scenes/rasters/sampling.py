"""From a raster's pixels to those of the map's lattice, pixel by pixel.

Where a pixel of the map lies in a raster is computed on squares of the lattice, whole, and its
value from there by arithmetic that knows no neighbours but the pixels that it mixes. So it is the
same in whatever box it is read; GDAL's own warping is not, as it fits its transformation and its
kernel to each part.

- Of a raster as fine as the map or coarser: reflectance and cloud probability are those of the
  nearest pixel; the competition's bands of 20 m are so, too (in the real chips each value fills
  2 x 2 pixels). Backscatter is interpolated between the four nearest, as linear power: weights of
  decibels would darken edges.
- Of a finer raster (1.5 times and more): the mean of 2 x 2, 4 x 4 ... points within the pixel.

What is nodata in the nearest pixel is nodata; others that are so have no weight.
"""

import math
import threading
from collections import OrderedDict
from typing import Final, NamedTuple

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray

from biomassters.errors import SceneError
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.rasters.headers import RasterHeader

BLOCK: Final = 256
"""Side of the squares on which places are computed, points."""
MOST_POINTS: Final = 16
"""By row and by column within a pixel."""
MOST_BLOCKS: Final = 64
"""Squares whose places are kept, of 1 MB each."""

Array = NDArray[np.float64]
Values = NDArray[np.float32]


class Places(NamedTuple):
    """Where points lie in a raster: columns and rows, (h, w); a pixel's centre is at its + 0.5."""

    columns: Array
    rows: Array


class Lattice:
    """Knows where the map's pixels lie in other CRSs; any thread may ask."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._crs = rasterio.CRS.from_user_input(grid.crs)
        self._known: OrderedDict[tuple[str, int, Box], tuple[Array, Array]] = OrderedDict()
        self._lock = threading.Lock()

    def count_points(self, header: RasterHeader) -> int:
        """Return how many points by row and by column a pixel of the map takes from a raster.

        Raises:
            SceneError: The raster is far too fine, or lies where the map's CRS has no pixels.
        """
        west, south, east, north = header.bounds
        x, y = (west + east) / 2, (south + north) / 2
        half = max(east - west, north - south) / 20
        xs, ys = rasterio.warp.transform(
            rasterio.CRS.from_wkt(header.crs), self._crs, [x, x + half, x], [y, y, y + half]
        )
        area = abs((xs[1] - xs[0]) * (ys[2] - ys[0]) - (xs[2] - xs[0]) * (ys[1] - ys[0]))
        pixel_area = area / half**2 * abs(header.transform.determinant)
        if not (math.isfinite(pixel_area) and pixel_area > 0):
            return 1  # nowhere near the map: the check of extents tells of it
        ratio = self.grid.resolution / math.sqrt(pixel_area)
        points: int = 1 if ratio < 1.5 else 2 ** max(round(math.log2(ratio)), 1)
        if points > MOST_POINTS:
            raise SceneError(
                f"expected pixels of {self.grid.resolution / MOST_POINTS:g} or more in the map's"
                f" unit, got {math.sqrt(pixel_area):.3g}; resample the raster"
            )
        return points

    def overlaps(self, header: RasterHeader, extent: Box) -> bool:
        """Tell whether a raster has pixels within the box around an extent, in its own CRS."""
        west, south, east, north = self.grid.bounds(extent)
        other = rasterio.CRS.from_wkt(header.crs)
        bounds = rasterio.warp.transform_bounds(self._crs, other, west, south, east, north)
        west, south, east, north = header.bounds
        apart = bounds[0] >= east or bounds[2] <= west or bounds[1] >= north or bounds[3] <= south
        return not apart

    def locate(self, box: Box, header: RasterHeader, points: int) -> Places:
        """Return where the points of a box lie in a raster, ({box.height * points}, ...)."""
        xs, ys = np.empty((2, box.height * points, box.width * points))
        for part in box.split(BLOCK // points):
            square = Box(
                part.row // (BLOCK // points) * (BLOCK // points),
                part.column // (BLOCK // points) * (BLOCK // points),
                BLOCK // points,
                BLOCK // points,
            )
            known = self._locate_square(square, header.crs, points)
            into, of = _scale(part.within(box), points), _scale(part.within(square), points)
            xs[into], ys[into] = known[0][of], known[1][of]
        inverse = ~header.transform
        return Places(
            inverse.a * xs + inverse.b * ys + inverse.c, inverse.d * xs + inverse.e * ys + inverse.f
        )

    def _locate_square(self, square: Box, crs: str, points: int) -> tuple[Array, Array]:
        key = crs, points, square
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        offsets = (np.arange(BLOCK) + 0.5) / points
        xs = np.tile((square.column + offsets) * self.grid.resolution, (BLOCK, 1))
        ys = np.repeat((square.row + offsets)[:, None] * -self.grid.resolution, BLOCK, axis=1)
        other = rasterio.CRS.from_wkt(crs)
        if other != self._crs:
            moved = rasterio.warp.transform(self._crs, other, xs.ravel(), ys.ravel())
            xs, ys = (np.asarray(values).reshape(BLOCK, BLOCK) for values in moved)
        with self._lock:
            self._known[key] = xs, ys
            while len(self._known) > MOST_BLOCKS:
                self._known.popitem(last=False)
        return xs, ys


def find_window(places: Places, shape: tuple[int, int]) -> Box | None:
    """Return the pixels of a raster that points need, a margin of one included; None = none.

    Args:
        places: Where the points lie.
        shape: The raster's height and width.
    """
    height, width = shape
    inside = (places.rows >= 0) & (places.rows < height)
    inside &= (places.columns >= 0) & (places.columns < width)
    if not inside.any():
        return None
    rows, columns = places.rows[inside], places.columns[inside]
    first_row, first_column = int(rows.min()), int(columns.min())
    needed = Box(first_row, first_column, int(rows.max()) - first_row + 1, 1)
    needed = Box(first_row, first_column, needed.height, int(columns.max()) - first_column + 1)
    return needed.grow(1).intersect(Box(0, 0, height, width))


def take_nearest(values: Values, window: Box, places: Places) -> Values:
    """Return the values of the nearest pixels, (C, h, w); NaN where there are none.

    Args:
        values: Of the raster's window, (C, H, W), NaN = nodata.
        window: Which pixels these are.
        places: Where the points lie in the raster.
    """
    return _take(values, window, np.floor(places.rows), np.floor(places.columns))


def interpolate(values: Values, window: Box, places: Places) -> Values:
    """Return values between the four nearest pixels, (C, h, w); arguments as `take_nearest`."""
    nearest = take_nearest(values, window, places)
    top, left = np.floor(places.rows - 0.5), np.floor(places.columns - 0.5)
    down, right = places.rows - 0.5 - top, places.columns - 0.5 - left
    total = np.zeros(nearest.shape)
    weights = np.zeros(nearest.shape)
    for row, row_weight in ((top, 1 - down), (top + 1, down)):
        for column, column_weight in ((left, 1 - right), (left + 1, right)):
            corner = _take(values, window, row, column)
            weight = np.where(np.isfinite(corner), row_weight * column_weight, 0)
            total += np.where(weight > 0, corner, 0) * weight
            weights += weight
    with np.errstate(invalid="ignore", divide="ignore"):
        mixed = (total / weights).astype(np.float32)
    return np.where(np.isfinite(nearest), mixed, np.float32(np.nan))


def average_points(values: Values, points: int) -> Values:
    """Return the means over the points of each pixel, (C, h / points, w / points); NaN counts not.

    Args:
        values: Of points, (C, h, w).
        points: By row and by column within a pixel.
    """
    total: Array | float = 0.0
    count: NDArray[np.int64] | int = 0
    # Point by point, always in one order: `mean` sums by the shape of its array.
    for row in range(points):
        for column in range(points):
            point = values[:, row::points, column::points]
            known = np.isfinite(point)
            total = total + np.where(known, point, 0).astype(np.float64)
            count = count + known.astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count).astype(np.float32)


def _take(values: Values, window: Box, rows: Array, columns: Array) -> Values:
    inside = (rows >= window.row) & (rows < window.end_row)
    inside &= (columns >= window.column) & (columns < window.end_column)
    at_rows = np.where(inside, rows - window.row, 0).astype(np.intp)
    at_columns = np.where(inside, columns - window.column, 0).astype(np.intp)
    return np.where(inside, values[:, at_rows, at_columns], np.float32(np.nan))


def _scale(cut: tuple[slice, slice], points: int) -> tuple[slice, slice]:
    rows, columns = (slice(part.start * points, part.stop * points) for part in cut)
    return rows, columns
