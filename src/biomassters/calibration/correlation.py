"""How errors of pixels go together: their correlation by distance, and what follows for a mean.

Neighbouring pixels err alike, so the error of a mean falls far slower than with the square root of
the number of pixels. Errors are in units of their standard deviation (*standardised*).
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.optimize import nnls

from biomassters.calibration.quantiles import Floats
from biomassters.params.sections import Section

N_RINGS: Final = 24
"""Of distances within a chip, about evenly spaced on a logarithmic scale."""

N_RANGES: Final = 12
"""That an exponential may have: from a pixel to half a chip, evenly spaced on that scale."""

CERTAIN: Final = 1e3
"""Weight of what is known: shares add up to 1, the correlation of a pixel with itself."""


class Structure(Section):
    """A part of the errors' variance whose correlation falls as exp(-distance / range).

    Attributes:
        share: Of the variance.
        range_px: Pixels.
    """

    share: float
    range_px: float


class EmpiricalCorrelation(Section):
    """The correlation of pairs of pixels within chips, ring by ring of distance.

    Attributes:
        distance_px: Mean distance of the pairs, pixels.
        correlation: Mean product of their standardised errors, each chip counted once, in units of
            that of a pixel with itself.
        pairs: Their number.
    """

    distance_px: tuple[float, ...]
    correlation: tuple[float, ...]
    pairs: tuple[int, ...]


class Correlation(Section):
    """The correlation of standardised errors by distance, as fitted.

    Law: the shares add up to 1, so that a pixel's correlation with itself is 1. Each part is a
    covariance in the plane, so that no set of pixels has a negative variance.

    Attributes:
        nugget: Share of the variance that no two pixels have in common.
        structures: Parts that fall with the distance.
        persistent: Share that does not fall within a chip: what a chip's errors have in common.
            It is taken not to fall beyond a chip either.
        empirical: What this was fitted to.
    """

    nugget: float
    structures: tuple[Structure, ...]
    persistent: float
    empirical: EmpiricalCorrelation

    def at(self, distance: Floats) -> Floats:
        """Return the correlation at distances, pixels."""
        falling = sum(
            (part.share * np.exp(-distance / part.range_px) for part in self.structures),
            start=np.zeros_like(distance, dtype=np.float64),
        )
        return np.asarray(falling + self.persistent + self.nugget * (distance == 0))

    def sum_errors(self, deviations: Floats) -> NDArray[np.float64]:
        """Return the standard deviation of sums of errors.

        Their variance is the sum over all pairs of pixels of both deviations times the correlation
        at their distance. It is taken in the frequency domain, where that double sum is a single
        one: n log n in place of n² steps.

        Args:
            deviations: The standard deviation of each pixel's error times its weight in the sum,
                (..., H, W); 0 outside.

        Returns:
            In the same unit, (...).
        """
        height, width = deviations.shape[-2:]
        spectrum = _transform_kernel(self, height, width)
        shape = padded_shape(height, width)
        power = np.abs(rfft2(deviations, shape)) ** 2 * spectrum
        # Of a real image half the spectrum is kept; the other half is its mirror image.
        inner = slice(1, None) if shape[1] % 2 else slice(1, -1)
        total = power.sum((-2, -1)) + power[..., inner].sum((-2, -1))
        return np.asarray(np.sqrt(np.maximum(total, 0) / (shape[0] * shape[1])))


def measure_correlation(fields: Iterable[NDArray[np.float64]]) -> EmpiricalCorrelation:
    """Measure the correlation of standardised errors within chips.

    Their mean product, not about the mean of the chip: a chip's common error is error.

    Args:
        fields: Of each chip, (H, W), NaN = no target; all of one size.
    """
    products, pairs, n_pairs = (np.zeros(1) for _ in range(3))
    for field in fields:
        known = np.isfinite(field)
        product, number = (autocorrelate(image) for image in (np.where(known, field, 0.0), known))
        n_pairs = n_pairs + number
        # Per pixel of the chip, so that a chip half of which has no target counts as much.
        products, pairs = products + product / known.sum(), pairs + number / known.sum()
    distance = measure_lags(*field.shape)
    edges = np.unique(np.geomspace(1, min(field.shape), N_RINGS + 1).round()) - 0.5
    ring = np.searchsorted(edges, distance.ravel())  # 0: a pixel with itself
    images = products, pairs, n_pairs, pairs * distance
    sums = [np.bincount(ring, image.ravel()).astype(np.float64)[: len(edges)] for image in images]
    filled = sums[2].round() > 0
    product, weight, counted, length = (total[filled] for total in sums)
    return EmpiricalCorrelation(
        distance_px=tuple((length / weight).tolist()),
        correlation=tuple((product / weight / (product[0] / weight[0])).tolist()),
        # Either pixel of a pair sees the other; a pixel with itself is seen once.
        pairs=tuple(round(n / (1 if i == 0 else 2)) for i, n in enumerate(counted)),
    )


def fit_correlation(empirical: EmpiricalCorrelation, side: int) -> Correlation:
    """Fit a nugget, exponentials and a persistent share.

    Shares are least squares that are not negative, over a fixed set of ranges: a convex problem,
    which needs no starting point. What would fall over more than half a chip cannot be told from
    what does not fall, and is counted there.

    Source: Lawson, Hanson, Solving least squares problems (1974), by SciPy.

    Args:
        empirical: Of chips.
        side: Their side, pixels.
    """
    distance = np.array(empirical.distance_px)
    ranges = np.geomspace(1, max(side / 2, 2), N_RANGES)
    parts = np.column_stack(
        [distance == 0, *(np.exp(-distance / length) for length in ranges), np.ones_like(distance)]
    ).astype(np.float64)
    weights = np.where(distance == 0, CERTAIN, 1.0)
    shares, _ = nnls(parts * weights[:, None], np.array(empirical.correlation) * weights)
    shares /= shares.sum()
    return Correlation(
        nugget=float(shares[0]),
        structures=tuple(
            Structure(share=float(share), range_px=float(length))
            for share, length in zip(shares[1:-1], ranges, strict=True)
            if share > 0
        ),
        persistent=float(shares[-1]),
        empirical=empirical,
    )


def padded_shape(height: int, width: int) -> tuple[int, int]:
    """Return a size in which lags to either side do not meet, and that is fast to transform."""
    return next_fast_len(2 * height - 1, real=True), next_fast_len(2 * width - 1, real=True)


def measure_lags(
    height: int, width: int, sides: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.float64]:
    """Return the distance of each lag in the padded shape; negative lags at the far end.

    Args:
        height: Of an image, pixels.
        width: Likewise.
        sides: Height and width of a pixel, in the unit of the distance.
    """
    rows, columns = (
        np.minimum(np.arange(length), length - np.arange(length)) * side
        for length, side in zip(padded_shape(height, width), sides, strict=True)
    )
    return np.hypot(rows[:, None], columns[None, :])


def autocorrelate(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of products of pixels at each lag, in the padded shape."""
    shape = padded_shape(*image.shape)
    return np.asarray(irfft2(np.abs(rfft2(image, shape)) ** 2, shape))


@lru_cache(maxsize=4)
def _transform_kernel(correlation: Correlation, height: int, width: int) -> NDArray[np.float64]:
    # Real, since the kernel is even.
    return np.asarray(rfft2(correlation.at(measure_lags(height, width))).real)
