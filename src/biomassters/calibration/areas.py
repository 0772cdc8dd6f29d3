"""Intervals of the mean over any set of pixels: a block, a chip, a stand, a municipality."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from biomassters.calibration.correlation import Correlation
from biomassters.calibration.held_out import HeldOutChip
from biomassters.calibration.pixel_table import FittedTable, PixelTable
from biomassters.calibration.quantiles import conformal_quantile
from biomassters.params.sections import Section

BLOCK_SIDES: Final = (1, 10, 40)
"""Sides of the blocks that are calibrated beside whole chips, pixels: a pixel, 1 ha, 16 ha."""

LEAST_KNOWN: Final = 0.5
"""Share of a block's pixels that must have a target."""

log = logging.getLogger(__name__)


class AreaFactors(Section):
    """How many standard errors an area's interval reaches to either side of its mean.

    Attributes:
        pixels: Sizes of areas, pixels, rising.
        factor: Of each; interpolated by the logarithm of the size, and constant beyond.
    """

    pixels: tuple[int, ...]
    factor: tuple[float, ...]

    def at(self, pixels: float) -> float:
        """Return the factor of an area of this many pixels."""
        return float(np.interp(math.log(pixels), np.log(self.pixels), self.factor))

    def surround(self, mean: float, error: float, naive: float, pixels: float) -> "AreaInterval":
        """Return a mean with its interval.

        Args:
            mean: Of an area, t/ha.
            error: Its standard error, t/ha.
            naive: The same, as if pixels erred independently.
            pixels: Of 10 m that count as much as the area's do by their weights.
        """
        reach = error * self.at(pixels)
        return AreaInterval(
            mean=mean,
            standard_error=error,
            lower=max(0.0, mean - reach),
            upper=mean + reach,
            naive_standard_error=naive,
        )


class AreaInterval(NamedTuple):
    """The mean of an area, and how far to trust it; t/ha.

    Attributes:
        mean: Mean AGBM.
        standard_error: Of the mean, with the errors' correlation.
        lower: Lower bound of the mean's interval, 0 or more.
        upper: Upper bound.
        naive_standard_error: Of the mean, as if pixels erred independently; it is far too small.
    """

    mean: float
    standard_error: float
    lower: float
    upper: float
    naive_standard_error: float


def split_blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Cut an image, (H, W), into blocks, (n, side, side); what fills no block is left out."""
    rows, columns = (length // side for length in image.shape)
    whole = image[: rows * side, : columns * side]
    blocks = whole.reshape(rows, side, columns, side).swapaxes(1, 2)  # (rows, columns, side, side)
    return blocks.reshape(-1, side, side)


def cover_with_blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Cover an image, (H, W), with as few blocks as will do, (n, side, side), evenly overlapping.

    Law: where `side` divides height and width, these are those of `split_blocks`.
    """
    rows, columns = (
        np.linspace(0, length - side, -(-length // side)).round().astype(np.int64)
        for length in image.shape
    )
    windows = sliding_window_view(image, (side, side))[np.ix_(rows, columns)]
    return windows.reshape(-1, side, side)


def fit_area_factors(
    chips: Sequence[HeldOutChip], fitted: FittedTable, correlation: Correlation, level: float
) -> AreaFactors:
    """Find how many standard errors hold a share of `level` of the blocks of a new chip.

    A normal error would need 1.64 at 90 %. That is not taken for granted, nor are the correlation
    and the deviations: each size gets the conformal quantile of the blocks' errors in units of
    their standard errors.

    Args:
        chips: Held-out ones, of one size.
        fitted: Their deviations; each chip's are those that it had no part in.
        correlation: Of the errors.
        level: Between 0 and 1.
    """
    chip_side = min(chips[0].prediction.shape)
    sides = [*(side for side in BLOCK_SIDES if side < chip_side), chip_side]
    factors = {}
    for side in sides:
        scores = [
            _score_blocks(chip, fitted.unseen_by(position), correlation, side)
            for position, chip in enumerate(chips)
        ]
        owners = np.repeat(np.arange(len(chips)), [len(of_chip) for of_chip in scores])
        factors[side**2] = conformal_quantile(np.concatenate(scores), owners, level)
    finite = {pixels: factor for pixels, factor in factors.items() if math.isfinite(factor)}
    if len(finite) < len(factors):
        log.warning(
            "too few chips have targets in half of a block of %s pixels; such areas get the factor"
            " of smaller ones",
            ", ".join(str(pixels) for pixels in factors if pixels not in finite),
        )
    return AreaFactors(pixels=tuple(finite), factor=tuple(finite.values()))


def _score_blocks(
    chip: HeldOutChip, table: PixelTable, correlation: Correlation, side: int
) -> NDArray[np.float64]:
    """Return the error of each block's mean in units of its standard error, without its sign."""
    # With overlaps: of a chip of 64 pixels four blocks of 40 tell more than one.
    error = cover_with_blocks(chip.error, side)
    deviations = cover_with_blocks(table.deviate(chip.prediction), side)
    known = np.isfinite(error)
    enough = known.mean((1, 2)) >= LEAST_KNOWN
    error, deviations, known = error[enough], deviations[enough], known[enough]
    total = np.where(known, error, 0.0).astype(np.float64).sum((1, 2))
    scores: NDArray[np.float64] = np.abs(total) / correlation.sum_errors(
        np.where(known, deviations, 0.0)
    )
    return scores
