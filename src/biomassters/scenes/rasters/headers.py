"""What a raster's header says: where it lies, and what its numbers are."""

from typing import Final, NamedTuple

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from biomassters.errors import SceneError
from biomassters.scenes.grid import Grid
from biomassters.scenes.rasters.addresses import Address

MISFIT: Final = 1e-3
"""Of a pixel, by which a raster's pixels may miss the map's, from rounding."""


class RasterHeader(NamedTuple):
    """A file's header.

    Attributes:
        crs: As WKT; empty = none.
        transform: From columns and rows to its coordinates.
        shape: Height and width, pixels.
        dtypes: By band; a band of transparency is none of them, here and below.
        nodata: By band; None = none is declared.
        scales: By band: what its numbers are multiplied with.
        offsets: By band: what is added to that.
        units: By band; empty = none is declared.
        names: By band; empty = none is declared.
        tags: Of the file and of its bands, by lower-case name.
        has_mask: Whether a mask or transparency excludes pixels.
        size: Bytes and time of change (ns) of a local file; else zeros.
    """

    crs: str
    transform: rasterio.Affine
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str, ...]
    names: tuple[str, ...]
    tags: dict[str, str]
    has_mask: bool
    size: tuple[int, int] = (0, 0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north in its CRS, of whatever rotation."""
        height, width = self.shape
        corners = [self.transform @ corner for corner in ((0, 0), (width, 0), (0, height))]
        corners.append(self.transform @ (width, height))
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


def read_header(dataset: DatasetReader) -> RasterHeader:
    """Return the header of an open raster."""
    kept = [n for n, kind in enumerate(dataset.colorinterp) if kind != ColorInterp.alpha]

    def pick(values: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(values[n] for n in kept)

    tags = dict(dataset.tags())
    for band in dataset.indexes:
        tags.update(dataset.tags(band))
    return RasterHeader(
        crs="" if dataset.crs is None else str(dataset.crs.to_wkt()),
        transform=dataset.transform,
        shape=dataset.shape,
        dtypes=pick(dataset.dtypes),  # type: ignore[arg-type]
        nodata=pick(dataset.nodatavals),  # type: ignore[arg-type]
        scales=pick(dataset.scales),  # type: ignore[arg-type]
        offsets=pick(dataset.offsets),  # type: ignore[arg-type]
        units=tuple(str(unit or "") for unit in pick(dataset.units)),
        names=tuple(str(name or "") for name in pick(dataset.descriptions)),
        tags={name.lower(): value for name, value in tags.items()},
        has_mask=any(MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums),
    )


def check_place(header: RasterHeader, address: Address) -> None:
    """Refuse a raster that does not say where it lies.

    Raises:
        SceneError: It has no CRS, or no transform.
    """
    if not header.crs or header.transform == rasterio.Affine.identity():
        raise SceneError(
            "expected a raster with a CRS and a transform, got"
            f" {'no transform' if header.crs else 'no CRS'}, at {address.shown}; georeference it"
            " (gdal_translate -a_srs ... -a_ullr ...)"
        )


def find_offset(header: RasterHeader, grid: Grid) -> tuple[int, int] | None:
    """Return the row and the column of a raster's first pixel on the map's lattice.

    None = its pixels are not the map's: another CRS, resolution, rotation or origin.
    """
    a, b, c, d, e, f = (value / grid.resolution for value in tuple(header.transform)[:6])
    row, column = round(-f), round(c)
    side = max(header.shape)
    misfits = (a - 1) * side, (e + 1) * side, b * side, d * side, c - column, f + row
    if max(map(abs, misfits)) > MISFIT:
        return None
    same = rasterio.CRS.from_wkt(header.crs) == rasterio.CRS.from_user_input(grid.crs)
    return (row, column) if same else None
