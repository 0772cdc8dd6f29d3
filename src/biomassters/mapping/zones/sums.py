"""The biomass of zones: sums over pixels by the share of each that lies within, with intervals.

However large a zone is, no more than a part of the map is in memory at once.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import rasterio
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray

from biomassters.calibration.areas import AreaInterval
from biomassters.calibration.calibration import Calibration
from biomassters.calibration.quantiles import Floats
from biomassters.errors import name_few
from biomassters.mapping.pixel_areas import measure_polygon, measure_rows, measure_sides
from biomassters.mapping.virtual_raster import VRT
from biomassters.mapping.zones.errors import ErrorBlocks
from biomassters.mapping.zones.polygons import Zone, Zones
from biomassters.scenes.grid import Box, Grid

PART_SIDE: Final = 1024
"""Of the squares that a map is read in, pixels; a power of 2."""

M2_PER_HA: Final = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ZoneSum:
    """What a zone holds.

    Attributes:
        name: The zone's.
        area_ha: Of the polygon.
        mapped_ha: Of its part that the map has values of, which all else is about.
        mean: Mean AGBM, t/ha; None = nothing of it is mapped.
        interval: Of the mean; None = the map has no intervals.
    """

    name: str
    area_ha: float
    mapped_ha: float
    mean: float | None
    interval: AreaInterval | None

    @property
    def mapped_share(self) -> float:
        """Share of the polygon that is mapped, 0 to 1."""
        return min(1.0, self.mapped_ha / self.area_ha)

    @property
    def total_t(self) -> float | None:
        """Biomass of what is mapped, t."""
        return None if self.mean is None else self.mean * self.mapped_ha


def sum_zones(
    zones: Zones, folder: Path, grid: Grid, calibration: Calibration | None
) -> list[ZoneSum]:
    """Sum a map up over zones.

    Areas are as `pixel_areas` has them: in Finland's EPSG:3067 from 0.1 % smaller to 0.4 % larger
    than on the ground.

    Law: a zone's total is the sum over pixels of AGBM, the share within, and the pixel's area.

    Args:
        zones: Of `read_zones`.
        folder: The map's, with its VRT.
        grid: The map's.
        calibration: Of the map's models; None = no intervals.

    Returns:
        In the zones' order.
    """
    with rasterio.open(folder / VRT) as raster:
        sums = [_sum_zone(zone, raster, grid, calibration) for zone in zones.zones]
    missed = [
        f"{one.name} ({100 * (1 - one.mapped_share):.3g} %)"
        for one in sums
        if one.mapped_share < 0.9995
    ]
    if missed:
        log.warning("parts of %d zones are not mapped: %s", len(missed), name_few(missed))
    return sums


class _Part(NamedTuple):
    """A part of the map under a zone; arrays are (H, W).

    Attributes:
        box: Where it lies.
        area: Of each pixel's share that is mapped and within, m²; 0 elsewhere.
        agbm: t/ha; 0 where nothing is mapped.
        deviation: Likewise; None = the map has none.
    """

    box: Box
    area: Floats
    agbm: Floats
    deviation: Floats | None


def _sum_zone(zone: Zone, raster: Any, grid: Grid, calibration: Calibration | None) -> ZoneSum:
    # In pixels of the lattice, so that pixels' edges are whole numbers.
    polygon = shapely.transform(zone.polygon, lambda points: points / grid.resolution)
    west, south, east, north = polygon.bounds
    row, column = int(np.floor(-north)), int(np.floor(west))
    box = Box(row, column, int(np.ceil(-south)) - row, int(np.ceil(east)) - column)
    inner = box.intersect(grid.extent)
    assert inner is not None  # noqa: S101  # `read_zones` has refused others
    has_errors = calibration is not None and raster.count > 1
    blocks = ErrorBlocks.lay(inner) if has_errors else None
    total = area = 0.0
    for part in _read_parts(polygon, inner, raster, grid):
        total += float((part.area * part.agbm).sum())
        area += float(part.area.sum())
        if blocks is not None and part.deviation is not None:
            blocks.add(part.box, part.area, part.deviation)
    mean = total / area if area > 0 else None
    interval = None
    if calibration and blocks is not None and mean is not None:
        interval = blocks.surround(mean, calibration, measure_sides(grid, inner))
    return ZoneSum(
        name=zone.name,
        area_ha=measure_polygon(zone.polygon, grid) / M2_PER_HA,
        mapped_ha=area / M2_PER_HA,
        mean=mean,
        interval=interval,
    )


def _read_parts(polygon: Any, box: Box, raster: Any, grid: Grid) -> Iterator[_Part]:
    """Yield the parts of a map that a polygon, in pixels of the lattice, touches."""
    shapely.prepare(polygon)
    for part in box.split(PART_SIDE):
        corners = part.column, -part.end_row, part.end_column, -part.row
        if not polygon.intersects(shapely.box(*corners)):
            continue
        rows, columns = part.within(grid.extent)
        window = rasterio.windows.Window.from_slices(rows, columns)
        bands = raster.read(list(range(1, min(raster.count, 2) + 1)), window=window)
        known = np.isfinite(bands).all(0)
        inside = np.where(known, _cover(polygon, corners, part.shape), 0)
        agbm, *deviation = np.where(known, bands, 0).astype(np.float64)
        area = inside * measure_rows(grid, part)[:, None]
        yield _Part(part, area, agbm, deviation[0] if deviation else None)


def _cover(
    polygon: Any, corners: tuple[int, int, int, int], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the share of each pixel that lies within, (H, W), 0 to 1.

    Args:
        polygon: In pixels.
        corners: West, south, east, north of the pixels.
        shape: Their height and width.
    """
    square = shapely.box(*corners)
    if polygon.contains_properly(square):
        return np.ones(shape)
    # Cut, so that a coast of a million corners is not gone through for each part.
    pieces = shapely.get_parts(polygon.intersection(square))
    inner = shapely.MultiPolygon([piece for piece in pieces if piece.geom_type == "Polygon"])
    pixels = NumPyRasterSource(np.zeros(shape, np.int8), *corners)
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(inner)}
    (found,) = exact_extract(pixels, feature, ["cell_id", "coverage"])
    share = np.zeros(shape)
    share.flat[found["properties"]["cell_id"]] = found["properties"]["coverage"]
    return share
