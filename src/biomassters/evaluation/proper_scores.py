"""Scores that a prediction of a distribution, or of an interval, cannot improve by a lie."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.floating[Any]]

_SMALLEST: Final = 1e-9
"""t/ha; in place of a deviation of 0, whose score is the plain error."""


def score_intervals(
    target: Floats, lower: Floats, upper: Floats, level: float
) -> npt.NDArray[np.float64]:
    """Return the interval score: the width, and 2 / (1 - level) times what it misses the target by.

    Args:
        target: Of any shape, t/ha; so are the others.
        lower: Lower bounds.
        upper: Upper bounds.
        level: Of the intervals, between 0 and 1.

    Source: Gneiting, Raftery, Strictly proper scoring rules (2007), equation 43.
    """
    missed = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
    return np.asarray(upper - lower + 2 / (1 - level) * missed, np.float64)


def score_clipped_normal(
    target: Floats, location: Floats, deviation: Floats
) -> npt.NDArray[np.float64]:
    """Return the continuous ranked probability score (CRPS) of a normal distribution clipped at 0.

    All that the normal distribution has below 0 lies at 0, as biomass does where no tree stands.
    It is the integral of (F(x) - [x >= target])² over x >= 0, where F is the normal one: that of
    the whole line, which is known, without the integral of F² up to 0.

    Args:
        target: 0 or more, of any shape, t/ha.
        location: Mean of the normal distribution before it is clipped, t/ha.
        deviation: Its standard deviation, t/ha.

    Source: Jordan, Krüger, Lerch, Evaluating probabilistic forecasts with scoringRules (2019),
    appendix A: generalised truncated and censored normal.
    """
    scale = np.maximum(deviation, _SMALLEST)
    z, zero = (target - location) / scale, -location / scale
    whole = z * (2 * ndtr(z) - 1) + 2 * _density(z) - 1 / np.sqrt(np.pi)
    below = (
        zero * ndtr(zero) ** 2
        + 2 * ndtr(zero) * _density(zero)
        - ndtr(np.sqrt(2) * zero) / np.sqrt(np.pi)
    )
    return np.asarray(scale * (whole - below), np.float64)


def _density(z: Floats) -> Floats:
    return np.asarray(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
