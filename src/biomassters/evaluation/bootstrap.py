"""How far figures over chips would go with other chips, by the bootstrap.

Chips, not pixels, are drawn: the pixels of one chip are alike, so that a set of 2,773 chips says
less than its 181 million pixels would. Not `scipy.stats.bootstrap`, which gathers each resample's
chips, in time and memory of resamples times chips times sums: here a resample is how often each
chip was drawn, and all figures of it follow from one product of matrices. Tests hold both equal.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.floating[Any]]

Statistic = Callable[[Floats], Floats]
"""From how often each chip counts, (R, n), to figures, (R, F); NaN = no chip of them has one."""

N_RESAMPLES: Final = 2000
LEVEL: Final = 0.95
LEAST_CHIPS: Final = 5
"""Fewer make too few different resamples, 35 of 4 chips, to cut 2.5 % off at each end of them."""

_SEED: Final = 0
_BLOCK: Final = 2**20
"""Counts in memory at a time."""


def bootstrap_chips(n_chips: int, statistic: Statistic, n_resamples: int = N_RESAMPLES) -> Floats:
    """Return the 95 % confidence interval of each figure, (F, 2): bias-corrected and accelerated.

    Where the correction is not defined, since all resamples have the same figure, it is that of the
    resamples' own quantiles. NaN stands for what too few chips have (`LEAST_CHIPS`).

    Args:
        n_chips: How many there are, at least one.
        statistic: All figures at once, so that they are of the same resamples.
        n_resamples: How many are drawn, always the same ones.

    Source: B. Efron, Better bootstrap confidence intervals, J. Am. Stat. Assoc. 82 (1987) 171-185.
    """
    estimate = statistic(np.ones((1, n_chips)))[0]
    alone = _compute(statistic, _leave_alone(n_chips))
    is_known = (np.isfinite(alone).sum(axis=0) >= LEAST_CHIPS) & np.isfinite(estimate)
    intervals = np.full((len(estimate), 2), np.nan)
    if not is_known.any():
        return intervals
    without = _compute(statistic, _leave_out(n_chips))
    resamples = _compute(statistic, _draw(n_chips, n_resamples))
    for figure in np.flatnonzero(is_known):
        drawn = resamples[:, figure]
        drawn = drawn[np.isfinite(drawn)]
        shares = _correct(estimate[figure], drawn, without[:, figure])
        intervals[figure] = np.quantile(drawn, shares)
    return intervals


def _correct(estimate: float, drawn: Floats, without: Floats) -> Floats:
    """Return the shares of the resamples that lie below the ends of the interval."""
    plain = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below = ((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2
    influences = without.mean() - without
    spread = (influences**2).sum()
    if not 0 < below < 1 or spread == 0:
        return plain
    bias = ndtri(below)
    acceleration = (influences**3).sum() / (6 * spread**1.5)
    moved = bias + ndtri(plain)
    return np.asarray(ndtr(bias + moved / (1 - acceleration * moved)))


def _compute(statistic: Statistic, blocks: Iterator[Floats]) -> Floats:
    return np.concatenate([statistic(counts) for counts in blocks])


def _draw(n_chips: int, n_resamples: int) -> Iterator[Floats]:
    """Yield how often each chip is in each resample."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    for rows in _cut(n_resamples, n_chips):
        drawn = random.integers(0, n_chips, (len(rows), n_chips))
        drawn += np.arange(len(rows))[:, None] * n_chips
        counts = np.bincount(drawn.ravel(), minlength=drawn.size)
        yield counts.reshape(drawn.shape).astype(np.float64)


def _leave_alone(n_chips: int) -> Iterator[Floats]:
    """Yield each chip alone."""
    for rows in _cut(n_chips, n_chips):
        yield np.eye(len(rows), n_chips, rows.start)


def _leave_out(n_chips: int) -> Iterator[Floats]:
    """Yield all chips but each."""
    for alone in _leave_alone(n_chips):
        yield 1 - alone


def _cut(n_rows: int, n_chips: int) -> Iterator[range]:
    step = max(1, _BLOCK // n_chips)
    for start in range(0, n_rows, step):
        yield range(start, min(start + step, n_rows))
