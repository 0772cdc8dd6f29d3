"""Intervals of pixels: how far the target lies below and above, by the prediction."""

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from biomassters.calibration.held_out import PixelSample
from biomassters.calibration.quantiles import (
    Floats,
    chip_quantiles,
    conformal_quantile,
    weigh_by_chip,
)
from biomassters.params.sections import Section
from biomassters.prediction.maps import Map, PixelIntervals

N_BINS: Final = 10
"""Bins of the prediction, of which each has a tenth of the pixels."""

SHAPE_CHIPS: Final = 5
"""Chips that tell a bin's shape: with fewer in it, it is joined with a neighbour."""

FACTOR_CHIPS: Final = 100
"""Chips that tell a bin's conformal factor: with fewer in it, it shares one with a neighbour."""

N_SPLITS: Final = 11
"""Ways that are tried to divide what an interval misses into what lies below and above it."""

ZERO_MARGIN: Final = 1.1
"""Of the prediction: so far below it an interval reaches whose lower bound is 0."""

SMALLEST_DEVIATION: Final = 0.1
"""t/ha; below that no map is told apart from its reference, and it keeps quotients finite."""

SMALLEST_SIDE: Final = 0.05
"""Of a standard deviation: an interval reaches this far to either side of the prediction."""

EXTREME_SHARE: Final = 0.001
"""Of the errors on either side that count for a standard deviation as the next ones do: a pixel of
10,000 t/ha, as the official files have some, would decide it alone."""

N_GROUPS: Final = 10
"""Of chips; a chip is scored by what all other groups say."""


class PixelTable(Section):
    """Figures at some predictions, between which they are interpolated linearly.

    Laws: an upper bound never falls as the prediction rises, nor does a lower one;
    0 <= lower <= max(prediction, 0) <= upper.

    Attributes:
        prediction: AGBM, t/ha, rising.
        deviation: Standard deviation of the target about it, t/ha.
        below: From it to the lower bound, t/ha.
        above: From it to the upper bound, t/ha.
        chips: Chips that have such pixels.
    """

    prediction: tuple[float, ...]
    deviation: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    chips: tuple[int, ...]

    @model_validator(mode="after")
    def _check_columns(self) -> "PixelTable":
        columns = list(self.model_dump().values())
        if len({len(column) for column in columns}) != 1 or not columns[0]:
            raise ValueError("expected columns of one length")
        if any(low >= high for low, high in pairwise(self.prediction)):
            raise ValueError("expected predictions that rise")
        if min(*self.deviation, *self.below, *self.above) <= 0:
            raise ValueError("expected deviations and sides greater than 0")
        return self

    def deviate(self, prediction: Floats) -> Floats:
        """Return the standard deviation of each prediction, t/ha."""
        return np.interp(prediction, self.prediction, self.deviation)

    def surround(self, prediction: Map) -> PixelIntervals:
        """Return the intervals of pixels.

        Args:
            prediction: AGBM, of any shape, t/ha.
        """
        raised = np.maximum(prediction, 0).astype(np.float64)
        below = np.interp(raised, self.prediction, self.below)
        above = np.interp(raised, self.prediction, self.above)
        bounds = self.deviate(raised), np.maximum(raised - below, 0), raised + above
        return PixelIntervals(*(bound.astype(np.float32) for bound in bounds))


class FittedTable(NamedTuple):
    """A table, and the tables that have not seen a group of chips.

    Attributes:
        table: Of all chips.
        shapes: For each group, what all other chips say, without the conformal factor.
    """

    table: PixelTable
    shapes: list[PixelTable]

    def unseen_by(self, chip: int) -> PixelTable:
        """Return the shape that a chip, by its position, had no part in."""
        return self.shapes[chip % len(self.shapes)]


def fit_pixel_table(sample: PixelSample, level: float) -> FittedTable:
    """Fit a table to held-out pixels, so that a share of `level` of a new chip's lie within.

    In three steps. Each bin of the prediction gets the quantiles of its errors: the shape, longer
    on the side where errors are longer. A pixel's score is the factor by which the shape must grow
    to reach it, where the shape is of other chips alone. Bins then grow by the conformal quantile
    of their scores. One factor for both sides, since a lower bound of 0 leaves all misses to the
    upper one, and two would need twice the chips.

    Source: Romano, Patterson, Candès, Conformalized quantile regression (2019), with the scores of
    Sesia, Candès, A comparison of some conformal quantile regression methods (2020), CQR-r.

    Args:
        sample: Of at least `count_needed_chips(level)` chips.
        level: Between 0 and 1.
    """
    sample = sample[np.argsort(sample.error)]  # so that to sort a part again is next to nothing
    n_chips = int(sample.chip.max()) + 1
    bins = divide(sample)
    bins = join_bins(list_chips(bins, sample), min(SHAPE_CHIPS, n_chips))[bins]
    whole = _describe_bins(sample, bins, level)
    group = sample.chip % min(N_GROUPS, n_chips)
    shapes, scores = [], np.empty(len(bins))
    for number in range(int(group.max()) + 1):
        own = group == number
        shapes.append(_describe_bins(sample[~own], bins[~own], level, whole))
        scores[own] = _score(shapes[-1], sample[own])
    # A factor's own correction is level / chips: where that is small, each bin has its own.
    joined = join_bins(list_chips(bins, sample), min(FACTOR_CHIPS, n_chips))
    factors = np.array(
        [
            conformal_quantile(scores[chosen], sample.chip[chosen], level)
            for chosen in (joined[bins] == number for number in range(joined[-1] + 1))
        ]
    )
    return FittedTable(_rescale(whole, factors[joined]), shapes)


def join_bins(present: NDArray[np.bool_], wanted: int) -> NDArray[np.int64]:
    """Join neighbouring bins until each has chips enough.

    Args:
        present: Whether a bin, in their order, has pixels of a chip, (bins, chips).
        wanted: Chips that each shall have.

    Returns:
        What each bin belongs to now, (bins,), 0 on.
    """
    first = list(range(len(present)))  # bins with which the joined ones begin
    while len(first) > 1:
        n_chips = np.add.reduceat(present.astype(np.int64), first).astype(bool).sum(1)
        poorest = int(np.argmin(n_chips))
        if n_chips[poorest] >= wanted:
            break
        # With the poorer of its neighbours; the first and the last have only one.
        around = [*n_chips, np.inf]
        del first[poorest if around[poorest - 1] <= around[poorest + 1] else poorest + 1]
    return np.searchsorted(first, np.arange(len(present)), side="right") - 1


def divide(sample: PixelSample) -> NDArray[np.int64]:
    """Return each pixel's bin, 0 on.

    Many predictions are exactly 0: edges that fall together are one, so that these have a bin of
    their own, in which nothing lies below.
    """
    shares = tuple(np.arange(1, N_BINS) / N_BINS)
    edges = np.unique(chip_quantiles(sample.prediction, sample.chip, shares))
    edges = edges[edges < sample.prediction.max()]  # beyond the greatest lies nothing
    return np.searchsorted(edges, sample.prediction)


def list_chips(bins: NDArray[np.int64], sample: PixelSample) -> NDArray[np.bool_]:
    """Return whether a bin has pixels of a chip, (bins, chips)."""
    present = np.zeros((bins.max() + 1, sample.chip.max() + 1), np.bool_)
    present[bins, sample.chip] = True
    return present


def _describe_bins(
    sample: PixelSample, bins: NDArray[np.int64], level: float, whole: PixelTable | None = None
) -> PixelTable:
    """Return the figures of each bin, before any conformal factor.

    Args:
        sample: Pixels.
        bins: The bin of each.
        level: Of the interval.
        whole: The figures of all chips, for a bin that these chips do not have; None = they do.
    """
    rows = []
    for number in range(int(bins.max()) + 1 if whole is None else len(whole.prediction)):
        part = sample[bins == number]
        if whole is not None and not len(part.chip):
            rows.append(tuple(column[number] for column in whole.model_dump().values()))
        else:
            rows.append(_describe_bin(part, level))
    return PixelTable(**dict(zip(PixelTable.model_fields, zip(*rows, strict=True), strict=True)))


def _describe_bin(part: PixelSample, level: float) -> tuple[float, float, float, float, int]:
    """Return a row of a `PixelTable`, from pixels of about one prediction.

    The interval is the shortest one that has `level` of the errors. Where biomass is low its lower
    bound is 0, and all that is missed lies above it.
    """
    missed_below = np.linspace(0, 1 - level, N_SPLITS)
    shares = (*missed_below, *np.minimum(missed_below + level, 1), EXTREME_SHARE, 1 - EXTREME_SHARE)
    *bounds, least, most = chip_quantiles(part.error, part.chip, shares)
    low, high = np.reshape(bounds, (2, N_SPLITS))
    weights = weigh_by_chip(part.chip)
    square = np.average(np.clip(part.error, least, most) ** 2, weights=weights)
    deviation = max(float(np.sqrt(square)), SMALLEST_DEVIATION)
    middle = float(np.average(part.prediction, weights=weights))
    reached = np.minimum(-low, middle)  # nothing lies below 0
    shortest = int(np.argmin(reached + high))
    # A bound of 0, where a large part of the targets may lie, is not raised by a factor near 1.
    below = ZERO_MARGIN * middle if reached[shortest] == middle else reached[shortest]
    least_side = SMALLEST_SIDE * deviation
    n_chips = int(np.count_nonzero(np.bincount(part.chip)))
    sides = max(float(below), least_side), max(float(high[shortest]), least_side)
    return middle, deviation, *sides, n_chips


def _score(shape: PixelTable, sample: PixelSample) -> Floats:
    """Return the factor by which the shape must grow to reach each pixel's target, (n,)."""
    below, above = (
        np.interp(sample.prediction, shape.prediction, side) for side in (shape.below, shape.above)
    )
    return np.maximum(-sample.error / below, sample.error / above)


def _rescale(shape: PixelTable, factors: NDArray[np.float64]) -> PixelTable:
    """Let each bin grow by its factor, and then bounds that fall as the prediction rises."""
    middle, least = np.array(shape.prediction), SMALLEST_SIDE * np.array(shape.deviation)
    lower = middle - np.maximum(factors * shape.below, least)
    upper = middle + np.maximum(factors * shape.above, least)
    lower = np.maximum(lower, (1 - ZERO_MARGIN) * middle - least)
    # Outwards only, so that no interval loses what it covers.
    lower = np.minimum.accumulate(lower[::-1])[::-1]
    upper = np.maximum.accumulate(upper)
    sides = {"below": middle - lower, "above": upper - middle}
    return shape.model_copy(update={k: tuple(side.tolist()) for k, side in sides.items()})
