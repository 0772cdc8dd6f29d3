"""Conformal bounds of a model that predicts quantiles: its own bounds, moved outwards or inwards.

Such a model says by itself where it is less sure, at the same prediction too, which no table by the
prediction can. What it cannot say is how often its bounds hold: that is measured.
"""

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from biomassters.calibration.held_out import PixelSample
from biomassters.calibration.pixel_table import FACTOR_CHIPS, divide, join_bins, list_chips
from biomassters.calibration.quantiles import conformal_quantile, weigh_by_chip
from biomassters.params.sections import Section
from biomassters.prediction.maps import Map

Bounds: TypeAlias = tuple[Map, Map]


class BoundShift(Section):
    """How far both bounds are moved at some predictions, between which it is interpolated linearly.

    Law: 0 <= lower <= max(prediction, 0) <= upper.

    Attributes:
        prediction: AGBM, t/ha, rising.
        shift: Outwards, t/ha; below 0 where the model's bounds are too wide.
    """

    prediction: tuple[float, ...]
    shift: tuple[float, ...]

    @model_validator(mode="after")
    def _check_columns(self) -> "BoundShift":
        if len(self.prediction) != len(self.shift) or not self.shift:
            raise ValueError("expected columns of one length")
        if any(low >= high for low, high in pairwise(self.prediction)):
            raise ValueError("expected predictions that rise")
        return self

    def move(self, prediction: Map, bounds: Map) -> Bounds:
        """Return the lower and the upper bound of pixels, t/ha.

        Args:
            prediction: AGBM, (H, W), t/ha.
            bounds: The model's lower and upper one, (2, H, W), t/ha.
        """
        raised = np.maximum(prediction, 0).astype(np.float64)
        shift = np.interp(raised, self.prediction, self.shift)
        lower, upper = np.maximum(bounds, 0)
        # A shift inwards stops at the prediction, and that loses nothing that it covers.
        lower = np.clip(lower - shift, 0, raised)
        upper = np.maximum(upper + shift, raised)
        return lower.astype(np.float32), upper.astype(np.float32)


def fit_bound_shift(sample: PixelSample, bounds: NDArray[np.float64], level: float) -> BoundShift:
    """Fit a shift to held-out pixels, so that a share of `level` of a new chip's lie within.

    A pixel's score is how far its target lies outside of the model's bounds, below 0 if inside; the
    shift is the scores' conformal quantile, by chips (see `conformal_quantile`), in bins of the
    prediction which have enough of them.

    Source: Romano, Patterson, Candès 2019, Conformalized Quantile Regression.

    Args:
        sample: Of at least `count_needed_chips(level)` chips.
        bounds: The model's of each pixel, lower and upper one, (2, n), t/ha, 0 or more.
        level: Between 0 and 1.
    """
    n_chips = int(sample.chip.max()) + 1
    bins = divide(sample)
    bins = join_bins(list_chips(bins, sample), min(FACTOR_CHIPS, n_chips))[bins]
    target = sample.prediction + sample.error
    scores = np.maximum(bounds[0] - target, target - bounds[1])
    middles, shifts = [], []
    for number in range(int(bins.max()) + 1):
        own = bins == number
        weights = weigh_by_chip(sample.chip[own])
        middles.append(float(np.average(sample.prediction[own], weights=weights)))
        shifts.append(conformal_quantile(scores[own], sample.chip[own], level))
    return BoundShift(prediction=tuple(middles), shift=tuple(shifts))
