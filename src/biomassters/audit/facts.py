"""What the audit wants to know of a chip, counted while its pixels are in memory.

Knows which defects there are and how one chip is searched for them. The facts lie in the store
(`layout.FACTS`), so that chips which are packed already are audited without reading a pixel.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from biomassters.store.bands import (
    CLP,
    N_MONTHS,
    S1_RANGE_DB,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
    SWIR_BANDS,
)
from biomassters.store.chips import Chip, ChipStore, read_facts
from biomassters.store.constant_blocks import measure_largest_block

CLOUDY_CLP: Final = 50
"""A pixel with a greater cloud probability counts as cloudy.

Source: drivendataorg/the-biomassters, 3rd-place/utils.py (preprocess_s2).
"""

EXTREME_AGBM: Final = 400.0
"""Biomass from here on is extreme, t/ha.

Source: the winner's scaling of targets ends there; above 426 t/ha is one pixel in 1,000 of all
train chips.
"""

ORBITS: Final[Mapping[str, slice]] = {"ascending": slice(0, 2), "descending": slice(2, 4)}
"""The bands of S1 of each orbit."""

_SWIR: Final = tuple(S2_BANDS.index(band) for band in SWIR_BANDS)
_S1_LOW, _S1_HIGH = (round(db / S1_STORED_SCALE_DB) for db in S1_RANGE_DB)


def gather_audit_facts(chip: Chip) -> dict[str, Any]:
    """Return the entries of `layout.AUDIT_FACTS` of a chip, as JSON types."""
    return {**_audit_s1(chip.s1), **_audit_s2(chip), **_audit_agbm(chip)}


def _audit_s1(s1: NDArray[np.int16]) -> dict[str, list[list[int]]]:
    counts = np.zeros((3, *s1.shape[:2]), np.int64)
    # Most images have nothing to count, which their extremes tell.
    lowest, highest = s1.min(axis=(2, 3)), s1.max(axis=(2, 3))
    suspect = (lowest < _S1_LOW) | (highest >= 0)
    for place in zip(*np.nonzero(suspect), strict=True):
        image = s1[place]
        nodata = np.count_nonzero(image == S1_STORED_NODATA)
        low = np.count_nonzero(image < _S1_LOW) - nodata
        high = np.count_nonzero(image > _S1_HIGH)
        counts[:, *place] = nodata, np.count_nonzero(image == 0), low + high
    names = ("s1_nodata", "s1_zero", "s1_outside")
    return dict(zip(names, counts.tolist(), strict=True))


def _audit_s2(chip: Chip) -> dict[str, list[Any]]:
    facts: dict[str, list[Any]] = {
        "s2_nodata": [0] * N_MONTHS,
        "s2_cloudy": [0] * N_MONTHS,
        "s2_zero": [0] * N_MONTHS,
        "s2_block": [[0] * len(SWIR_BANDS)] * N_MONTHS,
    }
    for month in np.flatnonzero(chip.s2_present):
        image = chip.s2[month]
        without_clp = np.count_nonzero(image[CLP] == S2_STORED_NODATA)
        measured = _find_measured(image)
        facts["s2_nodata"][month] = int(without_clp)
        # Over 100 are no probabilities; whatever they mean, it is not a clear sky.
        facts["s2_cloudy"][month] = int(np.count_nonzero(image[CLP] > CLOUDY_CLP) - without_clp)
        facts["s2_zero"][month] = int(measured.size - np.count_nonzero(measured))
        facts["s2_block"][month] = [
            measure_largest_block(image[band], where=measured) for band in _SWIR
        ]
    return facts


def _find_measured(image: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Find the pixels of an image, (11, H, W), that have a reflectance over 0 in any band."""
    # Nodata is the greatest number: one more is 0, and one more than 0 is 1.
    measured: NDArray[np.bool_] = image[0] + np.uint16(1) > 1
    if not measured.all():
        # Few pixels have 0 in B2, and in most images none: the other bands are read there only.
        rows, columns = np.nonzero(~measured)
        others = image[1:CLP, rows, columns] + np.uint16(1) > 1
        measured[rows, columns] = others.any(axis=0)
    return measured


def _audit_agbm(chip: Chip) -> dict[str, float | int]:
    absent = np.full(chip.s1.shape[2:], np.nan, np.float32)
    agbm = absent if chip.agbm is None else chip.agbm
    known = agbm[~np.isnan(agbm)]
    return {
        "agbm_min": float(known.min()) if known.size else math.nan,
        "agbm_max": float(known.max()) if known.size else math.nan,
        "agbm_nodata": agbm.size - known.size,
        "agbm_negative": int(np.count_nonzero(known < 0)),
        "agbm_extreme": int(np.count_nonzero(known >= EXTREME_AGBM)),
    }


class SplitFacts:
    """The facts of a split's chips, chip by chip.

    Attributes:
        chip_ids: (n,).
        chip_size: Side of a chip, pixels.
        pixels: Of one image.
        s2_present: (n, 12) bool.
        orbit_present: By orbit: whether any of its pixels has data, (n, 12) bool.
        has_target: (n,) bool.
    """

    def __init__(self, facts: Mapping[str, NDArray[Any]], chip_size: int) -> None:
        self._facts = facts
        self.chip_ids: list[str] = list(facts["chip_id"])
        self.chip_size = chip_size
        self.pixels = chip_size**2
        self.s2_present: NDArray[np.bool_] = facts["s2_present"]
        self.orbit_present = {
            orbit: facts["s1_nodata"][..., bands].min(axis=-1) < self.pixels
            for orbit, bands in ORBITS.items()
        }
        self.has_target: NDArray[np.bool_] = ~np.isnan(facts["agbm_mean"])

    @classmethod
    def read(cls, store: ChipStore) -> "SplitFacts":
        """Read those of a store.

        Raises:
            StoreError: They are missing or damaged.
        """
        return cls(read_facts(store.path), store.chip_size)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the array of a name of `layout.FACTS`."""
        return self._facts[name]

    def __len__(self) -> int:
        return len(self.chip_ids)

    @property
    def s2_months(self) -> NDArray[np.int64]:
        """Months that have an S2 image, (n,)."""
        return np.asarray(self.s2_present.sum(axis=1))

    @property
    def block_images(self) -> NDArray[np.bool_]:
        """S2 images with a constant block in any SWIR band, (n, 12)."""
        return np.asarray(self["s2_block"].max(axis=2) > 0)

    @property
    def zero_images(self) -> NDArray[np.bool_]:
        """S2 images whose reflectance is 0 in all pixels and bands, (n, 12)."""
        return np.asarray(self.s2_present & (self["s2_zero"] == self.pixels))
