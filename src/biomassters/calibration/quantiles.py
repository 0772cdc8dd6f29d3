"""Quantiles in which each chip counts once, and what a chip that was not seen adds to them.

Chips are exchangeable, pixels are not: those of one chip err together. So the pixels of a chip
share a weight of 1, and the finite-sample correction counts chips.
"""

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

_ROUNDING: Final = 1e-9
"""Of a sum of weights, which shall reach the level where it does in exact arithmetic."""


def count_needed_chips(level: float) -> int:
    """Return the chips from which on an interval of this level is finite, at least 2.

    Of n chips a new one exceeds all with probability 1 / (n + 1), so n / (n + 1) must reach the
    level. Two are the least of which one can be held against the other.

    Args:
        level: Share of pixels that shall lie in their interval, between 0 and 1.
    """
    return max(2, math.ceil(level / (1 - level) - _ROUNDING))


def weigh_by_chip(chips: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return weights by which each chip counts once.

    Args:
        chips: The chip of each value, (n,), numbers from 0 on.

    Returns:
        1 / (values of the chip), (n,).
    """
    return np.asarray(1 / np.bincount(chips)[chips])


def conformal_quantile(scores: Floats, chips: NDArray[np.integer[Any]], level: float) -> float:
    """Return the least score that a value of a new chip does not exceed, at `level`.

    The new chip is exchangeable with the n chips, so each has the mass 1 / (n + 1), shared evenly
    by its values, and the mass of the new one lies at infinity, where it can do no harm.

    Law: with one score a chip it is the ceil(level * (n + 1))-th least, as in split-conformal
    prediction.

    Source: Lee, Barber, Willett, Distribution-free inference with hierarchical data (2023); Dunn,
    Wasserman, Ramdas, Distribution-free prediction sets for two-layer hierarchical models (2022).

    Args:
        scores: Of all chips, (n,).
        chips: The chip of each, (n,), numbers from 0 on.
        level: Between 0 and 1.

    Returns:
        The score; infinity where the chips are too few for the level.
    """
    n_chips = np.count_nonzero(np.bincount(chips))
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weigh_by_chip(chips)[order]) / (n_chips + 1)
    position = int(np.searchsorted(reached, level - _ROUNDING))
    return float(scores[order[position]]) if position < len(order) else math.inf


def chip_quantiles(
    values: Floats, chips: NDArray[np.integer[Any]], shares: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return plain quantiles in which each chip counts once.

    Args:
        values: Of all chips, (n,), at least one.
        chips: The chip of each, (n,), numbers from 0 on.
        shares: Between 0 and 1.

    Returns:
        For each share the least value that has it at or below it.
    """
    weights = weigh_by_chip(chips)
    found = np.quantile(values, shares, weights=weights, method="inverted_cdf")
    return np.asarray(found, dtype=np.float64)
