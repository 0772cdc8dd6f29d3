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
from typing import Final, NamedTuple

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray

from biomassters.errors import SceneError
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.kept import Kept
from biomassters.scenes.rasters.headers import RasterHeader

BLOCK: Final = 256
"""Side of the squares on which places are computed, points."""
MOST_POINTS: Final = 16
"""By row and by column within a pixel."""
MOST_BLOCKS: Final = 64
"""Squares whose places are kept."""
KEPT_BYTES: Final = MOST_BLOCKS * BLOCK**2 * 2 * 8
"""Of them, columns and rows as float64."""

Array = NDArray[np.float64]
Values = NDArray[np.float32]
Index = NDArray[np.intp]


class Places(NamedTuple):
    """Where points lie in a raster: columns and rows, (h, w); a pixel's centre is at its + 0.5."""

    columns: Array
    rows: Array


class Lattice:
    """Knows where the map's pixels lie in other CRSs; any thread may ask."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._crs = rasterio.CRS.from_user_input(grid.crs)
        self._squares = Kept(self._locate_square, MOST_BLOCKS)

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

    def cover(self, header: RasterHeader) -> Box:
        """Return a box with all pixels of the map that may lie in a raster, and some more."""
        other = rasterio.CRS.from_wkt(header.crs)
        bounds = rasterio.warp.transform_bounds(other, self._crs, *header.bounds, densify_pts=101)
        west, south, east, north = (value / self.grid.resolution for value in bounds)
        if not all(map(math.isfinite, (west, south, east, north))):
            return self.grid.extent
        row, column = math.floor(-north), math.floor(west)
        box = Box(row, column, math.ceil(-south) - row, math.ceil(east) - column)
        return box.grow(16 + max(box.shape) // 100)  # edges are bent between the points

    def locate(self, box: Box, header: RasterHeader, points: int) -> Places:
        """Return where the points of a box lie in a raster, ({box.height * points}, ...)."""
        xs, ys = np.empty((2, box.height * points, box.width * points))
        for part in box.split(BLOCK // points):
            square = part.find_square(BLOCK // points)
            known = self._squares.get((header.crs, points, square))
            into, of = _scale(part.within(box), points), _scale(part.within(square), points)
            xs[into], ys[into] = known[0][of], known[1][of]
        inverse = ~header.transform
        return Places(
            inverse.a * xs + inverse.b * ys + inverse.c, inverse.d * xs + inverse.e * ys + inverse.f
        )

    def _locate_square(self, key: tuple[str, int, Box]) -> tuple[Array, Array]:
        """Return the coordinates, in a CRS, of the points of a square of the lattice."""
        crs, points, square = key
        offsets = (np.arange(BLOCK) + 0.5) / points
        xs = np.tile((square.column + offsets) * self.grid.resolution, (BLOCK, 1))
        ys = np.repeat((square.row + offsets)[:, None] * -self.grid.resolution, BLOCK, axis=1)
        other = rasterio.CRS.from_wkt(crs)
        if other != self._crs:
            moved = rasterio.warp.transform(self._crs, other, xs.ravel(), ys.ravel())
            xs, ys = (np.asarray(values).reshape(BLOCK, BLOCK) for values in moved)
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
    row, column = int(rows.min()), int(columns.min())
    needed = Box(row, column, int(rows.max()) - row + 1, int(columns.max()) - column + 1)
    return needed.grow(1).intersect(Box(0, 0, height, width))


def take_nearest(values: Values, window: Box, places: Places) -> Values:
    """Return the values of the nearest pixels, (C, h, w); NaN where there are none.

    Args:
        values: Of the raster's window, (C, H, W), NaN = nodata.
        window: Which pixels these are.
        places: Where the points lie in the raster.
    """
    index = _row_index(window, places.rows) + _column_index(window, places.columns)
    return _take(_pad(values), index)


def interpolate(values: Values, window: Box, places: Places) -> Values:
    """Return values between the four nearest pixels, (C, h, w); arguments as `take_nearest`."""
    padded = _pad(values)
    known = np.isfinite(padded)
    filled = np.where(known, padded, np.float32(0))
    top, left = places.rows - 0.5, places.columns - 0.5
    down = (top - np.floor(top)).astype(np.float32)
    right = (left - np.floor(left)).astype(np.float32)
    rows = ((_row_index(window, top), 1 - down), (_row_index(window, top + 1), down))
    columns = ((_column_index(window, left), 1 - right), (_column_index(window, left + 1), right))
    corners = [
        (row + column, row_weight * column_weight)
        for row, row_weight in rows
        for column, column_weight in columns
    ]
    mixed = np.zeros((len(values), *places.rows.shape), np.float32)
    for index, weight in corners:
        mixed += _take(filled, index) * weight
    nearest = _row_index(window, places.rows) + _column_index(window, places.columns)
    for band, is_known in enumerate(known):
        _mend_edges(mixed[band], is_known, nearest, corners)
    return mixed


def _mend_edges(
    mixed: Values,
    known: NDArray[np.bool_],
    nearest: Index,
    corners: list[tuple[Index, Values]],
) -> None:
    """Give unknown corners no weight, and make nodata where the nearest pixel is; of one band."""
    all_known = np.ones(mixed.shape, np.bool_)
    for index, _ in corners:
        all_known &= np.take(known, index, mode="clip")
    if all_known.all():
        return
    partly = ~all_known
    total = np.zeros(int(partly.sum()), np.float32)
    for index, weight in corners:
        total += known[index[partly]] * weight[partly]
    with np.errstate(invalid="ignore", divide="ignore"):
        mixed[partly] /= total
    np.copyto(mixed, np.float32(np.nan), where=~np.take(known, nearest, mode="clip"))


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


def _pad(values: Values) -> Values:
    """Return values, (C, H, W), with a border of NaN, pixel by pixel: (C, (H + 2) * (W + 2))."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    return padded.reshape(len(values), -1)


def _take(padded: Values, index: Index) -> Values:
    return np.stack([np.take(band, index, mode="clip") for band in padded])


def _row_index(window: Box, rows: Array) -> Index:
    """Return where rows begin in a padded window; those outside it are in its border."""
    at = np.floor(rows)
    at -= window.row - 1
    np.clip(at, 0, window.height + 1, out=at)
    at *= window.width + 2
    return at.astype(np.intp)


def _column_index(window: Box, columns: Array) -> Index:
    at = np.floor(columns)
    at -= window.column - 1
    return np.clip(at, 0, window.width + 1, out=at).astype(np.intp)


def _scale(cut: tuple[slice, slice], points: int) -> tuple[slice, slice]:
    rows, columns = (slice(part.start * points, part.stop * points) for part in cut)
    return rows, columns
