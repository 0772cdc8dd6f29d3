"""How good a map is: the competition's metric and the ones beside it.

Two numbers are called RMSE. `chip_rmse`, the competition's, is the mean over chips of each chip's
RMSE; `pooled_rmse` is the root of the mean square over all pixels. They differ: name both.

Not scikit-learn's, which want all pixels in memory at once: here a few float64 sums of each chip
are enough, in one pass, and several processes get the very numbers of one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from operator import iadd
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

BIN_EDGES = (0, 25, 50, 100, 150, 200, 300, 400)
"""Lower edges of the biomass bins, t/ha; the last has no upper edge."""

BIN_NAMES = (*(f"{low}-{high}" for low, high in pairwise(BIN_EDGES)), f"{BIN_EDGES[-1]}+")


@dataclass
class ErrorSums:
    """Sums of errors in one pass over chips, in float64.

    Attributes:
        chip_ids: The chips that had a pixel with a target.
        chip_sums: For each: pixels, Σ error, Σ |error|, Σ error².
        target_sums: Pixels, Σ target, Σ target² over all chips.
        bin_sums: For each biomass bin: pixels, Σ error, Σ error².
    """

    chip_ids: list[str] = field(default_factory=list)
    chip_sums: list[tuple[float, float, float, float]] = field(default_factory=list)
    target_sums: Floats = field(default_factory=lambda: np.zeros(3))
    bin_sums: Floats = field(default_factory=lambda: np.zeros((len(BIN_EDGES), 3)))

    def add(self, chip_id: str, prediction: Floats, target: Floats) -> None:
        """Count one chip.

        Args:
            chip_id: Its name.
            prediction: AGBM, (H, W), t/ha.
            target: AGBM, (H, W), t/ha; NaN = no target: such pixels are left out.
        """
        valid = np.isfinite(target)
        if not valid.any():
            return
        truth = target[valid].astype(np.float64)
        error = prediction[valid].astype(np.float64) - truth
        square = error**2
        self.chip_ids.append(chip_id)
        self.chip_sums.append(
            (float(error.size), float(error.sum()), float(np.abs(error).sum()), float(square.sum()))
        )
        self.target_sums += truth.size, truth.sum(), (truth**2).sum()
        bins = np.clip(np.searchsorted(BIN_EDGES, truth, side="right") - 1, 0, None)
        for column, weights in enumerate((None, error, square)):
            self.bin_sums[:, column] += np.bincount(bins, weights, minlength=len(BIN_EDGES))

    @property
    def chip_rmses(self) -> Floats:
        """Each chip's RMSE, (n,), t/ha."""
        sums = np.asarray(self.chip_sums)
        return np.asarray(np.sqrt(sums[:, 3] / sums[:, 0]))

    def summarise(self) -> dict[str, Any]:
        """Return the metrics by name, all in t/ha but `r2` (1 is perfect, 0 the targets' mean)."""
        pixels, error, absolute, square = np.asarray(self.chip_sums).sum(axis=0)
        _, target, target_square = self.target_sums
        spread = target_square - target**2 / pixels
        return {
            "chip_rmse": float(self.chip_rmses.mean()),
            "pooled_rmse": float(np.sqrt(square / pixels)),
            "mae": float(absolute / pixels),
            "bias": float(error / pixels),
            "r2": float(1 - square / spread) if spread > 0 else None,
            "rmse_by_bin": {
                name: float(np.sqrt(total / count)) if count else None
                for name, (count, _, total) in zip(BIN_NAMES, self.bin_sums, strict=True)
            },
        }


def add_up(chips: Iterable[ErrorSums]) -> ErrorSums:
    """Return the sums over all chips, of the sums of some each."""
    total = ErrorSums()
    for chip in chips:
        for sums in fields(ErrorSums):  # lists are joined, arrays added
            setattr(total, sums.name, iadd(getattr(total, sums.name), getattr(chip, sums.name)))  # type: ignore[no-untyped-call]
    return total
