"""What the facts of a split's chips say: which images are there, and which chips are suspect.

Knows what makes a chip suspect; knows nothing of files and pictures.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.audit.facts import EXTREME_AGBM
from biomassters.store.bands import S1_RANGE_DB
from biomassters.store.chips import ChipStore, read_facts
from biomassters.store.constant_blocks import BLOCK_SHARE

FEW_S2_MONTHS: Final = 8
"""A chip with fewer months of S2 is worth a look.

No official test chip has fewer, and a fifth of the train chips (`audit_catalogue`).
"""

ORBITS: Final[Mapping[str, slice]] = {"ascending": slice(0, 2), "descending": slice(2, 4)}
"""The bands of S1 of each orbit."""


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


class Finding(NamedTuple):
    """One thing that a chip can be suspected of.

    Attributes:
        name: As it is called in files.
        title: As a page calls it.
        unit: What is counted.
        counts: How often each chip has it, (n,); 0 = not suspect.
    """

    name: str
    title: str
    unit: str
    counts: NDArray[np.int64]

    @property
    def suspects(self) -> NDArray[np.intp]:
        """Indices of the chips that have it."""
        return np.flatnonzero(self.counts)


def list_findings(facts: SplitFacts) -> list[Finding]:
    """Return all findings, also those that no chip has."""
    low, high = S1_RANGE_DB
    few = facts.s2_months < FEW_S2_MONTHS
    rows = [
        ("few_s2_months", f"Fewer than {FEW_S2_MONTHS} months of S2", "chips", few),
        *(
            (f"no_{orbit}", f"No {orbit} orbit in any month", "chips", ~present.any(axis=1))
            for orbit, present in facts.orbit_present.items()
        ),
        ("s2_zero", "S2 images of nothing but zeros", "images", facts.zero_images),
        (
            "constant_block",
            f"One SWIR value over {BLOCK_SHARE:.0%} of the chip, in one piece",
            *("images", facts.block_images),
        ),
        ("s1_zero", "S1 of exactly 0.00 dB", "values", facts["s1_zero"]),
        ("s1_outside", f"S1 below {low:.0f} or above {high:.0f} dB", "values", facts["s1_outside"]),
        ("negative_target", "AGBM below 0 t/ha", "pixels", facts["agbm_negative"]),
        (
            "extreme_target",
            f"AGBM of {EXTREME_AGBM:.0f} t/ha or more",
            *("pixels", facts["agbm_extreme"]),
        ),
    ]
    return [
        Finding(name, title, unit, counts.reshape(len(facts), -1).sum(axis=1, dtype=np.int64))
        for name, title, unit, counts in rows
    ]
