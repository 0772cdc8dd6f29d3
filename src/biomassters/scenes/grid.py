"""The lattice of pixels that a CRS fixes, and boxes of it.

A pixel is known by its row and its column on the whole lattice, never by its place in some file: so
two maps of one CRS and resolution share their pixels, however each is cut.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import rasterio
from rasterio.errors import CRSError

from biomassters.errors import SceneError
from biomassters.store.georeference import Georeference

_ROUNDING: Final = 1e-6
"""Of a pixel, by which bounds may miss the lattice."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; rows count to the south, columns to the east, both from the origin.

    Attributes:
        row: The northernmost; negative north of the CRS's origin.
        column: The westernmost.
        height: Rows, 1 or more.
        width: Columns, 1 or more.
    """

    row: int
    column: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def end_row(self) -> int:
        """The first row south of it."""
        return self.row + self.height

    @property
    def end_column(self) -> int:
        """The first column east of it."""
        return self.column + self.width

    def intersect(self, other: "Box") -> "Box | None":
        """Return the pixels that both have; None = none."""
        row, column = max(self.row, other.row), max(self.column, other.column)
        height = min(self.end_row, other.end_row) - row
        width = min(self.end_column, other.end_column) - column
        return Box(row, column, height, width) if height > 0 and width > 0 else None

    def grow(self, margin: int) -> "Box":
        """Return the box with a margin on all sides, pixels."""
        return Box(
            self.row - margin,
            self.column - margin,
            self.height + 2 * margin,
            self.width + 2 * margin,
        )

    def within(self, outer: "Box") -> tuple[slice, slice]:
        """Return where this box lies in an array, (..., H, W), of an outer one's pixels."""
        row, column = self.row - outer.row, self.column - outer.column
        return slice(row, row + self.height), slice(column, column + self.width)

    def find_square(self, side: int) -> "Box":
        """Return the square that its first pixel lies in, of those that `split` cuts along."""
        return Box(self.row // side * side, self.column // side * side, side, side)

    def split(self, side: int) -> Iterator["Box"]:
        """Yield its parts on a lattice of squares that begins at the origin, row by row.

        Args:
            side: Of the squares, pixels.
        """
        for row in range(self.row // side, -(-self.end_row // side)):
            for column in range(self.column // side, -(-self.end_column // side)):
                part = self.intersect(Box(row * side, column * side, side, side))
                if part is not None:
                    yield part


@dataclass(frozen=True)
class Grid:
    """The pixels of a scene.

    Attributes:
        crs: As `EPSG:n` where it has such a number, else as WKT.
        resolution: Side of a pixel in the CRS's unit; its edges are multiples of it.
        extent: The pixels of the scene.
    """

    crs: str
    resolution: float
    extent: Box

    @classmethod
    def from_bounds(
        cls, crs: str, resolution: float, bounds: tuple[float, float, float, float], where: str
    ) -> "Grid":
        """Return the pixels that bounds touch.

        Args:
            crs: Whatever rasterio takes for one.
            resolution: Side of a pixel in the CRS's unit, greater than 0.
            bounds: West, south, east, north, in the CRS's unit.
            where: The scene's file, for errors.

        Raises:
            SceneError: There is no such CRS, or nothing within the bounds.
        """
        name = name_crs(crs, where)
        west, south, east, north = (value / resolution for value in bounds)
        if not (west < east and south < north and all(map(math.isfinite, bounds))):
            raise SceneError(
                f"expected bounds west < east and south < north, got {', '.join(map(str, bounds))},"
                f" at {where}: bounds; write [west, south, east, north] in the unit of {name}"
            )
        first_column, end_column = _floor(west), -_floor(-east)
        first_row, end_row = _floor(-north), -_floor(south)
        extent = Box(first_row, first_column, end_row - first_row, end_column - first_column)
        return cls(name, resolution, extent)

    def transform(self, box: Box) -> rasterio.Affine:
        """Return the map from a box's columns and rows to coordinates."""
        step = self.resolution
        return rasterio.Affine(step, 0, box.column * step, 0, -step, -box.row * step)

    def bounds(self, box: Box) -> tuple[float, float, float, float]:
        """Return a box's west, south, east and north, in the CRS's unit."""
        step = self.resolution
        return box.column * step, -box.end_row * step, box.end_column * step, -box.row * step

    def georeference(self, box: Box) -> Georeference:
        """Return where a box lies, as GeoTIFFs say it."""
        return Georeference(self.crs, tuple(self.transform(box))[:6])

    @property
    def is_geographic(self) -> bool:
        """Whether its unit is a degree."""
        return bool(rasterio.CRS.from_user_input(self.crs).is_geographic)


def name_crs(crs: str, where: str) -> str:
    """Return a CRS as `EPSG:n` where it has such a number, else as WKT.

    Raises:
        SceneError: There is none of that name.
    """
    try:
        return str(rasterio.CRS.from_user_input(crs).to_string())
    except CRSError as error:
        raise SceneError(
            f"expected a CRS such as EPSG:3067, got {crs!r} ({error}), at {where}: crs; mend it"
        ) from None


def _floor(pixels: float) -> int:
    return math.floor(pixels + _ROUNDING)
