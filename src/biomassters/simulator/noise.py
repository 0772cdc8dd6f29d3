"""Randomness and the few functions of which synthetic chips are made, bit-exact on every machine.

The checksums of the synthetic files are committed, so that every machine must compute the same
bytes. NumPy promises a stable stream for its bit generators, not for the distributions drawn from
them, and its `exp` or `log` differ in the last bit between processors. Here everything is raw
words of PCG64 followed by +, -, *, / and square roots, which IEEE 754 rounds alike everywhere.
"""

import hashlib
import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
"""Floating-point images and tables are computed in double precision."""

Words = npt.NDArray[np.uint64]
"""64 random bits each."""

_SPLINE_STD: Final = 151 / 315
"""Standard deviation of a cubic B-spline through independent unit normals on a square lattice."""
_UNIFORM_SUM_STD: Final = 65536.0 / math.sqrt(3.0)
"""Standard deviation of the sum of four uniform 16-bit integers."""
_TWO_QUARTERS: Final = np.uint64(0x0000FFFF0000FFFF)
_PERIOD: Final = 2**128
"""After which PCG64 repeats itself."""
_ROW_STRIDE: Final = 210306068529402873165736369884012333109
"""Words from one row to the next: odd, and about 0.618 of the period, so that no two rows meet.

Source: the golden ratio, whose multiples lie evenly; `numpy.random.PCG64.jumped` goes as far.
"""
_DB_OF_TWO: Final = 3.010299956639812
_DB_OF_E: Final = 4.342944819032518


Shape = tuple[int, int]
"""Height and width, pixels."""


class Window(NamedTuple):
    """A part of a lattice: of pixels, of a spline's knots, or of the sites of cells.

    Attributes:
        row: The northernmost; rows count to the south.
        column: The westernmost.
        height: Rows.
        width: Columns.
    """

    row: int
    column: int
    height: int
    width: int


class NoiseSource:
    """A stream of random numbers that depends on its name only, and fields over a chip from it.

    Attributes:
        origin: Row and column of the first pixel.
        site_margin: Sites of cells beyond those that a chip has on each side.
        is_endless: Whether the fields go on beyond the pixels that are asked for.
    """

    origin: Shape = (0, 0)
    site_margin: int = 0
    is_endless: bool = False

    def __init__(self, *name: str) -> None:
        self._words = seed_words(*name)

    def uniform(self, low: float, high: float) -> float:
        """Draw one number from low...high."""
        return low + (high - low) * float(self.uniforms(1)[0])

    def uniforms(self, *shape: int) -> Array:
        """Draw numbers from 0...1 (1 excluded), of the given shape."""
        return _to_uniforms(self._words.random_raw(math.prod(shape)).reshape(shape))

    def normals(self, *shape: int) -> Array:
        """Draw nearly standard normal numbers (sums of four uniforms, within +-3.46)."""
        return _to_normals(self._words.random_raw(math.prod(shape)).reshape(shape))

    def uniforms_at(self, window: Window, n_fields: int = 1) -> Array:
        """Draw numbers from 0...1 for points of a lattice, (n_fields, H, W)."""
        return _to_uniforms(self._draw_at(window, n_fields))

    def normals_at(self, window: Window, n_fields: int = 1) -> Array:
        """Draw nearly standard normal numbers for points of a lattice, (n_fields, H, W)."""
        return _to_normals(self._draw_at(window, n_fields))

    def _draw_at(self, window: Window, n_fields: int) -> Words:
        words = self._words.random_raw(n_fields * window.height * window.width)
        return words.reshape(n_fields, window.height, window.width)

    def number_pixels(self, shape: Shape) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the rows and the columns of the pixels."""
        row, column = self.origin
        return np.arange(row, row + shape[0]), np.arange(column, column + shape[1])

    def place_lattice(self, shape: Shape, spacing_px: float, n_more: int) -> Window:
        """Return the points of a wider lattice that lie about the pixels.

        Args:
            shape: Of the pixels.
            spacing_px: Of the lattice, pixels.
            n_more: Points to the south and the east beyond as many as the pixels have spacings.
        """
        (row, n_rows), (column, n_columns) = (
            (math.floor(first / spacing_px), math.floor((first + n) / spacing_px))
            for first, n in zip(self.origin, shape, strict=True)
        )
        return Window(row, column, n_rows - row + n_more, n_columns - column + n_more)

    def place_sites(self, shape: Shape, spacing_px: float) -> Window:
        """Return the sites of all cells that may be seen, where one site lies in each square."""
        row, column, height, width = self.place_lattice(shape, spacing_px, 6)
        more = self.site_margin
        return Window(row - more, column - more, height + 2 * more, width + 2 * more)

    def white(self, n_fields: int, shape: Shape, margin: int = 0) -> Array:
        """Draw independent normals for all pixels and a margin, (n_fields, H + 2 m, W + 2 m)."""
        (row, column), (height, width) = self.origin, shape
        window = Window(row - margin, column - margin, height + 2 * margin, width + 2 * margin)
        return self.normals_at(window, n_fields)

    def smooth(self, shape: Shape, scale_px: float, n_fields: int = 1) -> Array:
        """Draw smooth random fields: cubic B-splines through normals on a shifted lattice.

        Args:
            shape: Height and width, pixels.
            scale_px: Spacing of the lattice, pixels.
            n_fields: Number of independent fields on one lattice.

        Returns:
            (n_fields, H, W), mean 0 and standard deviation 1 over many fields.
        """
        lattice = self.place_lattice(shape, scale_px, 5)
        knots = self.normals_at(lattice, n_fields)
        pixel_rows, pixel_columns = self.number_pixels(shape)
        first_row, row_weights = _spline(pixel_rows, scale_px, self.uniform(0, 1))
        first_column, column_weights = _spline(pixel_columns, scale_px, self.uniform(0, 1))
        first_row -= lattice.row
        first_column -= lattice.column
        rows = np.zeros((n_fields, shape[0], lattice.width))
        for k, weight in enumerate(row_weights):
            rows += weight[:, None] * knots[:, first_row + k]
        fields = np.zeros((n_fields, *shape))
        for k, weight in enumerate(column_weights):
            fields += weight * rows[:, :, first_column + k]
        return fields / _SPLINE_STD

    def rough(self, shape: Shape, scale_px: float, n_octaves: int) -> Array:
        """Draw a field with detail at `scale_px` and its halves, (H, W), unit deviation."""
        field = np.zeros(shape)
        for octave in range(n_octaves):
            field += self.smooth(shape, scale_px * 0.5**octave)[0] * 0.5**octave
        return field / math.sqrt((1 - 0.25**n_octaves) / 0.75)

    def grain(self, n_fields: int, shape: Shape) -> Array:
        """Draw noise as resampling leaves it: correlated between neighbours (0.67), unit deviation.

        Returns:
            (n_fields, H, W).
        """
        white = self.white(n_fields, shape, margin=1)
        rows = white[:, :-2] + 2 * white[:, 1:-1] + white[:, 2:]
        return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 6.0


class EndlessNoise(NoiseSource):
    """Numbers that depend on its name, fields that also depend on the place on an endless lattice.

    Law: a point of a lattice has the same number whatever window it is drawn in.

    A point's number is the word of a stream at a distance that its row and column say. Each draw
    has a stream, so that the order of the draws counts, but not the windows.
    """

    site_margin = 3  # warped by up to 2.7 cells: (5 + 0.8) / 16 of the greatest of `smooth`, 7.3
    is_endless = True

    def __init__(self, origin: Shape, *name: str) -> None:
        super().__init__(*name)
        self.origin = origin
        self._name = name
        self._n_draws = 0

    def _draw_at(self, window: Window, n_fields: int) -> Words:
        stream = seed_words(*self._name, str(self._n_draws))
        self._n_draws += 1
        words = np.empty((window.height, window.width * n_fields), np.uint64)
        position = 0
        for index, row in enumerate(range(window.row, window.row + window.height)):
            start = row * _ROW_STRIDE + window.column * n_fields
            stream.advance((start - position) % _PERIOD)
            words[index] = stream.random_raw(words.shape[1])
            position = start + words.shape[1]
        by_field = words.reshape(window.height, window.width, n_fields).transpose(2, 0, 1)
        return np.ascontiguousarray(by_field)


def seed_words(*name: str) -> np.random.PCG64:
    """Return the stream of words of a name."""
    seed = int.from_bytes(hashlib.sha256("/".join(name).encode()).digest()[:16], "little")
    return np.random.PCG64(seed)


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


def _to_uniforms(words: Words) -> Array:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _to_normals(words: Words) -> Array:
    # The sum of the four 16-bit integers of each word: first two and two, then all.
    sums = words & _TWO_QUARTERS
    sums += (words >> np.uint64(16)) & _TWO_QUARTERS
    sums += sums >> np.uint64(32)
    sums &= np.uint64(0xFFFFFFFF)
    normals: Array = sums.view(np.int64).astype(np.float64)
    normals -= 2 * 65535.0
    normals /= _UNIFORM_SUM_STD
    return normals


def _spline(
    pixels: npt.NDArray[np.intp], scale_px: float, offset: float
) -> tuple[npt.NDArray[np.intp], list[Array]]:
    """Give each pixel's first knot and the weights of it and the next three."""
    position = pixels / scale_px + offset
    first = np.floor(position).astype(np.intp)
    t = position - first
    t2, t3 = t * t, t * t * t
    return first, [
        (1 - 3 * t + 3 * t2 - t3) / 6,
        (4 - 6 * t2 + 3 * t3) / 6,
        (1 + 3 * t + 3 * t2 - 3 * t3) / 6,
        t3 / 6,
    ]
