"""Ten classes of predictions, each with a tenth of all pixels."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

N_DECILES: Final = 10

_SAMPLE: Final = 2**20
"""Pixels that decide what the deciles are."""


class Deciles:
    """The deciles of some predictions.

    Predictions that are equal, many are exactly 0, may fill more than a tenth. They are in all
    deciles that they reach into, with the share of each: so every decile has a tenth of the pixels.
    """

    def __init__(self, predictions: Iterable[npt.NDArray[Any]], n_chips: int) -> None:
        """Sort a sample of the pixels: at least one of a chip, the same number of each.

        Args:
            predictions: Of each chip, (H, W), t/ha.
            n_chips: Their number.
        """
        random = np.random.default_rng(0)
        most = max(1, _SAMPLE // n_chips)
        self._sorted = np.sort(
            np.concatenate(
                [
                    image.ravel()
                    if image.size <= most
                    else random.choice(image.ravel(), most, replace=False)
                    for image in predictions
                ]
            )
        )

    def share(self, predictions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the share of each prediction in each decile, (n, 10); a row adds up to 1.

        Args:
            predictions: (n,), t/ha.
        """
        n = len(self._sorted)
        # A value between two of the sample is taken for the next one.
        first = np.minimum(np.searchsorted(self._sorted, predictions, "left"), n - 1)
        last = np.maximum(np.searchsorted(self._sorted, predictions, "right"), first + 1)
        edges = np.arange(N_DECILES + 1) * (n / N_DECILES)
        reached = np.clip(np.stack([first, last], axis=1)[..., None], edges[:-1], edges[1:])
        return np.asarray((reached[:, 1] - reached[:, 0]) / (last - first)[:, None])
