"""What the facts of a split's chips say: which of them are suspect, and of what."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.audit.facts import EXTREME_AGBM, SplitFacts
from biomassters.store.bands import S1_RANGE_DB
from biomassters.store.constant_blocks import BLOCK_SHARE

FEW_S2_MONTHS: Final = 8
"""A chip with fewer months of S2 is worth a look.

No official test chip has fewer, and a fifth of the train chips (`audit_catalogue`).
"""


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
        ("s2_zero", "S2 images without any reflectance", "images", facts.zero_images),
        (
            "constant_block",
            f"One SWIR value over {BLOCK_SHARE:.0%} of the chip, in one piece",
            *("images", facts.block_images),
        ),
        ("s1_zero", "S1 of exactly 0 dB", "values", facts["s1_zero"]),
        ("s1_outside", f"S1 below {low:.0f} or above {high:.0f} dB", "values", facts["s1_outside"]),
        ("negative_target", "AGBM below 0 t/ha", "pixels", facts["agbm_negative"]),
        (
            "extreme_target",
            f"AGBM of {EXTREME_AGBM:.0f} t/ha or more",
            *("pixels", facts["agbm_extreme"]),
        ),
    ]
    return [
        Finding(name, title, unit, counts.sum(axis=tuple(range(1, counts.ndim)), dtype=np.int64))
        for name, title, unit, counts in rows
    ]
