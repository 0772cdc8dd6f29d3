"""What a raster declares about its own values: nodata, masks, scale, offset, unit and band names.

Knows how it leads to the catalogue's units. The official files declare nothing; users' own do, and
their values mean what they declare. Whatever cannot be followed is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from biomassters.dataset.files import FileError
from biomassters.store.bands import CLP, S1_BANDS, S1_NODATA_DB, S2_BANDS, S2_STORED_NODATA

REFLECTANCE_DN: Final = 10_000
"""What reflectance 1 is in the catalogue's units.

Source: the competition's data description; Sentinel-2's own QUANTIFICATION_VALUE.
"""

UNITS_S1: Final = ("dB", "decibel", "decibels")
UNITS_AGBM: Final = tuple(
    f"{mass}{per_area}"
    for mass in ("t", "Mg", "ton", "tons", "tonne", "tonnes")
    for per_area in ("/ha", " ha-1", " per ha", "/hectare", " per hectare")
)
"""Spellings of the catalogue's units, but for upper case, spaces, dots, `^` and `**`."""

Array = NDArray[Any]


class Declaration(NamedTuple):
    """What a raster says of its values.

    Attributes:
        nodata: Where a band has its declared nodata value, (C, H, W) bool; None = nowhere.
        masked: Where a mask of the file excludes all bands, (H, W) bool; None = nowhere.
        scales: By band: what its values are multiplied with.
        offsets: By band: what is added to that.
        units: By band; empty = none is declared.
        names: By band; empty = none is declared.
    """

    nodata: Array | None
    masked: Array | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def is_scaled(self) -> bool:
        """Whether any value is another than the one that stands in the file."""
        return any(scale != 1 for scale in self.scales) or any(self.offsets)


def read_declaration(dataset: DatasetReader, bands: Array, *, has_mask: bool) -> Declaration | None:
    """Read what an open raster declares; None if that is nothing.

    Args:
        dataset: The raster.
        bands: Its pixels, (C, H, W).
        has_mask: Whether its file has a mask, which GDAL looks for in all of its directories.

    Raises:
        FileError: One of its bands is a mask of the others, and no band of data.
    """
    if ColorInterp.alpha in dataset.colorinterp:
        got = f"band {dataset.colorinterp.index(ColorInterp.alpha) + 1} as transparency (alpha)"
        raise FileError("bands of data alone", got)
    masked = None
    if has_mask and MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        masked = dataset.read_masks(1) == 0
    declaration = Declaration(
        _find_nodata(bands, dataset.nodatavals),
        masked if masked is not None and masked.any() else None,
        tuple(dataset.scales),
        tuple(dataset.offsets),
        tuple(unit or "" for unit in dataset.units),
        tuple(name or "" for name in dataset.descriptions),
    )
    silent = declaration.nodata is None and declaration.masked is None
    said = declaration.is_scaled or any(declaration.units) or any(declaration.names)
    return None if silent and not said else declaration


def follow_s1(bands: NDArray[np.float32], declared: Declaration) -> NDArray[np.float32]:
    """Return backscatter, (4, H, W), dB, -9999 = nodata, from the values of a file.

    Raises:
        FileError: Its units or its bands are others.
    """
    _check_names(declared.names, S1_BANDS, _name_polarisation)
    _check_names(declared.names, S1_BANDS, _name_orbit)
    _check_units(declared.units, UNITS_S1)
    s1_db = _apply(bands, declared)
    s1_db[bands == S1_NODATA_DB] = S1_NODATA_DB  # nodata by convention, before any scale
    return _fill(s1_db, declared, S1_NODATA_DB)


def follow_agbm(bands: NDArray[np.float32], declared: Declaration) -> NDArray[np.float32]:
    """Return AGBM, (1, H, W), t/ha, NaN = nodata, from the values of a file.

    Raises:
        FileError: Its unit is another.
    """
    _check_units(declared.units, UNITS_AGBM)
    return _fill(_apply(bands, declared), declared, np.nan)


def follow_s2(bands: NDArray[np.uint16], declared: Declaration) -> NDArray[np.uint16]:
    """Return reflectance (DN) and cloud probability (%), (11, H, W), 65535 = nodata, from a file.

    A scale of 1/10,000 says that the values are DN already; an offset, such as that of -0.1 or
    -1000 of baselines from 04.00 on, is applied, and what falls below 0 becomes 0.

    GeoTIFF has one nodata value for all bands, and the usual one of reflectance, 0, is a clear sky
    in the cloud probability: there it is nodata only where all reflectance is.

    Raises:
        FileError: Its scale or offset does not lead to whole DN, or its bands are others.
    """
    _check_names(declared.names, S2_BANDS, _name_s2)
    s2 = bands.copy()
    for band, (scale, offset) in enumerate(zip(declared.scales, declared.offsets, strict=True)):
        shift = _find_shift(scale, offset, percent=band == CLP)
        if shift:
            moved = bands[band].astype(np.int32) + shift
            s2[band] = np.clip(moved, 0, S2_STORED_NODATA - 1)
    nodata = declared.nodata
    if nodata is not None:
        blank = nodata[:CLP].all(axis=0)
        nodata = np.concatenate([nodata[:CLP], (nodata[CLP] & blank)[None]])
    return _fill(s2, declared._replace(nodata=nodata), S2_STORED_NODATA)


def _find_nodata(bands: Array, values: Sequence[float | None]) -> Array | None:
    """Find the pixels with their band's nodata value; NaN is one like any other."""
    if all(value is None for value in values):
        return None
    nodata = np.zeros(bands.shape, np.bool_)
    for band, value in enumerate(values):
        if value is not None:
            # In the file's type, as GDAL has it: -3.4028235e38 is written with few digits. What
            # that type cannot hold, no pixel has.
            with np.errstate(over="ignore", invalid="ignore"):
                typed = np.array(value).astype(bands.dtype)
            if np.isnan(value):
                nodata[band] = np.isnan(bands[band])
            elif np.isclose(float(typed), value, rtol=1e-6, atol=0):
                nodata[band] = bands[band] == typed
    return nodata if nodata.any() else None


def _apply(bands: NDArray[np.float32], declared: Declaration) -> NDArray[np.float32]:
    if not declared.is_scaled:
        return bands.copy()
    scales, offsets = (
        np.array(values)[:, None, None] for values in (declared.scales, declared.offsets)
    )
    if not (np.isfinite(scales).all() and np.isfinite(offsets).all() and scales.all()):
        raise FileError(
            "a scale other than 0 and a finite offset", _describe(declared.scales, declared.offsets)
        )
    with np.errstate(over="ignore", invalid="ignore"):
        physical: NDArray[np.float32] = (bands * scales + offsets).astype(np.float32)
    return physical


def _find_shift(scale: float, offset: float, *, percent: bool) -> int:
    """Return what is added to a band of S2 to have it in the catalogue's units."""
    per_unit = 100 if percent else REFLECTANCE_DN
    if scale == 1:
        shift = offset
    elif np.isclose(scale * per_unit, 1, rtol=1e-6):
        shift = offset * per_unit
    else:
        shift = np.nan
    if not np.isfinite(shift) or abs(shift - round(shift)) > 1e-3:
        unit = "cloud probability in %" if percent else "reflectance in DN"
        raise FileError(
            f"{unit}, or a scale of {1 / per_unit:g} and an offset that lead to it",
            _describe((scale,), (offset,)),
        )
    return round(shift)


def _describe(scales: Sequence[float], offsets: Sequence[float]) -> str:
    pairs = dict.fromkeys(zip(scales, offsets, strict=True))
    return " and ".join(f"a scale of {scale:g}, an offset of {offset:g}" for scale, offset in pairs)


def _fill(values: Array, declared: Declaration, nodata: float) -> Array:
    if declared.nodata is not None:
        values[declared.nodata] = nodata
    if declared.masked is not None:
        values[:, declared.masked] = nodata
    return values


def _check_units(units: Sequence[str], expected: Sequence[str]) -> None:
    known = {_simplify(unit) for unit in expected}
    for unit in units:
        if unit and _simplify(unit) not in known:
            raise FileError(f"values in {expected[0]}", f"the declared unit {unit[:40]!r}")


def _simplify(unit: str) -> str:
    plain = unit.casefold().replace("\N{MINUS SIGN}", "-")
    return "".join(letter for letter in plain if letter.isalnum() or letter in "-/")


def _check_names(
    names: Sequence[str], expected: Sequence[str], recognise: Callable[[str], str]
) -> None:
    """Refuse bands in another order, where their names tell; other names say nothing."""
    for band, (name, here) in enumerate(zip(names, expected, strict=True), start=1):
        got = recognise(name)
        if got and got != recognise(here):
            raise FileError(f"{here} as band {band}", f"the band name {name[:40]!r}")


def _name_polarisation(name: str) -> str:
    """Return the polarisation that a band's name begins with, or nothing."""
    polarisation = name.strip().upper()[:2]
    return polarisation if polarisation in ("VV", "VH", "HH", "HV") else ""


def _name_orbit(name: str) -> str:
    """Return the orbit that a band's name tells of, or nothing."""
    plain = name.casefold()
    if "desc" in plain:
        return "descending"
    return "ascending" if "asc" in plain else ""


def _name_s2(name: str) -> str:
    """Return the band of Sentinel-2 that a name is, also as B02; or nothing."""
    plain = name.strip().upper()
    if plain.startswith("B0"):
        plain = "B" + plain[2:]
    return plain if plain in (*S2_BANDS, "B1", "B9", "B10") else ""
