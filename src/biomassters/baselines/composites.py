"""Band composites over months: what one pixel's year looks like to a model without a network.

A pixel's year has 168 values, of which many are clouds or absent. Composites are fewer, and nearly
always there: of each band the median of each season, and how low and how high it goes over the year
(the 10th and the 90th percentile, which a single outlier hardly moves).
"""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from biomassters.store.bands import (
    CLP,
    N_MONTHS,
    N_S1,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
)
from biomassters.store.chips import Chip

Floats = NDArray[np.float32]
ValueT = TypeVar("ValueT", bound=np.generic)

CLEAR_CLP_MAX: Final = 50
"""A greater cloud probability is a cloud, %.

Source: the competition's third winner (3rd-place/utils.py), who takes medians over seasons, too.
"""
N_SEASONS: Final = 4
"""September to November, December to February, and so on: the months of a chip by threes."""
EXTREMES: Final = (0.1, 0.9)
"""Shares of a pixel's months that lie below, of the composites of the whole year."""
N_COMPOSITES: Final = (N_S1 + len(S2_BANDS) - 1) * (N_SEASONS + len(EXTREMES))
"""14 bands, for the cloud probability only chooses months, of 6 composites each."""


def compose_months(chip: Chip, pixels: NDArray[np.intp] | None = None) -> Floats:
    """Return the composites of a chip's pixels, (n, N_COMPOSITES), dB and DN; NaN = no data.

    Of S2 only clear months count. A cloud probability that is not known hides nothing.

    Args:
        chip: As stored, or cleaned.
        pixels: Which pixels, counted row by row, (n,); None = all.
    """
    s1, s2 = (_take_pixels(images, pixels) for images in (chip.s1, chip.s2))
    backscatter = s1 * np.float32(S1_STORED_SCALE_DB)
    backscatter[s1 == S1_STORED_NODATA] = np.nan
    cloud_probability = s2[:, CLP]
    hidden = (cloud_probability > CLEAR_CLP_MAX) & (cloud_probability != S2_STORED_NODATA)
    hidden |= ~chip.s2_present[:, None]
    reflectance = s2[:, :CLP].astype(np.float32)
    reflectance[(s2[:, :CLP] == S2_STORED_NODATA) | hidden[:, None]] = np.nan
    year = np.concatenate([backscatter, reflectance], axis=1)  # (12, 14, n)
    seasons = year.reshape(N_SEASONS, N_MONTHS // N_SEASONS, *year.shape[1:])
    medians = find_quantiles(seasons.swapaxes(0, 1), (0.5,))[0]  # (4, 14, n)
    extremes = find_quantiles(year, EXTREMES)  # (2, 14, n)
    composites = np.concatenate([medians, extremes]).reshape(N_COMPOSITES, -1)
    return np.ascontiguousarray(composites.T)


def find_quantiles(values: Floats, shares: tuple[float, ...]) -> Floats:
    """Return quantiles along the first axis, (len(shares), ...), of the values that are not NaN.

    The same as numpy's `nanquantile`, which goes through pixel after pixel and took hundreds of
    times as long. NaN where there is no value.

    Args:
        values: (T, ...); NaN = no data.
        shares: Of the values that lie below, 0...1.
    """
    ordered = np.sort(values, axis=0)  # NaN last
    last = np.maximum(np.isfinite(ordered).sum(axis=0) - 1, 0)
    found = np.empty((len(shares), *values.shape[1:]), np.float32)
    for quantile, share in zip(found, shares, strict=True):
        place = share * last
        below = place.astype(np.intp)
        low, high = (
            np.take_along_axis(ordered, index[None], axis=0)[0]
            for index in (below, np.minimum(below + 1, last))
        )
        quantile[...] = low + (high - low) * (place - below)
    return found


def _take_pixels(images: NDArray[ValueT], pixels: NDArray[np.intp] | None) -> NDArray[ValueT]:
    """Return pixels of images, (12, bands, H, W) -> (12, bands, n)."""
    rows = images.reshape(*images.shape[:2], -1)
    return rows if pixels is None else rows[:, :, pixels]
