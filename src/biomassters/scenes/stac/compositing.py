"""From acquisitions to months, one at a time: the clearest pixels of S2, the mean power of S1.

How the competition's months were made is described nowhere that we could read; its description
says only that there is an image of each sensor a month, S1 by orbit, with a cloud probability of
0-100 beside S2 (DrivenData, The BioMassters: problem description). The two real chips say more,
measured:

- S2 bands of 20 m are repeated, not interpolated: 2 x 2 equal pixels, all of them in 16 of 24
  images, and 22 % in those that came from another UTM zone. So pixels are taken as the nearest.
- The share is 22 % or 100 % in a whole image, never between, and the cloud probability of a
  summer month reaches 99: an image looks like one acquisition, the clearest, and not like a mosaic
  of the clearest pixels. We take pixels all the same, which no border of a chip decides;
  `clearest: image` is nearer to the chips, by the clouds of a whole item.
- S1 is averaged: its equivalent number of looks is 5 to 7 times that of the one month and orbit
  that seems to have a single acquisition, as means over a month of passes every 6 days would be.
  Whether in power or in dB, mean or median, they do not say. We take the mean of the power.

The probability there is that of s2cloudless (COPERNICUS/S2_CLOUD_PROBABILITY has the same range);
Sen2Cor's own, which catalogues offer, differs from it, and so does our stand-in for its classes.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from biomassters.store.bands import (
    CLP,
    N_S2,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_STORED_NODATA,
)

CLASS_CLOUDS: Final = np.full(256, np.inf, np.float32)
"""Stand-in for the cloud probability, %, by Sen2Cor's class; infinite = no measurement.

Classes: 0 no data, 1 saturated or defective, 2 dark area, 3 cloud shadow, 4 vegetation, 5 not
vegetated, 6 water, 7 unclassified, 8 cloud of medium and 9 of high probability, 10 thin cirrus,
11 snow or ice. Source: Sentinel-2 Products Specification Document, Scene Classification. The
numbers are ours: in the order in which one would rather see the ground.
"""
CLASS_CLOUDS[[4, 5, 6, 11, 2, 7, 3, 10, 8, 9]] = (0, 0, 0, 5, 10, 30, 40, 50, 65, 95)

UNKNOWN_CLOUDS: Final = 101
"""A pixel whose probability is not known comes after all others."""

_MOST_DN: Final = S2_STORED_NODATA - 1


class ClearestPixels:
    """A month of Sentinel-2 while acquisitions are added, in their order: the first of equals wins.

    Attributes:
        s2: As stored, (11, H, W), uint16; `bands.S2_STORED_NODATA` = nodata.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.s2 = np.full((N_S2, *shape), S2_STORED_NODATA, np.uint16)
        self._least = np.full(shape, np.inf, np.float32)

    def may_gain(self, clouds: NDArray[np.float32]) -> bool:
        """Tell whether an acquisition of these clouds, (H, W), %, could be clearer anywhere."""
        return bool((clouds < self._least).any())

    def add(
        self,
        reflectance: NDArray[np.uint16],
        clouds: NDArray[np.float32],
        probability: NDArray[np.uint16],
    ) -> None:
        """Take the pixels in which an acquisition is clearer than those before.

        Args:
            reflectance: DN, (10, H, W); `bands.S2_STORED_NODATA` = nodata.
            clouds: What is compared, (H, W), %; infinite = no measurement.
            probability: What is stored as CLP, (H, W), %; nodata as in reflectance.
        """
        is_measured = (reflectance != S2_STORED_NODATA).any(axis=0)
        better = is_measured & (clouds < self._least)
        np.copyto(self.s2[:CLP], reflectance, where=better)
        np.copyto(self.s2[CLP], probability, where=better)
        np.copyto(self._least, clouds, where=better)


class MeanPower:
    """A month and orbit of Sentinel-1 while acquisitions are added."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sums = np.zeros(shape, np.float64)
        self._counts = np.zeros(shape, np.int32)

    def add(self, power: NDArray[np.float32]) -> None:
        """Add an acquisition: linear power, (bands, H, W), NaN = nodata."""
        known = np.isfinite(power)
        np.add(self._sums, power, out=self._sums, where=known)
        self._counts += known

    def to_stored(self) -> NDArray[np.int16]:
        """Return the mean as stored, (bands, H, W), int16, 0.01 dB."""
        stored = np.full(self._sums.shape, S1_STORED_NODATA, np.int16)
        known = self._counts > 0
        decibels = 10 * np.log10(self._sums[known] / self._counts[known])
        units = np.rint(decibels / S1_STORED_SCALE_DB)
        stored[known] = np.clip(units, S1_STORED_NODATA + 1, -S1_STORED_NODATA - 1)
        return stored


def to_power(values: NDArray[np.float32], unit: str) -> NDArray[np.float32]:
    """Return linear power, NaN = nodata, of backscatter as files have it.

    Args:
        values: Linear power or dB; what is not finite, zero, or of no radar is nodata.
        unit: `linear` or `db`.
    """
    if unit == "linear":
        return np.where(np.isfinite(values) & (values > 0), values, np.float32(np.nan))
    known = np.isfinite(values) & (values > -100) & (values != 0)
    power = np.power(10.0, np.where(known, values, 0) / 10.0, dtype=np.float64)
    return np.where(known, power, np.nan).astype(np.float32)


def to_reflectance(values: NDArray[Any], scale: float, offset: int) -> NDArray[np.uint16]:
    """Return DN as stored, of an asset's values.

    What the offset makes less than 1 is 1, the least of Sen2Cor before baseline 04.00 had it.

    Args:
        values: 0 and 65,535 (saturated) are nodata, as is what is not finite.
        scale: What makes DN of them.
        offset: Added then.
    """
    known = np.isfinite(values) & (values != 0) & (values != S2_STORED_NODATA)
    dn = np.rint(np.where(known, values, 0) * np.float64(scale)) + offset
    return np.where(known, np.clip(dn, 1, _MOST_DN), S2_STORED_NODATA).astype(np.uint16)


def grade_clouds(
    values: NDArray[np.uint8], kind: str
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return what is compared, and what is stored as CLP, of an acquisition's clouds.

    Args:
        values: Of the asset, (H, W): a probability, %, or Sen2Cor's classes.
        kind: `probability` or `classes`.
    """
    if kind == "classes":
        clouds = CLASS_CLOUDS[values]
        stored = np.where(np.isfinite(clouds), clouds, S2_STORED_NODATA).astype(np.uint16)
        return clouds, stored
    known = values <= 100
    clouds = np.where(known, values, UNKNOWN_CLOUDS).astype(np.float32)
    return clouds, np.where(known, values, np.uint16(S2_STORED_NODATA))
