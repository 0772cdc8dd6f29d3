"""Chips with a prediction of a model that has not seen them, and the sample of their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.prediction.maps import Map

SAMPLE_PIXELS: Final = 2**18
"""Pixels that decide quantiles, about. What is drawn evenly from exchangeable chips is
exchangeable, and a chip's further pixels repeat what these say."""

LEAST_PIXELS: Final = 512
"""Of a chip, if it has them."""


class HeldOutChip(NamedTuple):
    """A chip that the model has not seen.

    Attributes:
        chip_id: Its name.
        prediction: AGBM, (H, W), t/ha, 0 or more.
        error: Target minus prediction, (H, W), t/ha; NaN = no target.
        bounds: The model's lower and upper one, (2, H, W), t/ha, 0 or more; None = it has none.
    """

    chip_id: str
    prediction: Map
    error: Map
    bounds: Map | None = None

    @classmethod
    def compare(
        cls, chip_id: str, prediction: Map, target: Map, bounds: Map | None = None
    ) -> "HeldOutChip":
        """Hold a prediction against its target.

        Both are raised to 0 where they are below: no forest has less, and rounding alone gives
        less to a target.

        Args:
            chip_id: The chip's name.
            prediction: AGBM, (H, W), t/ha.
            target: AGBM, (H, W), t/ha; NaN = none.
            bounds: The model's lower and upper one, (2, H, W), t/ha; None = it has none.
        """
        raised = np.maximum(prediction, 0)
        raised_bounds = None if bounds is None else np.maximum(bounds, 0)
        return cls(chip_id, raised, np.maximum(target, 0) - raised, raised_bounds)


@dataclass(frozen=True)
class PixelSample:
    """Pixels of chips.

    Attributes:
        prediction: AGBM, (n,), t/ha.
        error: Target minus prediction, (n,), t/ha, float64.
        chip: The chip of each, (n,), its position among the chips.
        bounds: The model's lower and upper one, (2, n), t/ha; None = it has none.
    """

    prediction: NDArray[np.float64]
    error: NDArray[np.float64]
    chip: NDArray[np.int64]
    bounds: NDArray[np.float64] | None = None

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "PixelSample":
        """Return a part of the pixels, or all in another order."""
        bounds = None if self.bounds is None else self.bounds[:, chosen]
        return PixelSample(self.prediction[chosen], self.error[chosen], self.chip[chosen], bounds)


def sample_pixels(chips: Sequence[HeldOutChip]) -> PixelSample:
    """Draw about `SAMPLE_PIXELS` pixels with a target, evenly from the chips, always the same."""
    random = np.random.default_rng(0)
    most = max(LEAST_PIXELS, SAMPLE_PIXELS // len(chips))
    drawn = []
    for chip in chips:
        known = np.flatnonzero(np.isfinite(chip.error))
        if len(known) > most:
            known = np.sort(random.choice(known, most, replace=False))
        drawn.append(known)
    pairs = list(zip(chips, drawn, strict=True))
    bounds = [c.bounds.reshape(2, -1)[:, known] for c, known in pairs if c.bounds is not None]
    return PixelSample(
        np.concatenate([c.prediction.ravel()[known] for c, known in pairs]).astype(np.float64),
        np.concatenate([c.error.ravel()[known] for c, known in pairs]).astype(np.float64),
        np.repeat(np.arange(len(chips)), [len(known) for known in drawn]),
        np.concatenate(bounds, axis=1).astype(np.float64) if bounds else None,
    )
