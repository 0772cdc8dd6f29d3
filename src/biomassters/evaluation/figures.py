"""Figures of a set of chips with their confidence intervals: errors of predictions, by chip."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from biomassters.evaluation.bootstrap import bootstrap_chips
from biomassters.prediction.metrics import BIN_NAMES, ErrorSums, add_up

Floats = npt.NDArray[np.floating[Any]]

FIGURES: Final = ("chip_rmse", "pooled_rmse", "mae", "bias", "r2")
"""Figures over all pixels; beside them, `rmse_by_bin` has one for each biomass bin."""

CONFIDENCE: Final = "ci95"
"""The key, beside the figures, of their 95 % confidence intervals."""


@dataclass
class ChipErrors:
    """The errors of one model's predictions, chip by chip.

    Attributes:
        chips: The sums of each chip that has a pixel with a target.
    """

    chips: list[ErrorSums] = field(default_factory=list)

    def add(self, chip_id: str, prediction: Floats, target: Floats) -> None:
        """Count one chip, as `ErrorSums.add` does."""
        sums = ErrorSums()
        sums.add(chip_id, prediction, target)
        if sums.chip_ids:
            self.chips.append(sums)

    @property
    def chip_ids(self) -> list[str]:
        """The chips that were counted."""
        return [chip.chip_ids[0] for chip in self.chips]

    @property
    def chip_rmses(self) -> Floats:
        """Each chip's RMSE, (n,), t/ha."""
        return np.array([chip.chip_rmses[0] for chip in self.chips])

    def of(self, chip_ids: Collection[str]) -> "ChipErrors":
        """Return the errors of some of the chips."""
        return ChipErrors([chip for chip in self.chips if chip.chip_ids[0] in chip_ids])

    def join(self) -> ErrorSums:
        """Return the sums over all chips."""
        return add_up(self.chips)

    def summarise(self) -> dict[str, Any]:
        """Return the metrics by name, as `ErrorSums.summarise` does, and their intervals.

        `ci95` has, by the same names, the ends of each metric's 95 % confidence interval over
        chips, or None where too few chips have it.
        """
        table = self.tabulate()
        intervals = bootstrap_chips(len(table), partial(compute_figures, table))
        return self.join().summarise() | {CONFIDENCE: name_figures(list_ends(intervals))}

    def tabulate(self) -> Floats:
        """Return what `compute_figures` computes from, a row a chip."""
        sums = (
            (*chip.chip_sums[0], *chip.target_sums[1:], *chip.bin_sums[:, [0, 2]].T.flat)
            for chip in self.chips
        )
        return np.array([(rmse, *row) for rmse, row in zip(self.chip_rmses, sums, strict=True)])


def compute_figures(table: Floats, counts: Floats) -> Floats:
    """Compute all figures of sets in which chips count more or less often.

    Args:
        table: Of n chips, as `ChipErrors.tabulate` makes it.
        counts: How often each chip counts, (R, n).

    Returns:
        Figures, (R, F), in the order that `name_figures` names; NaN = none.
    """
    rmse, pixels, error, absolute, square, target, target_square, *bins = (counts @ table).T
    bin_pixels, bin_squares = np.split(np.array(bins), 2)
    spread = target_square - target**2 / pixels
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = (
            rmse / counts.sum(axis=1),
            np.sqrt(square / pixels),
            absolute / pixels,
            error / pixels,
            np.where(spread > 0, 1 - square / spread, np.nan),
            *np.sqrt(bin_squares / bin_pixels),
        )
    return np.stack(figures, axis=1)


def subtract_figures(ours: ChipErrors, theirs: ChipErrors) -> dict[str, Any]:
    """Return the differences of all figures, ours minus theirs, paired by chip.

    Args:
        ours: Errors of some chips.
        theirs: Errors of the same chips, in the same order.

    Returns:
        The differences by the figures' names, their confidence intervals as `ci95`, and on how many
        chips ours has the lower RMSE (`better_on`) and the higher one (`worse_on`).
    """
    tables = ours.tabulate(), theirs.tabulate()

    def subtract(counts: Floats) -> Floats:
        first, second = (compute_figures(table, counts) for table in tables)
        return first - second

    n_chips = len(ours.chips)
    [differences] = subtract(np.ones((1, n_chips)))
    values = [None if np.isnan(value) else float(value) for value in differences]
    by_chip = ours.chip_rmses - theirs.chip_rmses
    return {
        **name_figures(values),
        CONFIDENCE: name_figures(list_ends(bootstrap_chips(n_chips, subtract))),
        "better_on": int((by_chip < 0).sum()),
        "worse_on": int((by_chip > 0).sum()),
    }


def name_figures(values: Sequence[Any]) -> dict[str, Any]:
    """Name values in the order of `compute_figures`, nested as `ErrorSums.summarise` does."""
    first = len(FIGURES)
    by_bin = dict(zip(BIN_NAMES, values[first:], strict=True))
    return dict(zip(FIGURES, values[:first], strict=True)) | {"rmse_by_bin": by_bin}


def list_ends(intervals: Floats) -> list[list[float] | None]:
    """Return intervals, (F, 2), as lists for JSON; None where the ends are NaN."""
    return [None if np.isnan(ends).any() else ends.tolist() for ends in intervals]
