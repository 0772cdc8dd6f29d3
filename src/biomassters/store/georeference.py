"""Where on Earth a raster lies, if it says so. The official chips do not; users' own may."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader


class Georeference(NamedTuple):
    """A coordinate reference system and the affine map from pixels to it.

    Attributes:
        crs: As `EPSG:n` where it has such a number, else as WKT; empty = none is known.
        transform: Coefficients a, b, c, d, e, f of x = a·column + b·row + c and
            y = d·column + e·row + f; NaN = none is known.
    """

    crs: str
    transform: tuple[float, ...]


NOWHERE = Georeference("", (math.nan,) * 6)
"""Of a raster that does not say where it lies."""

LONGEST_CRS: Final = 8192
"""Characters; EPSG's own have under 2,000 as WKT."""


def read_georeference(dataset: DatasetReader) -> Georeference:
    """Return where an open raster lies, or NOWHERE."""
    crs = "" if dataset.crs is None else _name_crs(dataset.crs.to_wkt())
    if dataset.transform == rasterio.Affine.identity():
        return Georeference(crs, NOWHERE.transform)
    return Georeference(crs, tuple(dataset.transform)[:6])


def describe_fault(georeference: Georeference) -> str | None:
    """Return what no sound raster says about its place, or None."""
    crs, transform = georeference
    if len(crs) > LONGEST_CRS:
        return f"a CRS of {len(crs)} characters"
    if not crs.isprintable():
        return f"a CRS with the character {next(c for c in crs if not c.isprintable())!r}"
    known = [math.isfinite(coefficient) for coefficient in transform]
    if any(known) and not all(known):
        return f"a transform of {', '.join(f'{value:g}' for value in transform)}"
    return None


def lie_together(one: Georeference, other: Georeference) -> bool:
    """Tell whether two places are one, but for what rounding may do (millimetres)."""
    same_map = np.allclose(one.transform, other.transform, rtol=1e-9, equal_nan=True)
    return one.crs == other.crs and bool(same_map)


def georeference_profile(georeference: Georeference) -> dict[str, Any]:
    """Return the options with which rasterio writes a raster that lies there."""
    profile: dict[str, Any] = {}
    if georeference.crs:
        profile["crs"] = rasterio.CRS.from_user_input(georeference.crs)
    if not any(map(math.isnan, georeference.transform)):
        profile["transform"] = rasterio.Affine(*georeference.transform)
    return profile


@contextmanager
def allow_nowhere() -> Iterator[None]:
    """Open and write rasters without a place, without rasterio's warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@lru_cache(maxsize=64)
def _name_crs(wkt: str) -> str:
    # The number is short, and does not change with the version of PROJ as WKT does. The search
    # for one takes 30 ms where there is none.
    return str(rasterio.CRS.from_wkt(wkt).to_string())
