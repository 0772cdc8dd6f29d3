"""Randomness and the few functions of which synthetic chips are made, bit-exact on every machine.

The checksums of the synthetic files are committed, so that every machine must compute the same
bytes. NumPy promises a stable stream for its bit generators, not for the distributions drawn from
them, and its `exp` or `log` differ in the last bit between processors. Here everything is raw
words of PCG64 followed by +, -, *, / and square roots, which IEEE 754 rounds alike everywhere.
"""

import hashlib
import math
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
"""Floating-point images and tables are computed in double precision."""

_SPLINE_STD: Final = 151 / 315
"""Standard deviation of a cubic B-spline through independent unit normals on a square lattice."""
_UNIFORM_SUM_STD: Final = 65536.0 / math.sqrt(3.0)
"""Standard deviation of the sum of four uniform 16-bit integers."""
_DB_OF_TWO: Final = 3.010299956639812
_DB_OF_E: Final = 4.342944819032518


class NoiseSource:
    """A stream of random numbers that depends on its name only."""

    def __init__(self, *name: str) -> None:
        seed = int.from_bytes(hashlib.sha256("/".join(name).encode()).digest()[:16], "little")
        self._words = np.random.PCG64(seed)

    def uniform(self, low: float, high: float) -> float:
        """Draw one number from low...high."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def uniforms(self, *shape: int) -> Array:
        """Draw numbers from 0...1 (1 excluded), of the given shape."""
        words = self._words.random_raw(math.prod(shape)) >> np.uint64(11)
        return (words.astype(np.float64) * 2.0**-53).reshape(shape)

    def normals(self, *shape: int) -> Array:
        """Draw nearly standard normal numbers (sums of four uniforms, within +-3.46)."""
        words = self._words.random_raw(math.prod(shape))
        quarters = words.astype("<u8", copy=False).view("<u2").reshape(-1, 4)
        total = quarters[:, 0].astype(np.float64)
        for quarter in range(1, 4):
            total += quarters[:, quarter]
        normals: Array = (total - 2 * 65535.0) / _UNIFORM_SUM_STD
        return normals.reshape(shape)

    def smooth(self, size: int, scale_px: float, n_fields: int = 1) -> Array:
        """Draw smooth random fields: cubic B-splines through normals on a shifted lattice.

        Args:
            size: Side of the field, pixels.
            scale_px: Spacing of the lattice, pixels.
            n_fields: Number of independent fields on one lattice.

        Returns:
            (n_fields, size, size), mean 0 and standard deviation 1 over many fields.
        """
        n_knots = int(size / scale_px) + 5
        knots = self.normals(n_fields, n_knots, n_knots)
        first_row, row_weights = _spline(size, scale_px, self.uniform(0, 1))
        first_column, column_weights = _spline(size, scale_px, self.uniform(0, 1))
        rows = np.zeros((n_fields, size, n_knots))
        for k, weight in enumerate(row_weights):
            rows += weight[:, None] * knots[:, first_row + k]
        fields = np.zeros((n_fields, size, size))
        for k, weight in enumerate(column_weights):
            fields += weight * rows[:, :, first_column + k]
        return fields / _SPLINE_STD

    def rough(self, size: int, scale_px: float, n_octaves: int) -> Array:
        """Draw a field with detail at `scale_px` and its halves, (size, size), unit deviation."""
        field = np.zeros((size, size))
        for octave in range(n_octaves):
            field += self.smooth(size, scale_px * 0.5**octave)[0] * 0.5**octave
        return field / math.sqrt((1 - 0.25**n_octaves) / 0.75)

    def grain(self, n_fields: int, size: int) -> Array:
        """Draw noise as resampling leaves it: correlated between neighbours (0.67), unit deviation.

        Returns:
            (n_fields, size, size).
        """
        white = self.normals(n_fields, size + 2, size + 2)
        rows = white[:, :-2] + 2 * white[:, 1:-1] + white[:, 2:]
        return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 6.0


def gamma_factor(normal: Array, shape: float) -> Array:
    """Turn standard normals into gamma-distributed factors of mean 1.

    Args:
        normal: Standard normals, any shape.
        shape: Shape of the gamma distribution; for speckle, the equivalent number of looks.

    Source: Wilson and Hilferty (1931): the cube root of a gamma variable is nearly normal.
    """
    root: Array = np.maximum(1 - 1 / (9 * shape) + normal / (3 * math.sqrt(shape)), 0.02)
    return root * root * root


def decay(x: Array) -> Array:
    """Approximate exp(-x) for x >= 0 within 0.02, as (1 + x / 16) ** -16."""
    y = 1 / (1 + x / 16)
    for _ in range(4):
        y = y * y
    return np.asarray(y)


def decibels(power: Array) -> Array:
    """Compute 10 log10(power) within 0.0001 dB.

    With m the mantissa, ln m = 2 atanh((m - 1) / (m + 1)), as a series.
    """
    mantissa, exponent = np.frexp(power)
    ratio = (mantissa - math.sqrt(0.5)) / (mantissa + math.sqrt(0.5))
    square = ratio * ratio
    ln_mantissa = 2 * ratio * (1 + square * (1 / 3 + square * (1 / 5 + square / 7)))
    return np.asarray((exponent - 0.5) * _DB_OF_TWO + ln_mantissa * _DB_OF_E)


def _spline(size: int, scale_px: float, offset: float) -> tuple[npt.NDArray[np.intp], list[Array]]:
    """Give each pixel's first knot and the weights of it and the next three."""
    position = np.arange(size) / scale_px + offset
    first = np.floor(position).astype(np.intp)
    t = position - first
    t2, t3 = t * t, t * t * t
    return first, [
        (1 - 3 * t + 3 * t2 - t3) / 6,
        (4 - 6 * t2 + 3 * t3) / 6,
        (1 + 3 * t + 3 * t2 - 3 * t3) / 6,
        t3 / 6,
    ]
