"""From held-out chips to a calibration."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from biomassters.calibration.areas import fit_area_factors
from biomassters.calibration.bound_shift import fit_bound_shift
from biomassters.calibration.calibration import REFERENCE, VERSION, Calibration
from biomassters.calibration.correlation import fit_correlation, measure_correlation
from biomassters.calibration.held_out import HeldOutChip, PixelSample, sample_pixels
from biomassters.calibration.pixel_table import EXTREME_SHARE, PixelTable, fit_pixel_table
from biomassters.calibration.quantiles import chip_quantiles, count_needed_chips
from biomassters.errors import ChipDataError

N_PARTS = 5
"""Parts of the chips in `cross_calibrate`."""


def calibrate(chips: Sequence[HeldOutChip], level: float, models: Mapping[str, str]) -> Calibration:
    """Fit a calibration.

    Args:
        chips: Held-out ones, of one size, each with a pixel that has a target.
        level: Share of pixels and of areas that shall lie in their interval, between 0 and 1.
        models: Identities of the weights that predicted them, by the model's name.

    Raises:
        ChipDataError: The chips are too few for the level.
    """
    check_number(len(chips), level)
    sample = sample_pixels(chips)
    fitted = fit_pixel_table(sample, level)
    empirical = measure_correlation(_standardise(chips, fitted.table, sample))
    correlation = fit_correlation(empirical, min(chips[0].prediction.shape))
    return Calibration(
        version=VERSION,
        method="conformal",
        level=level,
        unit="t/ha",
        reference=REFERENCE,
        models=dict(models),
        chips=len(chips),
        pixel=fitted.table,
        bounds=None if sample.bounds is None else fit_bound_shift(sample, sample.bounds, level),
        correlation=correlation,
        area=fit_area_factors(chips, fitted, correlation, level),
    )


def cross_calibrate(
    chips: Sequence[HeldOutChip], level: float, models: Mapping[str, str]
) -> list[Calibration]:
    """Return for each chip a calibration that it had no part in, to judge calibrations by.

    The chips are divided into `N_PARTS` by their order; where that leaves too few for the level,
    each chip is a part.

    Args:
        chips: As for `calibrate`, in an order that says nothing of them, such as that of their ids.
        level: As for `calibrate`.
        models: As for `calibrate`.

    Raises:
        ChipDataError: The chips less one are too few for the level.
    """
    n_parts = min(N_PARTS, len(chips))
    if len(chips) - -(-len(chips) // n_parts) < count_needed_chips(level):
        n_parts = len(chips)
        check_number(len(chips) - 1, level)
    of_part = [
        calibrate([c for i, c in enumerate(chips) if i % n_parts != part], level, models)
        for part in range(n_parts)
    ]
    return [of_part[position % n_parts] for position in range(len(chips))]


def check_number(n_chips: int, level: float) -> None:
    """Refuse too few chips for a level.

    Raises:
        ChipDataError: No finite interval would hold.
    """
    needed = count_needed_chips(level)
    if n_chips < needed:
        raise ChipDataError(
            f"expected at least {needed} held-out chips with targets for intervals of level"
            f" {level:g}, got {n_chips}, at params.yaml: calibration.level; lower it, list more"
            " folds, or set calibration.method to none"
        )


def _standardise(
    chips: Sequence[HeldOutChip], table: PixelTable, sample: PixelSample
) -> Iterator[NDArray[np.float64]]:
    """Yield each chip's errors in units of their deviations, (H, W), without their extremes."""
    ratio = sample.error / table.deviate(sample.prediction)
    bounds = chip_quantiles(ratio, sample.chip, (EXTREME_SHARE, 1 - EXTREME_SHARE))
    for chip in chips:
        yield np.clip(chip.error / table.deviate(chip.prediction), *bounds)
