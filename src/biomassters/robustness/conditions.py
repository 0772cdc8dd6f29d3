"""What is taken from a chip to see what a model does without it: bands, and months of S2.

A chip that lacks something is made as the store holds one that never had it, and cleaned only then:
absent bands are nodata, absent months hold 0 and are not present. So the model sees what it would
see of such data, whatever the cleaning makes of them (`cleaning: third` finds clouds where there is
no cloud probability, and the winner's takes them for the worst).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.params.bands import ConditionName
from biomassters.params.sections import CleaningName, RobustnessParams
from biomassters.store.bands import (
    BANDS,
    N_MONTHS,
    S1_BANDS,
    S1_STORED_NODATA,
    S2_BANDS,
    S2_STORED_NODATA,
    SWIR_BANDS,
)
from biomassters.store.chips import Chip, ChipStore
from biomassters.store.cleaning import clean_chip

RGB_BANDS: Final = ("B4", "B3", "B2")

ABSENT_BANDS: Final[Mapping[ConditionName, tuple[str, ...]]] = {
    "no_s1": S1_BANDS,
    "no_s2": S2_BANDS,
    "no_ascending": tuple(band for band in S1_BANDS if band.endswith(" ascending")),
    "no_descending": tuple(band for band in S1_BANDS if band.endswith(" descending")),
    "no_clp": ("CLP",),
    "no_swir": SWIR_BANDS,
    "rgb_only": tuple(band for band in BANDS if band not in RGB_BANDS),
}
"""The bands that a chip lacks, by the condition's name in params.yaml."""


class Condition(NamedTuple):
    """What is taken from each chip.

    Attributes:
        name: For tables.
        bands: Those that are absent.
        months_removed: How many months of S2, of those that the chip has.
    """

    name: str
    bands: tuple[str, ...] = ()
    months_removed: int = 0


PLAIN: Final = Condition("plain")
"""Nothing is taken away."""


def list_conditions(params: RobustnessParams) -> list[Condition]:
    """Return all conditions, each once: the plain one, months removed one by one, absent bands."""
    months = sorted(set(params.months_removed))
    return [
        PLAIN,
        *(Condition(f"months_{n}", months_removed=n) for n in months),
        *(Condition(name, ABSENT_BANDS[name]) for name in dict.fromkeys(params.conditions)),
    ]


def open_without(
    path: Path, condition: Condition, *, cleaning: CleaningName, seed: int
) -> ChipStore:
    """Open a store whose chips lack what a condition takes from them, and are cleaned then.

    Its `s2_present` is still the store's; that of each chip is what the chip has left.

    Args:
        path: Where it lies.
        condition: What is taken away.
        cleaning: What is done to the rest.
        seed: Of the months that are drawn.

    Raises:
        StoreError: It is absent, incomplete or of another format.
    """
    clean = partial(_clean_without, condition=condition, cleaning=cleaning, seed=seed)
    return ChipStore.open(path, clean=clean)


def _clean_without(chip: Chip, condition: Condition, cleaning: CleaningName, seed: int) -> Chip:
    return clean_chip(remove_data(chip, condition, seed), cleaning)


def remove_data(chip: Chip, condition: Condition, seed: int) -> Chip:
    """Return a chip as the store would hold it without some of its data; it is not modified.

    Laws: without S2 is without any of its months; what is absent without k months is absent
    without k + 1; to take away what is absent changes nothing.

    Args:
        chip: As stored.
        condition: What is taken away.
        seed: Of the months that are drawn; the chip's name decides, too.
    """
    s1, s2 = chip.s1.copy(), chip.s2.copy()
    s1[:, [band in condition.bands for band in S1_BANDS]] = S1_STORED_NODATA
    absent = [band in condition.bands for band in S2_BANDS]
    s2[:, absent] = S2_STORED_NODATA
    present = chip.s2_present & ~_draw_months(chip, condition.months_removed, seed)
    if all(absent):
        present = np.zeros_like(present)
    s2[~present] = 0
    return chip._replace(s1=s1, s2=s2, s2_present=present)


def _draw_months(chip: Chip, n_months: int, seed: int) -> NDArray[np.bool_]:
    """Return so many of the chip's months of S2, or all that it has, (12,)."""
    random = np.random.Generator(np.random.PCG64([seed, *chip.chip_id.encode()]))
    # All twelve are put in order, whichever the chip has: of a month that is absent in the first
    # place, nothing but its own turn depends.
    order = random.permutation(N_MONTHS)
    drawn = order[chip.s2_present[order]][:n_months]
    return np.isin(np.arange(N_MONTHS), drawn)
