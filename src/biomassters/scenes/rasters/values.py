"""From a raster's numbers to backscatter, reflectance and cloud probability.

What a file declares is followed (nodata, masks, scale, offset, dB), but for what the scene's YAML
says instead. Backscatter of the competition is in dB; whether sigma0 or gamma0 is not said by its
description, and cannot be told from pixels (gamma0 is sigma0 over the cosine of the incidence
angle: some 1 dB more). docs/own-chips.md takes it for sigma0, as Earth Engine's COPERNICUS/S1_GRD
has it.

Source: the competition's data description (DrivenData, The BioMassters), which names no
calibration; Sentinel-1 Product Definition (sigma0 and gamma0 differ by that cosine).
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.dataset.declaration import REFLECTANCE_DN, UNITS_S1
from biomassters.errors import SceneError
from biomassters.scenes.rasters.description import Conversion, Sensor
from biomassters.scenes.rasters.headers import RasterHeader
from biomassters.store.bands import (
    CLP,
    CLP_NODATA,
    S1_BANDS,
    S1_NODATA_DB,
    S2_BANDS,
    S2_STORED_NODATA,
)

Array = NDArray[np.float32]
Numbers = NDArray[Any]
Mask = NDArray[np.bool_]

BANDS_OF: Final = {"S1": S1_BANDS, "S2": S2_BANDS}


class BandRule(NamedTuple):
    """What is done to the numbers of one band.

    Attributes:
        file_band: Its number in the file, from 1.
        band: Its index among its sensor's.
        scale: Numbers are multiplied with it.
        offset: This is added to that.
        nodata: Numbers that are none.
    """

    file_band: int
    band: int
    scale: float
    offset: float
    nodata: tuple[float, ...]


class ValueRule(NamedTuple):
    """What is done to a file's numbers.

    Attributes:
        sensor: Whose they are.
        bands: Those that are used, in the file's order.
        unit: Of S1, after scale and offset.
    """

    sensor: Sensor
    bands: tuple[BandRule, ...]
    unit: str = "db"

    @property
    def indices(self) -> list[int]:
        """Of its bands among the sensor's."""
        return [rule.band for rule in self.bands]

    @property
    def is_reflectance(self) -> NDArray[np.bool_]:
        """Which of its bands are reflectance, (C,)."""
        return np.array([self.sensor == "S2" and rule.band != CLP for rule in self.bands])


def make_rule(
    header: RasterHeader,
    sensor: Sensor,
    names: tuple[str | None, ...],
    conversion: Conversion,
    where: str,
) -> ValueRule:
    """Return what is done to the numbers of a file.

    Args:
        header: The file's.
        sensor: Whose they are.
        names: Of its bands; None = not used.
        conversion: What the YAML says.
        where: The file, for errors.

    Raises:
        SceneError: It has another number of bands, a scale of 0, or another unit than dB.
    """
    if len(names) != len(header.dtypes):
        raise SceneError(
            f"expected {len(names)} bands ({', '.join(map(str, names))}), got"
            f" {len(header.dtypes)}, at {where}; mend `bands` (null = a band of no use)"
        )
    rules = []
    for number, name in enumerate(names):
        if name is not None:
            band = BANDS_OF[sensor].index(name)
            percent = sensor == "S2" and band == CLP
            scale, offset = _find_scale(header, number, sensor, conversion, where, percent=percent)
            nodata = _find_nodata(header, number, conversion, sensor, percent=percent)
            rules.append(BandRule(number + 1, band, scale, offset, nodata))
            if sensor == "S1" and conversion.unit is None:
                _check_unit(header.units[number], where)
    return ValueRule(sensor, tuple(rules), conversion.unit or "db")


def convert(numbers: Numbers, masked: Mask, rule: ValueRule) -> Array:
    """Return a file's values: dB, DN and percent, (C, H, W), float32, NaN = nodata.

    Reflectance that its offset leaves below 0 stays below it. A blank pixel, with 0 in all
    reflectance of the file, is 0 whatever the offset: see `find_blank`.

    Args:
        numbers: As the file has them, (C, H, W), of the rule's bands.
        masked: Where a mask excludes them, (H, W).
        rule: What they are.
    """
    values = np.empty(numbers.shape, np.float32)
    blank = _find_zeros(numbers, rule)
    for number, one, value in zip(numbers, rule.bands, values, strict=True):
        _convert_band(number, one, rule.unit, value)
        if rule.sensor == "S2" and one.band != CLP:
            value[blank] = 0
        value[masked | _find_declared(number, one.nodata)] = np.nan
    for one, number, value in zip(rule.bands, numbers, values, strict=True):
        if rule.sensor == "S2" and one.band == CLP:
            # 0 is the usual nodata value, and a clear sky: it counts where nothing else is there.
            bare = ~np.isfinite(values[rule.is_reflectance]).any(axis=0)
            clear = (number == 0) & ~(bare & bool(rule.is_reflectance.any())) & ~masked
            value[clear] = 0
    return values


def to_power(backscatter_db: Array) -> Array:
    """Return linear power of dB, to interpolate it."""
    return np.asarray(np.power(np.float32(10), backscatter_db / np.float32(10)))


def to_decibels(power: Array) -> Array:
    """Return dB of linear power; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        decibels = np.float32(10) * np.log10(np.ascontiguousarray(power))
    return np.where(np.isfinite(decibels), decibels, np.float32(np.nan))


def find_blank(values: Array, rule: ValueRule) -> Mask:
    """Find the pixels without anything but 0 in a file's reflectance, (H, W); of S1, in no band.

    Such a pixel is nodata unless other files have reflectance of it: a file of one band may well
    measure 0.
    """
    if rule.sensor == "S1":
        return np.asarray(~np.isfinite(values).any(axis=0))
    is_reflectance = rule.is_reflectance
    if not is_reflectance.any():
        return np.asarray(~np.isfinite(values).any(axis=0))
    blank = np.ones(values.shape[1:], np.bool_)
    for value, counts in zip(values, is_reflectance, strict=True):
        if counts:
            blank &= (value == 0) | ~np.isfinite(value)
    return blank


def _find_zeros(numbers: Numbers, rule: ValueRule) -> Mask:
    """Find the pixels with 0 in all numbers of reflectance, (H, W); nowhere if there is none."""
    zeros = np.full(numbers.shape[1:], rule.is_reflectance.any())
    for number, is_reflectance in zip(numbers, rule.is_reflectance, strict=True):
        if is_reflectance:
            zeros &= number == 0
    return zeros


def _convert_band(number: Numbers, rule: BandRule, unit: str, out: Array) -> None:
    scaled: Numbers = number
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if rule.scale != 1 or rule.offset:
            scaled = number.astype(np.float64) * rule.scale + rule.offset
        if unit != "db":
            factor = 10 if unit == "linear" else 20
            scaled = factor * np.log10(scaled.astype(np.float64))
        out[:] = scaled
    out[~np.isfinite(out)] = np.nan


def _find_declared(number: Numbers, values: tuple[float, ...]) -> Mask:
    """Find nodata values as the file's type has them; NaN is one already."""
    found = np.zeros(number.shape, np.bool_)
    for value in values:
        with np.errstate(over="ignore", invalid="ignore"):
            typed = np.array(value).astype(number.dtype)
        if np.isclose(float(typed), value, rtol=1e-6, atol=0):
            found |= number == typed
    return found


def _find_scale(
    header: RasterHeader,
    number: int,
    sensor: Sensor,
    conversion: Conversion,
    where: str,
    *,
    percent: bool,
) -> tuple[float, float]:
    """Return scale and offset that lead to dB (or its power or amplitude), DN or percent."""
    scale, offset = header.scales[number], header.offsets[number]
    if not (np.isfinite(scale) and np.isfinite(offset) and scale):
        raise SceneError(
            f"expected a scale other than 0 and a finite offset, got {scale:g} and {offset:g}, at"
            f" {where}: band {number + 1}; mend the file"
        )
    if percent:
        # 0.01 says that the numbers are percent already, as 0.0001 does of DN.
        return (scale * 100, offset * 100) if scale != 1 else (1.0, 0.0)
    if sensor == "S2" and scale != 1:
        scale, offset = scale * REFLECTANCE_DN, offset * REFLECTANCE_DN
        scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    if conversion.scale is not None:
        scale, offset = conversion.scale, 0.0
    if conversion.offset is not None:
        offset = conversion.offset
    return scale, offset


def _find_nodata(
    header: RasterHeader, number: int, conversion: Conversion, sensor: Sensor, *, percent: bool
) -> tuple[float, ...]:
    declared = header.nodata[number] if conversion.nodata is None else conversion.nodata
    usual = [S1_NODATA_DB if sensor == "S1" else float(S2_STORED_NODATA)]
    usual += [float(CLP_NODATA)] if percent else []
    usual += [] if declared is None or np.isnan(declared) else [declared]
    return tuple(usual)


def _check_unit(unit: str, where: str) -> None:
    plain = unit.strip().casefold()
    if plain and plain not in {known.casefold() for known in UNITS_S1}:
        raise SceneError(
            f"expected backscatter in dB, got the declared unit {unit[:40]!r}, at {where}; write"
            " under radiometry `S1: {unit: linear}` (or amplitude, or db if the file is wrong)"
        )
