"""Where on Earth a raster lies, if it says so. The official chips do not; users' own may."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader


class Georeference(NamedTuple):
    """A coordinate reference system and the affine map from pixels to it.

    Attributes:
        crs: As WKT; empty = none is known.
        transform: Coefficients a, b, c, d, e, f of x = a·column + b·row + c and
            y = d·column + e·row + f; NaN = none is known.
    """

    crs: str
    transform: tuple[float, ...]


NOWHERE = Georeference("", (math.nan,) * 6)
"""Of a raster that does not say where it lies."""


def read_georeference(dataset: DatasetReader) -> Georeference:
    """Return where an open raster lies, or NOWHERE."""
    crs = "" if dataset.crs is None else dataset.crs.to_wkt()
    if dataset.transform == rasterio.Affine.identity():
        return Georeference(crs, NOWHERE.transform)
    return Georeference(crs, tuple(dataset.transform)[:6])


def georeference_profile(georeference: Georeference) -> dict[str, Any]:
    """Return the options with which rasterio writes a raster that lies there."""
    profile: dict[str, Any] = {}
    if georeference.crs:
        profile["crs"] = rasterio.CRS.from_wkt(georeference.crs)
    if not any(map(math.isnan, georeference.transform)):
        profile["transform"] = rasterio.Affine(*georeference.transform)
    return profile


@contextmanager
def allow_nowhere() -> Iterator[None]:
    """Open and write rasters without a place, without rasterio's warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
