"""Counting the pixels of all train chips: statistics of the input bands and of the target.

Knows which pixels are data, and how often each value occurs.

Stored values are integers, so counting how often a band has each value gives every figure
exactly, in one pass and in constant memory. Sums are correctly rounded (`math.fsum`): the figures,
and so the file that training depends on, are the same on every machine.

Nodata, which is stored as such, never enters; absent months of S2 are left out whole. (Dark pixels
with 0 in some bands, of which the two real chips have many, are data.)
"""

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from biomassters.errors import StoreError
from biomassters.statistics.figures import (
    Figures,
    Normalisation,
    Statistics,
    TargetFigures,
    publish_normalisation,
)
from biomassters.statistics.histograms import Histogram
from biomassters.store.bands import BANDS, N_S1, N_S2, S1_STORED_SCALE_DB, S2_STORED_NODATA
from biomassters.store.chips import Chip, ChipStore

TARGET: Final = "AGBM"
AGBM_STEP: Final = 0.01
"""The target is counted in steps of this many t/ha; only its percentiles are rounded to them."""

_N_VALUES: Final = 2**16
_N_AGBM: Final = 2**18  # to 2,621 t/ha; what is above counts as that


class Counts:
    """How often each stored value occurs, chip by chip.

    Attributes:
        s1: (4, 65536); the stored value -32768 is at 0.
        s2: (11, 65536).
        agbm: In steps of `AGBM_STEP`.
        agbm_sums: Of each chip: pixels with a target, their sum and their sum of squares.
        agbm_range: Least and greatest target.
        agbm_nodata: Pixels without a target.
        pixels: Pixels a band, with and without data.
    """

    def __init__(self) -> None:
        self.s1 = np.zeros((N_S1, _N_VALUES), np.int64)
        self.s2 = np.zeros((N_S2, _N_VALUES), np.int64)
        self.agbm = np.zeros(_N_AGBM, np.int64)
        self.agbm_sums: list[tuple[int, float, float]] = []
        self.agbm_range = (math.inf, -math.inf)
        self.agbm_nodata = 0
        self.pixels = 0

    def add(self, chip: Chip) -> None:
        """Count the pixels of a chip."""
        self.pixels += chip.s1[:, 0].size
        # Flipping the sign bit makes the order of int16 that of uint16.
        shifted = chip.s1.view(np.uint16) ^ np.uint16(0x8000)
        for band in range(N_S1):
            self.s1[band] += np.bincount(shifted[:, band].ravel(), minlength=_N_VALUES)
        self.s1[:, 0] = 0
        s2 = chip.s2[chip.s2_present]
        for band in range(N_S2):
            self.s2[band] += np.bincount(s2[:, band].ravel(), minlength=_N_VALUES)
        self.s2[:, S2_STORED_NODATA] = 0
        if chip.agbm is not None:
            self._add_target(chip.agbm)

    def _add_target(self, agbm: NDArray[np.float32]) -> None:
        known = agbm[~np.isnan(agbm)].astype(np.float64)
        self.agbm_nodata += agbm.size - known.size
        if not known.size:
            return
        steps = np.clip(np.rint(known / AGBM_STEP), 0, _N_AGBM - 1).astype(np.int64)
        self.agbm += np.bincount(steps, minlength=_N_AGBM)
        self.agbm_sums.append((known.size, math.fsum(known), math.fsum(known**2)))
        low, high = self.agbm_range
        self.agbm_range = (min(low, float(known.min())), max(high, float(known.max())))

    def histograms(self) -> dict[str, Histogram]:
        """Return the histogram of each band, and of the target as `AGBM`."""
        stored = np.arange(_N_VALUES, dtype=np.float64)
        # Divided by 100, not times 0.01, which would give 6.140000000000001.
        db = (stored + np.iinfo(np.int16).min) / round(1 / S1_STORED_SCALE_DB)
        bands = [(db, counts) for counts in self.s1] + [(stored, counts) for counts in self.s2]
        histograms = {
            name: Histogram(values, counts, self.pixels - int(counts.sum()))
            for name, (values, counts) in zip(BANDS, bands, strict=True)
        }
        agbm = np.arange(_N_AGBM, dtype=np.float64) / round(1 / AGBM_STEP)
        histograms[TARGET] = Histogram(agbm, self.agbm, self.agbm_nodata)
        return histograms

    def summarise_target(self) -> TargetFigures:
        """Return the figures of the target.

        Raises:
            StoreError: There is none.
        """
        if not self.agbm_sums:
            raise StoreError("expected targets of the train chips, got none; add their catalogue")
        pixels = sum(count for count, _, _ in self.agbm_sums)
        mean = math.fsum(total for _, total, _ in self.agbm_sums) / pixels
        mean_square = math.fsum(squares for _, _, squares in self.agbm_sums) / pixels
        rounded = self.histograms()[TARGET].summarise()
        return TargetFigures(
            pixels=pixels,
            nodata_share=rounded.nodata_share,
            minimum=self.agbm_range[0],
            maximum=self.agbm_range[1],
            mean=mean,
            standard_deviation=math.sqrt(max(mean_square - mean**2, 0.0)),
            percentiles=rounded.percentiles,
        )


def count_pixels(store: ChipStore) -> Counts:
    """Count the pixels of all chips of a store."""
    counts = Counts()
    for index in tqdm(range(len(store)), unit="chip", disable=None):
        counts.add(store.read_chip(index))
    return counts


def summarise_counts(counts: Counts, source: Literal["computed", "published"]) -> Statistics:
    """Turn counts into statistics.

    Args:
        counts: Of all train chips.
        source: Where the normalisation comes from; the other figures are computed always.

    Raises:
        StoreError: There is no target, or a band without two different values, by which no input
            can be scaled.
    """
    histograms = counts.histograms()
    bands = {band: histograms[band].summarise() for band in BANDS}
    normalisation = (
        _compute_normalisation(bands) if source == "computed" else publish_normalisation()
    )
    return Statistics(normalisation=normalisation, target=counts.summarise_target(), bands=bands)


def _compute_normalisation(bands: dict[str, Figures]) -> Normalisation:
    for band, figures in bands.items():
        if not figures.standard_deviation:
            raise StoreError(
                f"expected different values of {band} in the train chips, got"
                f" {figures.minimum} in {figures.pixels} pixels with data;"
                " add chips, or set statistics.source to published"
            )
    return Normalisation(
        source="computed",
        bands=BANDS,
        **{
            name: tuple(getattr(figures, name) for figures in bands.values())
            for name in ("minimum", "maximum", "mean", "standard_deviation")
        },
        p1=tuple(figures.percentiles["1"] for figures in bands.values()),
        p99=tuple(figures.percentiles["99"] for figures in bands.values()),
    )
